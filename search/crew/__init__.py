"""Populations that several workers train: each chunk of candidates is an item of work for an engine."""
