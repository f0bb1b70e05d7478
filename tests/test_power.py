"""What kills and power cuts leave of a run: it goes on, ends as if nothing had been, and says what it met."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from fima.cli import main
from fima.data.video import files
from fima.report.make import run_studies
from fima.training.checkpoint import sole_process
from fima.training.log import Log
from fima.training.pretrain import Stopped, pretrain
from fima.training.recipe import make_recipe
from helpers import write_study

STEPS = 7


def recipe():
    return make_recipe("smoke", overrides={"optimisation.steps": STEPS})


def run(folder, stop_after=None):
    "Train with a log line every three steps and a checkpoint every second."
    return pretrain(
        recipe(), folder, "cpu", checkpoint_interval=2, log_interval=3, stop_after=stop_after, progress=False
    )


def stopped(folder, step):
    with pytest.raises(Stopped):
        run(folder, step)
    return folder


def numbers(folder):
    "Everything in the log but what a clock says."
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in Log.read(folder)]


@pytest.fixture(scope="module")
def undisturbed(module_work, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FIMA_WORK", str(module_work))
        return folder, run(folder)


@pytest.fixture(autouse=True)
def work_of_the_module(module_work, monkeypatch):
    monkeypatch.setenv("FIMA_WORK", str(module_work))


def assert_same(folder, undisturbed):
    "Weights, log, first and final numbers and litter are those of the run that nothing disturbed."
    whole, metrics = undisturbed
    one, other = (load_file(place / "checkpoint" / "encoder.safetensors") for place in (folder, whole))
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert numbers(folder) == numbers(whole)
    mine = json.loads((folder / "metrics.json").read_text())
    assert [mine[name] for name in ("first", "final", "trace")] == [
        metrics[name] for name in ("first", "final", "trace")
    ]

    def names(place):
        return {str(file.relative_to(place)) for file in place.rglob("*") if "tensorboard" not in file.parts}

    assert {name for name in names(folder) if not name.endswith(".torn")} == names(whole)


@pytest.mark.parametrize("moments", [(1,), (2,), (4,), (1, 2, 3, 4, 5, 6)])
def test_a_polite_stop_changes_nothing(tmp_path, undisturbed, moments):
    "Numbers of steps that the log has no line of yet belong to the checkpoint."
    for moment in moments:
        stopped(tmp_path / "run", moment)
    run(tmp_path / "run")
    assert_same(tmp_path / "run", undisturbed)


def test_scratch_of_a_killed_process_of_the_same_number(tmp_path, undisturbed):
    "In a container every call has the same process number."
    folder = stopped(tmp_path / "run", 3)
    for name in (f".step_0000004.{os.getpid()}", ".step_0000006.1"):
        (folder / "checkpoint" / name).mkdir()
        (folder / "checkpoint" / name / "method.safetensors").write_bytes(b"half")
    for place in (folder, folder / "checkpoint"):
        (place / f".latest.{os.getpid()}.1.partial").write_bytes(b"half")
    run(folder)
    assert_same(folder, undisturbed)


def test_an_older_checkpoint_that_a_kill_left_is_dropped(tmp_path, undisturbed):
    "Killed after the last checkpoint and before the removal of the one before it."
    folder = stopped(tmp_path / "run", 4)
    shutil.copytree(newest(folder), folder / "checkpoint" / "step_0000002")
    run(folder)
    assert_same(folder, undisturbed)


def test_a_note_that_a_kill_left_behind_a_finished_run_is_removed(tmp_path, undisturbed):
    "Killed after metrics.json and before the end."
    shutil.copytree(undisturbed[0], tmp_path / "run")
    (tmp_path / "run" / ".running").write_text("process 1 on somewhere")
    run(tmp_path / "run")
    assert_same(tmp_path / "run", undisturbed)


def newest(folder):
    return max((folder / "checkpoint").glob("step_*"))


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zero(file):
    file.write_bytes(bytes(file.stat().st_size))


LEFT = {
    "latest is empty": (lambda folder: (folder / "checkpoint" / "latest").write_bytes(b""), ""),
    "latest names nothing": (lambda folder: (folder / "checkpoint" / "latest").write_text("step_0000099"), ""),
    "the optimiser's file is cut off": (lambda folder: cut(newest(folder) / "training.pt"), "not a whole checkpoint"),
    "the optimiser's file is zeroed": (lambda folder: zero(newest(folder) / "training.pt"), "not a whole checkpoint"),
    "the weights are cut off": (lambda folder: cut(newest(folder) / "method.safetensors"), "not a whole checkpoint"),
    "the weights are gone": (lambda folder: (newest(folder) / "method.safetensors").unlink(), "not a whole checkpoint"),
    "the checkpoint is empty": (lambda folder: (folder / "checkpoint" / "step_0000009").mkdir(), "not a whole"),
    "begun.json is empty": (lambda folder: (folder / "begun.json").write_bytes(b""), "begun.json: empty or cut off"),
    "begun.json is zeroed": (lambda folder: zero(folder / "begun.json"), "begun.json: empty or cut off"),
    "recipe.json is cut off": (lambda folder: cut(folder / "recipe.json"), "recipe.json: empty or cut off"),
    "trace.json is empty": (lambda folder: (folder / "trace.json").write_bytes(b""), "trace.json: empty or cut off"),
    "metrics.json is empty": (lambda folder: (folder / "metrics.json").touch(), "metrics.json: empty or cut off"),
}


@pytest.mark.parametrize("what", LEFT)
def test_what_a_power_cut_leaves_is_passed_over_or_made_again(tmp_path, undisturbed, what, capsys):
    spoil, said = LEFT[what]
    folder = stopped(tmp_path / "run", 4)
    capsys.readouterr()
    spoil(folder)
    run(folder)
    assert said in capsys.readouterr().err
    if (
        what == "trace.json is empty"
    ):  # steps that are done cannot be traced any more, and a record without them says so
        assert json.loads((folder / "metrics.json").read_text())["trace"] == []
    else:
        assert_same(folder, undisturbed)


def test_a_finished_run_whose_record_is_lost_is_made_again(tmp_path, undisturbed, capsys):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed[0], folder)
    zero(folder / "metrics.json")
    run(folder)
    assert "metrics.json: empty or cut off" in capsys.readouterr().err
    assert_same(folder, undisturbed)


def test_a_zeroed_line_of_the_log_is_passed_over(tmp_path, undisturbed, capsys):
    folder = stopped(tmp_path / "run", 4)
    with (folder / "log.jsonl").open("ab") as file:
        file.write(bytes(200) + b"\n")
    run(folder)
    assert "1 spoilt lines passed over" in capsys.readouterr().err
    assert_same(folder, undisturbed)


SECOND = """
import sys
from fima.training.pretrain import pretrain
from fima.training.recipe import make_recipe
pretrain(make_recipe("smoke", overrides={"optimisation.steps": %d}), sys.argv[1], "cpu", progress=False)
"""


def test_a_second_process_is_told_and_ends(tmp_path, undisturbed):
    folder = tmp_path / "run"
    with sole_process(folder):
        second = subprocess.run(
            [sys.executable, "-c", SECOND % STEPS, folder], capture_output=True, text=True, timeout=120
        )
        assert second.returncode and f"process {os.getpid()} on " in second.stderr and ", since 20" in second.stderr
        assert [file.name for file in folder.iterdir()] == [".running"]
    run(folder)
    assert_same(folder, undisturbed)


def test_a_folder_is_free_again_after_a_kill(tmp_path):
    waiting = "import sys, time\nfrom pathlib import Path\nfrom fima.training.checkpoint import sole_process\n" + (
        "with sole_process(Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(600)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", waiting, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "in\n"
    with pytest.raises(ValueError, match=f"process {other.pid} on .* is working in it"):
        sole_process(tmp_path / "run").__enter__()
    other.kill()
    other.wait()
    began = time.monotonic()
    with sole_process(tmp_path / "run"):
        assert time.monotonic() - began < 10
    assert list((tmp_path / "run").iterdir()) == []


def test_a_forked_child_does_not_hold_its_parents_folder(tmp_path):
    "Reading processes may outlive a trainer that is killed."
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom fima.training.checkpoint import sole_process\n"
        "with sole_process(Path(sys.argv[1])):\n    child = os.fork()\n    print(child or '', flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    child = int(next(line for line in parent.stdout if line.strip()))
    parent.kill()
    parent.wait()
    try:
        time.sleep(0.5)
        with sole_process(tmp_path / "run"):
            os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, 9)


def test_where_files_cannot_be_locked_a_run_goes_on(tmp_path, monkeypatch):
    "Some network file systems know no locks."

    def refuse(descriptor, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with sole_process(tmp_path / "run"):
        (tmp_path / ".a.npy.1.1.partial").touch()
        files.sweep(tmp_path)
    assert (tmp_path / ".a.npy.1.1.partial").exists()  # it may be being written


def test_a_study_sets_torn_records_aside(tmp_path, made, capsys):
    "An empty metrics.json of a run and of an evaluation, before anything else reads them."
    trial = dict(
        name="trial",
        title="Trial",
        base={"profile": "smoke"},
        seeds=[0],
        rows=[{"name": "random", "label": "R", "overrides": {"method.name": "random"}}],
        evaluations=[{"template": "retrieval"}],
    )
    study = write_study(tmp_path, trial)
    table = made(study, tmp_path)
    folder = tmp_path / "runs" / table.run_id[0]
    for file in (folder / "metrics.json", folder / table.evaluations[0] / "metrics.json"):
        file.write_bytes(b"")
    assert run_studies(study, reports=tmp_path, progress=False, results=False).state.tolist() == ["done"]
    assert capsys.readouterr().err.count("empty or cut off; set aside") == 2


FULL = """
import resource, sys
from pathlib import Path
import torch
from fima.training.checkpoint import save_checkpoint, save_encoder
from fima.training.recipe import make_recipe
folder = Path(sys.argv[1])
net = torch.nn.Linear(200, 200)
save_checkpoint(folder, 1, net, torch.optim.SGD(net.parameters(), lr=0.1))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
optimiser = torch.optim.AdamW(net.parameters())
net(torch.ones(1, 200)).sum().backward()
optimiser.step()
for save in (
    lambda: save_checkpoint(folder, 2, net, optimiser),
    lambda: save_encoder(folder / "encoder.safetensors", net, make_recipe("smoke")),
):
    try:
        save()
        print("saved")
    except OSError as error:
        print(error)
"""


@pytest.mark.parametrize("size, second", [(10_000, "cannot be written"), (200_000, "saved")])
def test_a_disk_without_room_is_one_line_and_keeps_what_was_there(tmp_path, size, second):
    "Whichever of the two files finds no room, by safetensors or by torch."
    said = subprocess.run([sys.executable, "-c", FULL, tmp_path, str(size)], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    first, other = said.stdout.splitlines()
    assert "step_0000002" in first and "cannot be written; is the disk full?" in first
    assert second in other
    assert [file.name for file in (tmp_path / "checkpoint").iterdir() if file.is_dir()] == ["step_0000001"]
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob(".step_*"))


@pytest.mark.parametrize("kind", ["deep list", "deep mapping", "aliases", "endless alias"])
def test_yaml_that_would_take_more_than_it_is_worth_is_one_line(tmp_path, kind, capsys):
    "In a study file and in a value of the command line; well under the two seconds that a reader waits."
    levels = "\n".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 20) if n else '1'}]" for n in range(6))
    text = {
        "deep list": "rows: " + "[" * 200 + "]" * 200,
        "deep mapping": "rows: " + "{a: " * 200 + "1" + "}" * 200,
        "aliases": levels,
        "endless alias": "rows: &a [*a]",
    }[kind]
    (tmp_path / "trial.yaml").write_text(text)
    calls = [["study", "plan", str(tmp_path / "trial.yaml")]]
    calls += [["pretrain", "--show", "--change", f"method.options={text.removeprefix('rows: ')}"]] * ("rows" in text)
    for call in calls:
        began = time.process_time()
        assert main(call) == 2
        said = capsys.readouterr().err
        assert said.startswith("fima: ") and said.count("\n") == 1 and len(said) < 600
        assert time.process_time() - began < 10
