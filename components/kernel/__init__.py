"""The step as one compiled C++ function: recorded from the components, never written by hand.

`record` runs the step once on small tensors and notes what it computes, `schedule` cuts that into as few passes over
memory as its sums allow, `source` prints them, `build` compiles and caches, and `launch` calls the result.
"""
