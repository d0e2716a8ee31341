"""python -m reproduce: `reproduce.command`, imported where Ctrl-C is already answered, for that takes a second."""

from experiments.cli import run


def main() -> int:
    """The command line of `reproduce.command`. Returns the exit code."""
    from reproduce import command

    return command.main()


if __name__ == "__main__":
    run(main)
