"""The command line, by a longer name than `python -m autoranger`."""

from autoranger.cli import main

main()
