"""Batches depend on the data set and its seed, not on who cuts them: one or several, from the start or resumed."""

import random
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from fima.data.views import clips
from fima.data.views.clips import ClipDataset, ClipOptions, StepSampler, batches
from fima.data.video.files import VideoError, write_video
from fima.data.video.video import FrameCache

ROWS, BATCH, STEPS = 11, 4, 5
SMALL = ClipOptions(frames_per_clip=8, crop_size=8)


class Memory:
    "Videos of different lengths; every frame is random and differs from all others."

    def count(self, path):
        return 16 + int(path.rsplit("/", 1)[-1]) % 7

    def window(self, path, start, length):
        video = np.random.default_rng(int(path.rsplit("/", 1)[-1])).integers(
            0, 256, (self.count(path), 12, 16, 3), dtype=np.uint8
        )
        return video[start : start + length]


def make(seed=0, rows=ROWS):
    catalog = pd.DataFrame({"path": [str(row) for row in range(rows)], "label": [(3 * row) % 5 for row in range(rows)]})
    catalog.attrs["folder"] = "videos"
    return ClipDataset(catalog, Memory(), SMALL, seed=seed)


def listed(loader):
    return [[part for view in batch[:2] for part in view[:4]] + [batch.label, batch.index] for batch in loader]


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.fixture(scope="module")
def reference():
    return listed(batches(make(), BATCH, STEPS))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("start_step", [0, 1, 3, STEPS])
def test_workers_and_start_change_nothing(reference, workers, start_step):
    assert same(listed(batches(make(), BATCH, STEPS, start_step, workers)), reference[start_step:])


def test_global_states_play_no_part(reference):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    state = torch.get_rng_state()
    assert same(listed(batches(make(), BATCH, STEPS, workers=1)), reference)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_seed_plays_one(reference):
    other = listed(batches(make(seed=1), BATCH, STEPS))
    assert not any(same([a], [b]) for a, b in zip(reference, other, strict=True))


def test_no_two_samples_alike():
    dataset = make()
    boxes = [tuple(view.box) for epoch in range(4) for row in range(ROWS) for view in dataset[epoch, row][:2]]
    assert len(set(boxes)) > 0.9 * len(boxes)


@pytest.mark.parametrize("rows, batch", [(12, 4), (11, 4), (5, 5), (7, 1)])
def test_an_epoch_covers_every_row_at_most_once(rows, batch):
    per_epoch = rows // batch
    steps = list(StepSampler(rows, batch, 3 * per_epoch, 0, seed=2))
    for epoch in range(3):
        keys = [key for step in steps[epoch * per_epoch : (epoch + 1) * per_epoch] for key in step]
        assert {number for number, _ in keys} == {epoch}
        seen = [row for _, row in keys]
        assert len(set(seen)) == len(seen) == per_epoch * batch
        assert sorted(StepSampler(rows, batch, 1, 0, seed=2).order(epoch)) == list(range(rows))


def test_the_dropped_rows_change_between_epochs():
    left = {int(StepSampler(11, 4, 1, 0, seed=0).order(epoch)[10]) for epoch in range(40)}
    assert len(left) > 5


def test_label_index_and_frames_belong_together():
    dataset = make()
    for keys, batch in zip(
        StepSampler(ROWS, BATCH, STEPS, 0, dataset.seed), batches(dataset, BATCH, STEPS), strict=True
    ):
        assert batch.index.tolist() == [row for _, row in keys]
        assert batch.label.tolist() == [(3 * row) % 5 for _, row in keys]
        for place, key in enumerate(keys):
            for view, sample in zip(batch[:2], dataset[key][:2], strict=True):
                assert all(
                    torch.equal(part[place], torch.from_numpy(alone))
                    for part, alone in zip(view[:4], sample[:4], strict=True)
                )


def test_an_unlabelled_catalog_gets_minus_one():
    catalog = pd.DataFrame({"path": ["1", "2"]})
    assert ClipDataset(catalog, Memory(), SMALL)[0, 1].label == -1


@pytest.mark.parametrize("context, workers", [("fork", 2), ("spawn", 1)])
def test_cached_files_in_workers(tmp_path, context, workers):
    noise = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 32, 3), dtype=np.uint8)
    for number, video in enumerate(noise):
        write_video(video, tmp_path / f"{number}.mp4")
    catalog = pd.DataFrame({"path": [f"{number}.mp4" for number in range(3)], "label": [0, 1, 2]})
    catalog.attrs["folder"] = str(tmp_path)
    cache = FrameCache.build([tmp_path / name for name in catalog.path], tmp_path / "cache", progress=False)
    dataset = ClipDataset(catalog, cache, ClipOptions(frames_per_clip=8, crop_size=16))
    assert same(listed(batches(dataset, 2, 3, workers=workers, context=context)), listed(batches(dataset, 2, 3)))


# -- processes that read -----------------------------------------------------------------------------------------------


def shared_memory(monkeypatch, free):
    "Pretend that so many bytes are free in /dev/shm."
    monkeypatch.setattr(clips.shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    monkeypatch.setattr(clips.sys, "platform", "linux")


@pytest.mark.parametrize("free, used", [(0, 0), (2**14, 0), (2**40, 2)])
def test_readers_are_as_many_as_shared_memory_has_room_for(monkeypatch, capsys, reference, free, used):
    "Docker gives 64 MB, and a worker that finds no room waits for ever."
    shared_memory(monkeypatch, free)
    loader = batches(make(), BATCH, STEPS, workers=2)
    assert loader.loader.num_workers == used
    assert same(listed(loader), reference)
    said = capsys.readouterr().err
    assert ("--shm-size" in said) == (used < 2) and said.count("\n") <= 1


class Silent(torch.utils.data.Dataset):
    "A data set whose videos lie on a disk that does not answer."

    def __len__(self):
        return 4

    def __getitem__(self, row):
        time.sleep(600)


def test_a_reader_that_does_not_answer_ends_in_an_error(monkeypatch):
    monkeypatch.setattr(clips, "_TIME_LIMIT", 1)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="nothing came from 1 processes within 1 seconds.*last checkpoint"):
        list(clips.Loader(Silent(), 1, 0))
    assert time.monotonic() - began < 60


class Damaged(Memory):
    "Videos of which one cannot be read."

    def window(self, path, start, length):
        if path.endswith("/3"):
            raise VideoError(path, "cannot be read: Connection timed out")
        return super().window(path, start, length)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_video_that_cannot_be_read_is_named_whoever_reads(workers):
    dataset = make()
    dataset.frames = Damaged()
    with pytest.raises(VideoError, match="^videos/3: cannot be read: Connection timed out$"):
        list(batches(dataset, BATCH, STEPS, workers=workers))
