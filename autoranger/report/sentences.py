"""The report in sentences and cells of tables, for the terminal and the page."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence

from autoranger.report.reading import Report
from autoranger.report.standing import Standing
from autoranger.search.attribution import Effect
from autoranger.search.commands import program, resuming
from autoranger.search.ledger import ledger
from autoranger.search.numbers import unusual
from autoranger.search.race.baselines import DEFAULT, RANDOM, WORDS, called
from autoranger.search.space import changed_from, in_words
from autoranger.search.storage.sittings import State
from autoranger.search.storage.storage import JOURNAL
from autoranger.search.verdict.outcome import Comparison, Evidence, Finalist, Outcome
from autoranger.search.verdict.statistics import Difference

ROLES = dict.fromkeys(WORDS, "baseline") | {RANDOM: "best of random subsets"}
"""Roles of finalists, in words."""

STILL_AHEAD = 0.64
"""Share of the subsets ahead of a baseline at a proxy's length that are ahead of it at ten times that length."""

ENOUGH = 1_000
"""Validation examples whose choice decides less than seeds do: of 1,000 half a percent is five."""

LEAST_P = 1e-6
"""Smallest p that is shown. Differences of metrics follow a t distribution only roughly; its far tail says little."""

TRIALS = (
    "A trial is a subset of components with a learning rate. Its value is the metric on the fresh seeds of the "
    "verdict, or in the last round that it reached. Its intermediate values are its rounds, by training steps. The "
    "best trial is the exported config: what looked better without having been shown to be is pruned. With figures:"
)
"""How to read the trials of a study."""

SHARED = "shared"
"""What the components are called that long-named finalists have in common."""

FEW = 2
"""A name is long if it lists more components than this; what long names share gets a name if it is at least as many."""

READING = (
    "Main effect: the mean gain of switching a component on, over all subsets of the others. Shapley value: the same "
    "over all orders of switching on; the values add up to what all components gain together. Interaction: what a pair "
    "gains beyond its two effects. Every subset counts at its own best learning rate."
)


def verdict(exported: Finalist | None, evidence: Evidence | None, pending: str = "This search has no verdict.") -> str:
    """The verdict in a sentence, or what is said where there is none."""
    if exported is None or evidence is None:
        return pending
    if evidence.comparison is None:
        return without_comparison(exported, evidence)
    compared = evidence.comparison
    on = f"on {compared.against_default.seeds} fresh seeds, in trainings of {training_length(evidence)}"
    if DEFAULT in exported.roles:
        return (
            f"Nothing beats full Ranger21 significantly {on}: it is kept, with lr {exported.lr:g}. From the "
            f"best of the other baselines, {called(compared.rival)}, it differs by {interval(compared.against_best)}."
        )
    return f"{described(exported)}, lr {exported.lr:g}, beats {beaten(exported, compared, on)}"


def outlook(evidence: Evidence | None) -> str:
    """What to expect of longer trainings and other data; empty without a comparison of a proxy."""
    if evidence is None or evidence.comparison is None or evidence.settings.batch_size is None:
        return ""
    shared, few = evidence.comparison.shared, ""
    if shared is not None and shared < ENOUGH:
        few = (
            f"All seeds were scored on the same {shared:,} validation examples, and the intervals do not cover their "
            "choice. If examples are independent, resplit = True in the task gives each seed its own. "
        )
    return (
        f"{few}In trainings of ten times that length, what is ahead was still ahead in {STILL_AHEAD:.0%} of recorded "
        "cases (studies/22_forecast): autoranger compare … --full tells for yours."
    )


def beaten(exported: Finalist, compared: Comparison, on: str) -> str:
    """What the winner beats, and by how much: the best of the baselines, or else full Ranger21 only."""
    default = f"full Ranger21 by {interval(compared.against_default)}"
    other, best = "other baselines" if exported.roles else "baselines", interval(compared.against_best)
    rival = called(compared.rival)
    if compared.against_best.low <= 0:
        return f"{default} {on}, but not the best of the {other} significantly, {rival}: {best}."
    if compared.rival == DEFAULT:
        return f"full Ranger21, the best of the {other}, by {best} {on}."
    return f"the best of the {other}, {rival}, by {best} and {default} {on}."


def goes_on(report: Report) -> bool:
    """Whether a search has not come to an end: it runs, or can be continued."""
    return report.standing.state not in (State.FINISHED, State.FAILED)


def pending(report: Report) -> str:
    """Why a search has no verdict: it has failed, runs, or was interrupted."""
    if report.failure and report.standing.state is State.FAILED:
        return f"This search failed: {report.failure}"
    return f"{progress(report.standing)} {advice(report.standing)}:"


def progress(standing: Standing) -> str:
    """How far a search has got."""
    at = f"in {standing.stage.name}" if standing.stage else "before the first round"
    if standing.state is State.RUNNING:
        left = "" if standing.left is None else f", about {clock_time(standing.left)} left"
        return f"Running, {at}{left}."
    if standing.state is State.ELSEWHERE:
        return f"Running on another machine, or killed there, {at}."
    return f"Interrupted {at}." if standing.state is State.INTERRUPTED else f"{standing.state.capitalize()}."


def advice(standing: Standing) -> str:
    """What `next_command` is for."""
    if standing.state is State.INTERRUPTED:
        return "To continue it"
    return "To follow it" if standing.state in (State.RUNNING, State.ELSEWHERE) else "To see what was found"


def next_command(standing: Standing, place: str) -> str:
    """The command that is of use: to follow a search that runs, continue one that was interrupted, report another."""
    if standing.state is State.INTERRUPTED:
        begun = (
            standing.sittings[-1].command if standing.sittings else f"autoranger search --task {standing.settings.task}"
        )
        return resuming(begun, standing.study)
    verb = "watch" if standing.state in (State.RUNNING, State.ELSEWHERE) else "report"
    named = [] if place == JOURNAL else ["--storage", place]
    return f"{program()} {shlex.join([verb, standing.study, *named])}"


def began(standing: Standing) -> str:
    """When a search began."""
    return standing.sittings[0].began[:16].replace("T", " ") if standing.sittings else "?"


def clock_time(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def without_comparison(exported: Finalist, evidence: Evidence) -> str:
    """The verdict of a search that had no time for a comparison."""
    swept = evidence.sweep
    assert swept is not None
    first, last = swept.seeds
    more = (
        f"a comparison takes --budget {duration(swept.needed)} or more" if swept.needed else "a longer --budget tells"
    )
    return (
        f"There was no time for a comparison: {in_words(exported.components)} with lr {exported.lr:g}, the best of "
        f"{len(swept.lrs)} learning rates in trainings of {training_length(evidence)} on {seeds(last - first + 1)}. "
        f"Whether anything beats it, or it beats AdamW, is not known; {more}."
    )


def training_length(evidence: Evidence) -> str:
    """The length of the verdict's trainings."""
    steps, of = evidence.plan.steps, evidence.settings.steps
    return f"{steps} of the task's {of} steps" if steps < of else f"{steps} steps"


def duration(seconds: float) -> str:
    """Seconds as a budget, rounded up."""
    return f"{math.ceil(seconds / 5) * 5}s" if seconds <= 120 else f"{math.ceil(seconds / 60)}m"


def heading(report: Report) -> str:
    """The study, and what it searched, in a line."""
    settings = report.settings
    words = [f"task {settings.task}", f"{len(settings.components)} components", f"sampler {report.opening}"]
    words += [f"seed {settings.seed}"] + ([f"budget {settings.budget:g} s"] if settings.budget else [])
    return f"study '{report.study}' in {report.storage}: {', '.join(words)}"


def origin(report: Report) -> str:
    """When, where and by which command a search ran; a line for each sitting."""
    return "\n".join(
        f"{part.began[:16].replace('T', ' ')}, {part.machine}: {part.command}" for part in report.standing.sittings
    )


def added(name: str, finalists: Sequence[Finalist]) -> str:
    """How far a component got that was added to a search.

    >>> from types import SimpleNamespace as F
    >>> added("a", [F(components=names, exported=names == "b") for names in ("b", "ab", "a")])
    'a is not part of what is exported; the best finalist with it is number 2.'
    """
    if any(finalist.exported and name in finalist.components for finalist in finalists):
        return f"{name} is part of what is exported."
    places = [place for place, finalist in enumerate(finalists, start=1) if name in finalist.components]
    best = f"the best finalist with it is number {places[0]}" if places else "no finalist has it"
    return f"{name} is not part of what is exported; {best}."


def finalist_cells(finalists: Sequence[Finalist]) -> Iterator[tuple[str, ...]]:
    """Place, name, rate, valid, test, difference to full Ranger21, its p, that to the best baseline, trials, cost."""
    for place, finalist in enumerate(finalists, start=1):
        gain = finalist.against_default
        yield (
            f"{'→ ' if finalist.exported else ''}{place}",
            finalist_name(finalist),
            f"{finalist.lr:g}",
            metric(finalist.valid) + (f" ({finalist.diverged} diverged)" if finalist.diverged else ""),
            metric(finalist.test),
            interval(gain),
            "–" if gain is None or nothing(gain) else chance(gain.p),
            interval(finalist.against_best),
            "?" if finalist.trials is None else f"{finalist.trials}",
            "" if finalist.cost is None else f"{finalist.cost:.3g}{', on the front' if finalist.on_front else ''}",
        )


def finalist_name(finalist: Finalist) -> str:
    """A finalist's components, numbers and roles, in words."""
    return with_roles(in_words(finalist.components), finalist)


def with_roles(name: str, finalist: Finalist) -> str:
    """A name of a finalist, its numbers that are not the usual ones, and its roles."""
    roles = dict.fromkeys(ROLES[role] for role in finalist.roles if role in ROLES)
    return with_numbers(name, finalist) + (f" ({', '.join(roles)})" if roles else "")


def described(finalist: Finalist) -> str:
    """A finalist's components and numbers, in words."""
    return with_numbers(in_words(finalist.components), finalist)


def with_numbers(name: str, finalist: Finalist) -> str:
    """A name of a finalist, and its numbers that are not the usual ones."""
    return ", ".join([name, *(f"{k} {v}" for k, v in unusual(finalist.config).items())])


def told_apart(finalists: Sequence[Finalist]) -> tuple[list[str], list[str]]:
    """What finalists with long names share, if that makes them shorter, and the names of all, by what differs.

    >>> from types import SimpleNamespace as F
    >>> told_apart([F(components=names, roles=(), config={}) for names in ("abcx", "abcy", "")])
    (['a', 'b', 'c'], ['shared + x', 'shared + y', 'adamw'])
    """
    plain = [in_words(finalist.components) for finalist in finalists]
    long = [f.components for f, name in zip(finalists, plain, strict=True) if len(name.split()) > 2 * FEW]
    shared = [name for name in long[0] if all(name in other for other in long)] if len(long) > 1 else []
    if len(shared) < FEW:
        return [], [with_roles(name, f) for name, f in zip(plain, finalists, strict=True)]
    names = [" ".join([SHARED, *changed_from(shared, finalist.components)]) for finalist in finalists]
    shortest = [min(pair, key=lambda name: len(name.split())) for pair in zip(plain, names, strict=True)]
    return shared, [with_roles(name, f) for name, f in zip(shortest, finalists, strict=True)]


def legend(evidence: Evidence | None) -> str:
    """How to read the finalists' differences; empty without a comparison."""
    if evidence is None or evidence.comparison is None:
        return ""
    compared = evidence.comparison
    inside, beyond = compared.confidence, (1 - compared.confidence) / 2
    return (
        f"Means over {compared.against_default.seeds} fresh seeds, in trainings of {training_length(evidence)}. In "
        f"brackets: {inside:.0%} intervals of the difference on the same seeds, which hold for all "
        f"{compared.comparisons} rows together. A row is better where its whole interval is above 0; p, the chance of "
        f"such a difference by luck, is then below {beyond:.2g}. The best baseline is the one with the best mean, the "
        "row itself left out; an interval above 0 means that the row beats every one of them. Tried: the learning "
        "rates and other numbers with which the search has trained these components."
    )


def note(outcome: Outcome, report: str) -> str:
    """What optuna-dashboard shows above a study, in Markdown.

    Args:
        outcome: of the search.
        report: the command that reports it.
    """
    evidence, table = outcome.evidence, list[str]()
    if evidence.comparison is not None:
        head = (
            "",
            "optimizer",
            "lr",
            f"valid {evidence.settings.metric}",
            "test",
            "against Ranger21",
            "p",
            "against the best baseline",
            "tried",
        )
        rows = [head, ["---"] * len(head), *finalist_cells(outcome.finalists)]
        table = ["", *(f"| {' | '.join(row[: len(head)])} |" for row in rows), "", legend(evidence)]
    return "\n".join([f"**{verdict(outcome.exported, evidence)}**", *table, "", TRIALS, "", f"    {report}", ""])


def spent(report: Report) -> str:
    """The cost of the search, round by round."""
    cost = report.spent
    time = "" if cost.seconds is None else f" in {cost.seconds:.0f} s"
    rounds = "; ".join(
        f"{r['candidates']:,} candidates of {counted(r['arms'], 'subset')} for {r['steps']} steps on "
        f"{seeds(r['seeds'])}"
        for r in report.rounds
    )
    return f"{cost.work:,} candidate-steps{time}" + (f": {rounds}." if rounds else ".")


def basis(report: Report) -> str:
    """The sample of the attribution, or why there is no attribution."""
    sample = report.sample
    if report.attribution is None or sample is None:
        return f"No attribution: {report.missing}"
    made = sample.round
    failed = sum(map(math.isnan, sample.values))
    which = (
        f"seed {made.first_seed}"
        if made.seeds == 1
        else f"seeds {made.first_seed} to {made.first_seed + made.seeds - 1}"
    )
    alone = "this seed alone" if made.seeds == 1 else "these seeds alone"
    words = (
        f"In valid {report.metric} after {made.steps} steps on {which}, from {len(sample.values):,} candidates"
        f"{f' ({failed} diverged)' if failed else ''} by a Gaussian process; {report.attribution.confidence:.0%} "
        f"intervals {f'for {alone}' if sample.between is None else 'that allow for other seeds'}."
    )
    players = len(report.attribution.main)
    every = len(sample.components)
    return words + (
        f" Played among {players} of the space's {every} components, the others off." if players < every else ""
    )


def contribution_cells(report: Report) -> Iterator[tuple[str, str, str, str]]:
    """Component, Shapley value, main effect, and what it did on shipped tasks; the largest Shapley value first."""
    if report.attribution is not None:
        pairs = zip(report.attribution.shapley, report.attribution.main, strict=True)
        for shapley, main in sorted(pairs, key=lambda pair: -pair[0].effect):
            (name,) = shapley.components
            yield name, interval(shapley), interval(main), ledger().of(name)


def elsewhere() -> str:
    """What the last of `contribution_cells` is."""
    return (
        f"Elsewhere: what the component did on {', '.join(ledger().tasks)} when it was added to AdamW with warmup and "
        "cosine, as far as intervals can tell (studies/21_ledger)."
    )


def pair_cells(report: Report) -> Iterator[tuple[str, str]]:
    """Pair and interaction, the strongest first."""
    if report.attribution is not None:
        for effect in sorted(report.attribution.pairs, key=lambda e: -abs(e.effect)):
            yield " × ".join(effect.components), interval(effect)


def interval(found: Difference | Effect | None) -> str:
    """An effect with its interval; a dash where there is nothing to compare, a question mark where it is unknown."""
    if found is None:
        return "?"
    if nothing(found):
        return "–"
    return f"{found.effect:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def chance(p: float) -> str:
    """A p-value to two digits."""
    return f"{p:.2g}" if p >= LEAST_P else f"<{LEAST_P:g}"


def nothing(found: Difference | Effect) -> bool:
    """Whether this is the difference of something to itself."""
    return found.effect == found.low == found.high == 0.0


def metric(value: float) -> str:
    """A metric; a question mark where it is unknown."""
    return "?" if math.isnan(value) else f"{value:.4f}"


def seeds(count: int) -> str:
    """A number of seeds."""
    return counted(count, "seed")


def counted(count: int, thing: str) -> str:
    """A number of things."""
    return f"one {thing}" if count == 1 else f"{count} {thing}s"


def versions(evidence: Evidence) -> str:
    """The versions and the device of a search."""
    return ", ".join([*(f"{name} {v}" for name, v in evidence.versions.items()), f"on {evidence.settings.device}"])
