"""Fits the forecast to the record, and says how well it is calibrated, one task left out at a time.

    python studies/22_forecast/fit.py [--figure studies/22_forecast/calibration.svg]

A case is a subset that is ahead of a baseline at the proxy's length. The forecast (`model.py`) says by how much it
is ahead at three and ten times that length.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from model import Model, Trend, trend, typical
from scipy.optimize import minimize
from scipy.stats import t as student

from autoranger.search.verdict.statistics import differences

HERE = Path(__file__).parent
PROXY = 2
"""Index of the proxy's own length."""

FREEDOM = 4.0
HALF = (FREEDOM + 1) / 2
"""Degrees of freedom of the errors, chosen beforehand: some deviations are large. With their exponent."""


@dataclass(frozen=True)
class Case:
    """A subset against a baseline: its trend up to the proxy's length, and how it is at a longer one."""

    task: str
    setting: str
    role: str
    trend: Trend
    doublings: float
    effect: float
    error: float


def cases(record: Sequence[dict[str, Any]]) -> Iterator[Case]:
    """The cases of a record, of subsets that are ahead at the proxy's length."""
    for row in record:
        lengths, roles = row["lengths"], row["baselines"]
        values = [np.array(rows, dtype=float) for rows in row["values"]]
        # Two or three seeds do not tell their spread, all pairs of a length together do.
        spreads = [
            np.mean([differences(one, rows[b]).var(ddof=1) for one in rows[len(roles) :] for b in range(len(roles))])
            for rows in values
        ]
        leaders = sorted(range(len(roles), len(row["configs"])), key=lambda k: -np.nan_to_num(values[PROXY][k].mean()))
        size = typical(values[PROXY][[leaders[0], *range(len(roles))]])
        for k in range(len(roles), len(row["configs"])):
            for b, role in enumerate(roles):
                pairs = [differences(rows[k], rows[b]) for rows in values]
                found = trend(lengths[: PROXY + 1], pairs[: PROXY + 1], size)
                if found.effect <= 0:
                    continue
                for length, pair, spread in list(zip(lengths, pairs, spreads, strict=True))[PROXY + 1 :]:
                    error = float((spread / len(pair)) ** 0.5)
                    doublings = float(np.log2(length / lengths[PROXY]))
                    name = f"{row['task']}, {row['steps']} steps"
                    yield Case(row["task"], name, role, found, doublings, float(pair.mean()), error)


def fitted(some: Sequence[Case]) -> Model:
    """The model with the greatest likelihood, but for its spread, which is that of the task that needs the largest.

    Tasks differ: on some, everything changes places in long trainings. Every setting and baseline has the same weight.
    """
    sizes: dict[tuple[str, str], int] = {}
    for case in some:
        sizes[case.setting, case.role] = sizes.get((case.setting, case.role), 0) + 1

    def loss(theta: Any) -> float:
        tried, total = Model(float(theta[0]), float(theta[1]), float(np.exp(theta[2])), FREEDOM), 0.0
        for case in some:
            mean, scale = tried.at(case.trend, case.doublings)
            scale = float(np.hypot(scale, case.error))
            deviation = (case.effect - mean) / scale
            total += (HALF * float(np.log1p(deviation**2 / FREEDOM)) + np.log(scale)) / sizes[case.setting, case.role]
        return total

    keep, share, _ = minimize(loss, [0.9, 0.1, -2.0], method="Nelder-Mead", options={"maxiter": 300}).x
    found = Model(round(float(keep), 3), round(float(share), 3), 0.0, FREEDOM)
    spreads = [needed(found, [case for case in some if case.task == task]) for task in {case.task for case in some}]
    return Model(found.keep, found.share, round(max(spreads), 3), FREEDOM)


def needed(model: Model, some: Sequence[Case]) -> float:
    """The spread with which 90 % intervals hold 90 % of some cases."""
    wanted = []
    for case in some:
        mean, scale = model.at(case.trend, case.doublings)
        more = ((case.effect - mean) / student.ppf(0.95, FREEDOM)) ** 2 - scale**2 - case.error**2
        wanted.append(float(np.sqrt(max(0.0, more))) / (case.doublings * case.trend.size))
    return float(np.quantile(wanted, 0.9))


def checked(model: Model, some: Sequence[Case]) -> list[tuple[float, bool, bool]]:
    """For each case the forecast chance of being ahead, whether it is, and whether the 90 % interval holds."""
    found = []
    for case in some:
        low, high = model.interval(case.trend, case.doublings, 0.9, case.error)
        chance = model.chance(case.trend, case.doublings, case.error)
        found.append((chance, case.effect > 0, low <= case.effect <= high))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, help="draw the calibration to this file")
    asked = parser.parse_args()
    every = list(cases(json.loads((HERE / "record.json").read_text())))
    print("all:", model := fitted(every))
    left_out: list[tuple[str, float, bool, bool, float]] = []
    print(
        "| left out | cases | ahead | mean chance | covered by 90 % | Brier | of the share alone |\n" + "|---" * 7 + "|"
    )
    for task in dict.fromkeys(case.task for case in every):
        mine = [case for case in every if case.task == task]
        others = [case for case in every if case.task != task]
        own, share = fitted(others), float(np.mean([case.effect > 0 for case in others]))
        rows = checked(own, mine)
        left_out += [(task, *row, case.doublings) for row, case in zip(rows, mine, strict=True)]
        print(line(task, rows, share))
    share = float(np.mean([case.effect > 0 for case in every]))
    print(line("all", [row[1:4] for row in left_out], share))
    for doublings in sorted({row[4] for row in left_out}):
        print(line(f"× {2**doublings:.3g}", [row[1:4] for row in left_out if row[4] == doublings], share))
    for low in (0.0, 0.5, 0.6, 0.7, 0.8, 0.9):
        some = [
            row[1:4] for row in left_out if low <= row[1] < (low + 0.1 if low else 0.5) or (low == 0.9 and row[1] == 1)
        ]
        if some:
            print(line(f"chance from {low}", some, share))
    print("with all:", checkup(model, every))
    if asked.figure:
        draw(left_out, asked.figure)


def checkup(model: Model, every: Sequence[Case]) -> str:
    """Coverage and Brier score of a model."""
    rows = checked(model, every)
    return f"covered {np.mean([r[2] for r in rows]):.2f}, Brier {np.mean([(r[0] - r[1]) ** 2 for r in rows]):.3f}"


def line(name: str, rows: Sequence[tuple[float, bool, bool]], share: float) -> str:
    """A line of the table."""
    chance, ahead, covered = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return (
        f"| {name} | {len(rows)} | {ahead.mean():.2f} | {chance.mean():.2f} | {covered.mean():.2f} | "
        f"{((chance - ahead) ** 2).mean():.3f} | {((share - ahead) ** 2).mean():.3f} |"
    )


def draw(rows: Sequence[tuple[str, float, bool, bool, float]], path: Path) -> None:
    """A figure: how often the subset is ahead, against the forecast chance."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "forecast", "font.size": 9}
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.2, 4.0), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    edges = np.array([0.0, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 1.001])
    for task in dict.fromkeys(row[0] for row in rows):
        chance, ahead = (np.array([row[i] for row in rows if row[0] == task], dtype=float) for i in (1, 2))
        bins = np.digitize(chance, edges)
        found = [
            (chance[bins == b].mean(), ahead[bins == b].mean()) for b in sorted(set(bins)) if (bins == b).sum() >= 8
        ]
        axes.plot(*zip(*found, strict=True), "o-", label=task, linewidth=1, markersize=4)
    axes.set_xlabel("forecast chance of still being ahead (task left out)")
    axes.set_ylabel("share that is ahead")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
