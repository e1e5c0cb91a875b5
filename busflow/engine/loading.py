"""The task at hand, loaded without what its libraries only have use for if it is there."""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

# What mmdet and mmseg try to import and can do without, as the study's networks can.
OPTIONAL = {
    "classification": (),
    "detection": ("mmpretrain", "sklearn"),
    "segmentation": ("mmdet",),
}


def load_task(task: str) -> ModuleType:
    """Import ``busflow.engine.<task>``, in a second or two less than an import statement takes.

    For a process that does nothing else: those parts of mmdet and mmseg that are built on the packages of
    ``OPTIONAL`` are not to be had in it afterwards.
    """
    with _absent(*OPTIONAL[task]):
        return importlib.import_module(f"busflow.engine.{task}")


@contextlib.contextmanager
def _absent(*packages: str) -> Iterator[None]:
    """Let imports within take packages for not installed; those that are imported already stay."""
    hidden = set(packages) - sys.modules.keys()
    sys.modules.update(dict.fromkeys(hidden))  # None is Python's own sign for it
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]
