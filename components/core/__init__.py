"""What every component builds on, and what is built of them: the contract, rows, the step, and configs.

`component` is the contract, with hyperparameters (`hyper`) and the `registry` of components; `rows` has the norms and
means that they compute with. `step` runs them after the parts of AdamW (`adamw`), on stacks of tensors with their state
(`stack`). `config` is an optimizer as plain data.
"""
