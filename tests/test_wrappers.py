"""Parameters whose numbers lie where nobody can point to, as those of FSDP do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed
from torch import Tensor, nn

from autoranger import Config

sharding = pytest.importorskip("torch.distributed.tensor")


@pytest.fixture
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("needs gloo")
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield sharding.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    ordinary = nn.Linear(3, 5), nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    return [*ordinary, nn.ConvTranspose2d(4, 6, 3), nn.ConvTranspose2d(4, 6, 3, groups=2)]


@pytest.mark.parametrize("maximize", [False, True])
def test_a_sharded_parameter_is_trained_as_an_ordinary_one_is(mesh: object, maximize: bool) -> None:
    apart, whole = layers(), layers()
    for layer in apart:
        layer.weight = nn.Parameter(sharding.distribute_tensor(layer.weight.detach(), mesh, [sharding.Shard(0)]))
    pairs: list[list[Tensor]] = [[layer.weight for layer in net] for net in (apart, whole)]
    for params in pairs:
        optimizer = Config.preset("ranger21", lr=0.1).build(params, 20, maximize=maximize, compile=False)
        for _ in range(7):
            optimizer.zero_grad()
            torch.stack([(p**3).sum() for p in params]).sum().backward()
            optimizer.step()
    before = [layer.weight for layer in layers()]
    for sharded, ordinary, start in zip(*pairs, before, strict=True):
        torch.testing.assert_close(sharded.full_tensor().detach(), ordinary.detach())
        assert (ordinary != start).any()
