"""How every command line of the suite ends: with one sentence and a code, never with half a traceback."""

import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from experiments import device as devices
from experiments import interrupts
from experiments.errors import UserError, outside


def explain(error: UserError) -> int:
    """Print the sentence; with DEBUG=1 raise the error with its traceback instead. Returns the exit code, 2."""
    if os.environ.get("DEBUG") == "1":
        raise error
    print(f"error: {error}", file=sys.stderr)
    return 2


def run(main: Callable[[], int]) -> None:
    """Exit with main()'s code, or with 2 and one sentence for what the user can put right."""
    interrupts.answered()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that has no "±" is no reason to stop
    try:
        with interrupts.not_lost():
            code = main()
    except UserError as error:
        code = explain(error)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        code = explain(UserError(f"The settings cannot be read: {' '.join(str(error).split())}"))
    except KeyboardInterrupt:
        code = 130
        with suppress(OSError):  # Ctrl-C has ended the reader of a pipe as well
            print("Interrupted.", file=sys.stderr)
    except MemoryError as error:
        code = explain(UserError(f"There is not enough memory: {str(error) or 'make the run smaller'}."))
    except RuntimeError as error:
        if (said := devices.failure(error)) is None or os.environ.get("DEBUG") == "1":
            raise
        code = explain(said)
    except BrokenPipeError:  # the reader of our output (head, less) went away
        sys.stdout = None
        code = 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # of our own output: what is written to results says more
            sys.stdout = None
            full = error.filename or "that this command's output goes to"
            code = explain(UserError(f"The disk is full, of {full}: free some space."))
        else:
            code = explain(outside(error))
    sys.exit(code)
