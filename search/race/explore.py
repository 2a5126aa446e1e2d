"""A first round in which a sampler chooses what to train, batch by batch: ask, train, tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from autoranger.components.core.config import Config
from autoranger.search.race.baselines import RANDOM
from autoranger.search.race.plan import Plan
from autoranger.search.race.race import Race, Standings, value
from autoranger.search.samplers.base import STARTUP, ModelSampler
from autoranger.search.space import Space, compatible

BATCH, MOST_BATCH, BATCHES = 16, 64, 4
"""Candidates that are proposed, and then trained, together: at least, at most, and as a part of all between the two. A
small batch has a step of its own to compile."""


class InSpace(BaseSampler):
    """Wraps a sampler: moves each of its proposals to the nearest candidate of the space not proposed before.

    A sampler of Optuna knows neither that components exclude each other nor the grid of learning rates, and proposes a
    promising point again to average its noise. A round trains each candidate once, all with the same seeds; those that
    go on see more seeds in later rounds. The first proposals are those of `Space.proven` with each learning rate; the
    next ones take their switches from `Space.landmarks`.

    Args:
        sampler: the sampler to wrap.
        space: of the candidates.
        lrs: the grid of learning rates, increasing.
        seed: of the moves.
    """

    def __init__(self, sampler: BaseSampler, space: Space, lrs: Sequence[float], seed: int) -> None:
        self.sampler, self.space, self.lrs = sampler, space, list(lrs)
        self.distributions = space.distributions(self.lrs[0], self.lrs[-1])
        if isinstance(sampler, CmaEsSampler):  # it knows numbers only
            self.distributions |= {name: IntDistribution(0, 1) for name in space.components}
        self.rng = np.random.default_rng([seed, len(self.lrs)])
        self.proposed: set[Config] = set()
        proven = space.proven
        self.landmarks: list[tuple[Config, float | None]] = [(arm, lr) for arm in proven for lr in self.lrs]
        known = {tuple(arm.components): arm for arm in space.landmarks if arm not in proven}
        self.landmarks += [(arm, None) for arm in known.values()]
        self.most = space.size * len(self.lrs)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space."""
        return self.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters of the next candidate."""
        together = self.sampler.infer_relative_search_space(study, trial)
        params = dict(self.sampler.sample_relative(study, trial, together))
        for name, distribution in search_space.items():
            if name not in params:
                params[name] = self.sampler.sample_independent(study, trial, name, distribution)
        if self.landmarks:
            arm, lr = self.landmarks.pop(0)
            params |= self.space.params(arm) | {"lr": lr or params["lr"]}
        return self.space.params(self.place(params))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never needed: all parameters are proposed together."""
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.sampler.after_trial(study, trial, state, values)

    def place(self, params: Mapping[str, Any]) -> Config:
        """The candidate nearest to the parameters. Of components that exclude each other a random one stays on."""
        order = [str(name) for name in self.rng.permutation(self.space.components)]
        nearest = min(self.lrs, key=lambda lr: abs(np.log(lr / params["lr"])))
        config = replace(self.space.arm(compatible(name for name in order if params[name])), lr=nearest)
        while config in self.proposed and len(self.proposed) < self.most:
            config = self._neighbour(config)
        return config

    def _neighbour(self, config: Config) -> Config:
        """The candidate with the next higher or lower learning rate, or with one component switched."""
        step = int(self.rng.integers(-len(self.space.components), 3))
        if step > 0:
            at = self.lrs.index(config.lr) + (1 if step == 1 else -1)
            return replace(config, lr=self.lrs[min(max(at, 0), len(self.lrs) - 1)])
        turned = self.space.components[step]
        others = [name for name in config.components if name != turned]
        names = others if turned in config.components else compatible([turned, *others])
        return replace(self.space.arm(names), lr=config.lr)


class Explorer:
    """Asks a sampler for candidates of a space, by a study in memory.

    Args:
        space: of the candidates.
        lrs: the grid of learning rates, increasing.
        sampler: proposes candidates.
        seed: of the moves in `InSpace`; the sampler has its own.
    """

    def __init__(self, space: Space, lrs: Sequence[float], sampler: BaseSampler, seed: int) -> None:
        self.space, self.sampler = space, InSpace(sampler, space, lrs, seed)
        self.study = optuna.create_study(direction="maximize", sampler=self.sampler)
        self._asked: dict[Config, Trial] = {}

    def ask(self, count: int) -> list[Config]:
        """`count` new candidates, or as many as the space still has, and those asked for before but not yet told."""
        for _ in range(min(count, self.sampler.most - len(self.sampler.proposed))):
            trial = self.study.ask(self.sampler.distributions)
            config = self.space.config(trial.params)
            self._asked[config] = trial
            self.sampler.proposed.add(config)
        return list(self._asked)

    def tell(self, values: Mapping[Config, float]) -> None:
        """Tells the sampler the metric of candidates, asked for or not; not finite if the training diverged."""
        for config, metric in values.items():
            state = TrialState.COMPLETE if np.isfinite(metric) else TrialState.FAIL
            told = [metric] if state == TrialState.COMPLETE else None
            if config in self._asked:
                self.study.tell(self._asked.pop(config), told, state=state)
            else:
                params, distributions = self.space.params(config), self.sampler.distributions
                self.study.add_trial(create_trial(state=state, values=told, params=params, distributions=distributions))
                self.sampler.proposed.add(config)

    def expected(self) -> dict[Config, float]:
        """The sampler's expectation of every candidate that did not diverge; its metric if the sampler has no model."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        values = [float(trial.value or 0.0) for trial in trials]
        if trials and isinstance(self.sampler.sampler, ModelSampler):
            values = self.sampler.sampler.expectations(self.study, trials)
        return {self.space.config(trial.params): v for trial, v in zip(trials, values, strict=True)}


@dataclass(frozen=True)
class Exploration:
    """The opening in which a sampler chooses half of the candidates; the other half is random.

    The random half is a baseline for the sampler, and a hedge against one that is misled: its best arm stays in the
    race. The sampler learns of it only when all is trained. Its model then ranks all candidates, and leaders whose best
    learning rate lies on the edge of the grid get further ones.

    Args:
        space: of the candidates.
        lrs: the grid of learning rates, increasing.
        sampler: chooses half of the candidates.
        arms: number of arms for whose grid of learning rates there is time.
        seed: of the random half.
        name: of the sampler.
    """

    space: Space
    lrs: Sequence[float]
    sampler: BaseSampler
    arms: int
    seed: int
    name: str = "a sampler"

    @property
    def size(self) -> tuple[int, int]:
        """See `Opening`."""
        return min(self.arms, self.space.size), len(self.lrs)

    def __call__(self, race: Race, plan: Plan, seeds: Sequence[int]) -> Standings:
        """See `Opening`."""
        rung, raw = plan.rungs[0], Standings()
        explorer = Explorer(self.space, self.lrs, self.sampler, self.seed)
        half = self.size[0] * self.size[1] // 2

        def train(configs: Sequence[Config]) -> dict[Config, float]:
            arms = {config: self.space.subset(config) for config in configs}
            new = [(arm, config.lr) for config, arm in arms.items() if config.lr not in raw.get(arm, {})]
            race.train(new, rung.steps, seeds, raw)
            return {config: value(raw[arm][config.lr]) for config, arm in arms.items()}

        by_chance = self.random(half)
        baselines = [replace(arm, lr=lr) for arm in race.baselines for lr in self.lrs]
        known = [config for config in baselines if config in self.space]
        with race.clock.proposing():
            asked = explorer.ask(max(1, min(STARTUP, half - len(known))))
        found = train([*by_chance, *baselines, *asked])
        race.protect(raw)
        explorer.tell({config: found[config] for config in [*known, *asked]})
        left, batch = half - len(known) - len(asked), min(MOST_BATCH, max(BATCH, half // BATCHES))
        until = race.clock.halfway  # what is proposed takes time, too, which the other rounds need
        while (
            left > 0
            and race.clock.elapsed < until
            and race.clock.affords(min(batch, left) * len(seeds) * rung.steps, plan)
        ):
            with race.clock.proposing():
                asked = explorer.ask(min(batch, left))
            if not asked:
                break
            explorer.tell(train(asked))
            left -= len(asked)
        explorer.tell({config: found[config] for config in by_chance if config not in explorer.sampler.proposed})
        race.protected[RANDOM] = self.space.subset(max(by_chance, key=found.__getitem__))
        with race.clock.proposing():
            leaders = self.leaders(explorer.expected())[: rung.keep]
        scores = {arm: raw[arm] for arm in (*leaders, *race.protected.values())}
        race.extend(scores, rung, seeds)
        return scores

    def leaders(self, expected: Mapping[Config, float]) -> list[Config]:
        """The arms of the candidates, best first by the expectation at each arm's best rate."""
        ranked = sorted(expected, key=lambda config: -expected[config])
        return list(dict.fromkeys(map(self.space.subset, ranked)))

    def random(self, count: int) -> list[Config]:
        """`count` different random candidates."""
        rng = np.random.default_rng([self.seed, 1])
        count, drawn = min(count, self.space.size * len(self.lrs)), dict[Config, None]()
        while len(drawn) < count:
            drawn[replace(self.space.draw(rng), lr=float(rng.choice(self.lrs)))] = None
        return list(drawn)
