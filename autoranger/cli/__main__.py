"""The command line, by a longer name than `python -m autoranger`."""

from autoranger.__main__ import main

main()
