"""The step as recorded from the components, never written by hand: compiled, or run in a better order.

`recording` runs the step once on small tensors, notes what it computes, and cuts that into as few passes over memory
as its sums allow. Each way to run the passes has a folder: `cpp` for a CPU, `triton` for a GPU, and `interpreter` for a
CPU without a compiler. The compiled ways print the passes in their language, by `recording.printer`; `frame.h` and
`frame.py` are what does not depend on the components.
"""
