"""The memory of a GPU, where it does not suffice."""

import contextlib
from collections.abc import Iterator

from busflow.errors import BusflowError, is_out_of_memory


@contextlib.contextmanager
def out_of_memory_is(what: str, remedy: str) -> Iterator[None]:
    """Say in one line what did not fit and what helps, in place of torch's page.

    Raises:
        BusflowError: a GPU is out of memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise BusflowError(f"{what}: {first_words(error)}; {remedy}") from error


def first_words(error: RuntimeError) -> str:
    """What was wanted; the rest of torch's page is about its allocator."""
    return ": ".join(str(error).splitlines()[0].split(". ")[:2])
