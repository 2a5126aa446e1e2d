"""The command line as a program: `autoranger`, or `python -m autoranger`."""

import sys


def main() -> None:
    """Runs the command line; Ctrl-C while it is being imported gives no traceback."""
    try:
        from autoranger.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
