"""Middle floor: finds the best subset of components for a task. Uses the components.

`study` is the whole of a search, and begins with a `space` of candidates and a task of `tasks`. `population` trains
candidates, `race` decides which ones and for how long, with `samplers` to propose them; `verdict` says who has won on
fresh seeds, and with what certainty. `storage` keeps all results in an Optuna study; `attribution` tells from them what
each component is worth.

>>> from autoranger.search.space import Space
>>> len(Space().arms(most=256, seed=0))
256
"""

SPACE = "modern"
"""What a search chooses from if nobody says. It finds better optimizers in the same time than a search of Ranger21's
eight, all of whose subsets can be tried (studies/23_modern)."""
