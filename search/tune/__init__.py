"""A search in which the user's own function trains each candidate, in worker processes where possible.

`trial` is the argument of the function. `training` calls the function once and records the result or the failure.
`pool` and `inline` call it many times, `runs` stores each training as an Optuna trial, and `script` presents the
function to a search.
"""

LR_RANGE = (3e-4, 1e-2)
"""Lowest and highest learning rate to begin with, by default."""
