"""The exceptions that a user may meet."""


class BusflowError(Exception):
    """Something in the input or the surroundings is wrong, and the user can mend it.

    The message is one sentence or two: it names the file or the config key, says what is wrong
    with it, and what to do. Scripts print it without a traceback.
    """


class InterruptedRunError(BusflowError):
    """A training was asked to stop and has saved its state; the same command goes on from there."""
