"""The one error a user can cause and cure."""


class CompetitionError(Exception):
    """A mistake in the user's data, config or set-up.

    The message names the file, the row or key, the value found and what was expected, one line a fault.
    The command line prints it without a traceback and exits 1.
    """
