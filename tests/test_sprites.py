"""The embedded data set: the same bytes for the same options however it is made, and truth that matches the pixels."""

import hashlib
import json
import time

import cv2
import numpy as np
import pandas as pd
import pytest

from fima.data.sets.datasets import open_catalog
from fima.data.sprites import sprites
from fima.data.sprites.sprites import (
    CLASS_NAMES,
    CLASSES,
    MOTIONS,
    SpriteOptions,
    make_sprites,
    motion_labels,
    read_masks,
    render_video,
    sprite_catalog,
)
from fima.data.video.files import probe
from fima.data.video.video import decode
from helpers import TOP, contents

SMALL = SpriteOptions(train=24, test=12)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sprites") / "set"
    return folder, make_sprites(folder, SMALL, workers=2, progress=False)


# -- the same bytes ----------------------------------------------------------------------------------------------------


def test_same_options_give_the_same_bytes_with_any_number_of_workers(made, tmp_path):
    make_sprites(tmp_path / "again", SMALL, workers=1, progress=False)
    assert contents(tmp_path / "again") == contents(made[0])


def test_another_seed_gives_other_videos(made, tmp_path):
    make_sprites(tmp_path / "other", SpriteOptions(train=24, test=12, seed=1), progress=False)
    videos, other = (
        {name: data for name, data in contents(folder).items() if name.endswith(".mp4")}
        for folder in (made[0], tmp_path / "other")
    )
    assert videos.keys() == other.keys() and not any(videos[name] == other[name] for name in videos)


def test_a_larger_set_begins_with_the_smaller_one(made):
    larger = sprite_catalog(SpriteOptions(train=48, test=12))
    assert set(made[1]["path"]) < set(larger["path"])
    assert (render_video(SMALL, 5, "train")[0] == render_video(SpriteOptions(train=48), 5, "train")[0]).all()


# -- the folder --------------------------------------------------------------------------------------------------------


def test_what_was_deleted_is_made_again_and_nothing_else(made, tmp_path):
    folder, whole = made[0], contents(made[0])
    kept = folder / made[1]["path"].iloc[3]
    before = kept.stat().st_mtime_ns
    for name in (
        made[1]["path"].iloc[0],
        made[1]["path"].iloc[1].replace("videos", "masks").replace(".mp4", ".npz"),
        "catalog.csv",
    ):
        (folder / name).unlink()
    make_sprites(folder, SMALL, progress=False)
    assert contents(folder) == whole and kept.stat().st_mtime_ns == before


def test_a_run_that_was_stopped_goes_on(made, tmp_path, monkeypatch):
    folder, written, write_video = tmp_path / "stopped", [], sprites.write_video

    def stop_at_the_tenth(frames, path):
        if len(written) == 10:
            raise KeyboardInterrupt
        written.append(path)
        return write_video(frames, path)

    monkeypatch.setattr(sprites, "write_video", stop_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        make_sprites(folder, SMALL, workers=1, progress=False)
    assert not (folder / "options.json").exists() and len(list(folder.rglob("*.mp4"))) == 10
    monkeypatch.setattr(sprites, "write_video", write_video)
    with pytest.raises(ValueError, match="size is 48, asked for 32"):
        make_sprites(folder, SpriteOptions(train=24, test=12, size=32), progress=False)
    make_sprites(folder, SMALL, progress=False)
    assert contents(folder) == contents(made[0])


@pytest.mark.parametrize(
    "change",
    [dict(train=12), dict(seed=3), dict(clutter=2), dict(background_bias=0.3)],
    ids=lambda change: next(iter(change)),
)
def test_a_folder_of_other_options_is_refused(made, change):
    name, value = next(iter(change.items()))
    before = contents(made[0])
    with pytest.raises(ValueError, match=f"other options: {name} is .*, asked for {value}"):
        make_sprites(made[0], SpriteOptions(**(dict(train=24, test=12) | change)), progress=False)
    assert contents(made[0]) == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="must be empty or hold motion sprites"):
        make_sprites(tmp_path, SMALL, progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_catalog_on_disk_is_the_one_returned(made):
    folder, catalog = made
    pd.testing.assert_frame_equal(pd.read_csv(folder / "catalog.csv"), catalog, check_like=True)
    opened = open_catalog("motion_sprites", folder)
    assert list(opened["path"]) == list(catalog["path"]) and list(opened["label"]) == list(catalog["label"])
    assert json.loads((folder / "options.json").read_text())["train"] == 24


# -- truth -------------------------------------------------------------------------------------------------------------


def test_classes_are_balanced_in_each_split():
    catalog = sprite_catalog(SpriteOptions())
    assert pd.crosstab(catalog["split"], catalog["class"]).loc[["test", "train"]].to_numpy().tolist() == [
        [50] * 12,
        [80] * 12,
    ]
    for row in catalog.itertuples():
        assert {MOTIONS[row.first_motion], MOTIONS[row.second_motion]} == set(CLASSES[row.label])
    assert pd.concat([catalog["first_motion"], catalog["second_motion"]]).value_counts().tolist() == [390] * 8
    assert not catalog["path"].duplicated().any()
    assert list(catalog["label"].map(dict(enumerate(CLASS_NAMES)))) == list(catalog["class"])


def test_files_hold_the_frames_and_masks_that_were_rendered(made):
    folder, catalog = made
    for row in catalog.iloc[::7].itertuples():
        frames, masks, motions = render_video(SMALL, row.number, row.split)
        info, decoded = probe(folder / row.path), decode(folder / row.path)
        assert (info.frames, info.height, info.width) == (48, 48, 48)
        assert np.abs(decoded.astype(float) - frames).mean() < 8
        assert (read_masks(folder, row.path) == masks).all()
        assert motion_labels(row, 0, 24) == motions[0]
        assert motion_labels(row, 24, 24) == motions[-1]
        assert motion_labels(row, 20, 8) == -1


def test_what_changes_lies_under_the_masks(made):
    "With a still camera, all but a few of the strong changes of the decoded video are where the sprite is or was."
    folder, catalog = made
    for row in catalog[~catalog["camera"]].iloc[:8].itertuples():
        change = np.abs(np.diff(decode(folder / row.path).astype(float), axis=0)).mean(axis=-1) > 40
        masks = read_masks(folder, row.path)
        near = [
            cv2.dilate((now | then).astype(np.uint8), np.ones((3, 3))) > 0
            for now, then in zip(masks[1:], masks[:-1], strict=True)
        ]
        assert change.sum() > 500 and (change & np.stack(near)).sum() > 0.98 * change.sum()


@pytest.mark.parametrize("name", MOTIONS)
def test_masks_move_as_the_motion_says(name):
    "Middle, area and proportions of the mask vary in the one way that the motion names."
    options, seen = SpriteOptions(camera_motion=0.0, size=96), 0
    rows, columns = np.mgrid[:96, :96] / 2
    catalog = sprite_catalog(options).query("split == 'train' and first_motion == @MOTIONS.index(@name)")
    for row in catalog.head(4).itertuples():
        masks = render_video(options, row.number, "train")[1][:24].astype(float)
        area = masks.sum(axis=(1, 2))
        middle = {axis: (masks * grid).sum(axis=(1, 2)) / area for axis, grid in (("right", columns), ("down", rows))}
        extent = {
            axis: np.sqrt((masks * (grid - middle[axis][:, None, None]) ** 2).sum(axis=(1, 2)) / area)
            for axis, grid in (("right", columns), ("down", rows))
        }
        moves = {axis: path.std() > 1.5 for axis, path in middle.items()}
        expected = {
            "swing": (True, False),
            "bounce": (False, True),
            "diagonal": (True, True),
            "orbit": (True, True),
        }.get(name, (False, False))
        assert (moves["right"], moves["down"]) == expected
        assert (area.std() / area.mean() > 0.2) == (name == "pulse")
        assert (np.log(extent["right"] / extent["down"]).std() > 0.3) == (name == "stretch")
        if name in ("diagonal", "orbit"):
            assert (abs(np.corrcoef(middle["right"], middle["down"])[0, 1]) > 0.95) == (name == "diagonal")
        if name in ("spin", "wobble"):
            assert (masks[1:] != masks[:-1]).mean() > 0.002
        seen += 1
    assert seen == 4


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [0.25, 0.5])
def test_background_bias_measured_in_the_pixels_is_the_one_asked_for(bias):
    "Videos alike along the frame's edge stand on one ground: their class's in training, another class's in test."
    options = SpriteOptions(train=96, test=96, camera_motion=0.0, background_bias=bias)
    edge = np.ones((48, 48), bool)
    edge[3:-3, 3:-3] = False
    pixels = {
        split: np.stack([np.median(render_video(options, index, split)[0], axis=0)[edge] for index in range(96)])
        for split in ("train", "test")
    }
    label = np.arange(96) % 12

    def alike(some, others):
        return np.abs(some[:, None] - others[None]).mean(axis=(2, 3)) < 6

    same_class = label[:, None] == label[None]
    within = alike(pixels["train"], pixels["train"]) & ~np.eye(96, dtype=bool)
    assert not (within & ~same_class).any() and np.mean(within.any(axis=1)) == pytest.approx(bias)
    across = alike(pixels["test"], pixels["train"])
    assert not (across & same_class).any() and np.mean(across.any(axis=1)) == pytest.approx(bias)


def test_by_default_every_ground_is_the_videos_own():
    assert (sprite_catalog(SpriteOptions())["ground"] == -1).all()


@pytest.mark.parametrize("change", [dict(clutter=4), dict(background_bias=1.0)], ids=lambda change: next(iter(change)))
def test_an_option_leaves_the_sprite_alone(change):
    plain, changed = SpriteOptions(camera_motion=0.0), SpriteOptions(**(dict(camera_motion=0.0) | change))
    assert (render_video(plain, 17, "test")[1] == render_video(changed, 17, "test")[1]).all()


def test_travelling_sprites_cross_the_frame():
    def reach(options):
        masks = [render_video(options, index, "train")[1] for index in range(6)]
        return np.mean([mask.any(axis=0).mean() for mask in masks])

    assert reach(SpriteOptions(travelling=True)) > 1.3 * reach(SpriteOptions())


def test_camera_share_is_about_the_one_asked_for():
    for fraction in (0.0, 0.3, 1.0):
        camera = sprite_catalog(SpriteOptions(camera_motion=fraction))["camera"]
        assert camera.mean() == pytest.approx(fraction, abs=0.04)


# -- speed and card ----------------------------------------------------------------------------------------------------


def test_a_thousand_videos_cost_less_than_a_minute_of_one_core(tmp_path):
    begun = time.process_time()
    make_sprites(tmp_path / "set", SpriteOptions(train=52, test=12), progress=False)
    assert time.process_time() - begun < 64 * 60 / 1000


def test_the_data_card_is_that_of_the_generator():
    catalog = sprite_catalog(SpriteOptions())
    card = (TOP / "data_cards" / "motion_sprites.md").read_text()
    assert hashlib.sha256(catalog.to_csv(index=False).encode()).hexdigest() in card
    assert "| **all** | 960 | 600 |" in card
