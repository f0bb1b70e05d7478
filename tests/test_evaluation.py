"""Protocols: numbers worked out by hand, nothing chosen on test videos, kills, one clear line for every bad input."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from fima.data.video.files import write_video
from fima.evaluation.core.eval_clips import ClipSampling
from fima.evaluation.protocols.evaluate_all import evaluate_all
from fima.evaluation.protocols.linear import linear_probe, probe_by
from fima.evaluation.protocols.protocols import FINETUNE, LINEAR, find_protocol
from fima.evaluation.core.record import evaluated_data, open_run
from fima.evaluation.core.record_format import read_metrics
from fima.evaluation.protocols.retrieval import retrieve
from fima.evaluation.core.statistics import cluster_bootstrap, paired_test
from fima.training.checkpoint import save_encoder
from fima.training.pretrain import pretrain
from fima.training.recipe import make_recipe
from fima.training.weights import load_encoder
from helpers import check_refusal, shared_data

pytestmark = pytest.mark.usefixtures("own_work")


@pytest.fixture
def run(tmp_path):
    "A run of the method `random`: an encoder as initialised, on 24 + 24 sprites."
    pretrain(make_recipe("smoke", overrides={"method.name": "random"}), tmp_path / "run", progress=False)
    return tmp_path / "run"


# ---- numbers worked out by hand

GALLERY = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])  # directions 0, 90, 45 and 180 degrees
CLASSES = np.array([0, 1, 1, 0])
QUERIES = np.array([[3.0, 0.3], [0.1, 1.0], [-1.0, -0.1], [1.0, 0.8]])  # 5.7, 84.3, 185.7 and 38.7 degrees


def test_recall_by_hand():
    "With labels 1, 0, 0, 1 query 0 hits at k = 2, query 1 at k = 3, queries 2 and 3 at once."
    found = retrieve(QUERIES, GALLERY, [1, 0, 0, 1], CLASSES, ks=(1, 2, 3, 4))
    # nearest by angle
    assert found.neighbours.tolist() == [[0, 2, 1, 3], [1, 2, 0, 3], [3, 1, 2, 0], [2, 0, 1, 3]]
    assert found.recall == {1: 0.5, 2: 0.75, 3: 1.0, 4: 1.0}


def test_top_1_by_hand():
    "Two classes on a line, -1 and +1: by symmetry the boundary is 0, so that three of four test videos are right."
    probe = linear_probe(np.array([[-1.0], [1.0]]), [0, 1], np.array([[-2.0], [-0.5], [0.5], [2.0]]), [0, 1, 1, 1])
    assert probe.predicted.tolist() == [0, 0, 1, 1] and probe.accuracy == 0.75
    # whole groups are drawn, a (right, wrong), b (right), c (right): the mean of three is at least 0.5 and at most 1
    estimate = cluster_bootstrap([1, 0, 1, 1], ["a", "a", "b", "c"], draws=2000, seed=0)
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (0.75, 0.5, 1.0, 4)


def test_paired_test_by_hand():
    "Three groups in which a is right and b wrong: of the 8 sign patterns 2 are as extreme, so p = 1/4."
    assert paired_test([1, 1, 1], [0, 0, 0], ["a", "b", "c"]).p == 0.25


# ---- nothing is chosen on test videos


def made_up(seed, videos=60, groups=12, classes=3):
    "Noisy features of three classes: (N, 2 clips, 6), labels, groups."
    draw = np.random.default_rng(seed)
    labels = np.arange(videos) % classes
    features = 2 * np.eye(classes, 6)[labels][:, None] + draw.normal(0, 1.5, (videos, 2, 6))
    return features.astype(np.float32), labels, np.arange(videos) * groups // videos


@pytest.mark.parametrize("name", LINEAR)
def test_test_labels_choose_nothing(name):
    "Other test labels: the same choice and the same predictions, except where the name says otherwise."
    protocol = find_protocol("linear", name, epochs=20)
    (train_x, train_y, groups), (test_x, test_y, _) = made_up(0), made_up(1)
    crops = ()
    if protocol.augment:
        crops = np.random.default_rng(2).normal(train_x.mean(1), 0.5, (20, *train_x.mean(1).shape))
    outcomes = [
        probe_by(protocol, train_x, train_y, groups, test_x, labels, crops)
        for labels in (test_y, np.roll(test_y, 1), np.zeros_like(test_y))
    ]
    same = all(
        other.chosen == outcomes[0].chosen and (other.predicted == outcomes[0].predicted).all()
        for other in outcomes[1:]
    )
    assert same == (name != "best_test_epoch")


def test_only_named_protocols_look_at_test_videos():
    for table in (LINEAR, FINETUNE):
        assert {name for name, protocol in table.items() if protocol.choose == "test"} == {"best_test_epoch"}
        assert "TEST" in table["best_test_epoch"].source
        # they differ in nothing else
        assert replace(table["best_test_epoch"], choose="validation", source="") == replace(
            table["released"], source=""
        )


# ---- killed and continued

FINETUNE_SMOKE = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from fima.evaluation.core.eval_clips import ClipSampling
from fima.evaluation.protocols.finetune import FinetuneOptions, LabelledVideos, finetune
from fima.evaluation.protocols.protocols import FINETUNE
from fima.evaluation.core.record import open_run
opened = open_run(sys.argv[1])
protocol = replace(FINETUNE["demo"], epochs=8, decay_at=(6,), every=2, batch_size=4)
videos = LabelledVideos(opened.rows("train"), opened.rows("test"), opened.data.frames)
how = ClipSampling(clips=2), FinetuneOptions(progress=False)
outcome = finetune(protocol, opened.encoder, videos, opened.recipe.views, sys.argv[2], *how)
np.savez(sys.argv[3], scores=outcome.scores, epochs=outcome.curve.epoch, accuracies=outcome.curve.accuracy)
"""


def test_killed_finetuning_continues_to_the_same_bits(run, tmp_path):
    def start(name):
        return subprocess.Popen(
            [sys.executable, "-c", FINETUNE_SMOKE, run, tmp_path / name, tmp_path / f"{name}.npz"],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    assert start("whole").wait() == 0
    for measured in (1, 3):
        process, file = start("killed"), tmp_path / "killed" / "looks.jsonl"
        while process.poll() is None and not (file.exists() and file.read_text().count("\n") >= measured):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed.npz").exists()
    assert start("killed").wait() == 0
    whole, killed = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "killed.npz")
    for name in ("scores", "epochs", "accuracies"):
        np.testing.assert_array_equal(whole[name], killed[name])


# ---- bad input: one line that names the thing, the rule and the value


def one_line(result, *words):
    check_refusal(result, *words, codes=(1, 2))


def refused(action, *words):
    "Expect a ValueError of one line; the command line prints it as it is."
    with pytest.raises(ValueError) as caught:
        action()
    line = "; ".join(str(caught.value).splitlines())
    for word in words:
        assert word in line, line


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(ks=(1, 25)), ["ks must lie within [1, 24]", "(1, 25)"]),
        (
            dict(linear=["papre"]),
            ["linear protocol must be one of paper, released, best_test_epoch, logistic", "'papre'"],
        ),
        (dict(retrieval=["fima"]), ["retrieval", "fima"]),
        (dict(sampling=ClipSampling(crops=2)), ["crops must be 1 or 3", "2"]),
        (dict(sampling=ClipSampling(modality="flow")), ["modality must be one of", "'flow'"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_settings(run, settings, words):
    usual = dict(linear=(), ks=(1,), sampling=ClipSampling(clips=2), epochs=1, progress=False)
    refused(lambda: evaluate_all(open_run(run), **usual | settings), *words)


def test_a_bad_setting_on_the_command_line(call, run):
    "The error comes out of a template that another process executes; still one line."
    one_line(
        call("evaluate", run, "--change", "clips=2", "--change", "linear=[]", "--change", "ks=[1, 25]"),
        "ks must lie within [1, 24]",
    )


def test_a_split_twice(call, run):
    one_line(call("evaluate", run, "--splits", "1,1"), "--splits must name each split once", "1,1")


def test_bad_data_sets(run):
    refused(lambda: open_run(run, evaluated_data(load_encoder(run)[1], "ucf11")), "ucf11")
    refused(lambda: open_run(run, evaluated_data(load_encoder(run)[1], "ucf101"), videos=Path("/nowhere")), "/nowhere")
    refused(lambda: find_protocol("finetune", "papre"), "finetune protocol must be one of", "'papre'")


def tree(folder, train, test):
    "Lay out small videos as Weizmann's: class folders, an index, two lists."
    films = {name: np.full((32, 16, 16, 3), 20 * number, np.uint8) for number, name in enumerate([*train, *test])}
    for name, frames in films.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(frames, folder / name)
    classes = sorted({name.split("/")[0] for name in films})
    (folder / "splits").mkdir()
    (folder / "classInd.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(classes, 1)))
    (folder / "splits" / "trainlist01.txt").write_text(
        "".join(f"{name} {classes.index(name.split('/')[0]) + 1}\n" for name in train)
    )
    (folder / "splits" / "testlist01.txt").write_text("".join(f"{name}\n" for name in test))
    return folder


def test_one_class_only(run, tmp_path):
    videos = tree(tmp_path / "w", ["bend/p1_bend.mp4", "bend/p2_bend.mp4"], ["bend/p3_bend.mp4"])
    refused(lambda: open_run(run, evaluated_data(load_encoder(run)[1], "weizmann4"), videos=videos), "class", "bend")


def test_an_empty_split(run, tmp_path):
    videos = tree(tmp_path / "w", ["bend/p1_bend.mp4", "jack/p2_jack.mp4"], [])
    refused(lambda: open_run(run, evaluated_data(load_encoder(run)[1], "weizmann4"), videos=videos), "testlist01.txt")


def test_nan_weights(call, run, tmp_path):
    weights = load_file(run / "checkpoint" / "encoder.safetensors")
    name = next(name for name, value in weights.items() if value.ndim == 5)
    weights[name][0, 0, 0, 0, 0] = torch.nan
    encoder, recipe = load_encoder(run)
    encoder.load_state_dict(weights)
    save_encoder(tmp_path / "nan.safetensors", encoder, recipe)
    one_line(call("evaluate", tmp_path / "nan.safetensors"), name)


def test_a_checkpoint_of_another_architecture(call, tmp_path):
    torch.save({"state_dict": {"module.encoder_q.conv1.weight": torch.zeros(64, 3, 7, 7)}}, tmp_path / "resnet.pth.tar")
    one_line(call("evaluate", tmp_path / "resnet.pth.tar"), "resnet.pth.tar", "another architecture")
    one_line(
        call("checkpoint", "import", tmp_path / "resnet.pth.tar", tmp_path / "theirs"),
        "resnet.pth.tar",
        "another architecture",
    )
    save_file({"weight": torch.zeros(3)}, tmp_path / "loose.safetensors")
    one_line(call("evaluate", tmp_path / "loose.safetensors"), "loose.safetensors")
    assert not (tmp_path / "theirs").exists()


def test_code_in_a_checkpoint_is_not_run(call, tmp_path):
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    torch.save({"state_dict": Hostile()}, tmp_path / "hostile.pth")
    one_line(call("evaluate", tmp_path / "hostile.pth"), "hostile.pth", "nothing of it was executed")
    assert not marker.exists()


# ---- real video


def test_one_encoder_under_every_protocol_on_real_video(call, tmp_path):
    "Two folds of UT-Interaction, pooled; every number of the table is the mean of its per-video rows."
    shared_data("videos/ut_interaction")
    data = ("--base", "ut_interaction", "--change", "method.name=random")
    trained = call("pretrain", "--profile", "smoke", *data, "--folder", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    few = ("--change", "epochs=2", "--change", "clips=2")
    done = call("evaluate", tmp_path / "run", "--splits", "1,2", *few, "--folder", tmp_path / "all")
    assert done.returncode == 0, done.stderr
    metrics = read_metrics(tmp_path / "all" / "metrics.json")
    videos = pd.DataFrame(metrics["videos"])
    assert len(videos) == 48
    assert videos.path.is_unique
    assert metrics["split"] == [1, 2]
    assert videos.split.value_counts().to_dict() == {1: 24, 2: 24}
    assert set(metrics["estimates"]) == {
        "accuracy",
        *(f"linear_{name}" for name in LINEAR),
        *(f"retrieval_{name}_hit_{k}" for name in ("paper", "fame", "coclr", "iic", "tclr") for k in (1, 5)),
    }
    for name, estimate in metrics["estimates"].items():
        assert estimate["n"] == 48 and estimate["low"] <= estimate["value"] <= estimate["high"]
        if name != "accuracy":
            assert estimate["value"] == pytest.approx(videos[name].mean())
    assert len(done.stdout.splitlines()) == 1 + 4 + 10 + 2  # where the numbers and the pictures are
