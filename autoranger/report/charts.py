"""The report's figures: as SVG files, and embedded in a page that may be light or dark."""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit

from autoranger.components.core.component import Settings, Stage, registry
from autoranger.components.core.config import Config
from autoranger.components.presets import RANGER21
from autoranger.figures import canvas
from autoranger.report.reading import Report
from autoranger.report.sentences import described
from autoranger.report.standing import Race
from autoranger.search.arrays import Values
from autoranger.search.attribution import Attribution, Effect
from autoranger.search.attribution.sample import Sample
from autoranger.search.race.baselines import RANDOM
from autoranger.search.space import in_words
from autoranger.search.storage.curves import Curve
from autoranger.search.verdict.outcome import Finalist

INK = "#1f2328"
"""Text and axes; on a page the colour of its text."""

BLUE, ORANGE, GREY = "#2f7fc1", "#d9622b", "#8a8a8a"
"""Colours that differ for every kind of colour vision, and show on white as on black."""

LINES = (BLUE, ORANGE, "#1b9e77", "#b8860b", "#a05fb0", GREY)
MARKERS = "osD^vP"
"""Markers of finalists, so that they differ without colour."""

WIDTH = 6.4
"""Inches of every figure: readable when a phone shrinks it by half."""

Figure = Any
"""A `matplotlib.figure.Figure`; Matplotlib is imported when a figure is drawn."""


def figures(report: Report) -> dict[str, tuple[str, Callable[[], Figure]]]:
    """The figures for which a study has data: by file name a description and a function that draws the figure."""
    found: dict[str, tuple[str, Callable[[], Figure]]] = {}
    known = [finalist for finalist in report.finalists if finalist.against_default]
    if len(known) > 1:
        words = f"Finalists: difference in valid {report.metric} to full Ranger21, with intervals."
        found["finalists"] = words, lambda: draw_finalists(known, report.metric)
    if report.curves and len(report.curves[0].steps) > 1:
        shown = "value that trainings reported" if report.reported else f"valid {report.metric}"
        words = f"Learning curves of the finalists: mean {shown} over the fresh seeds."
        found["curves"] = words, lambda: draw_curves(report.curves, list(leaders(report)), shown)
    if report.exported is not None and (shapes := schedules(report.exported)):
        words = f"The learning rate over a training: {', '.join(shapes)}."
        found["schedule"] = words, lambda: draw_schedules(shapes)
    if len(report.race) > 1:
        words = f"The race, round by round: valid {report.metric} of every subset at its best learning rate."
        found["race"] = words, lambda: draw_race(report.race, leaders(report), report.metric)
    if report.sample is not None and np.isfinite(report.sample.values).any():
        sample = report.sample
        words = f"Every candidate of a round: valid {report.metric} against the learning rate."
        found["rates"] = words, lambda: draw_rates(sample, leaders(report), report.metric)
    if report.attribution is not None:
        attribution = report.attribution
        words = f"What each component contributes to valid {report.metric}, with intervals."
        found["contributions"] = words, lambda: draw_contributions(attribution, report.metric)
        if attribution.pairs:
            words = f"Interactions of pairs of components in valid {report.metric}."
            found["interactions"] = words, lambda: draw_interactions(attribution, report.metric)
    return found


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's settings: text stays text, and the same data give the same file."""
    from matplotlib import rc_context

    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: dict[Any, Any] = {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "autoranger"}
    settings.update(dict.fromkeys(inked, INK))
    with rc_context(settings):
        yield


def render(draw: Callable[[], Figure], *, words: str = "", transparent: bool = False) -> str:
    """A figure as an SVG document, with a description of it."""
    canvas(1, 1)  # says what is missing where Matplotlib is
    with style(), io.StringIO() as file:
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type")) | ({"Title": words} if words else {})
        draw().savefig(file, format="svg", transparent=transparent, metadata=metadata)
        return file.getvalue()


def embed(svg: str, name: str, words: str) -> str:
    """An SVG document as an element of a page: in the page's text colour, with unique ids and a description."""
    element = svg[svg.index("<svg") :].replace(INK, "currentColor")
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(url\(|href=")#', rf"\1#{name}-", element)
    # The size comes from the page.
    element = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", re.sub(r' height="[^"]*"', "", element, count=1))
    return element.replace("<svg", f'<svg role="img" aria-label="{html.escape(words)}"', 1)


def literal(text: str) -> str:
    """Text escaped so that Matplotlib finds no formula in it."""
    return text.replace("$", r"\$")


def leaders(report: Report) -> dict[str, tuple[str, ...]]:
    """The subsets to draw as lines, by label: the finalists, or the three best so far."""
    subsets = [finalist.components for finalist in report.finalists]
    if not subsets and report.sample is not None:
        best = np.argsort(-np.nan_to_num(report.sample.values, nan=-np.inf))
        subsets = [tuple(subset) for subset in dict.fromkeys(report.sample.subsets[i] for i in best)][:3]
    return {f"{place}  {shorten(in_words(subset))}": subset for place, subset in enumerate(subsets, start=1)}


def shorten(words: str, most: int = 75) -> str:
    """Words cut to a length."""
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def draw_finalists(finalists: list[Finalist], metric: str) -> Figure:
    """Differences to full Ranger21 with their intervals, the best finalist at the top, each below its name."""
    names = [textwrap.wrap(f"{described(f)}, lr {f.lr:g}{' ← exported' if f.exported else ''}", 88) for f in finalists]
    # The vertical axis is in inches: an entry is as high as its name is long.
    ys = -np.cumsum([0.34 + 0.135 * len(lines) for lines in names])
    figure, axes = canvas(WIDTH, 0.75 - ys[-1])
    for finalist, lines, y in zip(finalists, names, ys, strict=True):
        difference = finalist.against_default
        assert difference is not None
        colour = BLUE if finalist.exported else GREY if set(finalist.roles) - {RANDOM} else ORANGE
        reach = np.nan_to_num([[difference.effect - difference.low], [difference.high - difference.effect]])
        axes.errorbar(difference.effect, y, xerr=reach, fmt="o", color=colour, capsize=3, markersize=7, linewidth=2)
        axes.vlines(0, y - 0.1, y + 0.1, color=INK, linewidth=0.9, zorder=0)  # in pieces: names stand between them
        axes.text(
            0, y + 0.13, literal("\n".join(lines)), transform=axes.get_yaxis_transform(), fontsize=8, linespacing=1.1,
            fontweight="bold" if finalist.exported else "normal",
        )  # fmt: skip
    axes.set_ylim(ys[-1] - 0.2, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(literal(f"difference in valid {metric} to full Ranger21 (right: better)"))
    return figure


def schedules(exported: Finalist) -> dict[str, Values]:
    """The learning rate of each step of a training of 200, of the exported config and of full Ranger21 at that rate.

    Empty if the exported config leaves the rate alone, or if a component is not known on this machine.
    """
    known = [name for name in exported.components if name in registry]
    rates = {name: exported.config["components"][name] for name in known if registry[name].stage is Stage.RATE}
    if not rates or len(known) < len(exported.components):
        return {}
    default: dict[str, Settings] = {name: {} for name in RANGER21 if registry[name].stage is Stage.RATE}
    chosen, full = {"exported": Config(lr=exported.lr, components=rates)}, Config(lr=exported.lr, components=default)
    if full != chosen["exported"]:
        chosen["Ranger21"] = full
    return {name: rate(config) for name, config in chosen.items()}


def rate(config: Config, steps: int = 200) -> Values:
    """The learning rate of each step."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    optimizer, found = config.build([parameter], total_steps=steps, compile=False), []
    for _ in range(steps):
        optimizer.step()
        found.append(float(optimizer.get_last_lr()[0]))
    return np.array(found)


def draw_schedules(shapes: Mapping[str, Values]) -> Figure:
    """Learning rates over a training."""
    figure, axes = canvas(WIDTH, 2.6)
    for (name, values), colour, line in zip(shapes.items(), (BLUE, GREY), ("-", "--"), strict=False):
        axes.plot(np.linspace(0, 100, len(values)), values, line, color=colour, linewidth=2, label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("% of a training")
    axes.set_ylabel("learning rate")
    figure.legend(loc="outside upper right", fontsize=9, frameon=False, ncols=2)
    return figure


def draw_curves(curves: Sequence[Curve], names: Sequence[str], shown: str) -> Figure:
    """Means of what is `shown` on the way through a training, with 95% intervals of the means as bands."""
    figure, axes = canvas(WIDTH, 4.4)
    low, high = np.inf, -np.inf
    for curve, name, colour, marker in zip(curves, names, LINES, MARKERS, strict=False):
        mean, seeds = np.array(curve.mean), np.maximum(curve.seeds, 2)
        half = stdtrit(seeds - 1, 0.975) * np.nan_to_num(curve.deviation) / np.sqrt(seeds)
        axes.fill_between(curve.steps, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
        axes.plot(curve.steps, mean, color=colour, marker=marker, markersize=4, linewidth=1.6, label=literal(name))
        later = mean[len(mean) // 4 :]
        low, high = min(low, np.nanmin(later, initial=np.inf)), max(high, np.nanmax(later, initial=-np.inf))
    if np.isfinite([low, high]).all():
        margin = 0.05 * (high - low or 1)
        axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("steps")
    axes.set_ylabel(literal(shown))
    figure.legend(loc="outside lower left", fontsize=8.5, frameon=False, ncols=1)
    return figure


def draw_race(race: Race, lines: Mapping[str, tuple[str, ...]], metric: str) -> Figure:
    """The rounds from left to right: every subset as a dot at its best learning rate, some as lines."""
    figure, axes = canvas(WIDTH, 4.4)
    best = [by_subset(candidates) for candidates in race.values()]
    jitter = np.random.default_rng(0)
    for place, found in enumerate(best):
        xs = place + jitter.uniform(-0.18, 0.18, len(found))
        label = "every subset at its best learning rate" if place == 0 else None
        axes.scatter(xs, list(found.values()), s=9, color=GREY, alpha=0.5, linewidths=0, label=label)
    for (name, subset), colour, marker in zip(lines.items(), LINES, MARKERS, strict=False):
        known = [(place, found[frozenset(subset)]) for place, found in enumerate(best) if frozenset(subset) in found]
        if known:
            places, values = zip(*known, strict=True)
            axes.plot(places, values, color=colour, marker=marker, markersize=5, linewidth=1.6, label=literal(name))
    low = min(np.quantile(list(found.values()), 0.25) for found in best if found)
    high = max(max(found.values()) for found in best if found)
    axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
    names = [
        f"round {place}\n{r.steps} steps, {r.seeds} seed{'s' * (r.seeds > 1)}\n{len(found)} subsets"
        for place, (r, found) in enumerate(zip(race, best, strict=True), start=1)
    ]
    axes.set_xticks(range(len(best)), names)
    axes.set_ylabel(literal(f"valid {metric}"))
    figure.legend(loc="outside lower left", fontsize=8.5, frameon=False, ncols=1)
    return figure


def by_subset(candidates: Mapping[tuple[frozenset[str], float], float]) -> dict[frozenset[str], float]:
    """The value of each subset at its best learning rate, without those that diverged at every one."""
    found: dict[frozenset[str], float] = {}
    for (subset, _), value in candidates.items():
        if np.isfinite(value):
            found[subset] = max(value, found.get(subset, value))
    return found


def draw_rates(sample: Sample, lines: Mapping[str, tuple[str, ...]], metric: str) -> Figure:
    """Every candidate of a round as a dot, some subsets as lines over the learning rate."""
    figure, axes = canvas(WIDTH, 4.4)
    finite = np.isfinite(sample.values)
    jitter = np.random.default_rng(0).uniform(-0.06, 0.06, len(sample.lrs))
    axes.scatter(
        (sample.lrs * 10**jitter)[finite], sample.values[finite], s=9, color=GREY, alpha=0.5, linewidths=0,
        label="every candidate",
    )  # fmt: skip
    for (name, subset), colour, marker in zip(lines.items(), LINES, MARKERS, strict=False):
        mine = np.array([s == frozenset(subset) for s in sample.subsets]) & finite
        order = np.argsort(sample.lrs[mine])
        if mine.any():
            xs, ys = sample.lrs[mine][order], sample.values[mine][order]
            axes.plot(xs, ys, color=colour, marker=marker, markersize=5, linewidth=1.6, label=literal(name))
    low, high = np.quantile(sample.values[finite], [0.25, 1.0])
    axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel(literal(f"valid {metric} after {sample.round.steps} steps"))
    figure.legend(loc="outside lower left", fontsize=8.5, frameon=False, ncols=1)
    return figure


def draw_contributions(attribution: Attribution, metric: str) -> Figure:
    """Shapley values and main effects with their intervals, the largest Shapley value at the top."""
    order = sorted(range(len(attribution.shapley)), key=lambda i: attribution.shapley[i].effect)
    figure, axes = canvas(WIDTH, 1.3 + 0.42 * len(order))
    kinds = (
        ("Shapley value", attribution.shapley, BLUE, "o", 0.13),
        ("main effect", attribution.main, ORANGE, "s", -0.13),
    )
    for name, effects, colour, marker, shift in kinds:
        chosen = [effects[i] for i in order]
        centers = [e.effect for e in chosen]
        reach = [[e.effect - e.low for e in chosen], [e.high - e.effect for e in chosen]]
        axes.errorbar(
            centers, np.arange(len(order)) + shift, xerr=reach, fmt=marker, color=colour, markersize=5, linewidth=1.6,
            label=name,
        )  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(order)), [literal(attribution.shapley[i].components[0]) for i in order])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(literal(f"contribution to valid {metric}"))
    figure.legend(loc="outside upper right", fontsize=9, frameon=False, ncols=2)
    return figure


def draw_interactions(attribution: Attribution, metric: str) -> Figure:
    """Interactions of all pairs as a symmetric map; a frame around those whose interval leaves out 0."""
    names = [effect.components[0] for effect in attribution.main]
    n = len(names)
    effects: dict[tuple[int, int], Effect] = {}
    for effect in attribution.pairs:
        i, j = (names.index(name) for name in effect.components)
        effects[i, j] = effects[j, i] = effect
    most = max(abs(e.effect) for e in effects.values()) or 1.0
    power = int(np.floor(np.log10(most / 3)))  # so that one decimal shows enough of the smaller ones
    values = np.full((n, n), np.nan)
    for place, effect in effects.items():
        values[place] = effect.effect / 10.0**power
    figure, axes = canvas(WIDTH, 1.0 + 0.42 * n)
    bound = most / 10.0**power
    edges = np.arange(n + 1) - 0.5
    axes.pcolormesh(edges, edges, values, cmap="RdBu", vmin=-bound, vmax=bound)
    axes.invert_yaxis()
    for (i, j), effect in effects.items():
        certain = effect.low > 0 or effect.high < 0
        ground = abs(values[i, j]) / bound
        axes.text(
            j, i, short(values[i, j]), ha="center", va="center", fontsize=8, color="white" if ground > 0.6 else "black",
            fontweight="bold" if certain else "normal",
        )  # fmt: skip
        if certain:
            axes.add_patch(rectangle(j, i))
    axes.set_xticks(range(n), [str(i + 1) for i in range(n)])
    axes.set_yticks(range(n), [literal(f"{name}  {i + 1}") for i, name in enumerate(names)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(literal(f"interaction in valid {metric}, in ") + f"$10^{{{power}}}$")
    return figure


def short(value: float) -> str:
    """A number with one decimal, its sign in front unless it is 0."""
    return re.sub(r"^[+-](0\.0)$", r"\1", f"{value:+.1f}").replace("-", "−")


def rectangle(x: int, y: int) -> Any:
    """The frame of a cell."""
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor="black", linewidth=1.4)
