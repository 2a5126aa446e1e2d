"""Recording a step: what it computes, as a program, and the passes over memory that the program takes."""
