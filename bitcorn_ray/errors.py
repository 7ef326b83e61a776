"""The one exception that means: what you gave cannot be used, and here is what to do."""


class BitcornError(ValueError):
    """Bad input: the message says what failed, the value received, and the remedy.

    The command line prints it as one line and exits with 2. Any other exception is a fault of ours and keeps its
    traceback.
    """
