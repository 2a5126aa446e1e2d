"""The command line, as a user meets it: what it prints, what it refuses, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

from autoranger import Config, load
from autoranger.cli import COMMANDS
from autoranger.components.core.component import registry
from autoranger.components.core.config import read
from autoranger.components.presets import MODERN, PRESETS, RANGER21
from autoranger.search.race.baselines import WORDS
from autoranger.search.storage.storage import open_storage
from autoranger.search.verdict.outcome import Evidence

TASK = """
import sys
sys.path.insert(0, {folder!r})
from tests.toy import Toy

class Mine(Toy):
    name = "mine"
    steps = {steps}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, with a task in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("AUTORANGER_DATA", raising=False)
    write_task(steps=4)
    return tmp_path


def write_task(steps: int) -> None:
    Path("mine.py").write_text(TASK.format(folder=str(Path(__file__).parents[1]), steps=steps))


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        ("search --task digit", 2, "unknown task 'digit'; did you mean 'digits'?"),
        ("search", 2, "--task"),
        ("serach", 2, "serach"),
        ("search --task mine.py --budget soon", 2, "must be a duration such as 90s"),
        ("search --task mine.py --seed -1", 2, "--seed"),
        ("search --task mine.py --device cuda:99", 2, "use --device auto or cpu"),
        ("search --task mine.py --device tpu", 2, "must be auto, cpu, cuda"),
        ("search --task mine.py --out absent/x.toml", 1, "cannot write to absent/"),
        ("search --task mine.py --out .", 2, "is a folder"),
        ("search --task mine.py --out mine.py", 2, "is not a config of autoranger"),
        ("search --task mine.py --resume", 2, "--resume needs the --study"),
        ("search --task mine.py --resume --study x", 2, "no study 'x' to resume"),
        ("search --task mine.py --storage absent/journal", 1, "cannot open the study storage"),
        ("search --task cifar --data-dir .", 1, "no CIFAR-10 in"),
        ("show absent.toml", 1, "cannot read the config absent.toml"),
        ("show ranger22", 2, "did you mean 'ranger21'"),
        ("show mine.py", 2, "is not a TOML file"),
    ],
)
def test_a_mistake_gets_one_sentence_and_costs_nothing(args, status, words, autoranger, folder):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, out, err = autoranger(*args.split())
    assert code == status
    assert words in err.replace("\n", " ")
    assert "Traceback" not in err + out
    assert out == ""
    assert {path: path.read_bytes() for path in before} == before
    assert not Path("tuned.toml").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr = ", "is not a TOML file"),
        ("learning_rate = 0.1", "unknown config key"),
        ("[components.lookahed]", "did you mean 'lookahead'"),
        ("[components.lookahead]\nkk = 5", "did you mean 'k'"),
        ("[components.lookahead]\nk = 0", "must be a whole number from 1"),
        ("lr = -1", "must be a number from 0"),
        ("lr = true", "must be a number from 0"),
        ("components = 3", "must be a table"),
    ],
)
def test_a_wrong_config_file_is_explained(text, words, autoranger):
    Path("x.toml").write_text(text)
    code, _, err = autoranger("show", "x.toml")
    assert code == 2
    assert words in err
    assert "x.toml" in err


def test_a_search_exports_what_it_found(autoranger):
    code, out, err = autoranger("search", "--task", "mine.py:Mine", "--study", "s", "--space", "ranger21")
    assert code == 0, err
    assert "on 32 fresh seeds, in trainings of 4 steps" in " ".join(out.split())
    assert "trainings of 4 steps, 32 fresh seeds" in Path("tuned.toml").read_text()
    assert 'autoranger.load("tuned.toml").build(model, total_steps' in out
    config = Config.load("tuned.toml")
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    parameter.grad = torch.ones(3, 2)
    load("tuned.toml").build([parameter], total_steps=10).step()
    assert (parameter != 1).all()
    study = optuna.load_study(study_name="s", storage=open_storage(None))
    rates = defaultdict(set)
    for trial in study.get_trials(deepcopy=False):
        if trial.params.keys() == {"lr", *RANGER21}:  # others are baselines
            rates[frozenset(name for name, on in trial.params.items() if on is True)].add(trial.params["lr"])
    assert len(rates) == 256
    assert min(map(len, rates.values())) >= 3
    assert study.user_attrs["outcome"]["lr"] == config.lr
    code, out, err = autoranger("show", "tuned.toml")
    assert code == 0
    assert "searched on mine, seed 0" in out
    assert "against the best baseline" in out
    assert "trainings of 4 steps, 32 fresh seeds" in " ".join(out.split())


def test_the_same_seed_gives_the_same_file_and_the_old_one_is_kept(autoranger):
    for study in ("a", "b"):
        assert autoranger("search", "--task", "mine.py", "--study", study, "--out", f"{study}.toml")[0] == 0
    assert Path("a.toml").read_bytes() == Path("b.toml").read_bytes()
    other = "--space", "nesterov,lookahead", "--seed", "1"
    assert autoranger("search", "--task", "mine.py", "--study", "c", "--out", "a.toml", *other)[0] == 0
    assert Path("a.toml").read_bytes() != Path("b.toml").read_bytes()
    assert Path("a.toml.bak").read_bytes() == Path("b.toml").read_bytes()


def test_json_is_for_machines(autoranger):
    code, out, _ = autoranger("search", "--task", "mine.py", "--json")
    assert code == 0
    document = json.loads(out)
    assert Config.from_dict(document["config"]) == Config.load(document["out"])
    assert document["evidence"]["settings"]["task"] == "mine"
    assert document["evidence"]["settings"]["components"] == list(MODERN)
    assert json.loads(autoranger("components", "--json")[1]).keys() == registry.keys()
    assert json.loads(autoranger("presets", "--json")[1]).keys() == PRESETS.keys()
    assert {"digits", "cifar"} <= json.loads(autoranger("tasks", "--json")[1]).keys()
    shown = json.loads(autoranger("show", "tuned.toml", "--json")[1])
    assert shown.pop("evidence")
    assert Config.from_dict(shown) == Config.load("tuned.toml")


def test_lists_name_everything(autoranger):
    text = autoranger("components")[1]
    for name, cls in registry.items():
        assert name in text
        assert cls.source in text
    assert "digits" in autoranger("tasks")[1]
    for option in ("--markdown", "--stub"):
        assert not [name for name in registry.own() if name not in autoranger("components", option)[1]]
    for preset in PRESETS:
        assert preset in autoranger("presets")[1]
        assert autoranger("show", preset)[0] == 0


@pytest.mark.parametrize("command", ["", "search", "tasks", "components", "presets", "show"])
def test_help_teaches(command, autoranger):
    code, out, _ = autoranger(*command.split(), "--help")
    assert code == 0
    assert "Usage" in out
    if command == "search":
        assert "autoranger search --task digits" in out
        assert len(re.findall("full Ranger21", out)) == 3


@pytest.mark.parametrize("command", [command for commands in COMMANDS.values() for command in commands])
def test_examples_in_help_can_be_copied(command, autoranger, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    examples = re.findall(r"^ {8}(autoranger .*)$", command.__doc__, flags=re.MULTILINE)
    shown = [line.strip() for line in autoranger(command.__name__, "--help")[1].splitlines()]
    assert {" ".join(line.split()) for line in examples} <= {*shown}


@pytest.mark.parametrize("preset", ["schedule_free_adamw", "adamw"])
def test_how_to_evaluate_is_said_where_it_matters(preset, autoranger):
    for words in (("show", preset), ("export", preset, "--format", "python")):
        assert ("optimizer.evaluation()" in autoranger(*words)[1]) == (preset != "adamw")


def test_ctrl_c_leaves_a_readable_study_which_resumes(autoranger):
    write_task(steps=100)
    search = ["search", "--task", "mine.py", "--study", "s", "--space", ",".join(RANGER21[:5])]
    command = [sys.executable, "-m", "autoranger", *search]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    for line in process.stderr:
        if line.startswith("round 1"):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "--study s" in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith("--resume"), "a line to be copied"
    assert "Traceback" not in err
    assert not Path("tuned.toml").exists()
    study = optuna.load_study(study_name="s", storage=open_storage(None))
    assert all(trial.state.is_finished() for trial in study.trials)
    assert TrialState.RUNNING not in {trial.state for trial in study.trials}
    assert autoranger(*search)[0] == 2, "it is not overwritten"
    resume = (*search, "--resume")
    write_task(steps=4)
    code, _, err = autoranger(*resume)
    assert code == 2
    assert "other settings" in err, "another task must not be mixed with the first"
    write_task(steps=100)
    assert autoranger(*resume)[0] == 0
    assert Path("tuned.toml").exists()


def test_the_extended_space_is_searched(autoranger):
    code, _, err = autoranger("search", "--task", "mine.py", "--space", "extended", "--study", "s")
    assert code == 0, err
    Config.load("tuned.toml")
    study = optuna.load_study(study_name="s", storage=open_storage(None))
    assert {name for trial in study.get_trials(deepcopy=False) for name in trial.params} >= {"lr", *registry}


def test_configs_and_presets_are_compared(autoranger):
    Config(lr=0.05, components={"lookahead": {}}).save("x.toml")
    command = ("compare", "x.toml", "ranger21", "sgd", "--task", "mine.py", "--seeds", "5")
    code, out, err = autoranger(*command)
    assert code == 0, err
    assert "5 common seeds" in out
    for pair in ("x.toml", "ranger21", "sgd"):
        assert pair in out
    document = json.loads(autoranger(*command, "--json")[1])
    assert len(document["differences"]) == 3
    assert all(
        len(side["curve"]) == 10 and side["curve"][-1] == pytest.approx(side["valid"]) for side in document["sides"]
    )
    assert all(d["low"] <= d["effect"] <= d["high"] and 0 <= d["p"] <= 1 for d in document["differences"])
    assert all((d["p"] < 0.05) == (d["low"] > 0 or d["high"] < 0) for d in document["differences"])
    own = json.loads(autoranger(*command, "--json", "--no-sweep")[1])
    assert {side["name"]: side["config"]["lr"] for side in own["sides"]}["x.toml"] == 0.05


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("compare adamw --task mine.py", "needs two different configs"),
        ("compare adamw adamw --task mine.py", "needs two different configs"),
        ("compare adamw ranger22 --task mine.py", "did you mean 'ranger21'"),
        ("compare x.toml y.toml --task mine.py", "differ at most in the learning rate"),
    ],
)
def test_a_comparison_of_nothing_is_refused(args, words, autoranger):
    Config(lr=0.05).save("x.toml")
    Config(lr=0.06).save("y.toml")
    code, _, err = autoranger(*args.split())
    assert code == 2
    assert words in err


def test_the_readmes_task_and_component_work(autoranger):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    (task,) = [block for block in blocks if block.startswith("# my_task.py")]
    Path("my_task.py").write_text(task.replace("steps = 200", "steps = 20"))
    assert autoranger("compare", "ranger21", "adamw", "--task", "my_task.py:MyTask", "--seeds", "2")[0] == 0
    (component,) = [block for block in blocks if "(Component)" in block]
    try:
        exec(component, {})
        parameter = torch.nn.Parameter(torch.ones(2, 2))
        parameter.grad = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
        Config(lr=1.0, weight_decay=0, components={"sign_descent": {"scale": 0.25}}).build([parameter]).step()
        assert parameter.tolist() == [[0.75, 1.25], [0.75, 0.75]]
    finally:
        registry.pop("sign_descent", None)


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_digits_end_to_end(autoranger):
    space = "explore_exploit,linear_warmup,gradient_centralization,positive_negative_momentum,lookahead"
    code, out, err = autoranger("search", "--task", "digits", "--space", space, "--out", "digits.toml")
    assert code == 0, err
    found = Evidence.read(json.loads(autoranger("show", "digits.toml", "--json")[1])["evidence"]).comparison
    assert found.valid > 0.95
    assert found.test > 0.94
    assert found.against_default.effect >= 0
    assert found.against_adamw.seeds == 32
    assert "→" in out


def test_bench_prints_a_table_and_draws_a_figure(autoranger, folder):
    status, out, _ = autoranger("bench", "--model", "mlp", "--rounds", "1", "--figure", "steps.png")
    assert status == 0
    assert "26,122 parameters in 6 tensors" in out
    for name in ("ranger21", "torch AdamW (fused)", *registry):
        assert name in out
    assert (folder / "steps.png").read_bytes().startswith(b"\x89PNG")


def test_bench_is_json_for_machines(autoranger):
    status, out, _ = autoranger("bench", "--model", "mlp", "--rounds", "1", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["parameters"] == 26_122
    assert {"torch", "autoranger"} <= found["machine"]["versions"].keys()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "rsnet50"], "unknown model 'rsnet50'; did you mean 'resnet50'?"),
        (["--figure", "x.txt"], "must end in .png, .svg or .pdf"),
        (["--rounds", "0"], "range"),
    ],
)
def test_bench_says_what_is_wrong(autoranger, args, message):
    status, out, err = autoranger("bench", *args)
    assert (status, out) == (2, "")
    assert message in err


def test_a_search_by_a_sampler_for_the_loss_at_a_price(autoranger):
    options = ("--sampler", "random", "--objective", "loss", "--cost", "memory", "--study", "s")
    code, _, err = autoranger("search", "--task", "mine.py", *options)
    assert code == 0, err
    evidence = Evidence.read(read("tuned.toml")[1])
    asked, found = evidence.settings, evidence.comparison
    assert (found.opening, asked.objective, asked.metric) == ("random", "loss", "minus loss")
    assert found.baselines.keys() == set(WORDS)
    study = optuna.load_study(study_name="s", storage=open_storage(None))
    subsets = {frozenset(trial.user_attrs["config"]["components"]) for trial in study.trials}
    assert len(subsets) < 200, "not every subset"
    assert len(study.trials) <= 500
    front = optuna.load_study(study_name="s-front", storage=open_storage(None))
    assert {trial.values[1] for trial in front.trials} <= {2.0, 3.0, 4.0, 5.0}
    assert front.best_trials


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sampler", "bayess"), "did you mean 'bayes'"),
        (("--objective", "speed"), "must be metric, loss, or steps:VALUE"),
        (("--cost", "money"), "'memory', 'time'"),
    ],
)
def test_a_search_for_what_there_is_not_says_so(options, words, autoranger):
    code, _, err = autoranger("search", "--task", "mine.py", *options)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("module", ["autoranger", "autoranger.cli"])
def test_it_runs_as_a_module(module):
    found = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"(autoranger )?\d+\.\d+\.\d+\S*\n", found.stdout)


QUICK = ["--version"], ["--help"], *([name, "--help"] for name in ("search", "report", "compare", "bench", "tune"))


@pytest.mark.parametrize("words", QUICK, ids=" ".join)
def test_help_does_not_wait_for_torch(words):
    code = "import sys\nfrom autoranger.__main__ import main\nsys.argv[0] = 'autoranger'\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass"
    heavy = "torch", "optuna", "numpy", "scipy", "sqlalchemy"
    code += f"\nprint(*[name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert found.stderr.split() == []
    assert len(found.stdout) > 5


@pytest.mark.parametrize(("given", "found"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_wait_passively_unless_somebody_says_otherwise(given, found):
    """From before torch is imported; see also `test_help_does_not_wait_for_torch`."""
    code = "import os, sys\nfrom autoranger.__main__ import main\nsys.argv[1:] = ['--version']\n"
    code += "try:\n    main()\nexcept SystemExit:\n    print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean).stdout
    assert said.split()[-2:] == [found, "False"]


@pytest.mark.parametrize("command", ["bench --model mlp --rounds 1", "compare ranger21 adamw --task mine.py --seeds 3"])
def test_tables_fit_into_80_columns(command, autoranger, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = autoranger(*command.split())
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out, "nothing is cut"
    rows = [line for line in out.splitlines() if " − " in line]
    assert all(re.search(r"\[[+-][\d.]+, [+-][\d.]+\] +[\d.e-]+ +\w", row) for row in rows), "a pair is one line"


def test_quiet_leaves_results_and_verbose_adds_candidates(autoranger):
    code, out, err = autoranger("compare", "sgd", "adamw", "--task", "mine.py", "--seeds", "2", "--quiet")
    assert (code, err) == (0, "")
    assert "2 common seeds" in out
    code, out, err = autoranger("search", "--task", "mine.py", "--verbose", "--json")
    assert code == 0
    assert json.loads(out)
    assert err.index("round 1/") < err.index("best so far") < err.index("verdict:")


def test_verbose_shows_where_an_error_of_the_users_code_comes_from(autoranger):
    Path("broken.py").write_text("def f():\n    raise KeyError('lost')\n\nf()\n")
    code, _, err = autoranger("search", "--task", "broken.py")
    assert code == 2
    assert "Traceback" not in err
    code, _, err = autoranger("search", "--task", "broken.py", "--verbose")
    assert code == 2
    assert 'broken.py", line 2, in f' in err


def test_colour_can_be_switched_off(tmp_path):
    forced = os.environ | {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    for more, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        command = [sys.executable, "-m", "autoranger", "show", "ranger22"]
        said = subprocess.run(command, capture_output=True, text=True, env=forced | more, cwd=tmp_path).stderr
        assert ("\x1b[31m" in said) is coloured


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell, autoranger, tmp_path):
    script = subprocess.run(
        ["autoranger"], capture_output=True, text=True, executable=str(Path(sys.executable).with_name("autoranger")),
        env=os.environ | {"_AUTORANGER_COMPLETE": f"source_{shell}"}, cwd=tmp_path,
    ).stdout  # fmt: skip
    assert "_AUTORANGER_COMPLETE" in script
    if shell == "bash":
        words = {"COMP_WORDS": "autoranger rep", "COMP_CWORD": "1", "_AUTORANGER_COMPLETE": "complete_bash"}
        found = subprocess.run(
            [str(Path(sys.executable).with_name("autoranger"))], capture_output=True, text=True, env=os.environ | words,
        )  # fmt: skip
        assert found.stdout.split() == ["report"]
