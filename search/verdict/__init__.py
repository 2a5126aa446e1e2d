"""The verdict: which finalist wins on fresh seeds, by paired differences, corrected for the number of comparisons.

`statistics` has the intervals and tests, `outcome` what a search returns and writes, `evidence` makes that of the
finalists' results, and `comparison` compares configs that the user names."""
