"""Ground floor: the components, the step, the optimizer and its config. Knows torch and nothing else of the project.

Importing the package imports every module in it, which is how a component in a new file joins the registry.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__, prefix=f"{__name__}."):
    import_module(_module.name)
