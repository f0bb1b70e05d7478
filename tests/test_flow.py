"""Flow, motion maps and tubelets of videos as they come: missing, damaged, still or stale, each in a clear way."""

import json
import pickle
import threading
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter, ValidationError

from fima.data.views.clips import ClipDataset, ClipOptions, Looped, batches
from fima.data.flow.flow import FlowCache, dense_flow, pack, unpack
from fima.data.flow.motion import MotionOptions, motion_target
from fima.data.sprites.sprites import SpriteOptions, render_video
from fima.data.flow.tubelets import MotionPlaces, Tubelets
from fima.data.video.files import VideoError, fingerprint, write_video
from fima.data.video.video import FrameCache, VideoFrames
from fima.data.views.views import random_box
from helpers import shared_data

VIEWS = dict(scale=(0.2, 1.0), aspect=(3 / 4, 4 / 3))
OPTIONS = SpriteOptions(size=32, frames=40)


@pytest.fixture
def videos(tmp_path):
    "Five videos of sprites."
    paths = [str(tmp_path / f"{number}.mp4") for number in range(5)]
    for number, path in enumerate(paths):
        write_video(render_video(OPTIONS, number, "train")[0], path)
    return paths


@pytest.fixture
def frames(videos, tmp_path):
    return FrameCache.build(videos, tmp_path / "frames", progress=False)


class Watched:
    "A frame source that notes what is read at length, and fails at one video where asked to."

    def __init__(self, frames, stop=None):
        self.frames, self.stop, self.read, self.lock = frames, stop, Counter(), threading.Lock()

    def count(self, path):
        return self.frames.count(path)

    def window(self, path, start, length):
        if length > 1:
            if path == self.stop:
                raise KeyboardInterrupt
            with self.lock:
                self.read[path] += 1
        return self.frames.window(path, start, length)


def whole(flows, path):
    return flows.flow(path, 0, flows.count(path))


def test_interrupted_work_is_resumed(videos, frames, tmp_path):
    first = Watched(frames, stop=videos[3])
    with pytest.raises(KeyboardInterrupt):
        FlowCache.build(videos, tmp_path / "flow", first, workers=1)
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "flow").glob("*.npz")}
    missing = {path for path in videos if not any(file.name.startswith(fingerprint(path)) for file in kept)}
    assert {videos[3]} <= missing <= set(videos[3:]) and not list((tmp_path / "flow").glob("*.partial"))
    second = Watched(frames)
    flows = FlowCache.build(videos, tmp_path / "flow", second)
    assert set(second.read) == missing and flows.usable == videos  # only what was missing is computed
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())


def test_one_thread_or_two_give_the_same_flow(videos, frames, tmp_path):
    one, two = (FlowCache.build(videos, tmp_path / f"flow_{workers}", frames, workers=workers) for workers in (1, 2))
    for path in videos:
        np.testing.assert_array_equal(whole(one, path), whole(two, path))


def test_a_long_video_is_computed_stretch_by_stretch(tmp_path):
    "More frames than are read at once, and a number of pairs that is no multiple of a block."
    film = np.concatenate([render_video(OPTIONS, number, "train")[0] for number in range(14)])[:530]
    path = str(tmp_path / "long.mp4")
    write_video(film, path)
    frames = FrameCache.build([path], tmp_path / "frames", progress=False)
    source = Watched(frames)
    flows = FlowCache.build([path], tmp_path / "flow", source)
    assert source.read[path] == 3
    expected = unpack(pack(dense_flow(frames.window(path, 0, 530)), 20.0), 20.0)
    np.testing.assert_array_equal(flows.flow(path, 0, 529), expected)
    np.testing.assert_array_equal(flows.flow(path, 250, 20), expected[250:270])
    assert not flows.flow(path, 529, 40).any()


@pytest.mark.parametrize(
    "field, value",
    [
        ("format", 0),
        ("method", "Farneback"),
        ("opencv", "4.0.0"),
        ("opencv_build", "0" * 12),
        ("instructions", "x86_64 AVX2"),
        ("bound", 10.0),
        ("height", 64),
        ("frames", 41),
        ("fingerprint", "0" * 32),
    ],
)
def test_a_file_made_otherwise_is_computed_anew(videos, frames, tmp_path, field, value):
    path = videos[0]
    flows = FlowCache.build([path], tmp_path / "flow", frames)
    file, expected = flows.entries[path].file, whole(flows, path)
    with np.load(file) as held:
        stored = dict(held)
    about = json.loads(str(stored.pop("about")))
    assert field in about
    np.savez_compressed(
        file, about=json.dumps(about | {field: value}), **{name: block * 0 for name, block in stored.items()}
    )
    assert not whole(flows, path).any()  # what would be read if it were trusted
    np.testing.assert_array_equal(whole(FlowCache.build([path], tmp_path / "flow", frames), path), expected)


def test_every_cut_and_every_flipped_byte_is_seen(videos, frames, tmp_path):
    path = videos[0]
    flows = FlowCache.build([path], tmp_path / "flow", frames)
    file, expected = flows.entries[path].file, whole(flows, path)
    sound, generator = file.read_bytes(), np.random.default_rng(0)
    places = generator.integers(0, len(sound), 25)
    cut = [sound[:place] for place in places]
    flipped = [sound[:place] + bytes([sound[place] ^ 0x55]) + sound[place + 1 :] for place in places]
    for spoiled in cut + flipped:
        file.write_bytes(spoiled)
        np.testing.assert_array_equal(whole(FlowCache.build([path], tmp_path / "flow", frames), path), expected)


def test_a_replaced_video_gets_flow_of_its_own(videos, frames, tmp_path):
    path = videos[0]
    before = whole(FlowCache.build([path], tmp_path / "flow", frames), path)
    write_video(render_video(OPTIONS, 7, "train")[0], path)
    after = FlowCache.build([path], tmp_path / "flow", FrameCache.build([path], tmp_path / "frames", progress=False))
    assert not np.array_equal(whole(after, path), before)
    fresh = dense_flow(VideoFrames.build([path], progress=False).window(path, 0, 40))
    expected = unpack(pack(np.concatenate([fresh, before[:1] * 0]), 20.0), 20.0)
    np.testing.assert_array_equal(whole(after, path), expected)


def test_sizes_and_bounds_live_side_by_side(videos, tmp_path):
    sources = [
        FrameCache.build(videos[:1], tmp_path / "frames", size=size, progress=False) for size in ((32, 32), (24, 40))
    ]
    made = [
        FlowCache.build(videos[:1], tmp_path / "flow", source, bound=bound)
        for source in sources
        for bound in (20.0, 5.0)
    ]
    assert len(list((tmp_path / "flow").glob("*.npz"))) == 4
    assert [whole(flows, videos[0]).shape for flows in made] == [(40, 2, 32, 32)] * 2 + [(40, 2, 24, 40)] * 2


def test_damaged_videos_are_listed(videos, tmp_path):
    "Cut short, empty, absent, too small, damaged within: in `left_out` with a reason, and refused by name."
    cut, empty, gone, tiny, hurt = (str(tmp_path / f"{name}.mp4") for name in ("cut", "empty", "gone", "tiny", "hurt"))
    sound = open(videos[0], "rb").read()
    open(cut, "wb").write(sound[:-300])
    open(empty, "wb").close()
    write_video(np.zeros((9, 8, 32, 3), np.uint8), tiny)
    start = sound.index(b"mdat") + len(sound) // 3
    open(hurt, "wb").write(sound[:start] + bytes(range(256)) * 2 + sound[start + 512 :])
    paths = [*videos[:2], cut, empty, gone, tiny, hurt]
    source = VideoFrames.build(paths, progress=False)
    assert hurt in source.usable  # its damage shows only when it is decoded
    flows = FlowCache.build(paths, tmp_path / "flow", source)
    reasons = dict(zip(flows.left_out.path, flows.left_out.reason, strict=True))
    assert flows.usable == videos[:2] and set(reasons) == set(paths[2:])
    assert "empty file" in reasons[empty]
    assert "no such file" in reasons[gone]
    assert "too small for optical flow: 8 x 32" in reasons[tiny]
    assert any(word in reasons[hurt] for word in ("damaged", "not a readable video"))
    for path in paths[2:]:
        with pytest.raises(VideoError, match="not among the usable videos of this flow"):
            flows.flow(path, 0, 4)
        with pytest.raises(VideoError, match="not among the usable videos of this flow"):
            MotionPlaces(flows).rectangle(path, 0, 16, 32, 32, **VIEWS, generator=np.random.default_rng(0))


def test_a_video_of_one_frame(tmp_path):
    path = str(tmp_path / "one.mp4")
    write_video(render_video(OPTIONS, 0, "train")[0][:1], path)
    frames = Looped(FrameCache.build([path], tmp_path / "frames", progress=False), 16)
    flows = FlowCache.build([path], tmp_path / "flow", frames)
    flow = flows.flow(path, 0, 16)
    assert flow.shape == (16, 2, 32, 32) and not flow.any()
    target = motion_target(flow, (3, 4, 20, 18), True, (2, 4, 4))
    assert target.shape == (2, 4, 4) and not target.any()
    assert places_are_plain(MotionPlaces(flows), path, 16)


def places_are_plain(places, path, count):
    "Without motion, every crop is the plain one of the same draws, and moments are drawn as ever."
    same = [
        places.rectangle(path, 0, 16, 32, 32, **VIEWS, generator=np.random.default_rng(seed))
        == random_box(32, 32, *VIEWS.values(), np.random.default_rng(seed))
        for seed in range(20)
    ]
    starts = [places.starts(path, count, 16, 3, np.random.default_rng(seed))[0] for seed in range(20)]
    return all(same) and all(0 <= start <= count - 16 for three in starts for start in three)


def test_a_video_without_motion(tmp_path):
    path = str(tmp_path / "still.mp4")
    write_video(np.repeat(render_video(OPTIONS, 0, "train")[0][:1], 40, 0), path, crf=0)
    flows = FlowCache.build([path], tmp_path / "flow", FrameCache.build([path], tmp_path / "frames", progress=False))
    places = MotionPlaces(flows)
    assert not flows.flow(path, 0, 39).any()
    assert not places.scores(path, 16).any()
    assert not places.motion(path, 3, 16).any()
    assert places_are_plain(places, path, 40)
    for options in (MotionOptions(), MotionOptions(sum="released", pairs="released", flip="released")):
        assert not motion_target(
            flows.flow(path, 0, 16), (0, 0, 32, 32), True, (2, 4, 4), options, 2, np.random.default_rng(0)
        ).any()


def test_motion_at_opposite_corners_gives_no_tubelet(tmp_path):
    "Two things move far apart: their box would be nearly the whole frame, so the crop is plain and says why."
    ground = render_video(SpriteOptions(size=64), 0, "train")[0][0]
    film, patch = np.repeat(ground[None], 40, 0), np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    for number in range(40):
        place = 4 + number % 5 * 2
        film[number, place : place + 9, 5:14] = patch
        film[number, 64 - place - 9 : 64 - place, 50:59] = patch
    path = str(tmp_path / "corners.mp4")
    write_video(film, path, crf=4)
    flows = FlowCache.build([path], tmp_path / "flow", FrameCache.build([path], tmp_path / "frames", progress=False))
    placed = [
        MotionPlaces(flows).place(path, 8, 16, 64, 64, **VIEWS, generator=np.random.default_rng(seed))
        for seed in range(8)
    ]
    assert {one.outcome for one in placed} == {"scattered"} and all(np.isnan(one.covered) for one in placed)


def dataset(videos, frames, flows):
    catalog = pd.DataFrame({"path": videos})

    def target(path, start, rectangle, flip, generator):
        return motion_target(flows.flow(path, start, 16), rectangle, flip, (2, 4, 4), MotionOptions(), 2, generator)

    cut = ClipOptions(frames_per_clip=8, crop_size=16, sub_clips=2, others=2, target="same")
    return ClipDataset(catalog, frames, cut, places=MotionPlaces(flows, Tubelets(time_p=1.0)), motion=target)


def test_batches_over_tubelets_do_not_depend_on_workers(videos, frames, tmp_path):
    flows = FlowCache.build(videos, tmp_path / "flow", frames)
    listed = [
        list(batches(dataset(videos, frames, flows), 2, 3, workers=workers, context="fork" if workers else None))
        for workers in (0, 2)
    ]
    for one, other in zip(*listed, strict=True):
        assert (one.source.clip == other.source.clip).all()
        assert (one.source.motion == other.source.motion).all()
        assert (one.order == other.order).all()
        assert one.source.motion.shape == (2, 2, 4, 4)
        assert one.source.motion.isfinite().all()
        assert one.source.motion.sum() > 0
        assert len(one.others) == 2


def test_places_travel_to_other_processes(videos, frames, tmp_path):
    places = MotionPlaces(FlowCache.build(videos, tmp_path / "flow", frames)).prepare(videos, 16)
    copy = pickle.loads(pickle.dumps(places))

    def draw(rule):
        return [
            (
                rule.starts(path, 40, 16, 3, np.random.default_rng(seed)),
                rule.rectangle(path, 5, 16, 32, 32, **VIEWS, generator=np.random.default_rng(seed)),
            )
            for path in videos
            for seed in range(4)
        ]

    assert draw(copy) == draw(places)


def test_options_go_into_a_recipe():
    "As fields of a validated recipe they are read from plain dictionaries and lists, and refuse what they do not know."
    tubelets, motion = TypeAdapter(Tubelets), TypeAdapter(MotionOptions)
    assert tubelets.validate_python({"coverage": [[4, 0.9], [8, 0.8], [12, 0.7]], "time_p": 0}) == Tubelets(time_p=0.0)
    assert tubelets.validate_json(tubelets.dump_json(Tubelets(sum="released"))) == Tubelets(sum="released")
    assert motion.validate_python({"flip": "released"}) == MotionOptions(flip="released")
    for adapter, wrong in (
        (tubelets, {"keep": 0}),
        (tubelets, {"sum": "other"}),
        (motion, {"pairs": "all"}),
        (motion, {"bound": -1}),
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


def test_ut_interaction_flow_is_that_of_its_frames(tmp_path):
    paths = sorted(map(str, shared_data("videos/ut_interaction").rglob("*.avi")))[::40]
    assert paths
    frames = FrameCache.build(paths, tmp_path / "frames", size=(72, 72), progress=False)
    flows = FlowCache.build(paths, tmp_path / "flow", frames)
    assert flows.usable == paths and not len(flows.left_out)
    for path in paths:
        np.testing.assert_allclose(
            flows.flow(path, 30, 40), dense_flow(frames.window(path, 30, 41)), atol=20 / 254 + 1e-5
        )
        assert np.isfinite(MotionPlaces(flows).motion(path, 10, 32)).all()
