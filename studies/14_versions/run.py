"""Tests the ground floor with other versions of torch and Python: makes an environment for each, and notes what passed.

    python studies/14_versions/run.py                       # all below; needs uv, and each Python on the path
    python studies/14_versions/run.py --only 2.6.0/3.13     # one of them

Each environment has the package index's torch, 6 GB with CUDA's libraries, which uv shares between environments. It is
removed when its tests have run. The record is added to.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RECORD = HERE / "record.json"

ENVIRONMENTS = [
    ("2.6.0", "3.11"),
    ("2.6.0", "3.12"),
    ("2.6.0", "3.13"),
    ("2.8.0", "3.12"),
    ("2.10.0", "3.13"),
    ("2.13.0", "3.11"),
    ("2.13.0", "3.12"),
    ("2.13.0", "3.13"),
    ("2.14.1", "3.11"),
    ("2.15.0", "3.13"),
]

TESTS = [
    *("tests/test_config.py", "tests/test_components.py", "tests/test_optimizer.py", "tests/test_edits.py"),
    *("tests/test_schedulers.py", "tests/test_checkpoints.py", "tests/test_state_dtype.py"),
]
NEEDED = ["pytest", "pytest-timeout", "hypothesis", "setuptools"]


def call(*command: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, text=True, cwd=ROOT, **more)


def tried(torch: str, python: str, folder: Path) -> dict[str, Any]:
    """What became of the tests in an environment of these versions."""
    own = folder / "env" / "bin" / "python"
    call("uv", "venv", "--quiet", "--no-python-downloads", "--python", python, str(folder / "env"), check=True)
    others = folder / "constraints.txt"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    others.write_text("\n".join(line for line in lines if not line.startswith("torch")))
    wanted = [f"torch=={torch}", *NEEDED, "--constraint", str(others), "--editable", "."]
    call("uv", "pip", "install", "--quiet", "--python", str(own), *wanted, check=True)
    versions = "import torch, numpy, platform; print(torch.__version__, numpy.__version__, platform.python_version())"
    found = call(str(own), "-c", versions, check=True, capture_output=True).stdout.split()
    begun = time.time()
    call(
        *(str(own), "-m", "pytest", "-q", "-m", "not slow", f"--junitxml={folder / 'tests.xml'}", *TESTS),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    suite = ET.parse(folder / "tests.xml").getroot()[0]
    count = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    wrong = [case.attrib["name"] for case in suite.iter("testcase") if {"failure", "error"} & {x.tag for x in case}]
    done = dict(zip(("torch", "numpy", "python"), found, strict=True)) | count
    return done | {"failed": wrong, "seconds": round(time.time() - begun)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="TORCH/PYTHON", help="may be given several times")
    arguments = parser.parse_args()
    chosen = [tuple(one.split("/")) for one in arguments.only] if arguments.only else ENVIRONMENTS
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for torch, python in chosen:
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = tried(torch, python, Path(folder))
            except (subprocess.CalledProcessError, OSError) as error:
                print(f"torch {torch}, Python {python}: no environment ({error})", file=sys.stderr)
                continue
        record[f"{torch}/{python}"] = result | {"day": time.strftime("%Y-%m-%d"), "machine": platform.machine()}
        RECORD.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n")
        print(
            f"torch {result['torch']}, Python {result['python']}: {result['tests']} tests, failed: {result['failed']}"
        )


if __name__ == "__main__":
    main()
