"""Being asked to stop: SIGTERM from a scheduler, SIGINT from the keyboard."""

import contextlib
import signal
from collections.abc import Iterator


class StopRequest:
    """True once the process was asked to stop; as text, the name of the signal."""

    def __init__(self):
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def __str__(self) -> str:
        return "" if self.signal is None else self.signal.name


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Take SIGTERM and SIGINT as requests to stop at the next good moment, instead of at once."""
    request = StopRequest()

    def note(number: int, frame) -> None:
        request.signal = signal.Signals(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
