"""Where the package's folders are; everything else stands in pyproject.toml."""

from pathlib import Path

from setuptools import setup

# By way of the links in src/ an editable install is a folder on Python's path. Without them, as where a checkout cannot
# have symbolic links, it is setuptools' import hook, which comes after the path: there a mere folder called autoranger,
# as a clone is, hides the package from a script beside it.
linked = Path(__file__).with_name("src") / "autoranger" / "search" / "__init__.py"
folders = {"autoranger": "autoranger", "autoranger.components": "components", "autoranger.search": "search"}
setup(package_dir={"": "src"} if linked.exists() else folders)
