"""Who has won, and with what certainty: paired differences on fresh seeds, corrected for the number of comparisons."""
