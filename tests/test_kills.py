"""A search that is killed at random moments, and resumed each time, ends as if nothing had happened."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests import kills


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="processes are forked")
def test_a_search_that_is_killed_again_and_again_comes_to_the_same(tmp_path: Path) -> None:
    draw, found = random.Random(0), {}
    for name, after in (("whole", []), ("killed", [draw.randrange(1, 60) for _ in range(4)])):
        folder = tmp_path / name
        folder.mkdir()
        storage = str(folder / "journal")
        statuses = kills.run(folder, storage, after, draw)
        assert statuses[-1] == 0, (folder / f"process-{len(statuses) - 1}.err").read_text()
        assert kills.wrong(folder, storage) == []
        found[name] = (folder / "tuned.toml").read_bytes(), kills.trained(storage)
    assert len(statuses) > 1, "some process was killed"
    assert found["killed"] == found["whole"], "to the last bit"
