"""The exceptions that mean: the user can put this right."""


class UserError(Exception):
    """Something outside the program is wrong: a setting, a file, a device.

    The message says what was wrong, what was expected and what to do next. Command lines print it
    without a traceback (unless ``DEBUG=1``) and exit with code 2.
    """


class DataMissing(UserError):
    """A data set is neither on disk nor to be had from the network."""
