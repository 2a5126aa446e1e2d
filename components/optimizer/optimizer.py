"""The `torch.optim.Optimizer`: the vectorized step with K = 1 over a user's parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autoranger.components.core.config import Compile, Config
from autoranger.components.core.errors import ConfigError, require_count
from autoranger.components.core.step import require_total_steps
from autoranger.components.optimizer.arrange import arrange, split, with_numbers
from autoranger.components.optimizer.evaluation import (
    MODE,
    Swap,
    is_evaluating,
    put_back,
    require_training,
    tells_apart,
)
from autoranger.components.optimizer.groups import Numbers, check_group, check_numbers, check_state_dtype, chosen
from autoranger.components.optimizer.layers import by_layer
from autoranger.components.optimizer.layout import ParameterLayout
from autoranger.components.optimizer.partners import partners
from autoranger.components.optimizer.resume import Resume, own_memory
from autoranger.components.optimizer.scaling import scaled

if TYPE_CHECKING:
    from torch.optim.optimizer import ParamsT, StateDict


class ComposedOptimizer(Optimizer):
    """AdamW plus the components of a config, as an ordinary `torch.optim.Optimizer`.

    `param_groups` holds `kind`, `lr`, `betas`, `eps`, `weight_decay`, `total_steps`, `maximize` and the count of
    `step`s; changes there count from the next step on, and so do parameters and groups that are added, replaced or
    removed, and changes of `state`. `lr` is the base rate: schedules among the components act on top of it and leave it
    alone, so that other schedulers and the components get along (`get_last_lr` tells the product). Updates count per
    parameter, so one that had no gradient in a step is left alone, and one that never had any has no state; schedules
    count the steps of the optimizer. `state_dict` holds all of that.

    State is float32 where parameters are of half precision, and may be bfloat16: see `state_dtype`. Where other
    weights are loaded into the model, copies of the old ones (Lookahead's slow weights, MADGRAD's start) begin anew
    from them; moments go on. `torch.compile` steps aside: of a compiled training step, the optimizer's is what it is
    without.

    >>> config = Config(lr=0.1, components={"explore_exploit": {}})
    >>> groups = [{"params": torch.nn.Linear(2, 1).parameters(), "lr": 0.25}]
    >>> optimizer = ComposedOptimizer(groups, config, total_steps=50)
    >>> optimizer.param_groups[0]["lr"], optimizer.get_last_lr()
    (0.25, [0.25])

    Args:
        params: a model, whose parameters become one group for each `kind` (hidden, embedding, head, vector; see
            `core.kinds`); or parameters, named parameters or parameter groups, which may override the config's numbers,
            and are split by kind where the config says something of kinds. A group's own `lr` and `weight_decay` win
            over those of its kind; its `lr_factor` multiplies the rate that it would have without.
        config: the optimizer as data.
        total_steps: T, optimizer steps in the whole training; needed by the components that are schedules.
        lr: in place of the config's, such as a tensor, which may then be changed in place.
        maximize: whether to go up the gradient.
        compile: whether the step is compiled, for which the first one takes a second, or some on a GPU: "auto", where
            it can be; True, or else it is an error; False, never. The results are the same to rounding. On a CPU it
            needs a C++ compiler, on a GPU Triton, which comes with torch for CUDA.
        state_dtype: `torch.bfloat16` keeps moments in half the memory, stochastically rounded (see `core/rounding.py`),
            but not copies of weights (those of Lookahead and MADGRAD). None: single precision.

    Raises:
        ConfigError: (a ValueError) where `params` is empty, `total_steps` is missing or a value is out of range; at
            the first step where it cannot be compiled and `compile` is True.
    """

    def __init__(
        self,
        params: ParamsT | nn.Module,
        config: Config,
        *,
        total_steps: int | None = None,
        lr: float | Tensor | None = None,
        maximize: bool = False,
        compile: Compile = "auto",
        state_dtype: torch.dtype | None = None,
    ) -> None:
        require_total_steps([config], total_steps)
        if compile not in (True, False, "auto"):
            raise ConfigError(f'compile is {compile!r}, but must be True, False or "auto".')
        given = arrange(params, config)
        self.config = config
        self.compile: Compile = compile
        self.state_dtype = state_dtype
        self._bound: ParameterLayout | None = None
        self._swap: Swap | None = None
        numbers = {name: getattr(config, name) for name in ("lr", "betas", "eps", "weight_decay")}
        more = {"components": chosen(config), "total_steps": total_steps, "maximize": maximize, "step": 0, "kind": None}
        more |= {MODE: False} if tells_apart(config) else {}
        super().__init__(given, numbers | more | ({} if lr is None else {"lr": lr}))
        step_aside(type(self))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters with numbers of their own, by kind where they differ; state of the others is kept."""
        by_kind, before = self.config.is_by_kind and param_group.get("kind") is None, len(self.param_groups)
        try:
            for part in split([param_group], self.config, partly=True) if by_kind else [param_group]:
                super().add_param_group(with_numbers(part, self.config, self.defaults))
                group = self.param_groups[-1]
                group |= {name: self.param_groups[0][name] for name in ("step", MODE) if name in self.param_groups[0]}
                check_numbers(group)
                check_group(group, self.config)
                check_state_dtype(self.state_dtype, group["params"])
        except ConfigError:
            del self.param_groups[before:]
            raise

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update; returns what `closure` returns, called with gradients enabled."""
        require_training(self.param_groups)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        bound = self._bound
        if bound is None or not bound.fits(self.param_groups, self.state):
            bound = self._bind()
        bound.step()
        return loss

    @torch.no_grad()
    def eval(self) -> None:
        """Puts the weights to evaluate with in the place of those that are trained, until `train` puts these back.

        They differ where a component says so, such as an average of weights; otherwise nothing happens, nor in a second
        call. `state_dict` and the model's together hold both kinds of weights, before and after. Buffers stay as they
        are: for batch normalization see `torch.optim.swa_utils.update_bn`.
        """
        if tells_apart(self.config) and not is_evaluating(self.param_groups):
            bound = self._bound
            if bound is None or not bound.fits(self.param_groups, self.state):
                bound = self._bind()
            self._swap = Swap(bound, self.state)
            for group in self.param_groups:
                group[MODE] = True

    @torch.no_grad()
    def train(self) -> None:
        """Puts the weights that are trained back, as they were to the bit. See `eval`.

        Where others have been loaded into the model since `eval`, these stay, and training goes on from them.
        """
        if is_evaluating(self.param_groups):
            put_back(self.param_groups, self.state, self._swap)
            self._swap = None
            for group in self.param_groups:
                group[MODE] = False

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """A context in which parameters are the weights to evaluate with: `eval`, and then `train` if it was that."""
        training = not is_evaluating(self.param_groups)
        self.eval()
        try:
            yield
        finally:
            if training:
                self.train()

    def get_last_lr(self) -> list[float]:
        """The learning rate of the latest step for each group: `lr` times the factor of the schedules.

        Reads from the device; meant for logging, as `torch.optim.lr_scheduler.LRScheduler.get_last_lr`.
        """
        numbers = self._bound.numbers if self._bound else None
        if numbers is None or numbers.groups is not self.param_groups or len(numbers.written) != len(self.param_groups):
            numbers = Numbers(self.config, self.param_groups, numbers)
        return numbers.rates()

    def state_dict(self) -> StateDict:
        """State per parameter and the groups, as torch's own optimizers; continues bit for bit where it is loaded.

        State is copied where several parameters have theirs in one memory, so that each can be saved alone. That of
        parameters which are in no group any more is left out.
        """
        self._recount()
        everything, present = self.state, {id(p) for group in self.param_groups for p in group["params"]}
        self.state = defaultdict(dict, {p: entry for p, entry in everything.items() if id(p) in present})
        try:
            return own_memory(super().state_dict())
        finally:
            self.state = everything

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Continues from a `state_dict` of an optimizer with the same components.

        The numbers of the groups are the state's, as in torch, but for `total_steps`: it is this optimizer's where it
        was built with one, so that a training can be extended (or cut short) by building for another length.

        Raises:
            ConfigError: (a ValueError) where the components differ, or the state does not fit the parameters.
        """
        with Resume(self, self.config):
            super().load_state_dict(state_dict)
        self._bound, self._swap = None, None

    def __getstate__(self) -> dict[str, Any]:
        self._recount()
        values = own_memory(super().__getstate__())
        values |= {"config": self.config, "compile": self.compile, "state_dtype": self.state_dtype}
        return values | {"state": defaultdict(dict, values["state"])}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        vars(self).setdefault("state_dtype", None)  # of a pickle from before
        for group in self.param_groups:
            group.setdefault("maximize", False)
        self._bound, self._swap = None, None
        step_aside(type(self))

    def _bind(self) -> ParameterLayout:
        """Lays the parameters out for the step, as they are now."""
        if not self.param_groups:
            raise ConfigError("there are no parameter groups left; add one by add_param_group.")
        taken = self._bound.numbers.taken if self._bound else 0
        found: set[int] = set()
        for group in self.param_groups:
            for name, default in (self.defaults | {"step": taken}).items():
                group.setdefault(name, default)
            check_group(group, self.config)
            check_state_dtype(self.state_dtype, group["params"])
            if not found.isdisjoint(map(id, group["params"])):
                raise ConfigError("a parameter is in two parameter groups; take it out of one.")
            found.update(map(id, group["params"]))
        # Not as tensors of inference mode, should somebody take a step in it: these could not be changed outside.
        with torch.inference_mode(False), torch.no_grad():
            self._bound = ParameterLayout(
                self.config,
                self.param_groups,
                self.state,
                self.compile,
                before=self._bound,
                partners=partial(partners, self),
                state_dtype=self.state_dtype,
            )
        return self._bound

    def _recount(self) -> None:
        """Writes the count of steps into the groups, where a CUDA graph has moved it on."""
        if self._bound is not None:
            self._bound.numbers.recount()


def build(
    params: ParamsT | nn.Module,
    config: Config,
    batch_size: int | None,
    examples: int | None,
    *,
    scale: bool,
    layer_decay: float | None,
    **how: Any,
) -> ComposedOptimizer:
    """See `Config.build`."""
    for name, number in (("batch_size", batch_size), ("examples", examples)):
        if number is not None:
            require_count(name, number)
    model = params if isinstance(params, nn.Module) else None
    if scale and config.proxy and model is not None and any(True for _ in model.parameters()):
        require_total_steps([config], how["total_steps"])
        params = scaled(model, config, how["total_steps"], batch_size, examples).groups
    elif scale and config.proxy and batch_size is not None and model is None:
        raise ConfigError(
            "batch_size scales the rates of a model's layers, which parameters do not tell; pass the model itself, or "
            "leave batch_size out."
        )
    if layer_decay is not None:
        if model is None:
            raise ConfigError("layer_decay goes by a model's layers, which parameters do not tell; pass the model.")
        groups: Any = arrange(model, config) if params is model else params
        params = by_layer(groups, model, layer_decay)
    return ComposedOptimizer(params, config, **how)


def step_aside(cls: Any) -> None:
    """Lets torch.compile leave the step of a class alone, wherever torch has wrapped it for its hooks; once.

    What would be made of a step is made again for each learning rate, and is slower than what the step is.
    """
    if not getattr(cls.step, "steps_aside", False):
        aside: Any = torch.compiler.disable(cls.step)  # type: ignore[no-untyped-call]
        aside.steps_aside = True
        cls.step = aside
