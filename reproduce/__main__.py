"""python -m reproduce: `reproduce.command`, whose imports take a second in which Ctrl-C is to leave no traceback."""

from experiments import interrupts


def main() -> int:
    """The command line of `reproduce.command`, imported where what goes wrong is told. Returns the exit code."""
    with interrupts.importing():
        from reproduce import command

    return command.main()


if __name__ == "__main__":
    interrupts.leave_at_once()
    from experiments.cli import run

    run(main)
