"""What a search returns and writes: its settings, the finalists, and the evidence that goes with the exported config.

The exported file has the evidence as a table; the study's attributes have all of it. `Evidence.read` reads and checks
both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoranger.components.core.config import EVIDENCE, Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.race.baselines import DEFAULT
from autoranger.search.race.plan import Plan
from autoranger.search.serialization import from_data, to_toml
from autoranger.search.verdict.statistics import Difference


@dataclass(frozen=True)
class Settings:
    """What a search was asked for. It resumes only with the same settings.

    Args:
        task: its name.
        metric: name of what is maximised.
        steps, batch_size, lr_range: of the proxy trainings; a user's own training has no batch size.
        device: type of the device.
        seed: of all random numbers.
        budget: seconds; None for no limit.
        sampler, objective: by name.
        cost: by name; None if it does not matter.
        components: ids of the space's components.
        refine: whether the leaders' numbers are refined, if the plan has room for it.
    """

    task: str
    metric: str
    steps: int
    batch_size: int | None
    lr_range: tuple[float, float]
    device: str
    seed: int
    budget: float | None
    sampler: str
    objective: str
    cost: str | None
    components: tuple[str, ...]
    refine: bool = True


@dataclass(frozen=True)
class Finalist:
    """A candidate of the verdict.

    Args:
        config: the fields of its `Config`, with its best learning rate of the race. Its components need not be
            registered, so that a study can be read without them.
        exported: whether it is what the search recommends.
        roles: of the baselines, those that it is (see `baselines`).
        valid, test: mean metric over the fresh seeds. Test data are used only here, and decide nothing.
        diverged: seeds on which the training diverged.
        against_default, against_adamw: paired differences of the validation metric to full Ranger21 and to AdamW, each
            at its own best learning rate; None without a comparison.
        against_best: likewise to the best of the baselines, itself left out (see `statistics.against_best`).
        rival: the role of that one.
        cost: of its optimizer; None if the search does not look at it.
        on_front: whether no other finalist is both better and no more expensive; None if there is no cost.
        trials: number of candidates with its components that were trained before the verdict, which it is the best of:
            one for each learning rate and, if it has numbers of its own, for each variant; None if that is not known.
    """

    config: Mapping[str, Any]
    exported: bool
    roles: tuple[str, ...]
    valid: float
    test: float
    diverged: int
    against_default: Difference | None
    against_adamw: Difference | None
    against_best: Difference | None = None
    rival: str | None = None
    cost: float | None = None
    on_front: bool | None = None
    trials: int | None = None

    def __post_init__(self) -> None:
        lr, components = self.config.get("lr"), self.config.get("components")
        if not isinstance(lr, float | int) or not isinstance(components, Mapping):
            raise ConfigError("the config of a finalist must have lr and components.")

    @property
    def lr(self) -> float:
        """The learning rate."""
        return float(self.config["lr"])

    @property
    def components(self) -> tuple[str, ...]:
        """Ids of the components that are on."""
        return tuple(self.config["components"])


@dataclass(frozen=True)
class Baseline:
    """A baseline of the comparison: its best learning rate, and its mean metric over the fresh seeds."""

    lr: float
    valid: float
    test: float


@dataclass(frozen=True)
class Comparison:
    """How the exported config compares with the other finalists on fresh seeds.

    Args:
        opening: what chose the first round's candidates: "grid", or the name of a sampler.
        seeds: the first and the last of the fresh seeds.
        comparisons: their number; the intervals hold for all of them together.
        confidence: of the intervals, both ends together.
        valid, test: mean metric of the exported config.
        baselines: by role.
        against_default, against_adamw: how much better the exported config is than these.
        against_best: how much better it is than the best of the baselines, itself left out.
        rival: the role of that one.
        shared: number of validation examples on which all seeds were scored; None if each seed had its own, or if that
            is not known.
    """

    opening: str
    seeds: tuple[int, int]
    comparisons: int
    confidence: float
    valid: float
    test: float
    baselines: Mapping[str, Baseline]
    against_default: Difference
    against_adamw: Difference
    against_best: Difference
    rival: str
    shared: int | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep of full Ranger21's learning rate: all that is known without a comparison.

    Args:
        seeds: the first and the last of the seeds.
        lrs: the rates.
        valid: mean metric at each rate; NaN if all trainings diverged.
        needed: budget in seconds that a comparison would take; None if that is not known.
    """

    seeds: tuple[int, int]
    lrs: tuple[float, ...]
    valid: tuple[float, ...]
    needed: float | None


@dataclass(frozen=True)
class Evidence:
    """What a search says about the config that it exports: what was trained, and how certain the verdict is.

    Args:
        verdict: in words.
        settings: of the search.
        plan: what was trained, which may be less than planned.
        versions: of Python and of the packages, by name.
        comparison: of the finalists; None if there was no time for it.
        sweep: what there is instead of a comparison; otherwise None.
    """

    verdict: str
    settings: Settings
    plan: Plan
    versions: Mapping[str, str]
    comparison: Comparison | None = None
    sweep: Sweep | None = None

    def __post_init__(self) -> None:
        if (self.comparison is None) == (self.sweep is None):
            raise ConfigError(f"{EVIDENCE} must have a comparison or a sweep, one of them.")

    @classmethod
    def read(cls, data: Any) -> Evidence:
        """Reads the evidence of a config file or a study; raises ConfigError if it is not what a search writes."""
        return from_data(cls, data, EVIDENCE)

    def to_dict(self) -> dict[str, Any]:
        """The evidence as plain data for a file, without what is not known."""
        return to_toml(self)


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Args:
        config: to be exported: the winner, or the default if nothing beats it significantly or there was no time for a
            comparison.
        finalists: best validation metric first. They include the baselines (see `baselines`), each with the same sweep
            of learning rates as all others; that of random candidates is the best of all in the first round, or of half
            of them if a sampler chose the others. Without a comparison there is only the default, without a metric.
        evidence: for the exported file.
        seconds: how long the search took.
        work: candidate-steps trained.
    """

    config: Config
    finalists: list[Finalist]
    evidence: Evidence
    seconds: float
    work: int

    @property
    def exported(self) -> Finalist:
        """The finalist whose config is exported."""
        return next(finalist for finalist in self.finalists if finalist.exported)

    @property
    def default_kept(self) -> bool:
        """Whether what is exported is the default."""
        return DEFAULT in self.exported.roles
