"""Tasks: one file each, with its data, model, loss and metric."""
