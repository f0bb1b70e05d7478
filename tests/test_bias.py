"""Bias probes: encoders whose answer is known, videos that cannot be asked, and the results notebook on records."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fima.data.video.files import write_video
from fima.data.sprites.sprites import SpriteOptions, make_sprites, read_masks
from fima.data.video.video import FrameCache
from fima.evaluation.bias.perturb import (
    PERTURBATIONS,
    arrow_of_time,
    fit_judge,
    perturb,
    perturbed,
    stream,
    temporal_probe,
    variant_features,
)
from fima.evaluation.core.eval_clips import ClipFormat, ClipSampling, read_clips
from fima.evaluation.core.record import compare_records, smoke_run
from fima.evaluation.core.record_format import read_metrics
from fima.evaluation.bias.regions import MaskFrames, read_regions
from fima.evaluation.bias.background_swap import mixture_maker, scene_classes, background_partners, background_swap
from fima.study.plan.plan import expand
from fima.study.plan.schema import load_study
from fima.training.checkpoint import write_json
from fima.training.weights import load_encoder
from helpers import run_cells, write_study

VIEW = ClipFormat(frames_per_clip=8, stride=2, crop_size=32), ClipSampling(clips=2)


# -- encoders whose answer is known ------------------------------------------------------------------------------------


class Average(nn.Module):
    "Average all frames: blind to their order."

    def forward(self, clips):
        return nn.functional.adaptive_avg_pool2d(clips.double().mean(2), 4).float().flatten(1)[:, :, None, None, None]


class Border(nn.Module):
    "See the outermost pixels alone: the background."

    def forward(self, clips):
        edge = torch.cat([clips[..., :2, :].mean(2).flatten(2), clips[..., -2:, :].mean(2).flatten(2)], 2)
        return nn.functional.adaptive_avg_pool1d(edge, 16).flatten(1)[:, :, None, None, None]


class Videos:
    "Files of the embedded set in which grounds go with classes, read as an evaluation reads them."

    def __init__(self, folder):
        self.folder = folder.resolve()
        self.catalog = make_sprites(
            self.folder, SpriteOptions(train=96, test=48, size=32, background_bias=1.0), progress=False
        )
        self.rows = {
            split: self.catalog[self.catalog.split == split].reset_index(drop=True) for split in ("train", "test")
        }
        self.paths = {split: [str(self.folder / path) for path in rows.path] for split, rows in self.rows.items()}
        self.frames = FrameCache.build(
            self.paths["train"] + self.paths["test"], folder / "frames", workers=1, progress=False
        )

    def cuts(self, split, row):
        return read_clips(self.frames, self.paths[split][row], *VIEW)

    def plain(self, encoder, split):
        return variant_features(encoder, len(self.rows[split]), lambda row: {"": self.cuts(split, row)})[""].features

    def regions(self, row, source="true"):
        return read_regions(self.frames, self.paths["test"][row], source, self.folder, *VIEW)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return Videos(tmp_path_factory.mktemp("sprites"))


def test_an_encoder_that_averages_frames_is_blind_to_their_order(videos):
    encoder, labels = Average(), {split: rows.label.to_numpy() for split, rows in videos.rows.items()}
    plain = {split: videos.plain(encoder, split) for split in labels}
    varied = variant_features(
        encoder, 48, lambda row: perturbed(videos.cuts("test", row), videos.rows["test"].path[row])
    )
    table = temporal_probe(
        fit_judge(plain["train"], labels["train"]),
        plain["test"],
        varied,
        labels["test"],
        plain["train"],
        labels["train"],
    )
    assert (table[["drop_shuffle", "drop_reverse"]] == 0).all(axis=None)
    np.testing.assert_allclose(table[["cos_shuffle", "cos_reverse"]].to_numpy(float), 1, atol=1e-5)
    assert (table.hit_1_reverse == table.hit_1).all() and table.cos_freeze.max() < 1
    turned = variant_features(
        encoder, 96, lambda row: {"": perturb(videos.cuts("train", row), "reverse", stream(0, ""))}
    )[""].features
    assert (arrow_of_time([plain["train"], turned], [plain["test"], varied["reverse"].features]) == 0.5).all()


def test_an_encoder_that_sees_the_background_follows_the_scene(videos):
    "Grounds of the test videos are those of another class: it names that class, whatever the sprite does."
    test, encoder = videos.rows["test"], Border()
    scenes, judge = scene_classes(test), fit_judge(videos.plain(encoder, "train"), videos.rows["train"].label)
    assert (scenes != test.label).all()
    partners = background_partners(test.label, scenes, range(48), test.path)
    assert all(scenes[other] != test.label[row] for row, other in partners.items())
    table = background_swap(
        judge,
        variant_features(encoder, 48, mixture_maker(videos.regions, partners, range(48), test.path)),
        test.label,
        scenes,
        partners,
    )
    assert table.swap_scene.mean() > 0.9 and table.swap_action.mean() < 0.1 and table.background_only.mean() > 0.9
    assert table.contrasted.sum() == 0 and table.scuba.mean() < 0.4


def test_what_is_made_does_not_depend_on_how_it_is_batched(videos):
    encoder = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1))

    def make(row):
        return perturbed(videos.cuts("test", row), videos.rows["test"].path[row], seed=3)

    one, many = (variant_features(encoder, 9, make, batch=batch) for batch in (1, 64))
    for kind in PERTURBATIONS:
        np.testing.assert_allclose(one[kind].features, many[kind].features, rtol=1e-4, atol=1e-5)


def test_masks_are_cut_as_frames_are(videos):
    "The sprite is near black or near white, so its mask is seen in the frames."
    regions = videos.regions(0)
    brightness = regions.clips.mean(-1)
    assert abs(brightness[regions.masks].mean() - brightness[~regions.masks].mean()) > 50
    whole = read_masks(videos.folder, videos.rows["test"].path[0])
    assert (MaskFrames(videos.folder).window(videos.paths["test"][0], 4, 3)[..., 1] == 255 * whole[4:7]).all()


# -- videos that cannot be asked ---------------------------------------------------------------------------------------


def probe(run, folder, **parameters):
    "Evaluate a run by the template of bias probes; return its record."
    return run_cells("studies/bias", run=str(run), folder=str(folder), **parameters)["metrics"]


def replace_video(folder, path, frames, masks):
    "Write another video and mask in the place of a generated one."
    write_video(frames, folder / path)
    with open(folder / Path("masks", *Path(path).parts[1:]).with_suffix(".npz"), "wb") as file:
        np.savez_compressed(file, bits=np.packbits(masks), shape=masks.shape)


def test_videos_that_cannot_be_asked_are_left_out_and_listed(tmp_path, own_work):
    "One frame; frames that are all the same; a scene without foreground: each counts where it can be asked."
    run = smoke_run(tmp_path / "run")
    first = json.loads(json.dumps(probe(run, tmp_path / "before", pairs=20)))
    assert not first["not_probed"] and all(None not in column for column in first["videos"].values())

    folder = next((own_work / "motion_sprites").glob("*/catalog.csv")).parent
    catalog = pd.read_csv(folder / "catalog.csv")
    one, still, empty = catalog[catalog.split == "test"].path[:3]
    grain = np.random.default_rng(0)
    size = read_masks(folder, one).shape[1]
    # smooth, so that compression leaves it as it is
    picture = np.broadcast_to((80 + 2 * np.arange(size, dtype=np.uint8))[None, :, None, None], (48, size, size, 3))
    replace_video(folder, one, picture[:1], np.zeros((1, size, size), bool))
    replace_video(folder, still, picture, np.zeros((48, size, size), bool))
    replace_video(
        folder,
        empty,
        np.clip(picture.astype(int) + grain.integers(-30, 30, (48, size, size, 1)), 0, 255).astype(np.uint8),
        np.zeros((48, size, size), bool),
    )

    metrics = probe(run, tmp_path / "after", pairs=20)
    reasons = {(line["path"], line["probes"]): line["reason"] for line in metrics["not_probed"]}
    assert set(reasons) == {
        (one, "time"),
        (still, "time"),
        (one, "action or scene"),
        (still, "action or scene"),
        (empty, "action or scene"),
    }
    assert reasons[one, "time"].startswith("still")
    assert reasons[still, "action or scene"].startswith("still")
    assert reasons[empty, "action or scene"].startswith("no foreground")
    place = {path: metrics["videos"]["path"].index(path) for path in (one, still, empty)}
    shuffled = metrics["videos"]["shuffle"]
    assert shuffled[place[one]] is None and shuffled[place[still]] is None and shuffled[place[empty]] is not None
    for name in ("swap_action", "scuba", "contrasted", "background_only"):
        assert all(metrics["videos"][name][where] is None for where in place.values())
    count, estimates = len(metrics["videos"]["path"]), metrics["estimates"]
    assert estimates["accuracy"]["n"] == count
    assert [estimates[name]["n"] for name in ("shuffle", "cos_freeze", "arrow")] == [count - 2] * 3
    assert [estimates[name]["n"] for name in ("scuba", "swap_scene")] == [count - 3] * 2
    text = (tmp_path / "after" / "metrics.json").read_text()
    assert not re.search(r"\b(NaN|Infinity)\b", text) and json.loads(text)["dimensions"]["pairs"] == 20
    assert compare_records(*[tmp_path / "after" / "metrics.json"] * 2).set_index("measure").n["scuba"] == count - 3


def test_the_template_probes_difference_clips_too_and_says_the_same_twice(tmp_path, own_work):
    run = smoke_run(tmp_path / "run")
    settings = dict(pairs=20, modality="difference", masks="median", clips_per_video=1)
    first, again, other = (probe(run, tmp_path / str(seed), seed=seed, **settings) for seed in (0, 0, 1))
    assert first["videos"] == again["videos"] and first["dimensions"] == again["dimensions"]
    assert first["videos"]["cos_shuffle"] != other["videos"]["cos_shuffle"]
    assert first["dimensions"] != other["dimensions"]
    assert first["settings"]["masks"] == "median" and first["settings"]["modality"] == "difference"


def test_ground_against_motion(tmp_path, own_work, monkeypatch):
    "An encoder that sees the border alone names the ground, once grounds name classes; else there is nothing to ask."
    run = smoke_run(tmp_path / "run")
    border, (_, recipe) = Border(), load_encoder(run)
    border.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    monkeypatch.setattr("fima.evaluation.core.record.load_encoder", lambda source: (border, recipe))
    metrics = probe(run, tmp_path / "bias", pairs=3, clips_per_video=1, background_bias=1)
    scene, right = metrics["videos"]["scene"], np.equal(metrics["videos"]["label"], metrics["videos"]["predicted"])
    assert np.mean(scene) > 0.9 and not right.any() and 0 < metrics["estimates"]["scene"]["n"] == len(right)
    assert metrics["settings"]["background_bias"] == 1
    assert metrics["data_fingerprint"] != json.loads((run / "metrics.json").read_text())["data_fingerprint"]
    plain = probe(run, tmp_path / "plain", pairs=3, clips_per_video=1)
    assert "scene" not in plain["videos"] and plain["videos"]["path"] == metrics["videos"]["path"]


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(masks="soft"), "masks must be one of .*, got 'soft'"),
        (dict(pairs=2), "pairs must be at least 3, got 2"),
        (dict(background_bias=1.5), "background_bias must be in .*, got 1.5"),
        (dict(data_set="ut_interaction", masks="true"), "of the embedded set alone, got them for ut_interaction"),
        (dict(data_set="ut_interaction", background_bias=1), "of the embedded set alone"),
    ],
    ids=str,
)
def test_settings_are_refused_before_anything_is_read(tmp_path, own_work, monkeypatch, change, message):
    run = smoke_run(tmp_path / "run")
    monkeypatch.setattr("fima.evaluation.core.record.open_data", None)
    with pytest.raises(ValueError, match=message):
        probe(run, tmp_path / "bias", **change)
    assert not (tmp_path / "bias").exists()


def test_masks_must_fit_their_video(videos, tmp_path):
    class Shorter:
        def count(self, path):
            return 40

        def window(self, path, start, length):
            return videos.frames.window(path, start, length)

    with pytest.raises(ValueError, match="must be of its 40 frames, got 48"):
        read_regions(Shorter(), videos.paths["test"][0], "true", videos.folder, *VIEW)


# -- the results notebook ----------------------------------------------------------------------------------------------

METHODS = ["moco", "moco_vd", "be", "fame", "iic", "dclr", "mcl", "fima", "random", "supervised"]


def study_file(folder, name):
    "Write a study of ten methods whose recipes differ in the temperature."
    conflict = dict(name="scene_bias", label="ground or motion", measures=["accuracy", "scene"])
    study = dict(
        name=name,
        title="Planted",
        base={"profile": "smoke"},
        rows=[
            {"name": row, "label": row.upper(), "overrides": {"method.temperature": round(0.1 + 0.01 * place, 2)}}
            for place, row in enumerate(METHODS)
        ],
        evaluations=[
            {"template": "linear_probe"},
            {"template": "bias"},
            {"template": "bias", "settings": {"background_bias": 1.0}, **conflict},
        ],
        results=["bias"],
    )
    return str(write_study(folder, study))


def planted_videos(place):
    "Invent answers on 60 videos: the later its place, the better and the less biased a row."
    generator = np.random.default_rng(place)

    def answers(probability, missing=0):
        return [None] * missing + (generator.random(60 - missing) < probability).tolist()

    right = answers(0.2 + 0.07 * place)
    videos = {
        "path": [f"videos/c{v % 3}/{v}.mp4" for v in range(60)],
        "group": [f"g{v // 2}" for v in range(60)],
        "label": [v % 3 for v in range(60)],
        "predicted": [v % 3 if hit else (v + 1) % 3 for v, hit in enumerate(right)],
        "cos_freeze": (1 - 0.08 * place * generator.random(60)).tolist(),
        "freeze": answers(0.3),
        "shuffle": answers(0.3),
        "drop_shuffle": answers(0.2),
        "arrow": [0.5] * 60,
    }
    for name in ("swap_action", "swap_scene", "background_only", "scuba", "scufo", "contrasted"):
        videos[name] = answers(0.5 - 0.04 * place, 2)  # the first two could not be asked about the scene
    videos["scene"] = [not hit and v % 2 == 0 for v, hit in enumerate(right)]
    return videos


def plant(study, reports, leave=()):
    "Write a record of every row but those to leave."
    for place, run in enumerate(expand(load_study(study))):
        if run.row.name in leave:
            continue
        videos = planted_videos(place)
        record = {
            "videos": videos,
            "settings": {"masks": "true"},
            "dimensions": dict(static=0.5, dynamic=0.25, joint=0.0, residual=0.25),
            "not_probed": [
                {"path": videos["path"][v], "probes": "action or scene", "reason": "planted"} for v in range(2)
            ],
        }
        for evaluation in run.evaluations:
            folder = run.folder(reports) / evaluation.name
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "metrics.json", record)


def test_results_of_ten_methods(tmp_path, capsys):
    studies = [study_file(tmp_path, name) for name in ("planted_one", "planted_two")]
    for study in studies:
        plant(study, tmp_path / "reports", leave=("dclr",))
    run_cells("results/bias", studies=studies, reports=str(tmp_path / "reports"))
    files = sorted(
        str(file.relative_to(tmp_path / "reports"))
        for kind in ("figures", "tables")
        for file in (tmp_path / "reports" / kind).iterdir()
    )
    kinds = ("csv", "json", "md", "tex")
    assert files == ["figures/bias.png", "figures/bias.svg", *(f"tables/bias.{kind}" for kind in kinds)]
    numbers = pd.read_csv(tmp_path / "reports" / "tables" / "bias.csv").query("evaluation != 'linear_probe'")
    bias = numbers[(numbers.study == "planted_one") & (numbers.evaluation == "bias")].set_index(["row", "measure"])
    assert bias.n["moco", "accuracy"] == 60
    assert bias.n["moco", "scuba"] == 58
    assert bias.n["dclr", "scuba"] == 0
    assert np.isnan(bias.value["dclr", "scuba"])
    known = bias[bias.n > 0]
    assert (known.low <= known.value + 1e-9).all() and (known.value <= known.high + 1e-9).all()
    conflict = numbers[(numbers.study == "planted_one") & (numbers.evaluation == "scene_bias")].pivot(
        index="row", columns="measure", values="value"
    )
    assert list(conflict) == ["accuracy", "scene"]
    assert (conflict.sum(axis=1).drop("dclr") <= 1).all()
    assert np.isnan(conflict.scene["dclr"])
    text = (tmp_path / "reports" / "tables" / "bias.md").read_text()
    # contrasted, three classes: 1/3 x 2/3
    line = next(line for line in text.split("\n") if line.startswith("| chance") and "22.2" in line)
    assert "33.3" in line
    assert all(
        name in text
        for name in ("Ground or motion", "SCUBA-lite", "SCUFO-lite", "contrasted-lite", "Dimensions-lite", "not run")
    )
    assert not re.search(r"SCUBA(?!-lite)|SCUFO(?!-lite)|\bnan\b", text)
    svg = (tmp_path / "reports" / "figures" / "bias.svg").read_text()
    # one legend; every panel says what it lacks
    assert svg.count(">ground named against motion, per cent<") == 2
    assert svg.count(">MOCO<") == 1
    assert svg.count(">1 not run<") == 4


def test_one_table_holds_accuracy_bias_and_cost(tmp_path, capsys):
    study, reports = study_file(tmp_path, "planted"), tmp_path / "reports"
    plant(study, reports, leave=("dclr",))
    (reports / "tables").mkdir()
    (reports / "tables" / "planted_cost.csv").write_text(
        "row,seconds_per_step,operations,peak_mebibytes,device\nfima,.25,3e9,512,planted\n"
    )
    space = run_cells("results/methods", studies=[study], reports=str(reports))
    table = space["with_cost"](space["every"][0]).set_index("method")
    assert list(table)[:5] == [
        "ours: linear probe",
        "background only",
        "lost when shuffled",
        "ours: ground or motion, accuracy",
        "ours: ground or motion, scene",
    ]
    cost = table.loc["FIMA", ["seconds a step", "operations, G", "peak memory, MiB"]]
    assert cost.tolist() == ["0.250", "3.00", "512"]
    assert table.loc["BE", "seconds a step"] == "-"
    first = expand(load_study(study))[0]
    record = (
        first.folder(reports) / next(each.name for each in first.evaluations if each.called == "bias") / "metrics.json"
    )
    named = [hit for hit in read_metrics(record)["videos"]["background_only"] if hit is not None]
    assert str(table.loc["DCLR", "background only"]) == "not run"
    assert table.loc["MOCO", "background only"].value == pytest.approx(100 * np.mean(named))
    assert "planted · device planted" in capsys.readouterr().out
    text = (reports / "tables" / "planted.md").read_text()
    assert "## Methods and cost" in text and "## Beside FIMA, by the linear probe" in text and "same frames" not in text


@pytest.mark.parametrize("apart", [1, 2])
def test_scenes_of_too_few_groups_are_one_line(tmp_path, capsys, monkeypatch, apart):
    "Of one group whose scene misleads no interval can be drawn, of two one can."
    monkeypatch.setenv("FIMA_DATA", str(tmp_path))  # the videos are not here
    study, reports = study_file(tmp_path, "planted_scenes"), tmp_path / "reports"
    plant(study, reports)
    scenes = pd.DataFrame(planted_videos(0))[["path", "label", "group"]]
    scenes["disagrees"] = scenes.group.isin([f"g{number}" for number in range(apart)])
    scenes["scene"] = np.where(scenes.disagrees, (scenes.label + 1) % 3, scenes.label)
    scenes["nearest_scene"], scenes["nearest_motion"] = scenes.scene, scenes.label
    (reports / "tables").mkdir()
    scenes.to_csv(reports / "tables" / "planted_scenes_scenes.csv", index=False)
    space = run_cells("results/ucf101_5", studies=[study], reports=str(reports))
    assert ("too few groups" in capsys.readouterr().out) == (apart == 1)
    assert len(space["by_scene"]) == (0 if apart == 1 else len(METHODS) + 2)
    text = (reports / "tables" / "planted_scenes.md").read_text()
    assert ("## Where the scene is another class's" in text) == (apart == 2)


def test_nothing_run_leaves_files_alone(tmp_path, capsys):
    study, kept = study_file(tmp_path, "planted_none"), tmp_path / "reports" / "tables" / "bias.md"
    kept.parent.mkdir(parents=True)
    kept.write_text("of an earlier day")
    run_cells("results/bias", studies=[study, "no_such_study"], reports=str(tmp_path / "reports"))
    said = capsys.readouterr().out
    assert "planted_none.yaml: 0 of 10 bias evaluations made: not run" in said
    assert "no_such_study: not run: there is no study of this name" in said
    assert "bias: not run; the files of this name are left as they are" in said
    assert kept.read_text() == "of an earlier day"
    assert [file.name for file in kept.parent.iterdir()] == ["bias.md"]
    assert not (tmp_path / "reports" / "figures").exists()
