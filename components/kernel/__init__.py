"""Ways to run the step fast, made from a recording of the components: nobody writes a kernel by hand.

`recording` runs the step once on small tensors, notes its operations, and cuts them into as few passes over memory as
its sums allow. Three folders each have a way to run these passes: `cpp` compiles them for a CPU, `triton` for a GPU,
and `interpreter` calls torch for each operation, on a CPU without a compiler. `compile` chooses among the first two,
and `kernel` is their common base class. Both print the passes by `recording.printer`; `runtime.h` and `runtime.py` are
the part of the code that does not depend on the components.
"""
