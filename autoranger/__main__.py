"""The command line as a program: `autoranger`, or `python -m autoranger`."""

import sys


def main() -> None:
    """Runs it; Ctrl-C while it is still being imported is no traceback."""
    try:
        from autoranger.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
