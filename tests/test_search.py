"""The search: space, plan, race, record and verdict, on tables and toys where the truth is known."""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import asdict, replace

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState
from scipy import stats

from autoranger import Config
from autoranger.components.core.component import Component, Stage, conflicts, registry
from autoranger.components.core.errors import ConfigError, DataError, SearchError
from autoranger.components.presets import PRESETS, RANGER21
from autoranger.search.clock import Clock
from autoranger.search.progress import Progress
from autoranger.search.race.baselines import COSINE, DECAYS, LINEAR, RANDOM, WORDS, families
from autoranger.search.race.plan import Plan, Rung, make_plan, parse_budget, plan_for
from autoranger.search.race.race import Grid, Race, best_lr
from autoranger.search.space import Space, lr_grid, neighbours
from autoranger.search.storage.record import Record
from autoranger.search.storage.storage import open_storage
from autoranger.search.study import search
from autoranger.search.verdict.evidence import judge
from autoranger.search.verdict.outcome import Evidence
from autoranger.search.verdict.statistics import against, against_best, paired_difference, winner
from tests import toy

SMALL = Space(components=("gradient_centralization", "lookahead", "norm_loss"))
PLAN = Plan(arms=8, rungs=(Rung(10, 1, 4, 99), Rung(20, 2, 2, 3)), verdict_seeds=4, steps=20)


class Table:
    """Looks like a population, but knows the result of every training: best with lookahead alone at a given rate."""

    def __init__(self, best: float = 1e-3, noise: float = 0.0) -> None:
        self.best, self.noise, self.calls = best, noise, []

    def train(self, configs, seeds, steps, *, splits=("valid",), progress=lambda n: None, report=lambda c, s: None):
        self.calls.append((list(configs), list(seeds), steps))
        values = np.array([[self.value(config, seed) for seed in seeds] for config in configs])
        scores = dict.fromkeys(splits, values)
        progress(values.size * steps)
        report(list(configs), scores)
        return scores

    def value(self, config: Config, seed: int) -> float:
        merit = 0.2 * ("lookahead" in config.components) - 0.1 * (len(config.components) - 1)
        rng = np.random.default_rng([seed, zlib.crc32(repr(config).encode())])
        return merit - 0.05 * np.log10(config.lr / self.best) ** 2 + self.noise * rng.standard_normal()


@pytest.fixture
def journal(tmp_path):
    return open_storage(str(tmp_path / "journal"))


def race(table: Table, record: Record, plan: Plan = PLAN, space: Space = SMALL, grid=(1e-2, 1e-1)):
    seeds = iter(range(10_000))
    runner = Race(table, record, {"default": [space.default], "adamw": [space.plain]}, Clock(None, Progress()))
    return runner.run(Grid(space.arms(256, 0), lr_grid(*grid)), plan, lambda n: [next(seeds) for _ in range(n)])


# space


def test_the_space_is_every_subset_once():
    arms = Space().arms(256, 0)
    assert len(arms) == len(set(arms)) == 256
    assert Space().default.components.keys() == Config.preset("ranger21").components.keys()
    assert not Space().plain.components


def test_a_new_component_joins_the_space():
    class NinthOfTheSearch(Component):
        """Does nothing."""

        stage = Stage.GRADIENT

        def forward(self, x):
            return x

    try:
        space = Space(components=("lookahead", "ninth_of_the_search"))
        assert [list(arm.components) for arm in space.arms(256, 0)][-1] == ["ninth_of_the_search", "lookahead"]
        assert space.default == Space().default, "whatever the space has of it"
        others = dict.fromkeys(name for name in RANGER21 if name != "lookahead")
        expected = {"lr": 1e-3, "lookahead": True, "ninth_of_the_search": False, **dict.fromkeys(others, True)}
        assert space.params(space.default) == expected
    finally:
        del registry["ninth_of_the_search"]


def test_the_extended_space_holds_the_presets_and_what_goes_together():
    space = Space.extended()
    assert set(space.components) == set(registry)
    arms = space.arms(200, 0)
    assert len(set(arms)) == 200
    assert not any(conflicts(arm.components) for arm in arms)
    for name in PRESETS:
        assert replace(Config.preset(name), lr=1e-3) in arms
    used = {name for arm in arms[len(PRESETS) + 2 :] for name in arm.components}
    assert used == set(registry), "every component is tried"
    assert space.arms(200, 0) == arms
    assert space.arms(200, 1) != arms


def test_a_space_has_a_name_or_is_a_list():
    assert Space.of("ranger21") == Space.of("subsets") == Space.of(RANGER21) == Space()
    assert Space.of("extended") == Space.extended()
    assert (
        Space.of(" lookahead, nesterov,lookahead")
        == Space(("lookahead", "nesterov"))
        == Space.of(["lookahead", "nesterov"])
    )
    modern = Space.of("modern")
    assert set(RANGER21) < set(modern.components) < set(registry)
    assert 15 <= len(modern.components) <= 25
    assert Space.of(modern) is modern
    for wrong, hint in (("moderm", "modern"), ("lookahead,nestrov", "nesterov"), (["lookahed"], "lookahead")):
        with pytest.raises(ConfigError, match=f"did you mean '{hint}'"):
            Space.of(wrong)


def test_draws_near_the_default_differ_from_it_in_a_few_components():
    """Each with a chance of 0.15, where components do not exclude each other; others with 0.5. Every second is near."""
    space, rng = Space(components=(*RANGER21, "amsgrad", "softplus_denominator")), np.random.default_rng(0)
    assert not conflicts(space.components)
    default, count = set(space.default.components), 3000
    for near, chance in ((True, 0.15), (False, 0.5)):
        draws = [set(space.draw(rng, near=near).components) for _ in range(count)]
        for name in space.components:
            other = sum((name in drawn) != (name in default) for drawn in draws) / count
            assert other == pytest.approx(chance, abs=4 * (chance * (1 - chance) / count) ** 0.5), name
    large = Space.extended()
    drawn = large.arms(600, 0)[len(large.landmarks) :]
    distances = [len(set(arm.components) ^ set(large.default.components)) for arm in drawn]
    assert np.mean(distances[::2]) + 3 < np.mean(distances[1::2]) or np.mean(distances[1::2]) + 3 < np.mean(
        distances[::2]
    )


def test_a_space_lists_only_what_goes_together():
    space = Space(components=("sgd_momentum", "positive_negative_momentum", "lookahead"))
    assert space.size == len(space.arms(100, 0)) == 6
    assert len(space.arms(4, 0)) == 4


def test_an_unknown_component_of_the_space_is_an_error():
    with pytest.raises(ConfigError, match="did you mean 'lookahead'"):
        Space(components=("lookahed",))


def test_the_grid_has_two_rates_in_a_decade():
    assert lr_grid(1e-3, 1e-1) == [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    assert neighbours(1e-2) == [3e-3, 3e-2]


# race


def test_no_leader_ends_on_an_edge_of_its_rates(journal):
    table = Table(best=1e-3)  # a decade below the grid
    finalists = race(table, Record(journal, "s", SMALL, {}, resume=False))
    assert [best_lr(by_lr) for by_lr in finalists.values()] == [1e-3] * len(finalists)
    for by_lr in finalists.values():
        assert set(neighbours(best_lr(by_lr))) <= set(by_lr)


def test_the_best_arms_and_the_baselines_come_through(journal):
    table = Table()
    finalists = list(race(table, Record(journal, "s", SMALL, {}, resume=False)))
    assert finalists[0] == SMALL.arm(["lookahead"])
    assert {SMALL.default, SMALL.plain} <= set(finalists)
    assert len(finalists) == 3  # two kept and two baselines, of which AdamW is itself the second best
    by_length = defaultdict(set)
    for configs, _, steps in table.calls:
        by_length[steps] |= {replace(config, lr=1e-3) for config in configs}
    assert len(by_length[10]) == 9  # eight subsets, and full Ranger21
    assert {SMALL.default, SMALL.plain} <= by_length[20]
    assert len(by_length[20]) <= 6


def test_the_best_decay_of_a_baseline_stays_in_the_race(journal):
    class Decayed(Table):
        def value(self, config, seed):
            return super().value(config, seed) + 0.5 * (config.weight_decay == 0.1) - 0.5 * (config.weight_decay == 1)

    record = Record(journal, "s", SMALL, {}, resume=False)
    runner, seeds = Race(Decayed(), record, families(SMALL), Clock(None, Progress())), iter(range(100))
    found = runner.run(Grid(SMALL.arms(256, 0), [1e-2, 1e-1]), PLAN, lambda n: [next(seeds) for _ in range(n)])
    assert runner.protected.keys() == set(WORDS)
    assert set(runner.protected.values()) <= set(found)
    for role in (COSINE, LINEAR):
        assert runner.protected[role].weight_decay == 0.1
        assert len(families(SMALL)[role]) == len(DECAYS)
    assert len([arm for arm in found if arm not in SMALL]) == 3, "nothing else of the families"
    assert runner.protected[RANDOM] in SMALL
    study = optuna.load_study(study_name="s", storage=journal)
    assert {SMALL.config(t.params) for t in study.trials} == {
        Config.from_dict(t.user_attrs["config"]) for t in study.trials
    }


SHAPES = {COSINE: lambda t: (1 + np.cos(np.pi * (t - 1) / 50)) / 2, LINEAR: lambda t: 1 - t / 50}


@pytest.mark.parametrize("role", SHAPES)
def test_a_baseline_is_adamw_with_that_schedule(role):
    """torch's AdamW, its rate set by hand before every step."""
    config = replace(families(SMALL)[role][1], lr=0.03)
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)) for _ in range(2))
    a = config.build([ours], total_steps=50)
    b = torch.optim.AdamW([theirs], betas=config.betas, weight_decay=config.weight_decay)
    for t in range(1, 51):
        warmup = max((1 - config.betas[1]) * t / 2, t / 5)
        b.param_groups[0]["lr"] = 0.03 * min(1.0, warmup, SHAPES[role](t))
        for p, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            (p - 2).pow(2).mul(torch.arange(6).view(2, 3)).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_every_round_has_seeds_of_its_own(journal):
    table = Table(noise=0.01)
    race(table, Record(journal, "s", SMALL, {}, resume=False))
    by_length = defaultdict(set)
    for _, seeds, steps in table.calls:
        by_length[steps] |= set(seeds)
    assert by_length == {10: {0}, 20: {1, 2}}


def test_ties_do_not_depend_on_what_is_done_first(journal):
    class Coarse(Table):
        def train(self, configs, seeds, steps, *, report=lambda c, s: None, **rest):
            scores = super().train(configs, seeds, steps, **rest)
            for i in np.random.default_rng().permutation(len(configs)):
                report([configs[i]], {"valid": scores["valid"][[i]]})
            return scores

        def value(self, config, seed):
            return float(round(super().value(config, seed), 1))

    runs = [list(race(Coarse(), Record(journal, str(i), SMALL, {}, resume=False))) for i in range(8)]
    assert all(run == runs[0] for run in runs)


def test_diverged_candidates_lose(journal):
    class Diverging(Table):
        def value(self, config, seed):
            return np.nan if config.lr > 0.05 or "norm_loss" in config.components else super().value(config, seed)

    record = Record(journal, "s", SMALL, {}, resume=False)
    finalists = race(Diverging(best=1e-1), record)
    record.close()
    assert best_lr(next(iter(finalists.values()))) == 3e-2
    failed = [t for t in optuna.load_study(study_name="s", storage=journal).trials if t.state == TrialState.FAIL]
    assert failed
    assert all(t.params["norm_loss"] or t.params["lr"] > 0.05 for t in failed)


def test_one_diverged_seed_is_enough_to_lose(journal):
    """However good the other seeds are: an optimizer that sometimes diverges is no winner."""

    class Sometimes(Table):
        def value(self, config, seed):
            return np.nan if "lookahead" in config.components and seed == 2 else super().value(config, seed)

    record = Record(journal, "s", SMALL, {}, resume=False)
    finalists = race(Sometimes(best=1e-2), record)
    record.close()
    assert "lookahead" not in next(iter(finalists)).components
    trials = optuna.load_study(study_name="s", storage=journal).trials
    assert any(t.state == TrialState.FAIL and t.params["lookahead"] and t.intermediate_values for t in trials)


# record


def test_trials_are_an_ordinary_study_that_tells_the_same_as_the_verdict(journal):
    """Whatever is exported: of what looks better, and has not been shown to be, nothing is complete."""
    for name, kept in (("winner", False), ("default", True)):
        record = Record(journal, name, SMALL, {"task": "table"}, resume=False)
        record.name_metric("valid accuracy")
        finalists = [replace(arm, lr=best_lr(by_lr)) for arm, by_lr in race(Table(noise=0.001), record).items()]
        exported = next(c for c in finalists if not kept or c.components == SMALL.default.components)
        merits = {config: 0.1 - 0.01 * place for place, config in enumerate(finalists)}
        record.conclude(exported, merits)
        record.close()
        study = optuna.load_study(study_name=name, storage=journal)
        assert len({tuple(sorted(t.params.items())) for t in study.trials}) == len(study.trials) > 20, "one a candidate"
        assert SMALL.config(study.best_trial.params) == exported
        assert study.best_value == merits[exported]
        assert all(np.isfinite(t.value) and t.intermediate_values for t in study.trials)
        assert all(t.duration.total_seconds() > 0 for t in study.trials)
        pruned = study.get_trials(states=(TrialState.PRUNED,))
        complete = study.get_trials(states=(TrialState.COMPLETE,))
        assert len(pruned) + len(complete) == len(study.trials)
        assert all(t.value >= study.best_value for t in pruned)
        assert {SMALL.config(t.params) for t in pruned} >= set(finalists[: finalists.index(exported)])
        importances = optuna.importance.get_param_importances(study)
        assert importances.keys() >= {"lr", *SMALL.components}
        assert study.best_trial.user_attrs["name"] == ("ranger21" if kept else "adamw + lookahead")
        assert study.metric_names == ["valid accuracy"]
        assert study.best_trial.last_step == 40  # 20 steps × 2 seeds


class Impatient(Table):
    """Presses Ctrl-C in the second round."""

    def train(self, configs, seeds, steps, **rest):
        if steps == 20:
            raise KeyboardInterrupt
        return super().train(configs, seeds, steps, **rest)


def test_an_interrupted_race_is_readable_and_resumes_without_repeating(tmp_path):
    path = str(tmp_path / "journal")
    record = Record(open_storage(path), "s", SMALL, {"seed": 0}, resume=False)
    with pytest.raises(KeyboardInterrupt):
        race(Impatient(), record)
    record.close()
    study = optuna.load_study(study_name="s", storage=open_storage(path))
    assert all(trial.state == TrialState.PRUNED and np.isfinite(trial.value) for trial in study.trials)
    assert len(study.trials) >= 16
    table = Table()
    again = race(table, Record(open_storage(path), "s", SMALL, {"seed": 0}, resume=True))
    assert {steps for configs, _, steps in table.calls if configs} == {20}, "the first round is not trained again"
    expected = race(Table(), Record(open_storage(path), "other", SMALL, {}, resume=False))
    assert list(again) == list(expected)


@pytest.mark.parametrize(
    ("before", "resume", "settings", "words"),
    [
        (False, True, {}, "no study 's' to resume"),
        (True, False, {}, "study 's' exists"),
        (True, True, {"seed": 1}, "other settings"),
    ],
)
def test_studies_are_not_mixed_up(journal, before, resume, settings, words):
    if before:
        Record(journal, "s", SMALL, {"seed": 0}, resume=False)
    with pytest.raises(ConfigError, match=words):
        Record(journal, "s", SMALL, settings, resume=resume)


@pytest.mark.parametrize("place", ["/nonexistent/journal", "nonsense://x"])
def test_a_storage_that_cannot_be_opened_is_said_to_be(place):
    with pytest.raises(DataError, match="cannot open the study storage"):
        open_storage(place)


# verdict


def test_differences_are_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 20), rng.normal(0, 1, 20)
    mine, theirs = paired_difference(a, b), stats.ttest_rel(a, b)
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose([mine.p, mine.low, mine.high, mine.effect], [theirs.pvalue, low, high, (a - b).mean()])
    assert paired_difference(b, a).p == pytest.approx(mine.p)


def test_degenerate_differences():
    same = np.full(5, 0.9)
    assert paired_difference(same, same).p == 1.0
    assert paired_difference(same + 0.01, same).p == 0.0
    assert paired_difference(same[:1], same[:1]).p == 1.0
    diverged = paired_difference(np.array([np.nan, 0.9, 0.9]), np.array([0.8, 0.8, 0.7]))
    assert diverged.effect == pytest.approx((0.7 - 0.8 + 0.1 + 0.2) / 3)
    assert paired_difference(np.full(3, np.nan), np.full(3, np.nan)).effect == 0.0


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
@pytest.mark.parametrize("comparisons", [1, 4])
def test_interval_and_test_agree(alternative, comparisons):
    """By scipy's own test and interval, with Bonferroni's correction."""
    rng, decided = np.random.default_rng(3), set[bool]()
    for _ in range(200):
        a, b = rng.normal(0.6, 1, 12), rng.normal(0, 1, 12)
        mine = paired_difference(a, b, comparisons=comparisons, alternative=alternative)
        theirs = stats.ttest_rel(a, b, alternative=alternative)
        assert mine.p == pytest.approx(min(1.0, comparisons * theirs.pvalue))
        assert mine.low == pytest.approx(theirs.confidence_interval(1 - 0.05 / comparisons).low)
        beaten = mine.low > 0 or (alternative == "two-sided" and mine.high < 0)
        assert beaten == (mine.p < 0.05)
        decided.add(beaten)
    assert decided == {True, False}


def test_false_winners_stay_within_the_level_and_true_ones_are_found():
    rng = np.random.default_rng(1)
    rounds = 4000
    drawn = rng.normal(0, 1, (rounds, 5, 16)), rng.normal(0, 1, (rounds, 16))
    null = sum(winner(against(others, default, 5)) is not None for others, default in zip(*drawn, strict=True))
    assert 0.02 < null / rounds <= 0.05 + 2 * (0.05 * 0.95 / rounds) ** 0.5
    better = rng.normal(0, 1, (5, 16))
    better[3] += 3
    assert winner(against(better, rng.normal(0, 1, 16), 5)) == 3


@pytest.mark.parametrize("gap", [0.0, 0.5, 3.0])
def test_who_is_no_better_than_every_baseline_is_not_said_to_be(gap):
    """However much worse the other baselines are. The interval holds the difference to the truly best one."""
    rng, rounds, comparisons = np.random.default_rng(0), 400, 4
    named = outside = 0
    for _ in range(rounds):
        valid = rng.normal(0, 1, (4, 12)) - np.array([0, 0, gap, gap])[:, None]
        (found, rival), *_ = against_best(valid, [1, 2, 3], comparisons)
        named += found.low > 0
        outside += not found.low <= 0 <= found.high
        assert (found.p < 0.05) == (found.low > 0)
        assert found.low <= found.effect <= found.high
        assert found.effect == pytest.approx((valid[0] - valid[rival]).mean())
        assert found.effect == pytest.approx(min((valid[0] - valid[b]).mean() for b in (1, 2, 3)))
    level = 0.05 / comparisons
    assert named / rounds <= level + 3 * (level / rounds) ** 0.5
    assert outside / rounds <= 2 * level + 3 * (2 * level / rounds) ** 0.5
    if gap == 3:
        assert named > 0, "against one baseline alone it is the t-test"


def test_a_baseline_is_compared_with_the_others():
    valid = np.array([[3.0, 3.1, 3.0], [1.0, 1.2, 1.0], [2.0, 2.1, 2.2]])
    found = against_best(valid, [0, 1], 2)
    assert [rival for _, rival in found] == [1, 0, 0]
    assert [difference.effect > 0 for difference, _ in found] == [True, False, False]


def exported(judged):
    """The one finalist that is exported."""
    (best,) = [finalist for finalist in judged.values() if finalist.exported]
    return best


def test_nothing_wins_beside_an_interval_that_holds_zero():
    """However close it is: the winner's interval is above 0, and what is above 0 has won unless something is better."""
    rng, named = np.random.default_rng(4), 0
    for _ in range(400):
        valid = rng.normal(0, 1, (5, 12)) + np.array([0, 0.5, 0.7, 0.9, 0.3])[:, None]
        configs = [Config(lr=0.1 * (i + 1)) for i in range(5)]
        judged = judge(configs, {"valid": valid, "test": -valid}, {"default": 0, "adamw": 4})
        best, above = exported(judged), [f for f in judged.values() if f.against_default.low > 0]
        assert (best != judged[configs[0]]) == bool(above)
        assert all((f.against_default.p < 0.05) == (f in above) for f in judged.values())
        if above:
            named += 1
            assert best in above
            assert best.against_default.effect == max(f.against_default.effect for f in above)
    assert 20 < named < 380


def test_the_default_is_kept_unless_beaten():
    rng = np.random.default_rng(2)
    configs = [Config(lr=lr) for lr in (0.1, 0.2, 0.3)]
    default = rng.normal(0, 1, 16)
    tie = np.stack([default, default + 0.01 * rng.normal(0, 1, 16), default - 1])
    roles = {"default": 0, "adamw": 2, "random": 1}
    assert judge(configs, {"valid": tie, "test": tie}, roles)[configs[0]].exported
    tie[1] += 1
    judged = judge(configs, {"valid": tie, "test": tie}, roles)
    best = exported(judged)
    assert [finalist.roles for finalist in judged.values()] == [("random",), ("default",), ("adamw",)]
    assert best is next(iter(judged.values())) is judged[configs[1]]
    assert Config.from_dict(best.config) == configs[1]
    assert best.against_default.low > 0
    assert best.against_adamw.effect > best.against_default.effect


def test_test_data_decide_nothing():
    """Neither who is exported, nor the order, nor a difference: only the number that is shown."""
    rng = np.random.default_rng(5)
    configs = [Config(lr=lr) for lr in (0.1, 0.2, 0.3)]
    default = rng.normal(0, 0.1, 16)
    valid = np.stack([default, default + 1 + rng.normal(0, 0.1, 16), default - 1])
    test = np.stack([default + 5, default - 3, default + 7 + rng.normal(0, 0.1, 16)])
    judged = judge(configs, {"valid": valid, "test": test}, {"default": 0, "adamw": 2})
    best = exported(judged)
    assert best is judged[configs[1]]
    assert list(judged) == [configs[1], configs[0], configs[2]]
    assert [f.valid for f in judged.values()] == pytest.approx([valid[i].mean() for i in (1, 0, 2)])
    assert [f.test for f in judged.values()] == pytest.approx([test[i].mean() for i in (1, 0, 2)])
    assert best.against_default.effect == pytest.approx((valid[1] - valid[0]).mean())
    assert best.against_adamw.effect == pytest.approx((valid[1] - valid[2]).mean())
    same = judge(configs, {"valid": np.stack([default] * 3), "test": test}, {"default": 0, "adamw": 2})
    assert exported(same).test == pytest.approx(test[0].mean())


# plan


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_budgets(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "10x", "-5m", "0", "1m30s"])
def test_a_budget_that_is_none_is_an_error(text):
    with pytest.raises(ConfigError, match="must be a duration"):
        parse_budget(text)


def test_a_task_that_is_known_sets_how_many_survive():
    assert make_plan(300).rungs[0].keep == 85
    assert [rung.keep for rung in make_plan(300, survivors=1 / 8).rungs] == [32, 8, 4]
    assert plan_for(300, 256, 5, 1e9, survivors=1 / 8).rungs[0].keep == 32


def test_plans_grow_with_the_budget_and_never_exceed_it():
    standard = make_plan(300).cost(256, 5)
    limits = np.geomspace(1e5, 50 * standard, 40)
    plans = [plan_for(300, 256, 5, affordable) for affordable in limits]
    costs = [plan.cost(256, 5) for plan in plans]
    assert {plan.steps for plan in plans} == {300} == {rung.steps for plan in plans for rung in plan.rungs[1:]}
    assert costs == sorted(costs)
    assert all(cost <= limit for cost, limit in zip(costs, limits, strict=True))
    assert plan_for(300, 256, 5, standard) == make_plan(300)
    assert plan_for(300, 256, 5, 1e4) is None, "too little for a comparison at full length: none, not a shorter one"
    assert plan_for(300, 256, 5, standard, scoring=300.0) != make_plan(300), "scoring takes time, too"


# all together


def test_a_search_finds_keeps_and_repeats(tmp_path):
    def run(name, seed=0):
        return search(toy.Toy(), open_storage(str(tmp_path / name)), name, space=SMALL, seed=seed, plan=PLAN)

    first, again, other = run("a"), run("b"), run("c", seed=1)
    assert (first.config, first.evidence) == (again.config, again.evidence)
    assert first.evidence != other.evidence
    assert {f.components for f in first.finalists} >= {tuple(SMALL.default.components), ()}
    assert first.default_kept == (first.config.components == SMALL.default.components)
    study = optuna.load_study(study_name="a", storage=open_storage(str(tmp_path / "a")))
    assert Evidence.read(study.user_attrs["outcome"]["evidence"]) == first.evidence


def test_a_finished_search_is_not_resumed(tmp_path):
    storage = open_storage(str(tmp_path / "j"))
    search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN)
    with pytest.raises(ConfigError, match=r"study 's' is finished; see .*autoranger report s"):
        search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN, resume=True)


def test_a_search_resumes_with_its_own_plan(tmp_path, monkeypatch):
    """Whatever the clock says the second time."""
    storage, seen = open_storage(str(tmp_path / "j")), []

    def stop(finalists, *rest):
        raise KeyboardInterrupt

    monkeypatch.setattr("autoranger.search.study.judge", stop)
    with pytest.raises(KeyboardInterrupt):
        search(toy.Toy(), storage, "s", space=SMALL, budget=30.0)
    monkeypatch.undo()
    before = optuna.load_study(study_name="s", storage=storage).user_attrs["plan"]
    monkeypatch.setattr("autoranger.search.study.fitting", lambda *args: seen.append(args))
    outcome = search(toy.Toy(), storage, "s", space=SMALL, budget=30.0, resume=True)
    assert not seen
    done = outcome.evidence.plan
    assert (done.arms, asdict(done.rungs[0]), done.steps) == (before["arms"], before["rungs"][0], before["steps"])
    assert done.verdict_seeds == outcome.finalists[0].against_default.seeds
    spent = optuna.load_study(study_name="s", storage=storage).user_attrs["spent"]
    assert spent["work"] > outcome.work, "the first session counts"


@pytest.mark.parametrize(("low", "high"), [(2e-2, 2.5e-2), (1e-9, 1e-3)])
def test_rates_that_there_are_not_are_an_error(tmp_path, low, high):
    class Narrow(toy.Toy):
        lr_range = (low, high)

    with pytest.raises(ConfigError, match="lr_range"):
        search(Narrow(), open_storage(str(tmp_path / "j")), "s", space=SMALL)


def test_a_search_in_which_everything_diverges_has_failed(tmp_path):
    class Hopeless(toy.Toy):
        calls = 0

        def loss(self, output, target):
            self.calls += 1  # of one training: a task whose loss is NaN from the beginning is refused
            return super().loss(output, target) * (1.0 if self.calls == 1 else float("nan"))

    for sampler in ("grid", "bayes"):
        storage = open_storage(str(tmp_path / "j"))
        with pytest.raises(SearchError, match=r"every .* failed, .* from 1e-06 to 0\.1 \(.* diverged.*\); see whether"):
            search(Hopeless(), storage, sampler, space=SMALL, plan=PLAN, sampler=sampler)
        study = optuna.load_study(study_name=sampler, storage=storage)
        assert {trial.state for trial in study.trials} == {TrialState.FAIL}
        assert "outcome" not in study.user_attrs
        assert "diverged" in study.user_attrs["failure"]


def test_a_budget_is_kept(tmp_path):
    outcome = search(toy.Toy(), open_storage(str(tmp_path / "j")), "s", budget=6.0)
    assert outcome.seconds < 6.0
    assert outcome.finalists
