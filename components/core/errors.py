"""The ways in which autoranger says no, or warns: one sentence each, with the fix in it."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Iterable


class ConfigError(ValueError):
    """What the user asked for does not exist or is out of range (exit status 2 on the command line).

    >>> from autoranger import Config
    >>> Config(components={"look_ahead": {}})
    Traceback (most recent call last):
    autoranger.components.core.errors.ConfigError: unknown component 'look_ahead'; did you mean 'lookahead'?
    """


class DataError(RuntimeError):
    """The request is fine, but the machine, a file or the network is not (exit status 1 on the command line).

    >>> from autoranger import Config
    >>> Config.load("absent.toml")
    Traceback (most recent call last):
    autoranger.components.core.errors.DataError: cannot read the config absent.toml: No such file or directory.
    """


class SearchError(RuntimeError):
    """A search has nothing that it could honestly recommend (exit status 1 on the command line).

    >>> try:
    ...     raise SearchError("every training diverged.")  # as `autoranger.tune` does
    ... except SearchError as error:
    ...     print(error)
    every training diverged.
    """


def warn(message: str) -> None:
    """A warning about what users do, at their line: the nearest one that is neither torch's nor ours.

    How many calls lie between depends on who has wrapped what; and libraries silence warnings in parts of torch.
    """
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("torch", "autoranger"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def first_line(error: BaseException) -> str:
    """The first line of another library's message, for a sentence of ours."""
    return str(error).strip().split("\n")[0]


def reason(error: BaseException) -> str:
    """Why something failed, in the system's words where it has some."""
    return getattr(error, "strerror", None) or first_line(error) or type(error).__name__


def require_count(name: str, value: object) -> None:
    """ConfigError where a number of things, by its name, is none: a whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}, but must be a whole number from 1.")


def unknown(kind: str, name: str, known: Iterable[str], of: str = "") -> ConfigError:
    """The error for a name that does not exist: says which known name is nearest, or lists them all.

    Args:
        kind: what it is a name of.
        name: the name.
        known: those that exist.
        of: where it was looked for, such as "in train.py".
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}."
    return ConfigError(f"unknown {kind} '{name}'{of and f' {of}'}; {hint}")
