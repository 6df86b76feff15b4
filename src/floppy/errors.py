"""The one exception for bad input."""


class FloppyError(ValueError):
    """Bad input, said in one sentence: what was got, what is allowed, what to do next.

    The command line prints the message alone and exits with code 2; anything else that escapes is a bug.
    """
