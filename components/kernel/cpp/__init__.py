"""A recorded step as one C++ function, compiled once for a machine: how it runs on a CPU."""
