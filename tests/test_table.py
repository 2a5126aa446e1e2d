"""The table: it holds what the population trains, survives its file, and a damaged file is an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoranger import Config
from autoranger.components.core.component import registry
from autoranger.components.core.errors import ConfigError, DataError
from autoranger.search.attribution.table import PARTS, Table
from autoranger.search.population import Population
from autoranger.search.space import Space
from tests import toy

NAMES = ("gradient_centralization", "lookahead", "norm_loss")
STUDIES = Path(__file__).parent.parent / "studies" / "07_tables"


@pytest.fixture(scope="module")
def table():
    return Table.make(toy.Toy(), [1e-1, 1e-2], [3, 5], [8, 4], space=Space(NAMES), points=2)


def small(**changes) -> Table:
    rng = np.random.default_rng(0)
    curves = rng.random((4, 2, 3, 1, 2)).astype(np.float32)
    fields = {"task": "t", "components": NAMES[:2], "lrs": (1e-2, 1e-1), "seeds": (0, 1, 2), "lengths": (8,)}
    return Table(**(fields | {"curves": curves} | changes))


def test_a_table_holds_what_the_population_trains(table):
    assert table.curves.shape == (8, 2, 2, 2, 2)
    assert (table.lrs, table.lengths, table.seeds) == ((1e-2, 1e-1), (4, 8), (3, 5))
    config = Config(lr=1e-1, components={"gradient_centralization": {}, "norm_loss": {}})
    number = table.number(["norm_loss", "gradient_centralization"])
    assert table.config(number, 1e-1) == config
    trained = Population(toy.Toy()).train([config], [3, 5], 8, curve=2)
    np.testing.assert_allclose(table.curves[number, 1, :, 1], trained["curve"][0], rtol=1e-6)
    np.testing.assert_allclose(table.final[number, 1], trained["valid"][0], rtol=1e-6)


def test_a_table_survives_its_file(table, tmp_path):
    table.save(tmp_path / "t.npz")
    loaded = Table.load(tmp_path / "t.npz")
    for name in PARTS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(table, name))
        assert type(getattr(loaded, name)) is type(getattr(table, name))


def test_every_subset_has_its_number():
    table = small()
    assert [table.subset(n) for n in range(4)] == [(), NAMES[:1], NAMES[1:2], NAMES[:2]]
    assert [table.number(table.subset(n)) for n in range(4)] == list(range(4))


def test_a_run_that_has_diverged_counts_as_the_worst():
    curves = small().curves.copy()
    curves[2, 1, 0] = np.nan
    table = small(curves=curves)
    values = curves[2, 1, :, 0, -1]
    assert table.means[2, 1] == pytest.approx((np.nanmin(curves[..., -1]) + values[1] + values[2]) / 3)
    assert np.isnan(table.final[2, 1, 0])


def test_parameters_find_their_cell_and_its_regret():
    table = small()
    best = np.unravel_index(table.means.argmax(), table.means.shape)
    params = {name: name in table.subset(best[0]) for name in table.components} | {"lr": table.lrs[best[1]] * 1.2}
    assert table.cell(params) == tuple(best)
    assert table.regret(params) == 0
    other = params | {NAMES[0]: not params[NAMES[0]]}
    assert table.regret(other) == pytest.approx(table.means.max() - table.means[table.cell(other)])
    assert table.distributions().keys() == params.keys()


def test_a_part_of_a_table():
    table = small(curves=np.random.default_rng(0).random((4, 2, 3, 2, 5)).astype(np.float32), lengths=(4, 8))
    part = table.at(lrs=[1e-1], length=4)
    np.testing.assert_array_equal(part.curves, table.curves[:, 1:, :, :1])
    assert (part.lrs, part.lengths) == ((1e-1,), (4,))
    with pytest.raises(ConfigError, match="not"):
        table.at(length=5)


@pytest.mark.parametrize(
    "changes",
    [
        {"lrs": (1e-2,)},
        {"lrs": (1e-1, 1e-2)},
        {"lrs": (0.0, 1e-2)},
        {"lengths": (-8,)},
        {"seeds": (0, 1, 1)},
        {"components": (NAMES[0], NAMES[0])},
        {"curves": np.zeros((4, 2, 3, 1, 2))},
        {"curves": np.full((4, 2, 3, 1, 2), np.inf, dtype=np.float32)},
        {"curves": np.zeros((4, 2, 3, 1, 0), dtype=np.float32)},
    ],
    ids=str,
)
def test_parts_that_do_not_go_together_are_an_error(changes):
    with pytest.raises(ConfigError, match="table"):
        small(**changes)


def test_components_that_exclude_each_other_make_no_table():
    with pytest.raises(ConfigError, match="go together"):
        Table.make(toy.Toy(), [1e-2], [0], [4], space=Space(tuple(registry)))


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "part", "pickle", "shape"])
def test_a_damaged_file_is_an_error(damage, tmp_path):
    path = tmp_path / "t.npz"
    arrays = {name: np.asarray(getattr(small(), name)) for name in PARTS}
    if damage == "part":
        del arrays["lrs"]
    if damage == "pickle":
        arrays["lrs"] = np.array([{"a": 1}], dtype=object)
    if damage == "shape":
        arrays["lrs"] = arrays["lrs"][:1]
    if damage != "missing":
        np.savez(path, **arrays)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    if damage == "text":
        path.write_text("no table")
    with pytest.raises(DataError, match="is not a table"):
        Table.load(path)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.npz")), ids=lambda path: path.stem)
def test_the_shipped_tables_are_complete(path):
    table = Table.load(path)
    assert table.task == path.stem
    assert set(table.components) == Config.preset("ranger21").components.keys()
    assert len(table.lrs) >= 5
    assert len(table.seeds) >= 5
    assert len(table.lengths) == 3
    assert path.stat().st_size < 5e6
    # What is on the way when schedules are scaled to another length is another run; the end is the same metric.
    assert np.nanmax(table.curves) < np.inf
    assert replace(table).means.shape == (256, len(table.lrs))
