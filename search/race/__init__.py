"""Which candidates are trained, how long and on how many seeds: rounds from which the best go on.

`plan` says what a race costs, `explore` what opens it where there are too many candidates for all, `race` runs it,
`objectives` are what it can be about, and `compete` leads to finalists on fresh seeds.
"""
