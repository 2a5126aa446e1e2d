"""Middle floor: tasks, population training, racing and the verdict. Uses the components."""
