"""The one exception that is the user's to mend."""


class BertKerasError(ValueError):
    """Bad input: the message says in one line what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """
