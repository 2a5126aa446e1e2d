"""Ground floor: the components, one file each, and what makes an optimizer of them. Knows torch and nothing else.

`core` has the contract, the step and configs, `kernel` the ways to run a step, `optimizer` the `torch.optim.Optimizer`;
`presets` are the published combinations, `order` says which component acts before which. Importing the package imports
every module in it, which is how a component in a new file joins the registry.

>>> from autoranger.components.core.component import registry
>>> registry["lookahead"].summary()
'Every `k` steps move slow weights φ a part `alpha` of the way to θ, and restart from there.'
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__, prefix=f"{__name__}."):
    import_module(_module.name)
