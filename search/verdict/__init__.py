"""The verdict: which finalist wins on fresh seeds, by paired differences, corrected for the number of comparisons.

`statistics` has the intervals and tests, `outcome` what a search returns and writes, and `evidence` makes that of the
finalists' results. `comparison` compares configs that the user names.
"""
