"""The one error that a user can cause."""


class UserError(Exception):
    """Bad input or environment: one clear sentence that names the remedy.

    The command prints it without a traceback and exits with code 2.
    """
