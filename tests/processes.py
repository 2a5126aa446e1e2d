"""What tests of distributed training run in each of several processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.nn.parallel import DistributedDataParallel

from autoranger import Config
from autoranger.components.core.component import conflicts, registry

Work = Callable[..., None]


def run(size: int, work: Work, *args: Any) -> None:
    """Runs `work(*args)` in that many processes that can talk to each other, in this one's environment."""
    # Forks of a process that has imported all of this and done nothing else: importing it takes seconds for each.
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call]
            begin, (size, folder, dict(os.environ), work, args), nprocs=size, start_method="forkserver"
        )


def begin(rank: int, size: int, folder: str, environment: Mapping[str, str], work: Work, args: Sequence[Any]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    gc.freeze()
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder, "store")), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(minutes=5))
    try:
        work(*args)
    finally:
        dist.destroy_process_group()


SHAPES: dict[str, tuple[int, ...]] = {
    "matrix": (5, 7),
    "another": (5, 7),
    "single row": (1, 9),
    "single column": (6, 1),
    "vector": (7,),
    "same vector": (7,),
    "one number": (1,),
    "conv": (4, 3, 3, 3),
    "large": (33, 40),
}
"""Rows and vectors that do not divide evenly among processes, and some that leave a process without any."""


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def place(x: Tensor, mesh: DeviceMesh, placements: Sequence[Any] | None) -> Tensor:
    """A tensor spread over processes; itself where it is to be everywhere."""
    if placements is None:
        return x.clone()
    everywhere = DTensor.from_local(x, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(mesh, placements)


def whole(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


HOW: dict[str, Callable[[int, Tensor], Any]] = {
    "rows": lambda i, x: [Shard(0)],
    "columns": lambda i, x: [Shard(x.dim() - 1)],
    "alternating": lambda i, x: [Shard((0, x.dim() - 1)[i % 2])],
    "mixed": lambda i, x: [None, [Shard(0)], [Shard(x.dim() - 1)], [Replicate()]][i % 4],
    "both": lambda i, x: [[Shard(0), Shard(x.dim() - 1)], [Replicate(), Shard(0)], [Shard(0), Shard(0)]][i % 3],
}
"""Ways to spread tensors, the last one over a mesh of two dimensions."""


class Case:
    """Parameters with gradients that do not depend on them, spread over a mesh, or whole where there is none."""

    def __init__(self, mesh: DeviceMesh | None = None, how: str = "rows") -> None:
        self.mesh, self.how = mesh, HOW[how]
        self.params = [nn.Parameter(self.place(i, x)) for i, x in enumerate(tensors(0).values())]

    def place(self, i: int, x: Tensor) -> Tensor:
        return x.clone() if self.mesh is None else place(x, self.mesh, self.how(i, x))

    def train(self, optimizer: torch.optim.Optimizer, steps: int) -> list[Tensor]:
        for step in range(steps):
            for i, (p, g) in enumerate(zip(self.params, tensors(1 + step).values(), strict=True)):
                # Sometimes large, so that clipping acts, and now and then none.
                p.grad = None if i == 1 and step % 5 == 3 else self.place(i, g * (1 + step % 3))
            optimizer.step()
        getattr(optimizer, "eval", lambda: None)()
        return [whole(p.detach()) for p in self.params]


def configs(subsets: int) -> dict[str, Config]:
    """Every component alone, full Ranger21, sums over all tensors, and some random subsets."""
    alone = {name: Config(lr=0.01, components={name: {}}) for name in registry}
    together = {"global_norm_clipping": {}, "stable_weight_decay": {"scope": "global"}, "norm_loss": {}}
    found = {"none": Config(lr=0.01), **alone, "ranger21": Config.preset("ranger21", lr=0.01)}
    found["global"] = Config(lr=0.01, components=together)
    draw = random.Random(0)
    while len(found) < subsets + len(registry) + 3:
        chosen = draw.sample([*registry], draw.randint(2, 9))
        if not conflicts(chosen):
            found["+".join(chosen)] = Config(lr=0.01, components={name: {} for name in chosen})
    return found


def dealt(names: Iterable[str] = registry) -> dict[str, Config]:
    """Components in a few configs, as many in each as get along."""
    sets: list[list[str]] = []
    for name in names:
        fitting = next((own for own in sets if not conflicts([*own, name])), None)
        fitting.append(name) if fitting else sets.append([name])
    return {"+".join(own): Config(lr=0.01, components={name: {} for name in own}) for own in sets}


def train_alike(
    ways: Sequence[str], steps: int, chosen: Mapping[str, Config], compile: bool, mesh: tuple[int, ...] = ()
) -> None:
    """Parameters that are spread over processes become what they become in one.

    Each config is tried in one of the ways, what has several components in all of them.
    """
    device_mesh = init_device_mesh("cpu", mesh or (dist.get_world_size(),))
    for i, (name, config) in enumerate(chosen.items()):
        alone = Case()
        expected = alone.train(config.build(alone.params, max(20, steps), compile=False), steps)
        for how in ways if len(config.components) > 1 else [ways[i % len(ways)]]:
            case = Case(device_mesh, how)
            found = case.train(config.build(case.params, max(20, steps), compile=compile), steps)
            compare(found, expected, f"{name}, {how}")


def compare(found: Sequence[Tensor], expected: Sequence[Tensor], where: str, tolerance: float = 2e-5) -> None:
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda m, i=i: f"{where}, tensor {i}: {m}")


def layers() -> nn.Sequential:
    """A model of matrices and vectors, some of which have the same shape."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 7), nn.ReLU(), nn.Linear(7, 7), nn.LayerNorm(7), nn.Linear(7, 1))


def net() -> nn.Sequential:
    """A model with uneven rows, transposed convolutions in groups, and an output for each process to have none of."""
    torch.manual_seed(1)
    convolutions = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Flatten()
    return nn.Sequential(*convolutions, nn.Linear(216, 7), nn.ReLU(), nn.Linear(7, 7), nn.LayerNorm(7), nn.Linear(7, 1))


def spread(model: nn.Sequential) -> nn.Sequential:
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    fully_shard(model)
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, end: int, share: bool = True) -> list[Tensor]:
    """The parameters after some steps; each process has its share of the batch."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if share else (0, 1)
    for step in range(first, end):
        generator = torch.Generator().manual_seed(step)
        inputs, targets = torch.randn(12, 1, 6, 6, generator=generator), torch.randn(12, 1, generator=generator)
        optimizer.zero_grad()
        (model(inputs[rank::size]) - targets[rank::size]).square().mean().backward()
        optimizer.step()
    return [whole(p.detach()).clone() for p in model.parameters()]


def wrap_alike(steps: int) -> None:
    """DDP, FSDP2 and ZeRO, resumed once, become what one process becomes."""
    torch.set_default_dtype(torch.float64)
    for name in ("none", "ranger21", "global", "muon"):  # the last one's chain is another for vectors
        config, model = configs(0)[name], net()
        expected = train(model, config.build(model.parameters(), steps, compile=False), 0, steps, share=False)
        ddp = DistributedDataParallel(net())
        found = train(ddp, config.build(ddp.parameters(), steps), 0, steps)
        compare(found, expected, f"{name}, DDP", 1e-7)
        model = spread(net())
        found = train(model, config.build(model.parameters(), steps), 0, steps)
        compare(found, expected, f"{name}, FSDP2", 1e-7)
        compare(train_zero(config, steps), expected, f"{name}, ZeRO", 1e-7)


def train_long(steps: int, subsets: int) -> None:
    """DDP, FSDP2 and parameters that are spread in every way become what they become in one process.

    Of these, FSDP2 is compiled: for what DDP trains, a process compiles what it does alone.
    """
    torch.set_default_dtype(torch.float64)
    wrong = []
    for name, config in configs(subsets).items():
        if dist.get_rank() == 0:
            print(time.strftime("%X"), name, flush=True)
        model = net()
        expected = train(model, config.build(model.parameters(), steps, compile=False), 0, steps, share=False)
        try:
            train_alike(["mixed"], steps, {name: config}, False)
            for wrapper in (DistributedDataParallel, spread):
                wrapped = wrapper(net())
                optimizer = config.build(wrapped.parameters(), steps, compile="auto" if wrapper is spread else False)
                compare(train(wrapped, optimizer, 0, steps), expected, f"{name}, {wrapper.__name__}", 1e-7)
        except AssertionError as error:  # of which all processes find the same
            wrong.append(str(error))
    assert not wrong, "\n".join(wrong)


def pass_on() -> None:
    """A sharded optimizer that is pickled or saved goes on as it would have, and so does a compiled training step."""
    torch.set_default_dtype(torch.float64)
    model = spread(layers())
    optimizer = configs(0)["ranger21"].build(model.parameters(), 9)
    train(model, optimizer, 0, 4)
    file = BytesIO()
    torch.save(optimizer, file)
    file.seek(0)
    params = [*model.parameters()]
    copies = [pickle.loads(pickle.dumps(optimizer)), torch.load(file, weights_only=False)]
    optimizer.step()
    for other in copies:
        mine = [p for group in other.param_groups for p in group["params"]]
        for p, q in zip(mine, params, strict=True):
            p.grad = q.grad
        other.step()
        compare([whole(p.detach()) for p in mine], [whole(p.detach()) for p in params], "pickled", 0)
    expected = train(model, optimizer, 5, 7)

    again = spread(layers())
    compiled = configs(0)["ranger21"].build(again.parameters(), 9)

    @torch.compile(backend="eager")
    def step() -> None:
        compiled.step()

    train(again, compiled, 0, 4)
    step()
    found = train(again, compiled, 5, 7)
    compare(found, expected, "compiled", 0)


def train_zero(config: Config, steps: int) -> list[Tensor]:
    ddp = DistributedDataParallel(net())
    build = partial(config.build, total_steps=steps)
    # Groups by kind, since this optimizer has to know of each group.
    groups = build(ddp.parameters()).param_groups
    optimizer = ZeroRedundancyOptimizer([{name: group[name] for name in ("params", "kind")} for group in groups], build)
    train(ddp, optimizer, 0, steps // 2)
    optimizer.consolidate_state_dict()
    saved = [optimizer.state_dict() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(saved)
    again = ZeroRedundancyOptimizer([{name: group[name] for name in ("params", "kind")} for group in groups], build)
    again.load_state_dict(saved[0])
    assert {group["step"] for group in again.param_groups} == {steps // 2}
    return train(ddp, again, steps // 2, steps)


def train_few() -> None:
    """Some processes have no parameters at all, and take part in global sums all the same."""
    config = configs(0)["global"]
    results = []
    for wrapper in (None, ZeroRedundancyOptimizer):
        p = nn.Parameter(torch.arange(1.0, 4.0))
        optimizer = config.build([p]) if wrapper is None else wrapper([p], config.build)
        for _ in range(5):
            p.grad = 100 * p.detach() + 1
            optimizer.step()
        results.append(p.detach())
    compare(results[1:], results[:1], "few")


def follow_guide() -> None:
    """The examples of docs/distributed.md, in order; what they make is the same in all processes."""
    guide = (Path(__file__).parents[1] / "docs" / "distributed.md").read_text(encoding="utf-8")
    found: dict[str, Any] = {"__name__": "example"}
    for source in re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL):
        exec(compile(source, "docs/distributed.md", "exec"), found)
        if "model" in found:
            flat = torch.cat([whole(p.detach()).flatten() for p in found["model"].parameters()])
            others = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
            dist.all_gather(others, flat)
            assert all(torch.equal(other, flat) for other in others)


def at_once() -> None:
    """What can be tried in a moment."""
    train_few()
    pass_on()
    wrap_alike(6)


def save_and_load(name: str, folder: str, turn: int, full: bool) -> None:
    """A third of a training, which begins with what the processes of the turn before have saved."""
    torch.set_default_dtype(torch.float64)
    config, steps = configs(0)[name], 5
    alone = net()
    expected = train(alone, config.build(alone.parameters(), 3 * steps), 0, 3 * steps, share=False)
    model = spread(net())
    optimizer = config.build(model.parameters(), 3 * steps)
    if turn:
        for p in model.parameters():
            nn.init.ones_(p)
        saved = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
        dcp.load(saved, checkpoint_id=folder)
        set_state_dict(model, optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"])
    found = train(model, optimizer, turn * steps, (turn + 1) * steps)
    if full:
        compare(resume_full(config, model, optimizer, (turn + 1) * steps, 3 * steps), expected, f"{name}, full", 1e-7)
    if turn == 2:
        compare(found, expected, f"{name}, resharded", 1e-7)
    else:
        saved = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
        dcp.save(saved, checkpoint_id=folder)


def resume_full(
    config: Config, model: nn.Module, optimizer: torch.optim.Optimizer, first: int, end: int
) -> list[Tensor]:
    """A training that goes on from whole tensors, which the first process hands to the others."""
    whole_tensors = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights, state = get_state_dict(model, optimizer, options=whole_tensors)
    again = spread(net())
    optimizer = config.build(again.parameters(), end)
    first_alone = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    given = (weights, state) if dist.get_rank() == 0 else ({}, {})
    set_model_state_dict(again, given[0], options=first_alone)
    set_optimizer_state_dict(again, optimizer, given[1], options=first_alone)
    return train(again, optimizer, first, end)
