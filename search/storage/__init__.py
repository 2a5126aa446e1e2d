"""Results in an Optuna study. They are written as they come, whole or not at all, and reused when a search resumes."""
