"""The exceptions that a user may meet."""

import re


class BusflowError(Exception):
    """Something in the input or the surroundings is wrong, and the user can mend it.

    The message is one sentence or two: it names the file or the config key, says what is wrong
    with it, and what to do. Scripts print it without a traceback.
    """


class InterruptedRunError(BusflowError):
    """A training was asked to stop and has saved its state; the same command goes on from there."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU was full.

    torch has an exception for its own tensors alone: where CUDA's context or the room that its libraries work
    in finds no place, a RuntimeError says so.
    """
    return bool(re.search(r"CUDA(?: error:)? out of memory|_STATUS_ALLOC_FAILED", str(error)))
