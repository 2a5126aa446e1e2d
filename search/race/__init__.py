"""The race: which candidates are trained, for how long and on how many seeds.

`plan` lays the rounds out and says what they cost, `race` runs them, `explore` is a first round in which a sampler
chooses the candidates, `refine` tries other numbers of the leaders, `objectives` are what can be maximised, `sanity`
checks the metric before a race, and `compete` trains the finalists on fresh seeds.
"""
