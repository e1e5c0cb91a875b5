"""What all scripts share: arguments that are JSON, files that a task needs, and errors that are one line."""

import argparse
import atexit
import errno
import gc
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from busflow.errors import BusflowError, InterruptedRunError


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


def settings(text: str) -> dict:
    """Argparse type for ``--settings``: a JSON object (a part of the study's config)."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("a JSON object is expected")
    return value


def files_of(
    arguments: argparse.Namespace, names: list[str], parser: argparse.ArgumentParser
) -> dict[str, Path]:
    """The files of these arguments; the parser's usual error when the task at hand misses one."""
    files = {name: getattr(arguments, name) for name in names}
    if missing := [f"--{name.replace('_', '-')}" for name, path in files.items() if path is None]:
        parser.error(f"task {arguments.task} needs {', '.join(missing)}")
    return files


def _program() -> str:
    return Path(sys.argv[0]).name
