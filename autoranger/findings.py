"""What a search found out, read from its Optuna study alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.study import Study

from autoranger.components.core.errors import ConfigError, DataError, first_line
from autoranger.components.presets import RANGER21
from autoranger.search.attribution import Attribution, from_sample
from autoranger.search.attribution.sample import Sample, largest_sample, rounds
from autoranger.search.attribution.worth import MOST_SWITCHES
from autoranger.search.plain import plain
from autoranger.search.verdict.verdict import Difference

ROLES = {"default": "baseline", "adamw": "baseline", "random": "best of random subsets"}
"""What a finalist is besides a finalist, in words."""


@dataclass(frozen=True)
class Row:
    """A finalist as a study has it.

    Args:
        config: fields of its `Config`; the components need not be registered here.
        lr, components: the learning rate and what is on, from it.
        roles: of `ROLES`.
        valid, test: mean metric over the fresh seeds; NaN where unknown.
        diverged: seeds on which it diverged.
        against_default, against_plain: paired differences to full Ranger21 and to AdamW; None where unknown.
        exported: whether it is what the search recommends.
        cost: of its optimizer; None where the search did not ask.
        on_front: whether no other finalist is both better and no more expensive.
    """

    config: Mapping[str, Any]
    lr: float
    components: tuple[str, ...]
    roles: tuple[str, ...]
    valid: float
    test: float
    diverged: int
    against_default: Difference | None
    against_plain: Difference | None
    exported: bool
    cost: float | None
    on_front: bool

    @classmethod
    def of(cls, data: Mapping[str, Any], exported: Mapping[str, Any]) -> Row:
        """A finalist from plain data, and the config that has been exported."""
        return cls(
            config=data["config"],
            lr=float(data["config"]["lr"]),
            components=tuple(data["config"]["components"]),
            roles=tuple(data.get("roles", ())),
            valid=number(data.get("valid")),
            test=number(data.get("test")),
            diverged=int(data.get("diverged") or 0),
            against_default=difference(data.get("against_default")),
            against_plain=difference(data.get("against_plain")),
            exported=same(data["config"], exported),
            cost=data.get("cost"),
            on_front=bool(data.get("on_front")),
        )


@dataclass(frozen=True)
class Findings:
    """What a study says.

    Args:
        study, storage: where it is.
        opening: who chose what the first round trained; empty where unknown.
        settings: of the search.
        evidence: of the exported config; empty without a verdict.
        rows: the finalists, best first; none without a verdict.
        work: candidate-steps trained.
        seconds: how long the search took; None where unknown.
        rounds: of the race: `{steps, seeds, candidates, arms}` each.
        sample: the round that most candidates share; None where there is no trial.
        attribution: of the metric in that round to the components; None where there is no model.
        missing: why there is no attribution.
        failure: why the search has nothing to recommend; empty where it has, or has not ended.
    """

    study: str
    storage: str
    opening: str
    settings: Mapping[str, Any]
    evidence: Mapping[str, Any]
    rows: Sequence[Row]
    work: int
    seconds: float | None
    rounds: Sequence[Mapping[str, int]]
    sample: Sample | None
    attribution: Attribution | None
    missing: str
    failure: str = ""

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str(self.evidence.get("metric", self.settings.get("metric", "metric")))

    @property
    def exported(self) -> Row | None:
        """The finalist that the search recommends."""
        return next((row for row in self.rows if row.exported), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is unknown or not finite is None."""
        exported = self.exported
        document = {
            "study": self.study,
            "storage": self.storage,
            "settings": dict(self.settings),
            "verdict": self.evidence.get("verdict"),
            "failure": self.failure or None,
            "config": None if exported is None else dict(exported.config),
            "evidence": dict(self.evidence),
            "finalists": [asdict(row) for row in self.rows],
            "spent": {"seconds": self.seconds, "work": self.work, "rounds": [dict(r) for r in self.rounds]},
            "attribution": self.attribution_dict(),
        }
        finite: dict[str, Any] = plain(document)
        return finite

    def attribution_dict(self) -> dict[str, Any]:
        """The attribution with all pairs, and what it was made from; why there is none where there is none."""
        if self.attribution is None or self.sample is None:
            return {"missing": self.missing}
        made_from = asdict(self.sample.round) | {"candidates": len(self.sample.values), "metric": self.metric}
        made_from["variance_between_seeds"] = self.sample.between
        found: dict[str, Any] = plain(made_from | {"model": "Gaussian process"} | self.attribution.to_dict())
        return found


def findings(study: Study, place: str) -> Findings:
    """What a study says, with the attribution worked out: seconds for a thousand candidates.

    Raises:
        DataError: where the study's attributes are not what a search writes.
    """
    try:
        return read(study, place)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise DataError(
            f"study '{study.study_name}' is damaged or of another version ({type(error).__name__}: "
            f"{first_line(error)}); search anew."
        ) from None


def read(study: Study, place: str) -> Findings:
    """`findings` without its errors."""
    noted = study.user_attrs
    settings = {name: noted["settings"][name] for name in ("task", "seed", "components")} | noted["settings"]
    exported = dict(noted.get("outcome", {}))
    evidence = exported.pop("evidence", {})
    if evidence and "finalists" in noted:  # the outcome is written last
        rows = [Row.of(data, exported) for data in noted["finalists"]]
    else:
        rows = list(rows_from_evidence(exported, evidence)) if evidence else []
    trained = rounds(study.get_trials(deepcopy=False))
    work = sum(r["steps"] * r["seeds"] * r["candidates"] for r in trained)
    if evidence.get("comparisons"):
        work += (evidence["comparisons"] + 1) * evidence["against_default"]["seeds"] * evidence["plan"]["steps"]
    spent = {"seconds": None, "work": work} | noted.get("spent", {})
    sample, attribution, missing = None, None, ""
    try:
        sample = largest_sample(study)
        attribution = from_sample(sample, players(sample, exported.get("components", ())))
    except ConfigError as error:
        missing = str(error)
    return Findings(
        study=study.study_name,
        storage=place,
        opening=str(noted.get("opening", "")),
        settings=settings,
        evidence=evidence,
        rows=rows,
        work=int(spent["work"]),
        seconds=spent["seconds"],
        rounds=trained,
        sample=sample,
        attribution=attribution,
        missing=missing,
        failure=str(noted.get("failure", "")),
    )


def players(sample: Sample, exported: Sequence[str]) -> list[str]:
    """The components among which the metric is divided: all, or in a large space those that are exported."""
    if len(sample.components) <= MOST_SWITCHES:
        return list(sample.components)
    return [name for name in sample.components if name in (exported or RANGER21)][:MOST_SWITCHES]


def rows_from_evidence(exported: Mapping[str, Any], evidence: Mapping[str, Any]) -> Iterator[Row]:
    """What older studies know of their finalists: the exported one and the baselines, best first."""
    default = {**exported, "lr": evidence["default"]["lr"], "components": {n: {} for n in defaults(evidence)}}
    kept = set(exported["components"]) == set(default["components"])
    plain_ = {**exported, "lr": evidence["adamw"]["lr"], "components": {}}
    best = {"config": exported, "valid": evidence["valid"], "test": evidence["test"]}
    best |= {"against_default": evidence["against_default"], "against_plain": evidence["against_adamw"]}
    zero = asdict(Difference(0.0, 0.0, 0.0, 1.0, evidence["against_default"]["seeds"]))
    found = [best | {"roles": ["default"] * kept + ["adamw"] * (not exported["components"])}]
    if not kept:
        found.append({"config": default, "roles": ["default"], **evidence["default"], "against_default": zero})
    if exported["components"]:
        found.append({"config": plain_, "roles": ["adamw"], **evidence["adamw"], "against_plain": zero})
    for data in sorted(found, key=lambda data: -number(data["valid"])):
        yield Row.of(data, exported)


def defaults(evidence: Mapping[str, Any]) -> list[str]:
    """The components of full Ranger21 that the search could choose."""
    return [name for name in RANGER21 if name in evidence["components"]]


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configs are the same candidate."""
    return bool(other) and one["lr"] == other["lr"] and set(one["components"]) == set(other["components"])


def number(value: Any) -> float:
    """A number of a study; NaN where it is unknown."""
    return math.nan if value is None else float(value)


def difference(data: Mapping[str, Any] | None) -> Difference | None:
    """A difference of a study; None where it is unknown."""
    if data is None or data.get("effect") is None:
        return None
    effect, low, high, p = (number(data[key]) for key in ("effect", "low", "high", "p"))
    return Difference(effect, low, high, p, int(data["seeds"]))
