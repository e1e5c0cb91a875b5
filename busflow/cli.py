"""What all scripts share: arguments that are JSON, files that a task needs, and errors that are one line."""

import argparse
import atexit
import errno
import gc
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

from busflow.errors import BusflowError, InterruptedRunError
from busflow.tasks import INPUTS, TASKS


def run(main: Callable[[], None]) -> None:
    """Call a script's ``main``; turn an expected failure into one line and exit status 1.

    A run that was asked to stop exits with 75, "try again later".
    """
    # By default Python searches all that a library defines for garbage, again and again while it loads, which
    # takes a sixth of the start of a training; and several times more at the exit, which takes two seconds.
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        main()
    except InterruptedRunError as interruption:
        print(f"{_program()}: {interruption}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    except BusflowError as error:
        sys.exit(f"{_program()}: error: {error}")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = error.filename or Path.cwd()
            sys.exit(
                f"{_program()}: error: no space left on the disk that holds {place}; "
                "free some and run the same command again"
            )
        raise


def told_why(log: Path) -> bool:
    """Whether the script of this log failed and said why; one that is killed for its memory does not."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return any(": error: " in line for line in lines[-1:])


def settings(text: str) -> dict:
    """Argparse type for ``--settings``: a JSON object (a part of the study's config)."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("a JSON object is expected")
    return value


def add_task(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add ``--task``, and an option for each file that any task reads to train, predict or evaluate."""
    parser.add_argument("--task", required=True, choices=TASKS)
    for name in dict.fromkeys(name for task in TASKS.values() for name in getattr(task, verb)):
        parser.add_argument(_option(name), type=Path, help=INPUTS[name])


def inputs_of(arguments: argparse.Namespace, verb: str, parser: argparse.ArgumentParser) -> dict[str, Path]:
    """What the task at hand reads at this verb, by name; the parser's usual error when one is not given."""
    inputs = {name: getattr(arguments, name) for name in getattr(TASKS[arguments.task], verb)}
    if missing := [_option(name) for name, path in inputs.items() if path is None]:
        parser.error(f"task {arguments.task} needs {', '.join(missing)}")
    return inputs


def function_of(room: str) -> Callable[[str], Callable]:
    """Argparse type: a function of ``busflow/<room>``, named ``module:function``.

    Only its module is imported: the others' imports would take longer than its work.
    """
    return lambda name: resolve_name(f"busflow.{room}.{name}")


def add_files(parser: argparse.ArgumentParser, function: Callable) -> None:
    """Add an option for each file, or list of files, of a function: ``--metrics`` for metrics_paths."""
    for name, kind in _files(function).items():
        parser.add_argument(name, required=True, type=Path, nargs=None if kind is Path else "+")


def files_of(arguments: argparse.Namespace, function: Callable) -> list[Path | list[Path]]:
    """The files that were given for a function, in the order in which it takes them."""
    return [getattr(arguments, name.removeprefix("--").replace("-", "_")) for name in _files(function)]


def _files(function: Callable) -> dict[str, type]:
    """Options of a function's files, with their type."""
    kinds = {each.name: each.annotation for each in inspect.signature(function).parameters.values()}
    return {
        _option(name.removesuffix("_paths").removesuffix("_path")): kind
        for name, kind in kinds.items()
        if kind in (Path, list[Path])
    }


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _program() -> str:
    return Path(sys.argv[0]).name
