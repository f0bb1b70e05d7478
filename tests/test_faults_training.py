"""What crosses notebooks in training: runs that are killed, stopped, damaged or fed badly."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fima.data.sprites.sprites import make_sprites
from fima.data.views.views import Modalities, RawBatch, RawView
from fima.methods.base import Method
from fima.training.log import Log
from fima.training.pretrain import pretrain, take_step
from fima.training.recipe import make_recipe
from fima.training.videos import data_folder

STEPS = 60
RUN = """
import sys
from fima.training.pretrain import pretrain
from fima.training.recipe import Recipe
recipe = Recipe.model_validate_json(open(sys.argv[1]).read())
print("started", flush=True)
pretrain(recipe, sys.argv[2], device="cpu", checkpoint_interval=7, log_interval=1, progress=False)
"""


@pytest.fixture(scope="module")
def undisturbed(module_work):
    recipe = make_recipe("smoke", overrides={"optimisation.steps": STEPS})
    (module_work / "recipe.json").write_text(recipe.model_dump_json())
    pretrain(recipe, module_work / "undisturbed", device="cpu", log_interval=1, progress=False)
    return module_work / "undisturbed"


def start(work, name):
    "Start the run in a process of its own; return once the loop can be running."
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(work / "recipe.json"), str(work / name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "started\n", process.stderr.read()
    return process


def wait_for_step(folder, step, process):
    "Wait until the log shows a step, or the process has ended."
    while process.poll() is None and not any(row["step"] >= step for row in Log.read(folder)):
        time.sleep(0.01)


def same_weights(one, other):
    one, other = (load_file(folder / "checkpoint" / "encoder.safetensors") for folder in (one, other))
    return all(torch.equal(one[name], other[name]) for name in one)


def test_killed_runs_continue_bit_for_bit(undisturbed):
    work, moments = undisturbed.parent, random.Random(0).sample(range(2, STEPS - 5), 3)
    for moment in sorted(moments):
        process = start(work, "killed")
        wait_for_step(work / "killed", moment, process)
        process.kill()
        process.wait()
        assert not (work / "killed" / "metrics.json").exists()
    assert start(work, "killed").wait() == 0
    assert same_weights(work / "killed", undisturbed)

    def numbers(name):
        return [(row["step"], row["loss"]) for row in Log.read(work / name)]

    assert numbers("killed") == numbers("undisturbed")


def test_sigterm_keeps_a_checkpoint(undisturbed):
    work = undisturbed.parent
    process = start(work, "stopped")
    wait_for_step(work / "stopped", 3, process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode != 0 and "the same call continues from there" in error
    kept = int((work / "stopped" / "checkpoint" / "latest").read_text().removeprefix("step_"))
    # the very step at which the signal came, not the last interval
    assert kept == Log.read(work / "stopped")[-1]["step"]
    assert start(work, "stopped").wait() == 0
    assert same_weights(work / "stopped", undisturbed)


def test_a_log_line_cut_off_by_a_kill_is_dropped(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert [row["step"] for row in Log.read(tmp_path)] == [1, 2]


def test_damaged_videos_are_left_out_and_named(tmp_path, own_work):
    recipe = make_recipe("smoke", overrides={"optimisation.steps": 1})
    folder = data_folder(recipe.data)
    catalog = make_sprites(folder, recipe.data.sprites, workers=1, progress=False)
    empty, cut = (folder / path for path in catalog[catalog.split == "train"].path.iloc[[0, 5]])
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:300])
    metrics = pretrain(recipe, tmp_path / "run", device="cpu", progress=False)
    assert {Path(row["path"]).name for row in metrics["left_out"]} == {empty.name, cut.name}
    assert all(row["reason"] for row in metrics["left_out"]) and metrics["videos"] == 22


def test_a_loss_that_is_not_finite_is_named():
    class Broken(Method):
        def __init__(self):
            super().__init__(torch.nn.Identity())
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch, generator):
            return {"pixel": (self.weight / 0).sum()}

    view = RawView(torch.zeros(2, 4, 8, 8, 3, dtype=torch.uint8), torch.zeros(2, 4), None, None)
    method = Broken()
    with pytest.raises(FloatingPointError, match="pixel = nan"):
        take_step(
            method,
            torch.optim.SGD(method.parameters(), lr=1),
            RawBatch(view, view, torch.zeros(2), torch.zeros(2)),
            Modalities(),
            seed=0,
        )
