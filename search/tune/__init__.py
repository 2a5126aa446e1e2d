"""Candidates trained by a user's own code: each training a call of a function, in a process of its own if it can be.

`trial` is what the function gets, `training` calls it once and says what came of it, `pool` and `inline` are the ways
to have that done many times, `runs` keeps each training as an Optuna trial, and `script` is what a search sees of it.
"""
