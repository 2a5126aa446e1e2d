"""The report of a search, made from its Optuna study alone; nothing is trained.

`reading` reads the study, `sentences` puts what it found into words and cells of tables, and these are printed (`text`)
or become a page (`page`) with figures (`charts`).
"""
