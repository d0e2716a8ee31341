"""The exceptions that mean: the user can put this right."""

from pathlib import Path


class UserError(Exception):
    """Something outside the program is wrong: a setting, a file, a device.

    The message says what was wrong, what was expected and what to do next. Command lines print it
    without a traceback (unless ``DEBUG=1``) and exit with code 2.
    """


def unreadable(path: Path, error: OSError) -> UserError:
    """For a file that may be whole: nobody is told to delete it."""
    why = (error.strerror or str(error)).lower()
    return UserError(
        f"{path} cannot be read ({why}): correct its permissions, or see to its disk, and run the same command again."
    )


class DataMissing(UserError):
    """A data set is neither on disk nor to be had from the network."""
