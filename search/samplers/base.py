"""The base of our samplers: reads a study, and proposes the first trials, before there is a model."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autoranger.components.core.component import registry
from autoranger.components.core.errors import ConfigError
from autoranger.components.presets import RANGER21
from autoranger.search.arrays import Values
from autoranger.search.samplers.encoding import Axis, Encoding, Points

STARTUP = 10
"""Number of trials before the model is used."""

SEEN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class History:
    """What a study knows about a search space.

    Args:
        rows: points of the finished trials `[n, P]`, oldest first.
        values: their values `[n]`, higher is better; minus infinity if a trial failed.
        pending: points `[m, P]` of running trials.
    """

    rows: Points
    values: Values
    pending: Points

    def seen(self) -> set[tuple[float, ...]]:
        """The points of finished and running trials."""
        return {tuple(row) for row in [*self.rows, *self.pending]}


class ModelSampler(BaseSampler):
    """A sampler with a model of the study's trials, for any search space.

    Parameters that all finished trials share are proposed together; others (those of conditional spaces) are drawn at
    random. The first trial is the reference, the second has every switch the other way, and further ones have random
    switches; scales are covered evenly. Trials that failed, or whose value is NaN, count as no better than the worst.
    Running trials are assumed to confirm the model, so that a batch does not repeat itself. A study with several
    objectives is reduced to one by weights that are random in every trial (Knowles 2006).

    Args:
        seed: of all random numbers; a random one if None.
        startup: number of trials before the model is used.
        reference: values believed to be good. By default full Ranger21, for switches named after components.
    """

    def __init__(
        self, seed: int | None = None, *, startup: int = STARTUP, reference: Mapping[str, Any] | None = None
    ) -> None:
        self.startup, self.reference = startup, reference
        self.rng = np.random.default_rng(seed)
        self.salt = int(self.rng.integers(2**32))
        self._spaces: dict[str, IntersectionSearchSpace] = {}
        self._known: dict[str, dict[int, tuple[Points, list[float]]]] = {}

    def reseed_rng(self) -> None:
        """Draws a new random state, for another process."""
        self.rng = np.random.default_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial | None) -> dict[str, BaseDistribution]:
        """The parameters that are proposed together: for a new trial, or, without one, after all trials."""
        shared = self._spaces.setdefault(study.study_name, IntersectionSearchSpace(include_pruned=True))
        space = shared.calculate(study)
        if not space:
            others = [
                t
                for t in study.get_trials(deepcopy=False)
                if t.distributions and (trial is None or t.number < trial.number)
            ]
            space = others[-1].distributions if others else {}
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for the parameters that are proposed together."""
        if not search_space:
            return {}
        encoding = Encoding(search_space)
        history = self.history(study, trial, search_space)
        if len(history.values) >= self.startup and np.isfinite(history.values).any():
            return encoding.decode(self.propose(encoding, history))
        seen, params = history.seen(), dict[str, Any]()
        for _ in range(64):
            params = {name: self.first(name, axis, trial.number) for name, axis in encoding.axes.items()}
            if tuple(encoding.encode(params)) not in seen:
                break
        return params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value for a parameter that not all trials have."""
        return self.first(param_name, Axis(param_distribution), trial.number)

    @abstractmethod
    def propose(self, encoding: Encoding, history: History) -> Points:
        """The next point `[P]`; at least one trial of the history has a finite value."""

    def recommend(self, study: Study) -> dict[str, Any]:
        """The parameters of the trial that the model thinks best.

        Often that is not `study.best_trial`: the best of many noisy values is partly luck, which the model discounts
        by the trials nearby.

        Raises:
            ConfigError: for a study with several objectives, or without a completed trial.
        """
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(study.directions) > 1 or not done:
            raise ConfigError("only a study of one objective, with a completed trial, has a recommendation.")
        return done[int(np.argmax(self.expectations(study, done)))].params

    def expectations(self, study: Study, trials: Sequence[FrozenTrial]) -> list[float]:
        """The model's expectation of completed trials of a study of one objective; higher is better.

        It has no unit, and serves to compare the trials of one call. Before there is a model it is the trials' values.
        """
        space = self.infer_relative_search_space(study, None)
        history = self.history(study, None, space)
        if not space or len(history.values) < self.startup or not np.isfinite(history.values).any():
            return [merits(trial, study.directions)[0] for trial in trials]
        encoding, expected = Encoding(space), np.full(len(trials), -np.inf)
        fitting = [i for i, trial in enumerate(trials) if space.keys() <= trial.params.keys()]
        rows = np.stack([encoding.encode(trials[i].params) for i in fitting])
        expected[fitting] = self.estimate(encoding, history, rows)
        return [float(x) for x in expected]

    def estimate(self, encoding: Encoding, history: History, rows: Points) -> Values:
        """The model's expectation of points `[n, P]` that have been evaluated; higher is better."""
        values = {tuple(row): list[float]() for row in rows}
        for row, value in zip(history.rows, history.values, strict=True):
            values.get(tuple(row), []).append(value)
        return np.array([np.mean(values[tuple(row)]) for row in rows], dtype=np.float64)

    def history(self, study: Study, trial: FrozenTrial | None, space: Mapping[str, BaseDistribution]) -> History:
        """What a study knows about a space, for a new trial."""
        encoding, done, pending = Encoding(space), list[tuple[Points, list[float]]](), []
        known = self._known.setdefault(f"{study.study_name} {sorted(space.items(), key=lambda item: item[0])}", {})
        for other in study.get_trials(deepcopy=False):
            if other.number in known:
                done.append(known[other.number])
            elif (trial is not None and other.number == trial.number) or not fits(other, space):
                continue
            elif other.state in SEEN:
                # A finished trial does not change any more.
                known[other.number] = encoding.encode(other.params), merits(other, study.directions)
                done.append(known[other.number])
            elif other.state == TrialState.RUNNING:
                pending.append(encoding.encode(other.params))
        rows, values = (np.array([entry[i] for entry in done], dtype=float) for i in (0, 1))
        values = values.reshape(len(done), len(study.directions))
        return History(
            rows.reshape(len(done), len(space)),
            values[:, 0] if len(study.directions) == 1 else scalarized(values, self.rng),
            np.array(pending, dtype=float).reshape(len(pending), len(space)),
        )

    def first(self, name: str, axis: Axis, number: int) -> Any:
        """A parameter's value in one of the first trials, by the trial's number."""
        believed = self.believed(name, axis)
        if axis.choices:
            if number < 2 and believed is not None:
                index = axis.encode(believed)
                return axis.decode(index if number == 0 else (index + 1) % axis.choices)
            return axis.decode(float(self.rng.integers(axis.choices)))
        if number == 0 and believed is not None:
            return believed
        # A Latin hypercube: each part of every scale once, in an order of its own.
        order = np.random.default_rng([self.salt, zlib.crc32(name.encode())]).permutation(self.startup)
        return axis.decode((order[number % self.startup] + self.rng.random()) / self.startup)

    def believed(self, name: str, axis: Axis) -> Any:
        """The reference's value of a parameter, or None if nothing is known of it."""
        if self.reference is not None:
            return self.reference.get(name)
        distribution = axis.distribution
        if isinstance(distribution, CategoricalDistribution) and set(distribution.choices) == {False, True}:
            return name in RANGER21 if name in registry else None
        return None


def fits(trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> bool:
    """Whether a trial has values for all parameters of a space, with distributions of the same kind."""
    for name, distribution in space.items():
        own = trial.distributions.get(name)
        if own is distribution:
            continue
        if type(own) is not type(distribution):
            return False
        if isinstance(distribution, CategoricalDistribution) and own != distribution:
            return False
    return True


def merits(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> list[float]:
    """A trial's values, higher is better: minus infinity if there are none, the last report of a pruned trial."""
    values: Sequence[float] = trial.values if trial.state != TrialState.FAIL and trial.values else []
    if not values and trial.state == TrialState.PRUNED and trial.intermediate_values and len(directions) == 1:
        values = [trial.intermediate_values[max(trial.intermediate_values)]]
    signed = [v if d == StudyDirection.MAXIMIZE else -v for v, d in zip(values, directions, strict=False)]
    if len(signed) < len(directions) or np.isnan(signed).any():
        return [-np.inf] * len(directions)
    return signed


def scalarized(values: Values, rng: np.random.Generator) -> Values:
    """Several objectives `[n, D]` as one, by random weights: the augmented Chebyshev norm of ParEGO (Knowles 2006)."""
    from scipy.stats import rankdata  # takes half a second, for which a search of one objective has no use

    if not len(values):
        return np.zeros(0)
    finite = np.isfinite(values).all(axis=1)
    ranks = rankdata(values, axis=0) / len(values) - 1
    parts = ranks * rng.dirichlet(np.ones(values.shape[1]))
    return np.where(finite, parts.min(axis=1) + 0.05 * parts.sum(axis=1), -np.inf)


def standardized(values: Values) -> Values:
    """Values with mean 0 and variance 1; those further below the median than the best is above it are raised first.

    A learning rate that is ten times too high costs more than all differences between subsets. Raised values are only
    known to be bad, and the model keeps its resolution for the good ones.
    """
    finite = np.isfinite(values)
    top, middle = values[finite].max(), float(np.median(np.where(finite, values, -np.inf)))
    middle = middle if np.isfinite(middle) else float(np.median(values[finite]))
    moved = np.maximum(values, middle - (top - middle))
    moved = np.where(np.isfinite(moved), moved, values[finite].min())
    spread = moved.std()
    scaled: Values = (moved - moved.mean()) / (spread if spread > 0 else 1.0)
    return scaled
