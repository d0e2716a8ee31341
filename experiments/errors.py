"""The exceptions that mean: the user can put this right."""

import errno
from pathlib import Path

OUTSIDE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG)
"""What a file system says of a path for reasons of its own, whatever was done with it."""


class UserError(Exception):
    """Something outside the program is wrong: a setting, a file, a device.

    The message says what was wrong, what was expected and what to do next. Command lines print it
    without a traceback (unless ``DEBUG=1``) and exit with code 2.
    """


def unreadable(path: Path, error: OSError) -> UserError:
    """For a file that may be whole: nobody is told to delete it."""
    why = (error.strerror or str(error)).lower()
    if error.errno == errno.ENAMETOOLONG:
        return UserError(f"{path} cannot be there ({why}): choose a shorter one.")
    return UserError(
        f"{path} cannot be read ({why}): correct its permissions, or see to its disk, and run the same command again."
    )


def outside(error: OSError) -> UserError:
    """The sentence for an error that no other place has explained. Raises the error itself where none fits."""
    if error.errno not in OUTSIDE or not isinstance(error.filename, str):
        raise error
    return unreadable(Path(error.filename), error)


class DataMissing(UserError):
    """A data set is neither on disk nor to be had from the network."""
