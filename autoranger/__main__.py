"""The command line as a program: `autoranger`, or `python -m autoranger`."""

import os
import sys


def main() -> None:
    """Runs the command line; Ctrl-C while it is being imported gives no traceback."""
    # Before torch is imported, whose threads otherwise wait for each other actively. Beside other work that makes a
    # training on all cores several times as slow (studies/10_population_throughput). Not for `bench`, which
    # measures the steps of a user's own script.
    if sys.argv[1:2] != ["bench"]:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from autoranger.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
