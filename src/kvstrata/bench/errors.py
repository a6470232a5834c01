"""What a benchmark raises when it cannot go on; the command line prints it without a traceback."""


class BenchError(Exception):
    """A refusal or failure in words a user can act on."""
