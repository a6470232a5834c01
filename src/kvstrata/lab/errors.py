"""What the lab raises when it cannot go on; the command line prints it without a traceback."""


class LabError(Exception):
    """A refusal or failure in words a user can act on."""
