"""The step as a `torch.optim.Optimizer`: how a user's parameters, groups and state meet it.

`optimizer` is what users touch. `layout` lays parameters out for the step and notices what has changed since, with
`groups` for the numbers in parameter groups, `stacked` for state, `watch` for weights, and `resume` for what is loaded.
`stacking` makes stacks of parameters, `partners` finds the processes that ZeRO has split them between, and `schedule`
is the schedule among the components as an LRScheduler.
"""
