"""What every component builds on, and what is built of them: the contract, rows, the step, and configs.

`component` is the contract, of which `signals` and `hyper` are parts; `registry` has all components. `rows` has the
norms and means that they compute with, `sums` and `shards` what these are where processes share a tensor. `step` runs
the components after the parts of AdamW (`adamw`), on stacks of tensors with their state (`stack`). `config` is an
optimizer as plain data.
"""
