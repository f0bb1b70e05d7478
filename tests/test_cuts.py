"""Cuts of a video: the frames of a full decode, whatever is skipped or sought; little asked of others' sources."""

from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pytest

from fima.data.video.cuts import Cut, cut_frames
from fima.data.video.video import VideoFrames, decode
from fima.data.views.clips import ClipDataset, ClipOptions
from fima.evaluation.bias.regions import _sample_frames, median_background
from fima.evaluation.core.eval_clips import ClipFormat, ClipSampling, read_clips
from fima.training.recipe import make_recipe

FORMATS = {  # file name -> encoder, its options, B-frames, frames between keyframes
    "b_frames.mp4": ("libx264", {}, 3, 25),
    "pyramid.mkv": ("libx264", {"x264-params": "b-pyramid=normal:open-gop=1"}, 3, 20),
    "one_keyframe.mp4": ("libx264", {"x264-params": "scenecut=0"}, 2, 250),
    "every_frame.mp4": ("libx264", {}, 0, 1),
    "mpeg4.avi": ("mpeg4", {"qscale": "4"}, 2, 12),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, 0, 15),
}


def written(path, frames, codec, options, b_frames, interval):
    "Write frames as a file."
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = interval, b_frames
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def film(frames=90, height=48, width=64):
    "Blocks of noise that slide to the right."
    generator = np.random.default_rng(0)
    ground = generator.integers(0, 256, (height // 8, 2 * width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    return np.stack([np.ascontiguousarray(np.roll(ground, number, 1)[:, :width]) for number in range(frames)])


@pytest.mark.parametrize("name", FORMATS)
def test_cuts_are_those_of_a_full_decode(tmp_path, name):
    "What is skipped or sought changes no pixel of what is kept."
    path = written(tmp_path / name, film(), *FORMATS[name])
    every, generator = decode(path), np.random.default_rng(1)
    frames = VideoFrames.build([path], exact=True, progress=False)
    for _ in range(12):
        cuts = [
            Cut(
                np.sort(generator.choice(len(every), generator.integers(1, 12), replace=False)),
                (*generator.integers(0, 20, 2).tolist(), 20, 24),
                16,
                bool(generator.integers(2)),
            )
            for _ in range(generator.integers(1, 4))
        ]
        for made, cut in zip(frames.cuts(path, cuts), cuts, strict=True):
            np.testing.assert_array_equal(made, cut_frames(every, cut))


@pytest.mark.parametrize("exact", [True, False], ids=["converted first", "cut first"])
def test_nothing_moves_in_a_still_video(tmp_path, exact):
    "Clips of an evaluation and the background that is taken away from them are cut alike."
    ground = np.random.default_rng(0).integers(0, 256, (1, 60, 80, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    path = written(tmp_path / "still.mp4", ground.repeat(40, 0), *FORMATS["b_frames.mp4"])
    frames = VideoFrames.build([path], exact=exact, progress=False)
    clips = read_clips(frames, path, ClipFormat(8, 2, 112), ClipSampling(clips=2))
    background = median_background(_sample_frames(frames, path, 112, 0.875))
    assert np.abs(clips.astype(int) - background).mean() < 2


def test_a_source_that_gives_windows_alone_is_asked_for_little():
    class Long:
        asked = []

        def count(self, path):
            return 9000

        def window(self, path, start, length):
            self.asked.append((start, length))
            return np.zeros((length, 24, 32, 3), np.uint8)

    clips = ClipDataset(pd.DataFrame({"path": ["long"]}), Long(), ClipOptions(crop_size=16))
    for epoch in range(20):
        clips[epoch, 0]
    assert max(length for _, length in Long.asked) <= 64  # two windows of 32, which may touch


def test_runs_that_converted_first_keep_their_names():
    "A run of November on video read from its files is found again by data.exact, and not by the new way."
    named = {"data.name": "ucf101", "data.sprites": None, "method.pixel_average": "video"}  # as all were in November
    old, new = (make_recipe("paper", overrides=named | {"data.exact": exact}) for exact in (True, False))
    assert old.run_id == "fima-a1151248701b" and new.run_id != old.run_id
    cached = named | {"data.cache_size": (72, 72)}
    assert make_recipe("paper", overrides=cached).run_id == "fima-330002f6dd3b"
    with pytest.raises(ValueError, match="data.exact is for video that is read from its files"):
        make_recipe("paper", overrides=cached | {"data.exact": True})
