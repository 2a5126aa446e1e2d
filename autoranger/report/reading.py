"""Reads the report of a search from its Optuna study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.study import Study

from autoranger.components.core.config import EVIDENCE
from autoranger.components.core.errors import ConfigError, DataError
from autoranger.components.presets import RANGER21
from autoranger.report.standing import Race, Standing, race_of, read_standing
from autoranger.search.attribution import Attribution, from_sample
from autoranger.search.attribution.sample import Sample, largest_sample, rounds
from autoranger.search.attribution.worth import MOST_SWITCHES
from autoranger.search.serialization import from_data, to_json
from autoranger.search.storage.curves import Curve, known_curves, reported_curves
from autoranger.search.storage.sittings import State
from autoranger.search.verdict.outcome import Evidence, Finalist, Settings

PROXY = "proxy"
"""The table of a config that describes the model that it was found with."""


@dataclass(frozen=True)
class Attributes:
    """The attributes that a search writes into its study; those that it has not written yet are None.

    Args:
        settings: of the search.
        opening: what chooses the first round's candidates: "grid", or the name of a sampler.
        finalists: of the verdict.
        spent: candidate-steps and seconds.
        outcome: the exported config and its evidence. It is written last: with it the search is finished.
        failure: why the search has failed.
    """

    settings: Settings
    opening: str | None
    finalists: tuple[Finalist, ...] | None
    spent: Spent | None
    outcome: Exported | None
    failure: str | None


@dataclass(frozen=True)
class Exported:
    """The evidence beside the exported config, which is also among the finalists."""

    evidence: Evidence


@dataclass(frozen=True)
class Spent:
    """The cost of a search.

    Args:
        work: candidate-steps trained.
        seconds: how long it took; None if unknown, as for a search that was resumed.
    """

    work: int
    seconds: float | None


@dataclass(frozen=True)
class Report:
    """The report of a search.

    Args:
        study, storage: names of the study and its storage.
        opening: what chose the first round's candidates: "grid", or the name of a sampler.
        settings: of the search.
        evidence: of the exported config; None without a verdict.
        finalists: best first; empty without a verdict.
        spent: by the search, or so far by its race.
        rounds: of the race, `{steps, seeds, candidates, arms}` each.
        sample: the round with the most candidates; None if there is no trial.
        attribution: of the metric in that round to the components; None if there are too few results for it.
        missing: why there is no attribution.
        failure: why the search has failed; None if it has not.
        standing: whether it runs, how far it is, when and where it ran.
        race: the rounds of the race, with the mean metric of each candidate.
        curves: of the finalists in the verdict, in their order; empty if they are not known.
        reported: whether the curves are of what a training of one's own reported, whatever that is.
        config: the exported config, as in the file; None without a verdict.
    """

    study: str
    storage: str
    opening: str
    settings: Settings
    evidence: Evidence | None
    finalists: Sequence[Finalist]
    spent: Spent
    rounds: Sequence[Mapping[str, int]]
    sample: Sample | None
    attribution: Attribution | None
    missing: str
    failure: str | None
    standing: Standing
    race: Race
    curves: Sequence[Curve]
    reported: bool
    config: Mapping[str, Any] | None

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return self.settings.metric

    @property
    def exported(self) -> Finalist | None:
        """The finalist that the search recommends."""
        return next((finalist for finalist in self.finalists if finalist.exported), None)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON; what is unknown or not finite is None."""
        document = {
            "study": self.study,
            "storage": self.storage,
            "settings": asdict(self.settings),
            "verdict": None if self.evidence is None else self.evidence.verdict,
            "failure": self.failure,
            "state": self.standing.state,
            "sittings": [asdict(sitting) for sitting in self.standing.sittings],
            "config": self.config,
            "evidence": None if self.evidence is None else self.evidence.to_dict(),
            "finalists": [asdict(finalist) for finalist in self.finalists],
            "spent": asdict(self.spent) | {"rounds": list(self.rounds)},
            "curves": [asdict(curve) for curve in self.curves],
            "attribution": self.attribution_dict(),
        }
        finite: dict[str, Any] = to_json(document)
        return finite

    def attribution_dict(self) -> dict[str, Any]:
        """The attribution with all pairs, and its sample; or the reason why there is none."""
        if self.attribution is None or self.sample is None:
            return {"missing": self.missing}
        made_from = asdict(self.sample.round) | {
            "candidates": len(self.sample.values),
            "metric": self.settings.metric,
            "variance_between_seeds": self.sample.between,
            "model": "Gaussian process",
        }
        found: dict[str, Any] = to_json(made_from | self.attribution.to_dict())
        return found


def read_report(study: Study, place: str, runs: Study | None = None) -> Report:
    """Reads a study, and computes the attribution, which takes seconds for a thousand candidates.

    Args:
        study: of the search.
        place: its storage, as it may be shown.
        runs: the study of its single trainings, if they are of a function of one's own.

    Raises:
        DataError: if the study's attributes are not what a search of this version writes.
    """
    try:
        attributes, standing = from_data(Attributes, study.user_attrs, "study"), read_standing(study)
    except ConfigError as error:
        name = study.study_name
        raise DataError(f"study '{name}' is damaged or of another version: {error} Search anew.") from None
    evidence = None if attributes.outcome is None else attributes.outcome.evidence
    finalists = () if evidence is None else attributes.finalists or ()
    exported = next((finalist.components for finalist in finalists if finalist.exported), ())
    trained = rounds(study.get_trials(deepcopy=False))
    sample, attribution, missing = None, None, ""
    try:
        sample = largest_sample(study)
        attribution = from_sample(sample, players(sample, exported))
    except ConfigError as error:
        missing = str(error)
    return Report(
        study=study.study_name,
        storage=place,
        opening=attributes.opening or attributes.settings.sampler,
        settings=attributes.settings,
        evidence=evidence,
        finalists=finalists,
        spent=spent(attributes.spent, trained, standing),
        rounds=trained,
        sample=sample,
        attribution=attribution,
        missing=missing,
        failure=attributes.failure,
        standing=standing,
        race=race_of(study, attributes.settings.seed),
        curves=curves_of(study, finalists, evidence, runs),
        reported=runs is not None,
        config=exported_config(study),
    )


def exported_config(study: Study) -> dict[str, Any] | None:
    """The config that a search has exported, without the evidence for it; None before."""
    outcome = study.user_attrs.get("outcome")
    return outcome and {key: value for key, value in outcome.items() if key != EVIDENCE}


def curves_of(
    study: Study, finalists: Sequence[Finalist], evidence: Evidence | None, runs: Study | None
) -> list[Curve]:
    """The finalists' curves, in their order; none unless there is one for each."""
    curves = known_curves(study)
    if runs is not None and evidence is not None and evidence.comparison is not None:
        first, last = evidence.comparison.seeds
        curves = reported_curves(runs, range(first, last + 1))
    known = {identity(curve.config): curve for curve in curves}
    found = [known.get(identity(finalist.config)) for finalist in finalists]
    return [curve for curve in found if curve is not None] if None not in found else []


def identity(config: Mapping[str, Any]) -> str:
    """A config as a text, without the model that it was found with, which trainings do not depend on."""
    return json.dumps(to_json({key: value for key, value in config.items() if key != PROXY}), sort_keys=True)


def spent(found: Spent | None, rounds: Sequence[Mapping[str, int]], standing: Standing) -> Spent:
    """What a search has cost: as it says itself, and otherwise by its rounds and sittings."""
    work = sum(r["steps"] * r["seeds"] * r["candidates"] for r in rounds) if found is None else found.work
    known = None if found is None else found.seconds
    return Spent(work, standing.seconds if known is None and standing.state is not State.RUNNING else known)


def players(sample: Sample, exported: Sequence[str]) -> list[str]:
    """The components of the attribution: all, or in a large space those of the exported config."""
    if len(sample.components) <= MOST_SWITCHES:
        return list(sample.components)
    return [name for name in sample.components if name in (exported or RANGER21)][:MOST_SWITCHES]
