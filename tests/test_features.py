"""Features do not depend on how they are read: once, by however many processes, from files or from memory."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from fima.data.views.clips import Looped, uniform_clips
from fima.data.video.files import VideoError, write_video
from fima.data.video.video import VideoFrames
from fima.data.views.views import centre_crop
from fima.evaluation.core.features import cached_features, default_workers, extract, load_features, pool_map
from fima.evaluation.core.eval_clips import WHOLE, ClipFormat, ClipSampling, read_clips, squares, to_input
from fima.evaluation.protocols.retrieval import RETRIEVAL_PROTOCOLS, retrieve_by
from fima.methods.encoders.encoders import build_encoder

SMALL = ClipFormat(frames_per_clip=8, stride=2, crop_size=32)
TWO, THREE = ClipSampling(clips=2), ClipSampling(clips=3)


class Memory:
    "Videos of given lengths whose frames all differ; `asked` notes what was read of which."

    def __init__(self, *counts, height=20, width=28):
        self.counts, self.size, self.asked = counts, (height, width, 3), []
        self.usable = [str(number) for number in range(len(counts))]

    def count(self, path):
        return self.counts[int(path)]

    def frame_size(self, path):
        return self.size[:2]

    def window(self, path, start, length):
        assert 0 <= start and start + length <= self.count(path)
        self.asked.append((path, start, length))
        video = np.random.default_rng(int(path)).integers(0, 256, (self.count(path), *self.size), dtype=np.uint8)
        return video[start : start + length]


@pytest.fixture(scope="module")
def encoder():
    return build_encoder("small3d", generator=torch.Generator().manual_seed(0))


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# -- every video is read once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 15, 16, 17, 44, 160, WHOLE])
@pytest.mark.parametrize("crops", [1, 3])
def test_a_video_is_read_once(encoder, count, crops):
    frames = Memory(count, 50, height=6, width=8)
    extract(encoder, frames, frames.usable, SMALL, ClipSampling(crops=crops), progress=False)
    assert [path for path, *_ in frames.asked] == ["0", "1"]


def test_a_long_video_is_read_clip_by_clip_and_no_frame_twice():
    frames = Memory(WHOLE + 1, height=6, width=8)
    read_clips(frames, "0", SMALL)
    assert len(frames.asked) == 10
    read = np.concatenate([np.arange(start, start + length) for _, start, length in frames.asked])
    assert len(np.unique(read)) == len(read) <= 10 * 15


def test_many_clips_of_a_long_video_overlap_and_are_read_once():
    frames = Memory(WHOLE + 100, height=6, width=8)
    read_clips(frames, "0", SMALL, ClipSampling(clips=60))
    assert len(frames.asked) == 1


@pytest.mark.parametrize("count", [1, 5, 15, 16, 31, 44, 200, WHOLE, WHOLE + 1, 1000])
@pytest.mark.parametrize("clips", [1, 2, 10])
def test_reading_once_gives_the_clips_of_uniform_clips(count, clips):
    frames = Memory(count, height=6, width=8)
    apart = uniform_clips(frames, "0", clips, 8, 2)
    together = read_clips(frames, "0", SMALL, ClipSampling(clips=clips))
    assert np.array_equal(together, np.stack([centre_crop(clip, 32) for clip in apart]))


# -- three crops -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(20, 28), (28, 20), (20, 20), (11, 64)])
@pytest.mark.parametrize("fraction", [0.875, 1.0, 0.5])
def test_three_crops_against_a_loop(height, width, fraction):
    frames = Memory(44, height=height, width=width)
    made, row = read_clips(frames, "0", SMALL, ClipSampling(clips=4, fraction=fraction, crops=3)), 0
    side = round(fraction * min(height, width))
    for clip in uniform_clips(frames, "0", 4, 8, 2):
        for place in (0, 0.5, 1):
            longer, shorter = int(place * (max(height, width) - side)), (min(height, width) - side) // 2
            x, y = (longer, shorter) if width >= height else (shorter, longer)
            for time, picture in enumerate(clip):
                assert np.array_equal(
                    made[row, time],
                    cv2.resize(picture[y : y + side, x : x + side], (32, 32), interpolation=cv2.INTER_LINEAR),
                )
            row += 1
    assert row == len(made)


def test_three_crops_are_further_clips(encoder):
    frames = Memory(44, 50, 60)
    one, three = (
        extract(encoder, frames, frames.usable, SMALL, ClipSampling(clips=4, crops=crops), progress=False)
        for crops in (1, 3)
    )
    assert three.pooled.shape == (3, 12, encoder.channels)
    assert three.timed.shape[:2] == (3, 12)
    assert three.flat.shape == one.flat.shape
    np.testing.assert_allclose(three.timed[:, 1::3], one.timed, atol=1e-6)
    assert not np.allclose(three.pooled[:, 0::3], one.pooled, atol=1e-4)


@pytest.mark.parametrize("crops", [0, 2, 4])
def test_other_numbers_of_crops_are_refused(crops):
    with pytest.raises(ValueError, match=f"crops must be 1 or 3, got {crops}"):
        squares(np.zeros((1, 8, 8, 3), np.uint8), 4, crops=crops)


# -- workers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality, difference", [("rgb", "paper"), ("difference", "normalised")])
def test_workers_change_no_bit(encoder, modality, difference):
    frames = Memory(44, 15, 90, 3, 50)
    alone, *others = (
        extract(
            encoder,
            frames,
            frames.usable,
            replace(SMALL, difference=difference),
            ClipSampling(clips=4, crops=3, modality=modality),
            workers=workers,
            progress=False,
        )
        for workers in (0, 1, 2, None)
    )
    for other in others:
        assert same(alone, other)


def test_workers_on_files(encoder, tmp_path):
    for number in range(3):
        write_video(
            np.random.default_rng(number).integers(0, 256, (40 + number, 24, 32, 3), dtype=np.uint8),
            tmp_path / f"{number}.mp4",
        )
    paths = [str(tmp_path / f"{number}.mp4") for number in range(3)]
    frames = VideoFrames.build(paths, progress=False)
    alone = extract(encoder, frames, paths, SMALL, THREE, workers=0, progress=False)
    assert same(alone, extract(encoder, frames, paths, SMALL, THREE, workers=2, progress=False))
    for row, path in enumerate(paths):
        assert same(
            [part[row : row + 1] for part in alone], extract(encoder, frames, [path], SMALL, THREE, progress=False)
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_names_the_video_whoever_reads_it(encoder, tmp_path, workers):
    paths = [str(tmp_path / f"{number}.mp4") for number in range(3)]
    for path in paths:
        write_video(np.zeros((40, 24, 32, 3), np.uint8), path)
    frames = VideoFrames.build(paths[:2], progress=False)
    with pytest.raises(VideoError, match="2.mp4: not among the usable videos"):
        extract(encoder, frames, paths, SMALL, TWO, workers=workers, progress=False)


def test_no_global_state_is_drawn_from(encoder):
    frames, state = Memory(44, 50), torch.get_rng_state()
    extract(encoder, frames, frames.usable, SMALL, TWO, workers=1, progress=False)
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_are_not_started_for_little():
    assert default_workers(0.001, 10**6) == 0 and default_workers(0.1, 3) == 0 and default_workers(10.0, 10**6) <= 8


# -- short videos ------------------------------------------------------------------------------------------------------


def test_short_videos_are_looped(encoder):
    frames = Memory(5, 44)
    features = extract(encoder, frames, frames.usable, SMALL, THREE, progress=False)
    assert np.ptp(features.pooled[0], axis=0).max() < 1e-6  # one window: its clips are alike
    clip = frames.window("0", 0, 5)[np.arange(0, 16, 2) % 5]
    with torch.inference_mode():
        expected = pool_map(encoder.eval()(to_input(torch.from_numpy(centre_crop(clip, 32))[None])))
    np.testing.assert_allclose(features.pooled[0, 0], expected.pooled[0], atol=1e-6)
    np.testing.assert_allclose(features.flat[0], expected.flat[0], atol=1e-5)
    assert same(extract(encoder, Looped(frames, 16), frames.usable, SMALL, THREE, progress=False), features)


# -- three readings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7])
def test_readings_against_loops(side):
    maps = torch.randn(2, 5, 3, side, side, generator=torch.Generator().manual_seed(side))
    read = pool_map(maps)
    edges = [(row * side // 3, -(-(row + 1) * side // 3)) for row in range(3)]
    for clip in range(2):
        for channel in range(5):
            assert abs(read.pooled[clip, channel] - maps[clip, channel].mean()) < 1e-6
            for time in range(3):
                assert abs(read.timed[clip, time, channel] - maps[clip, channel, time].mean()) < 1e-6
                for row, (top, bottom) in enumerate(edges):
                    for column, (left, right) in enumerate(edges):
                        assert (
                            read.flat.view(2, 3, 3, 3, 5)[clip, time, row, column, channel]
                            == maps[clip, channel, time, top:bottom, left:right].max()
                        )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_name_the_video(bad):
    class Breaks(torch.nn.Module):
        seen = 0

        def forward(self, clips):
            self.seen += 1
            return clips * (bad if self.seen == 2 else 1)

    frames = Memory(44, 44, 44)
    with pytest.raises(ValueError, match="finite features, got NaN or infinity for 1"):
        extract(Breaks(), frames, frames.usable, SMALL, TWO, progress=False)


def test_kept_features_survive_and_other_files_do_not(encoder, tmp_path):
    frames, file = Memory(44, 50), tmp_path / "features.npz"
    made = extract(encoder, frames, frames.usable, SMALL, TWO, progress=False)
    np.savez(file, features=made.pooled, paths=np.array(frames.usable), made_by=np.array("run"))  # of an earlier kind
    with pytest.raises(ValueError, match="written by save_features"):
        load_features(file)
    assert same(cached_features(file, lambda: made, frames.usable, "run"), made)
    kept, paths, made_by = load_features(file)
    assert same(kept, made) and paths == frames.usable and made_by == "run"
    assert same(cached_features(file, lambda: pytest.fail("computed again"), frames.usable, "run"), made)


def test_every_retrieval_protocol_reads_one_pass(encoder):
    frames = Memory(*[44] * 6)
    features = extract(encoder, frames, frames.usable, SMALL, TWO, progress=False)
    found = retrieve_by(list(RETRIEVAL_PROTOCOLS), features, features, list("aabbcc"), list("aabbcc"), ks=(1, 6))
    assert len(frames.asked) == 6 and {answer.recall[1] for answer in found.values()} == {1.0}  # each finds itself
