"""The step as recorded from the components, never written by hand: compiled, or run in a better order.

`record` runs the step once on small tensors and notes what it computes, `schedule` cuts that into as few passes over
memory as its sums allow, and `printer` writes them down, in one of two languages. For a CPU it is C++ (`source`, which
`build` compiles and `launch` calls: one function for the whole step), for a GPU it is Triton (`triton_source`,
`triton_build` and `triton_launch`: one kernel for each pass). `frame.h` and `frame.py` are what does not depend on the
components. Where there is no compiler, `interpret` runs the passes on a CPU: `scalars` by Python, `blocks` of rows by
torch.
"""
