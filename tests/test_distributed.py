"""Training in several processes equals training in one, and goes on in another number of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

torch_distributed = pytest.importorskip("torch.distributed")
if not torch_distributed.is_available() or not torch_distributed.is_gloo_available():
    pytest.skip("needs gloo", allow_module_level=True)

from autoranger import Config  # noqa: E402
from tests import processes  # noqa: E402


def test_processes_train_as_one_does() -> None:
    """Wrapped models, with ZeRO also resumed, optimizers that are pickled, and processes without parameters."""
    processes.run(3, processes.at_once)


def test_every_way_to_spread_parameters_trains_as_one_process() -> None:
    """Every component alone in one of the ways, and some subsets in each."""
    processes.run(3, processes.train_alike, ["rows", "columns", "mixed"], 6, processes.configs(3), False)


def test_compiled_steps_of_processes_train_as_one_process(compiler: None) -> None:
    """Every component that needs sums across processes, in a few configs: compiling takes seconds for each."""
    separate = {"global_norm_clipping", "muon"}  # beside other sums the one runs as operations, the other one always
    sets = processes.dealt(name for name in processes.registry if name not in separate)
    chosen = {name: config for name, config in sets.items() if len(config.components) > 2}
    chosen["clipping"] = Config(lr=0.01, components={"global_norm_clipping": {}})
    processes.run(2, processes.train_alike, ["alternating"], 6, chosen, True)


def test_a_mesh_of_two_dimensions_trains_as_one_process() -> None:
    processes.run(4, processes.train_alike, ["both"], 6, processes.dealt(), False, (2, 2))


def test_a_checkpoint_goes_on_in_another_number_of_processes(tmp_path: Path) -> None:
    for turn, size in enumerate([2, 1, 3]):
        processes.run(size, processes.save_and_load, "ranger21", str(tmp_path), turn, turn == 0)


def test_the_guide_can_be_followed() -> None:
    processes.run(2, processes.follow_guide)


@pytest.mark.skipif("AUTORANGER_THOROUGH" not in os.environ, reason="takes minutes: AUTORANGER_THOROUGH=1")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", [2, 3])
def test_thirty_steps_of_any_subset_are_those_of_one_process(size: int, compiler: None) -> None:
    """Every component alone and twenty subsets, with DDP, FSDP2 and DTensor parameters."""
    processes.run(size, processes.train_long, 30, 20)
