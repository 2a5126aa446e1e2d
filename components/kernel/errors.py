"""Why a step cannot be compiled."""

from __future__ import annotations


class UntraceableError(Exception):
    """The step does something that a kernel cannot: an operation without a rule, or one that depends on values."""


class UnavailableError(Exception):
    """There is no compiler, or it refuses."""
