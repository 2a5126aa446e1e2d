"""Engines: they hand items of work to workers, and return what came of each, whatever becomes of the workers.

An item is one training of a user's function, or one chunk of a population. A worker is this process (`inline.py`), a
process of this machine (`process.py`), or one that has joined from anywhere. `Pool` (`pool.py`) is the engine for all
kinds of workers but the first.
"""
