"""Faults met on purpose: disks that fill up in the middle of a search, journals damaged anywhere, studies of others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from autoranger.components.core.component import conflicts, registry
from autoranger.components.core.errors import ConfigError, DataError
from autoranger.search.progress import Progress
from autoranger.search.space import Space
from autoranger.search.storage.existing import find_study
from autoranger.search.storage.record import Record
from autoranger.search.storage.storage import open_storage
from autoranger.search.study import search
from tests import toy
from tests.test_search import PLAN, SMALL

resource = pytest.importorskip("resource", reason="limits of a process")
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def run(path: Path, name: str, **options: Any) -> Any:
    return search(toy.Toy(), open_storage(str(path)), name, space=SMALL, plan=PLAN, **options)


# a full disk


@pytest.fixture
def limited() -> Iterator[Any]:
    """A function that sets the most bytes of a file that this process may write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_search_goes_on_when_a_full_disk_has_room_again(tmp_path: Path, limited: Any) -> None:
    path = tmp_path / "j"
    whole = run(path, "whole")

    class Full(Progress):
        left = 3

        def kept(self) -> None:
            self.left -= 1
            if self.left == 0:
                limited(path.stat().st_size + 700)  # in the middle of a record

    with pytest.raises(DataError, match=r"cannot write to the study storage .* continue with --resume"):
        run(path, "s", progress=Full())
    limited(resource.RLIM_INFINITY)
    assert path.read_bytes().endswith(b"\n"), "no record is cut off"
    again = run(path, "s", resume=True)
    assert (again.config, again.evidence) == (whole.config, whole.evidence)


# journals that are damaged


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("journal") / "j"
    run(path, "s")
    return path.read_bytes()


@given(data=st.data())
@FEW
def test_a_damaged_journal_is_read_or_refused_in_words(journal: bytes, tmp_path: Path, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(journal)))
    length, noise = data.draw(st.integers(0, 200)), data.draw(st.binary(max_size=20))
    path = tmp_path / "damaged"
    path.write_bytes(journal[:at] + noise + journal[at + length :])
    with suppress(DataError, ConfigError):
        find_study("s", str(path)).get_trials(deepcopy=False)


@given(at=st.floats(0, 1))
@example(at=0.99999)
@FEW
def test_a_journal_that_ends_anywhere_is_read_as_far_as_it_goes(journal: bytes, tmp_path: Path, at: float) -> None:
    path = tmp_path / "cut"
    path.write_bytes(journal[: round(at * len(journal))])
    storage = open_storage(str(path))
    *_, last = path.read_bytes().split(b"\n")
    written = path.read_bytes().count(b"\n") + (last in journal.splitlines())  # where nothing but its end is missing
    optuna.create_study(study_name="another", storage=storage)
    assert path.read_bytes().count(b"\n") == written + 1
    assert "another" in optuna.get_all_study_names(open_storage(str(path)))


# studies of others

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(["settings", "plan", "opening", "outcome", "verdict", "searching", "finalists", "x"])


@given(attributes=st.dictionaries(NAMES, VALUES, max_size=4), settings_=st.dictionaries(st.text(max_size=5), VALUES))
@FEW
def test_a_study_that_somebody_else_made_is_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, attributes: dict[str, Any], settings_: dict[str, Any]
) -> None:
    storage = open_storage(str(tmp_path_factory.mktemp("others") / "j"))
    study = optuna.create_study(study_name="s", storage=storage)
    study.add_trial(optuna.create_trial(value=1.0, user_attrs={"config": 1}))
    for name, value in attributes.items():
        study.set_user_attr(name, json.loads(json.dumps(value)))
    with pytest.raises(ConfigError):
        Record(storage, "s", SMALL, {"task": "toy", **settings_}, resume=True)


# spaces

IDS = st.lists(st.sampled_from(sorted(registry)), unique=True, max_size=8)


@given(names=IDS, seed=st.integers(0, 99))
@FEW
def test_every_space_has_compatible_arms_that_its_parameters_give_back(names: list[str], seed: int) -> None:
    space = Space(tuple(names))
    arms = space.arms(24, seed)
    assert len(set(arms)) == len(arms) <= space.size
    distributions = space.distributions()
    for arm in arms:
        assert not conflicts(arm.components)
        assert arm in space
        params = space.params(arm)
        assert space.config(params) == arm
        assert all(distributions[name]._contains(distributions[name].to_internal_repr(v)) for name, v in params.items())
