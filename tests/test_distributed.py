"""Two processes compute what one computes, stop together, and never leave one another waiting."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import fima.methods.fima
import fima.training.pretrain
from fima.training.log import Log
from fima.training.pretrain import pretrain, step_seed
from fima.training.recipe import make_recipe
from fima.training.ddp import check_processes
from fima.training.videos import open_data

STEPS, STEP_WITH_TROUBLE = 6, 3
SHARED = {
    "method.query_groups": 2,
    "method.key_groups": 2,
    "method.negatives": 4,
    "method.decoder_dropout": 0.0,
    # SGD: Adam scales rounding up where a gradient is nought
    "optimisation.steps": STEPS,
    "optimisation.optimiser": "sgd",
    "optimisation.learning_rate": 0.05,
    "optimisation.warmup_steps": 2,
}
COLOURS = {"views.difference": "paper", "views.photometric.jitter_p": 0.8, "views.photometric.grayscale_p": 0.5}
# few pixels have a positive: some videos none
BETWEEN = {
    "method.enqueue": "between",
    "method.dense_queue_size": 50,
    "method.negatives": "video",
    "method.distance_threshold": 0.1,
}
VARIANTS = {
    "fima": {},
    "four groups": {
        "method.query_groups": 4,
        "method.key_groups": 4,
        "method.negatives": 2,
        "method.instance_motion": True,
        "method.pixel_average": "video",
    }
    | COLOURS,
    "between": BETWEEN,
    "between, within videos": BETWEEN | {"method.pixel_average": "video"},
    "pixel": {"method.frame": False},  # the decoder's class token is not used
    "supervised": {"method.name": "supervised", "optimisation.learning_rate": 0.005},
}
FOUR = {"method.query_groups": 4, "method.key_groups": 4}
SLOW, SLOWER = {"optimisation.learning_rate": 0.005}, {"optimisation.learning_rate": 0.0005}
FIXED = {"method.options.map": "fixed", "optimisation.reseed": "epoch"}
METHODS = {  # name -> method of `make_recipe`, changes: every comparator, and the view changes under FIMA's losses
    "moco_vd": ("moco_vd", {}),
    "be": ("be", COLOURS | SLOWER),
    "fame": ("fame", {}),
    "iic": ("iic", COLOURS | SLOWER),
    "iic, shuffled": ("iic", FOUR | {"method.options.negative": "shuffle"}),
    "dclr": ("dclr", {}),
    "mcl": ("mcl", SLOW),
    "mcl, fixed maps": ("mcl", FOUR | FIXED | SLOWER),
    "fima on fame": (None, {"views.change": "fame"}),
    "fima on be": (None, {"views.change": "be", "views.target": "same"}),
}
CURVED = {"mcl": 1e-5, "mcl, fixed maps": 1e-5}  # tolerance: gradients of gradients make more of a rounding
RECIPES = {name: make_recipe("smoke", overrides=SHARED | changes) for name, changes in VARIANTS.items()}
for name, (method, changes) in METHODS.items():
    RECIPES[name] = make_recipe("smoke", method=method, overrides=SHARED | changes)
REFUSED = make_recipe("smoke", overrides=SHARED | {"method.negatives": "batch"})

# What a process does in a scenario; trouble befalls the second one. Under torchrun the script is that process; else it
# plays torchrun for each scenario (imports once, forks two), but ends nobody: they must end by themselves.
RUN = (
    """
import json, multiprocessing, os, signal, sys, time
from pathlib import Path
import torch
import torch.utils.tensorboard
from fima.training import launch, pretrain
from fima.training.recipe import Recipe

work, scenarios = Path(sys.argv[1]), sys.argv[2:]
build, take = pretrain.build_method, pretrain.take_step

def process(scenario):
    rank, made, steps, seeds = int(os.environ["RANK"]), [], [], []
    def keep(*given):
        made.append(build(*given))
        made[-1].register_forward_pre_hook(lambda *given: seeds.append(torch.initial_seed())) # what dropout draws from
        return made[-1]
    def troubled(*given):
        steps.append(0)
        if rank == 1 and len(steps) == %d:
            if scenario == "terminated": os.kill(os.getpid(), signal.SIGTERM)
            if "killed" in scenario: os.kill(os.getpid(), signal.SIGKILL)
            if scenario == "raising": raise KeyError("the second process has no such key")
            if scenario == "hanging": time.sleep(30)
        return take(*given)
    pretrain.build_method, pretrain.take_step = keep, troubled
    if scenario == "variants":
        with launch.together("cpu") as device:
            for file in sorted((work / "variants").glob("*.json")):
                recipe, folder = Recipe.model_validate_json(file.read_text()), work / f"{file.stem} on two"
                pretrain.pretrain(recipe, folder, device, log_interval=1, progress=False)
                torch.save((made[-1].state_dict(), list(seeds)), work / f"{file.stem} on {rank}.pt")
                seeds.clear()
        return 0
    if scenario == "still":
        from fima.methods.moco import Momentum
        Momentum.follow = lambda self: None
    recipe = work / "refused.json" if scenario == "refused" else work / "variants" / "fima.json"
    folder = work / scenario.removesuffix(", again")
    minutes = "0.3" if scenario == "hanging" else "5"
    intervals = ["--log-interval", "1", "--checkpoint-interval", "2"]
    return launch.worker_main([str(recipe), str(folder), "--device", "cpu", *intervals, "--minutes", minutes])

def child(scenario, number, port):
    os.environ |= dict(TORCHELASTIC_RUN_ID="test", TORCHELASTIC_USE_AGENT_STORE="True")
    os.environ |= dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ |= dict(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    said = os.open(work / f"{scenario} said {number}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1), os.dup2(said, 2)
    sys.exit(process(scenario))

if "RANK" in os.environ: sys.exit(process(*scenarios))
fork = multiprocessing.get_context("fork")
for scenario in scenarios:
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    two = [fork.Process(target=child, args=(scenario, number, store.port)) for number in (0, 1)]
    for each in two: each.start()
    for each in two: each.join()
    (work / f"{scenario} ended.json").write_text(json.dumps([each.exitcode for each in two]))
"""
    % STEP_WITH_TROUBLE
)


def python(*words):
    "Run Python with these words in a process of its own; whoever waits for ever fails here."
    with subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            process.said = process.communicate(timeout=300)[0]
        finally:
            process.terminate()
    return process


def lines_of_fima(said):
    "What fima, and not torchrun, has to say."
    return [line for line in said.splitlines() if line.startswith("fima:")]


@pytest.fixture(scope="module")
def work(module_work):
    "A folder for data and runs, with the recipes and the script in it."
    (module_work / "variants").mkdir()
    for name, recipe in RECIPES.items():
        (module_work / "variants" / f"{name}.json").write_text(recipe.model_dump_json())
    (module_work / "refused.json").write_text(REFUSED.model_dump_json())
    (module_work / "run.py").write_text(RUN)
    open_data(RECIPES["fima"].data, 16)
    return module_work


@pytest.fixture(scope="module")
def ended(work):
    "Play all scenarios on two processes each; tell how each ended."
    names = ("variants", "terminated", "terminated, again", "killed", "raising", "hanging", "refused", "still")
    for some in (names[:1], names[1:]):  # the patience of `python` is for one of the two
        done = python(work / "run.py", work, *some)
        assert done.returncode == 0, done.said
    found = {}
    for name in names:
        said = "".join((work / f"{name} said {number}.txt").read_text() for number in (0, 1))
        codes = json.loads((work / f"{name} ended.json").read_text())
        found[name] = SimpleNamespace(codes=codes, said=said, lines=lines_of_fima(said))
    return found


def state(folder):
    "The training state in the newest checkpoint."
    return load_file(folder / "checkpoint" / (folder / "checkpoint" / "latest").read_text() / "method.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def check_close(value, expected, where, **tolerances):
    "Assert that two values are close; the message says where."
    torch.testing.assert_close(value, expected, **tolerances, msg=lambda said: f"{where}: {said}")


def numbers(folder):
    "The log without its clock."
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in Log.read(folder)]


# float32, added in another order: losses and gradient norm of every step agree to 2e-6 of themselves (MCL: 1e-5);
# weights, queues and statistics to 1e-5 (and 1e-6 absolute)
@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_compute_what_one_does(work, ended, monkeypatch, name):
    assert ended["variants"].codes == [0, 0], ended["variants"].said
    mean_weight, counted = fima.methods.fima.mean_weight, []
    monkeypatch.setattr(fima.methods.fima, "mean_weight", lambda videos: counted.append(videos) or mean_weight(videos))
    alone = pretrain(RECIPES[name], work / f"{name} on one", device="cpu", log_interval=1, progress=False)
    # the processes' means are over unlike numbers of videos, or pixels
    if name.startswith("between"):
        halves = [counts.chunk(2) for counts in counted]
        assert any(0 < one.sum() != other.sum() for one, other in halves)
    shared = json.loads((work / f"{name} on two" / "metrics.json").read_text())
    assert (alone["processes"], shared["processes"]) == (1, 2) and alone["run"] == shared["run"]
    one, two = (numbers(work / f"{name} on {count}") for count in ("one", "two"))
    assert len(one) == len(two) == STEPS
    for here, there in zip(one, two, strict=True):
        for term in here:
            where = f"{term} at step {here['step']}"
            check_close(there[term], here[term], where, rtol=CURVED.get(name, 2e-6), atol=0)
    expected = state(work / f"{name} on one")
    for weight, value in state(work / f"{name} on two").items():
        # the documented departures
        if weight.endswith("num_batches_tracked") or (weight.startswith("key_encoder") and "running" in weight):
            continue
        check_close(value, expected[weight], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_all_processes_hold_the_same(work, ended, name):
    (first, seeds), (second, other_seeds) = (torch.load(work / f"{name} on {rank}.pt") for rank in (0, 1))
    # but dropout is each one's own; the first draws what one process draws
    assert seeds == [step_seed(0, step) for step in range(STEPS)] and not set(seeds) & set(other_seeds)
    assert same(first, second) and same(first, state(work / f"{name} on two"))
    assert name == "supervised" or any(weight.startswith("queues") for weight in first)


def test_a_signal_to_one_process_stops_both_and_the_same_call_continues(work, ended):
    stopped, again = ended["terminated"], ended["terminated, again"]
    assert stopped.codes == [130, 130]
    assert len(stopped.lines) == 1
    assert f"stopped after step {STEP_WITH_TROUBLE} of {STEPS}; the same call continues from there" in stopped.lines[0]
    assert again.codes == [0, 0] and not again.lines
    assert same(state(work / "terminated"), state(work / "fima on two"))
    assert numbers(work / "terminated") == numbers(work / "fima on two")


@pytest.mark.parametrize(
    "scenario, codes, words",
    [
        ("killed", [1, -9], "another process died, or does not answer: Connection"),
        ("raising", [1, 1], "KeyError: 'the second process has no such key' (process 1 of 2)"),
        ("hanging", [1, 1], "another process died, or does not answer: Timed out"),
    ],
)
def test_a_process_in_trouble_leaves_nobody_waiting(work, ended, scenario, codes, words):
    found = ended[scenario]
    assert found.codes == codes and len(found.lines) == 1 and words in found.lines[0], found.said
    assert not (work / scenario / "metrics.json").exists()
    assert (work / scenario / "checkpoint" / "latest").read_text() == "step_0000002"


def test_a_refusal_is_one_line(work, ended):
    assert ended["refused"].codes == [2, 2] and not (work / "refused").exists()
    assert len(ended["refused"].said.splitlines()) == 1
    assert ended["refused"].lines[0].startswith("fima: method.negatives must be 'video' or a number")


def test_keys_that_stand_still_are_told_once(work, ended):
    found = ended["still"]
    assert found.codes == [0, 0] and found.said.count("did not move in the first two steps") == 1, found.said
    assert "key_encoder, key_projectors" in found.said and "did not move" not in ended["killed"].said


def test_torchrun_ends_what_a_kill_left_and_the_same_call_continues(work, ended):
    "The command of the documentation, whose first call loses a process."
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    killed = python(*torchrun, work / "run.py", work, "killed by torchrun")
    # the survivor may be ended before it can say a word
    assert killed.returncode == 1 and len(lines_of_fima(killed.said)) <= 1, killed.said
    assert (work / "killed by torchrun" / "checkpoint" / "latest").read_text() == "step_0000002"
    run = (work / "variants" / "fima.json", work / "killed by torchrun")
    again = python(*torchrun, "-m", "fima.training.launch", *run, "--device", "cpu")
    assert again.returncode == 0 and not lines_of_fima(again.said), again.said
    assert same(state(work / "killed by torchrun"), state(work / "fima on two"))  # nothing is lost, bit for bit


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"optimisation.batch_size": 9, "method.query_groups": 1},
            "batch_size must be a multiple of the 2 processes, got 9",
        ),
        ({"method.query_groups": 1}, "query_groups must be a multiple of the 2 processes"),
        ({"method.key_groups": 3}, "key_groups must be a multiple of the 2 processes"),
        ({"method.key_groups": 6}, "key_groups must divide optimisation.batch_size = 8"),
        (
            {"method.negatives": "batch"},
            "negatives must be 'video' or a number that divides the 4 videos of each of the 2 processes, got 'batch'",
        ),
        ({"method.negatives": 3}, "divides the 4 videos of each of the 2 processes, got 3"),
        ({"method.name": "supervised", "method.query_groups": 1}, "query_groups must be a multiple"),
        (
            {"method.name": "iic", "optimisation.batch_size": 9, "method.query_groups": 1},
            "batch_size must be a multiple",
        ),
        ({"method.name": "mcl", "method.query_groups": 1}, "method.query_groups must be a multiple of the 2 processes"),
        ({"method.name": "dclr", "method.key_groups": 3}, "method.key_groups must be a multiple of the 2 processes"),
        (
            {"method.name": "be", "views.change": "fame", "method.key_groups": 6},
            "key_groups must divide optimisation.",
        ),
    ],
)
def test_what_cannot_be_shared_out_is_refused_before_anything_starts(tmp_path, monkeypatch, changes, words):
    recipe = make_recipe("smoke", overrides=SHARED | changes)
    check_processes(recipe, 1)
    monkeypatch.setattr(fima.training.pretrain, "world_size", lambda: 2)
    with pytest.raises(ValueError) as refused:
        pretrain(recipe, tmp_path / "run", device="cpu", progress=False)
    assert words in str(refused.value) and "\n" not in str(refused.value) and not (tmp_path / "run").exists()
