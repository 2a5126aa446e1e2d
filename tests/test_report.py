"""`autoranger report`: what it reads from a study, what it prints and draws, what it refuses, what it leaves behind."""

from __future__ import annotations

import json
import math
import re
import sys
import tomllib
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from autoranger import Config
from autoranger.components.presets import RANGER21
from autoranger.report.charts import schedules
from autoranger.report.sentences import outlook, verdict
from autoranger.search.attribution.sample import largest_sample
from autoranger.search.race.plan import Plan, Rung
from autoranger.search.serialization import to_json
from autoranger.search.verdict.outcome import Baseline, Comparison, Evidence, Finalist, Settings, Sweep
from autoranger.search.verdict.statistics import Difference

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

NAMES = ("gain", "<i>harm</i>", "nothing")
"""Of components that this machine need not know."""

RATES = (0.01, 0.03, 0.1)
EFFECTS = {"gain": 0.05, "<i>harm</i>": -0.02, "nothing": 0.0}
EVIL = "<b>$x_1$ & 'co'</b>"
FILES = {"report.html", "attribution.json"} | {
    f"{name}.svg" for name in ("finalists", "race", "rates", "contributions", "interactions")
}
VOID = {"meta", "br", "link", "img", "hr", "input"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


def journal(place: str = "autoranger.journal") -> JournalStorage:
    return JournalStorage(JournalFileBackend(place))


def config(lr: float, *names: str) -> dict:
    components = {name: {} for name in names}
    return {"lr": lr, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 1e-4, "components": components}


def difference(effect: float, half: float = 0.01, p: float = 0.01) -> Difference:
    return Difference(effect, effect - half, effect + half, p, 32)


NO_DIFFERENCE = difference(0.0, 0.0, 1.0)
WON = {"against_default": difference(0.0234), "against_adamw": difference(0.0456), "against_best": difference(0.0111)}
LOST = {"against_default": difference(-0.0222), "against_adamw": NO_DIFFERENCE, "against_best": difference(-0.0222)}
KEPT = {"against_default": NO_DIFFERENCE, "against_adamw": difference(0.0222), "against_best": difference(0.0222)}
FINALISTS = (
    Finalist(config(0.03, "gain"), True, ("random",), 0.5678, 0.5432, 1, **WON, rival="adamw_linear"),
    Finalist(config(0.1, *NAMES), False, ("default",), 0.5444, 0.5333, 0, **KEPT, rival="adamw_linear"),
    Finalist(config(0.01), False, ("adamw",), 0.5222, math.nan, 0, **LOST, rival="adamw_linear"),
)
COMPARISON = Comparison(
    opening="grid",
    seeds=(7, 38),
    comparisons=2,
    confidence=0.9,
    valid=0.5678,
    test=0.5432,
    baselines={"default": Baseline(0.1, 0.5444, 0.5333), "adamw": Baseline(0.01, 0.5222, 0.5111)},
    rival="adamw_linear",
    **WON,
)


def settings(names=NAMES) -> Settings:
    return Settings(
        task="mine",
        metric="accuracy <&>",
        steps=100,
        batch_size=8,
        lr_range=(0.01, 0.1),
        device="cpu",
        seed=0,
        budget=None,
        sampler="grid",
        objective="metric",
        cost=None,
        components=names,
    )


def evidence(**parts) -> dict:
    plan = Plan(arms=8, rungs=(Rung(steps=100, seeds=2, keep=1, lrs=3),), verdict_seeds=32, steps=100)
    return Evidence("beats the default significantly", settings(), plan, {"torch": "2.9.9"}, **parts).to_dict()


def make_study(name: str = "s", *, names=NAMES, finished: bool = True, most: int = 10**6, storage=None):
    """A study as a search leaves it: every subset with every rate on one seed, the better half on two more."""
    study = optuna.create_study(study_name=name, storage=storage or journal(), direction="maximize")
    study.set_user_attr("settings", to_json(asdict(settings(names))))
    rng = np.random.default_rng(0)
    distributions = {"lr": FloatDistribution(1e-6, 1e2, log=True)}
    distributions |= dict.fromkeys(names, CategoricalDistribution((False, True)))
    trials, baselines = [], []
    for number in range(2 ** len(names)):
        on = [name for i, name in enumerate(names) if number >> i & 1]
        for lr in RATES:
            value = 0.5 + sum(EFFECTS.get(n, 0.0) for n in on) - 0.01 * abs(np.log10(lr / 0.03))
            value += 0.001 * rng.standard_normal()
            rounds = {"steps=50 seeds=0+1": [None if lr == 0.1 and not on else value]}
            if number % 2:
                rounds["steps=100 seeds=1+2"] = [value, value + 0.01]
            params = {"lr": lr} | {n: n in on for n in names}
            attributes = {"config": config(lr, *on), "rounds": rounds}
            state = TrialState.PRUNED
            trials.append(create_trial(state=state, params=params, distributions=distributions, user_attrs=attributes))
            if number == 0:  # a baseline, which is none of the space's candidates
                shared = {"params": params | {"weight_decay": 0.1}, "user_attrs": attributes}
                space = distributions | {"weight_decay": FloatDistribution(0, 1)}
                baselines.append(create_trial(state=state, distributions=space, **shared))
    study.add_trials(trials[:most])
    study.add_trials(baselines)
    if finished:
        study.set_user_attr("outcome", config(0.03, "gain") | {"evidence": evidence(comparison=COMPARISON)})
        study.set_user_attr("finalists", to_json([asdict(finalist) for finalist in FINALISTS]))
        study.set_user_attr("spent", {"seconds": 12.3, "work": 4321, "rounds": []})
    return study


class Checked(HTMLParser):
    """A page: what its tags are, that they close in order, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_text_says_what_was_found(autoranger):
    make_study()
    code, out, err = autoranger("report", "s")
    assert code == 0, err
    words = " ".join(out.split())
    assert (
        "adamw + gain, lr 0.03, beats the best of the other baselines, AdamW with warmup and linear decay, by +0.0111 "
        "[+0.0011, +0.0211] and full Ranger21 by "
        "+0.0234 [+0.0134, +0.0334] on 32 fresh seeds, in trainings of 100 "
        "steps."
    ) in words
    for value in ("0.5678 (1 diverged)", "0.5432", "-0.0222 [-0.0322, -0.0122]", "best of random subsets", "0.01", "?"):
        assert value in words
    assert "4,321 candidate-steps in 12 s" in words
    assert "27 candidates of 8 subsets for 50 steps on one seed; 12 candidates of 4 subsets for 100 steps on 2" in words
    assert "after 50 steps on seed 0, from 24 candidates (1 diverged)" in words
    table = words[words.index("Shapley value") : words.index("strongest pairs")]
    assert table.index("gain +0.0") < table.index("nothing ") < table.index("<i>harm</i> -0.0"), "the largest first"
    assert "gain × <i>harm</i>" in words


@pytest.mark.parametrize(
    ("roles", "best", "rival", "words"),
    [
        ((), 0.02, "default", "beats full Ranger21, the best of the baselines, by +0.0200 "),
        (
            (),
            0.005,
            "adamw_cosine",
            "100 steps, but not the best of the baselines significantly, AdamW with warmup",
        ),
        (("adamw",), -0.005, "random", "but not the best of the other baselines significantly, the best of random sub"),
        (
            ("default",),
            -0.02,
            "adamw_linear",
            "it is kept, with lr",
        ),
    ],
)
def test_the_verdict_is_against_the_best_of_the_baselines(roles, best, rival, words):
    found = replace(COMPARISON, against_best=difference(best), rival=rival)
    finalist = replace(FINALISTS[0], roles=roles)
    assert words in verdict(finalist, Evidence.read(evidence(comparison=found)))


def test_json_has_what_the_study_has(autoranger):
    study = make_study()
    code, out, _ = autoranger("report", "s", "--json", "--out", "r")
    assert code == 0
    document = json.loads(out, parse_constant=pytest.fail)
    assert document["finalists"] == study.user_attrs["finalists"]
    assert document["evidence"] == study.user_attrs["outcome"]["evidence"]
    assert [row["exported"] for row in document["finalists"]] == [True, False, False]
    assert document["config"] == config(0.03, "gain")
    assert document["settings"] == study.user_attrs["settings"]
    assert document["spent"]["work"] == 4321
    attribution = document["attribution"]
    assert (attribution["steps"], attribution["first_seed"], attribution["seeds"]) == (50, 0, 1)
    assert len(attribution["pairs"]) == 3
    for kind in ("main", "shapley"):
        for effect in attribution[kind]:
            truth = EFFECTS[effect["components"][0]]
            assert effect["effect"] == pytest.approx(truth, abs=0.005)
            assert effect["low"] <= truth <= effect["high"]
    assert document["out"] == [f"r/{name}" for name in map(str, [Path(p).name for p in document["out"]])]
    assert json.loads(Path("r/attribution.json").read_text()) == attribution


def test_the_page_is_whole_and_needs_nothing_else(autoranger):
    make_study(EVIL)
    code, out, err = autoranger("report", EVIL, "--out", "some/where")
    assert code == 0, err
    assert "some/where/report.html" in out
    assert {path.name for path in Path("some/where").iterdir()} == FILES | {f"finalist-{i}.toml" for i in (1, 2, 3)}
    assert tomllib.loads(Path("some/where/finalist-1.toml").read_text()) == config(0.03, "gain")
    text = Path("some/where/report.html").read_text()
    page = Checked(text)
    assert page.tags.count("svg") == 5
    assert not {"script", "link", "img", "iframe", "b", "i"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert all(link.startswith("#") for link in links)
    assert "url(http" not in text.replace(" ", "")
    assert "@import" not in text
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links} <= set(ids)
    words = " ".join(" ".join(page.words).split())
    for value in (EVIL, "<i>harm</i>", "accuracy <&>", "+0.0234 [+0.0134, +0.0334]", "0.5678", "torch 2.9.9"):
        assert value in words
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert "\nlr = 0.03" in text or ">lr = 0.03" in text


def test_the_figures_are_xml_and_stay_the_same(autoranger):
    make_study()
    assert autoranger("report", "s", "--out", "a")[0] == 0
    Path("b").mkdir()
    Path("b/report.html").write_text("old")
    Path("b/mine.txt").write_text("mine")
    assert autoranger("report", "s", "--out", "b")[0] == 0
    assert Path("b/mine.txt").read_text() == "mine"
    for name in FILES:
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    words = {name: "".join(ET.parse(Path("a", name)).getroot().itertext()) for name in FILES if name.endswith(".svg")}
    assert "difference in valid accuracy <&> to full Ranger21" in words["finalists.svg"]
    assert "learning rate" in words["rates.svg"]
    for name in NAMES:
        assert name in words["contributions.svg"]
        assert name in words["interactions.svg"]


def test_a_search_without_verdict_is_shown_as_far_as_it_got(autoranger):
    make_study(finished=False)
    code, out, err = autoranger("report", "s", "--out", "r")
    assert code == 0, err
    assert "Interrupted" in out
    assert "--study s --resume" in out
    assert "Shapley" in out
    assert {path.name for path in Path("r").iterdir()} == FILES - {"finalists.svg"}
    Checked(Path("r/report.html").read_text())


def test_a_search_that_failed_says_why(autoranger):
    make_study(finished=False).set_user_attr("failure", "every training <b>diverged</b>.")
    code, out, err = autoranger("report", "s", "--out", "r")
    assert code == 0, err
    assert "This search failed: every training <b>diverged</b>." in out
    assert json.loads(autoranger("report", "s", "--json")[1])["failure"] == "every training <b>diverged</b>."
    Checked(Path("r/report.html").read_text())


def test_a_search_without_a_comparison_shows_none(autoranger):
    study = make_study(finished=False)
    sweep = Sweep(seeds=(7, 8), lrs=RATES, valid=(0.5, 0.6, 0.55), needed=133.0)
    chosen = Finalist(config(0.03, *NAMES), True, ("default",), math.nan, math.nan, 0, None, None)
    study.set_user_attr("outcome", config(0.03, *NAMES) | {"evidence": evidence(sweep=sweep)})
    study.set_user_attr("finalists", to_json([asdict(chosen)]))
    code, out, err = autoranger("report", "s", "--out", "r")
    assert code == 0, err
    words = " ".join(out.split())
    assert "There was no time for a comparison" in words
    assert "lr 0.03, the best of 3 learning rates in trainings of 100 steps on 2 seeds" in words
    assert "--budget 3m or more" in words
    assert "against ranger21" not in words
    page = Path("r/report.html").read_text()
    Checked(page)
    assert "Finalists" not in page
    assert not Path("r/finalists.svg").exists()


@pytest.mark.parametrize("most", [0, 3])
def test_a_search_that_has_just_begun_has_no_attribution(most, autoranger):
    make_study(finished=False, most=most)
    code, out, err = autoranger("report", "s", "--out", "r")
    assert code == 0, err
    assert "No attribution: " in out
    assert "missing" in json.loads(Path("r/attribution.json").read_text())
    Checked(Path("r/report.html").read_text())


def test_in_a_large_space_the_exported_components_are_the_players(autoranger):
    names = ("gain", *(f"x{i}" for i in range(12)))
    make_study(names=names, most=60)
    document = json.loads(autoranger("report", "s", "--json")[1])
    assert [effect["components"] for effect in document["attribution"]["main"]] == [["gain"]]
    assert "Played among 1 of the space's 13 components, the others off." in " ".join(
        autoranger("report", "s")[1].split()
    )


def test_a_database_is_read_and_not_changed(autoranger):
    make_study(storage="sqlite:///x.db")
    before = Path("x.db").read_bytes()
    assert autoranger("report", "s", "--storage", "sqlite:///x.db")[0] == 0
    assert Path("x.db").read_bytes() == before


@pytest.mark.parametrize(("shared", "said"), [(360, True), (5_000, False), (None, False)])
def test_few_validation_examples_that_all_seeds_share_are_mentioned(shared, said):
    found = Evidence.read(evidence(comparison=replace(COMPARISON, shared=shared)))
    words = outlook(found)
    assert ("the same 360 validation examples" in words and "resplit = True" in words) == said
    assert "what is ahead was still ahead" in words


def test_a_search_of_today_can_be_reported(autoranger):
    Path("mine.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from tests.toy import Toy\nclass Mine(Toy):\n    steps = 4\n"
    )
    assert autoranger("search", "--task", "mine.py", "--study", "now", "--sampler", "random")[0] == 0
    code, out, err = autoranger("report", "now", "--json", "--out", "r")
    assert code == 0, err
    document = json.loads(out)
    exported = document["config"]
    shown = json.loads(autoranger("show", "tuned.toml", "--json")[1])
    assert shown.pop("evidence") == document["evidence"]
    assert shown == exported
    assert len(document["finalists"]) == document["evidence"]["comparison"]["comparisons"] + 1
    assert document["attribution"].get("missing") or len(document["attribution"]["main"]) == len(RANGER21)
    found = [{key: value for key, value in f["config"].items() if key != "proxy"} for f in document["finalists"]]
    assert [curve["config"] for curve in document["curves"]] == found
    for curve, finalist in zip(document["curves"], document["finalists"], strict=True):
        assert curve["steps"] == sorted({*curve["steps"], document["settings"]["steps"]})
        assert curve["mean"][-1] == pytest.approx(finalist["valid"])
        assert curve["seeds"][-1] == 32 - finalist["diverged"]
    assert "curves.svg" in {path.name for path in Path("r").iterdir()}


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        ("report --storage empty.txt", 2, "there is no search in empty.txt yet"),
        ("report t", 2, "there is no study 't' in autoranger.journal; it has t0, t1, t2, t3, t4 and 3 more."),
        ("report foreign", 2, "was not made by autoranger search"),
        ("report damaged", 1, "is damaged or of another version"),
        ("report s --storage absent.journal", 1, "there is no study storage absent.journal"),
        ("report s --storage sqlite:///absent.db", 1, "there is no study storage sqlite:///absent.db"),
        ("report s --storage nonsense://x", 1, "cannot read the study storage nonsense://x"),
        ("report s --storage text.txt", 1, "text.txt is not a journal of studies"),
        ("report s --storage empty.txt", 2, "there is no study 's' in empty.txt; it has none."),
        ("report s --storage .", 1, "there is no study storage ."),
        ("report s --out text.txt", 2, "is a file; name a folder"),
        ("report s --out text.txt/below", 1, "cannot write to"),
    ],
)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(args, status, words, autoranger, folder):
    for i in range(6):
        optuna.create_study(study_name=f"t{i}", storage=journal())
    optuna.create_study(study_name="foreign", storage=journal())
    damaged = optuna.create_study(study_name="damaged", storage=journal())
    damaged.set_user_attr("settings", {})
    damaged.set_user_attr("finalists", [{"config": 3}])
    if args.startswith("report s "):
        make_study(most=3)
    Path("text.txt").write_text("text\nand more\n")
    Path("empty.txt").touch()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, out, err = autoranger(*args.split())
    assert (code, out) == (status, "")
    assert words in err.replace("\n", " ")
    assert "Traceback" not in err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_without_matplotlib_the_fix_is_said_before_the_work(autoranger, monkeypatch):
    make_study()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = autoranger("report", "s", "--out", "r")
    assert (code, out) == (2, "")
    assert re.search("pip install .*matplotlib", err)
    assert not Path("r").exists()
    assert autoranger("report", "s")[0] == 0, "the text needs no figures"


def test_a_candidate_that_a_resumed_search_recorded_again_counts_once():
    study = make_study()
    again = study.trials[3]
    study.add_trial(again)
    assert len(largest_sample(study).values) == 24


def test_help_teaches(autoranger):
    code, out, _ = autoranger("report", "--help")
    assert code == 0
    assert "autoranger report mine --storage" in out


SITTING = {
    "began": "2026-01-02T03:04:05+00:00",
    "ended": "2026-01-02T03:05:05+00:00",
    "command": "autoranger search --storage postgresql://me:***@host/db <&>",
    "machine": "a processor, 2 cores",
}


def test_a_page_alone_has_everything(autoranger):
    make_study().set_user_attr("sittings", [SITTING])
    for out in ("page.html", "folder"):
        assert autoranger("report", "s", "--out", out)[0] == 0
    page = Path("page.html").read_text()
    assert page == Path("folder/report.html").read_text()
    found = Checked(page)
    text = " ".join(" ".join(found.words).split())
    for words in ("2026-01-02 03:04 to 2026-01-02 03:05", SITTING["command"], SITTING["machine"]):
        assert words in text
    assert "# learning rate, as found with the proxy" in text
    assert "config = Config(" in text
    described = [value for name, value in found.attributes if name == "aria-label"]
    assert sum("valid accuracy" in (value or "") for value in described) == 5, "one for each figure"
    assert "<title>" in Path("folder/race.svg").read_text()
    Path("dir.html").mkdir()
    code, _, err = autoranger("report", "s", "--out", "dir.html")
    assert code == 2
    assert "is a folder; name a file" in err


def test_the_schedules_shape_is_that_of_the_papers():
    full = Finalist(Config.preset("ranger21", lr=0.5).to_dict(), True, (), 0.0, 0.0, 0, None, None)
    (shape,) = schedules(full).values()
    steps = np.arange(1, 201)
    expected = 0.5 * np.minimum(1, np.minimum(steps / (0.22 * 200), (200 - steps) / (0.28 * 200)))
    np.testing.assert_allclose(shape, expected, atol=0.5 / 50)
    assert not schedules(Finalist(Config().to_dict(), True, (), 0.0, 0.0, 0, None, None)), "a constant rate"
    assert not schedules(FINALISTS[0]), "not known here"
    other = Config(lr=0.1, components={"linear_warmup": {"fraction": 0.5}}).to_dict()
    assert schedules(Finalist(other, True, (), 0.0, 0.0, 0, None, None)).keys() == {"exported", "Ranger21"}
