"""Training in several processes equals training in one, and goes on in another number of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

torch_distributed = pytest.importorskip("torch.distributed")
if not torch_distributed.is_available() or not torch_distributed.is_gloo_available():
    pytest.skip("needs gloo", allow_module_level=True)

from tests import processes  # noqa: E402


def test_processes_train_as_one_does(tmp_path: Path, compiler: None) -> None:
    """Every component alone, wrapped models, the guide, and a checkpoint of three with which two go on."""
    processes.run(3, processes.at_once, str(tmp_path))
    processes.run(2, processes.go_on, str(tmp_path))


@pytest.mark.slow
def test_every_way_to_spread_parameters_trains_as_one_process(compiler: None) -> None:
    processes.run(3, processes.train_alike, ["rows", "columns", "mixed"], 6, 6, True)


@pytest.mark.slow
def test_a_mesh_of_two_dimensions_trains_as_one_process(compiler: None) -> None:
    processes.run(4, processes.train_alike, ["both"], 4, 3, False, (2, 2))


@pytest.mark.skipif("AUTORANGER_THOROUGH" not in os.environ, reason="takes half an hour: AUTORANGER_THOROUGH=1")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", [2, 3])
def test_thirty_steps_of_any_subset_are_those_of_one_process(size: int, compiler: None) -> None:
    """Every component alone and twenty subsets, with DDP, FSDP2 and DTensor parameters."""
    processes.run(size, processes.train_long, 30, 20)


@pytest.mark.slow
def test_a_checkpoint_goes_on_in_another_number_of_processes(tmp_path: Path, compiler: None) -> None:
    for turn, size in enumerate([2, 1, 3]):
        processes.run(size, processes.save_and_load, "ranger21", str(tmp_path), turn, turn == 0)
