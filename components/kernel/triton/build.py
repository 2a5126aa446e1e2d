"""Making a Triton source a module. Triton compiles its kernels at their first launch, and has a cache of its own."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from autoranger.components.kernel.cache import cache
from autoranger.components.kernel.errors import UnavailableError


@lru_cache(maxsize=256)
def build(source: str) -> ModuleType:
    """The module of a source; UnavailableError where there is no Triton, or no place to write to."""
    name = f"autoranger_kernels_{hashlib.sha256(source.encode()).hexdigest()[:32]}"
    try:
        spec = spec_from_file_location(name, write(source, cache() / f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        raise UnavailableError(
            f"there is no Triton ({error}), which comes with torch for CUDA; install triton"
        ) from None
    except OSError as error:  # a full disk
        raise UnavailableError(f"the kernels cannot be written to {cache()}: {error.strerror}") from None
    sys.modules[name] = module
    return module


def write(source: str, place: Path) -> Path:
    """Writes a file, which appears whole or not at all, unless it is there as it should be: Triton reads it again."""
    text = source.encode()
    if not place.is_file() or place.read_bytes() != text:
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            new = Path(folder, place.name)
            new.write_bytes(text)
            new.replace(place)
    return place
