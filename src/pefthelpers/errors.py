"""The one exception a reader should ever see from this package."""


class UserError(Exception):
    """Something the reader can put right; the message is one sentence that says how.

    The command line prints the sentence and exits with code 2; a notebook shows it as the error.
    """
