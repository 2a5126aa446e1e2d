"""Compiling a source once for this machine, and loading the result."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from autoranger.components.core.errors import first_line
from autoranger.components.kernel.cache import cache
from autoranger.components.kernel.errors import UnavailableError

Command = tuple[str, ...]
"""A program and its first arguments."""

FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fPIC", "-shared")
"""What every compiler understands. Neither errno nor floating-point traps are looked at, which lets loops vectorize;
NaN and infinities keep their meaning, and g − mean(g) is zero where it should be: products are not fused into sums."""

NATIVE = (("-march=native",), ("-mcpu=native",))
"""The processor's own instructions, as compilers call them on one kind of processor or another."""

EXTRAS = (*((*native, "-fopenmp") for native in NATIVE), *NATIVE, ("-fopenmp",), ())
"""What makes it faster, the first that the compiler takes. Some come without OpenMP, for threads."""

PATIENCE = 120.0
"""How many seconds a process or thread waits for another one that compiles the same."""


def build(source: str) -> Callable[[int], None]:
    """The function `step` of a source, which takes its arguments' address; UnavailableError where it cannot be had."""
    return build_with(find_compiler(), source)


@lru_cache(maxsize=256)
def build_with(compiler: Command, source: str) -> Callable[[int], None]:
    """`build`, by a certain compiler."""
    complaint = ""
    for extra in EXTRAS:
        key = "\n".join([source, identity(compiler), *FLAGS, *extra])
        library = cache() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.so"
        for again in (False, True):  # what does not load is damaged, or of another system: made anew once
            complaint = make(library, source, [*compiler, *FLAGS, *extra], anew=again)
            if not complaint:
                try:
                    step = ctypes.CDLL(str(library)).step
                except (OSError, AttributeError) as error:
                    complaint = first_line(error)
                    continue
                step.argtypes, step.restype = [ctypes.c_void_p], None
                return step
    raise UnavailableError(f"{shlex.join(compiler)} fails ({complaint})")


def find_compiler() -> Command:
    """The C++ compiler: `CXX`, g++, clang++, c++, or that of the package `ziglang`; UnavailableError without any.

    That package needs nothing of the system, but a minute for the first compilation, in which it builds its library.
    """
    return find(os.environ.get("CXX", "").strip(), os.environ.get("PATH"))


@lru_cache(maxsize=16)
def find(named: str, path: str | None) -> Command:
    """`find_compiler`, by these environment variables."""
    # CXX may be a path with spaces in it, or a program and its arguments.
    for program, *arguments in ([named], named.split()) if named else (["g++"], ["clang++"], ["c++"]):
        if place := shutil.which(program, path=path):
            return (place, *arguments)
    if not named and find_spec("ziglang"):
        return sys.executable, "-m", "ziglang", "c++"
    raise UnavailableError(
        f"there is no C++ compiler{f' {named}' if named else ''}; install g++, name one in CXX, or install the package "
        "ziglang"
    )


@lru_cache(maxsize=1)
def identity(compiler: Command) -> str:
    """The version of a compiler and the processor that it compiles for."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        processor = platform.processor()
    return "\n".join([version, platform.machine(), processor])


def make(library: Path, source: str, command: list[str], anew: bool) -> str:
    """Sees to it that there is a library, which one process or thread compiles for all. Returns as `compile_to`."""
    if library.exists() and not anew:
        return ""
    lock = FileLock(f"{library}.lock", timeout=PATIENCE)
    with suppress(OSError, NotImplementedError):  # without locks, or patience, all of them compile, which does no harm
        lock.acquire()
    try:
        return compile_to(library, source, command) if anew or not library.exists() else ""
    finally:
        lock.release()


def compile_to(library: Path, source: str, command: list[str]) -> str:
    """Compiles; the library appears whole or not at all. Returns what the compiler says against it, or nothing."""
    try:
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            text, product = Path(folder, "step.cpp"), Path(folder, "step.so")
            text.write_text(source, encoding="utf-8")
            done = subprocess.run(
                [*command, str(text), "-o", str(product)], capture_output=True, text=True, errors="replace", check=False
            )
            if done.returncode == 0:
                product.replace(library)
                return ""
            said = [line for line in done.stderr.splitlines() if "error" in line] or [f"status {done.returncode}"]
            return said[0].removeprefix(f"{text}:")
    except OSError as error:  # a full disk
        return first_line(error)
