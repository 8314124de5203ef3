"""`mlp`, the command line: one file a command group, heavy libraries imported inside the commands."""


def main() -> None:
    """The entry point of `mlp`; ends the process with 0 done, 1 refused or failed, 2 wrong usage."""
    import sys

    from ml_platform.cli.app import run

    sys.exit(run(sys.argv[1:]))
