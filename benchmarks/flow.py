"""Time the optical flow of UT-Interaction here: at the recipes' size and at its own, interrupted half-way and resumed.

    python benchmarks/flow.py [--workers 2] [--videos 120] [--native] [--folder FOLDER]

At 72 x 72 the frames are decoded first, into FIMA_WORK, which is not timed; at their own size they are decoded as the
flow is computed. Flow goes to a new temporary folder, or to --folder, where a second call finds what the first made.
Nothing is asserted; the numbers depend on the machine and on what else runs there.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from fima.data.sets.catalog import data_root
from fima.data.views.clips import FrameSource
from fima.data.flow.flow import FlowCache
from fima.data.flow.motion import motion_target
from fima.data.flow.tubelets import MotionPlaces
from fima.data.video.video import FrameCache, VideoFrames
from fima.training.recipe import UT_VIEWS
from fima.training.videos import work_root

# source frames of a clip at stride 2; cells of a motion map in time, down and across
WINDOW, GRID = 2 * UT_VIEWS["views.frames_per_clip"], (2, 6, 6)


def find_videos(count: int) -> list[str]:
    "List videos of UT-Interaction, evenly over its classes."
    root = data_root()
    paths = sorted(map(str, (root / "videos" / "ut_interaction").rglob("*.avi"))) if root else []
    if not paths:
        raise SystemExit("UT-Interaction is not on this machine: set FIMA_DATA")
    return [paths[place] for place in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]


def seconds(run) -> tuple[float, object]:
    "Give the wall time of a call and its answer."
    start = perf_counter()
    answer = run()
    return perf_counter() - start, answer


def build(paths: list[str], folder: Path, frames: FrameSource, workers: int) -> FlowCache:
    "Compute half of the videos, as if the work had been stopped there, then all, then all again."
    half, _ = seconds(lambda: FlowCache.build(paths[: len(paths) // 2], folder, frames, workers=workers))
    rest, flows = seconds(lambda: FlowCache.build(paths, folder, frames, workers=workers))
    again, _ = seconds(lambda: FlowCache.build(paths, folder, frames, workers=workers))
    pairs = sum(flows.count(path) - 1 for path in flows.usable)
    size = sum(entry.file.stat().st_size for entry in flows.entries.values())
    print(
        f"  {len(flows.usable)} videos, {len(flows.left_out)} left out, {pairs:,} pairs, {size / 2**20:.1f} MiB of "
        "files\n"
        f"  first half {half:.1f} s, resumed for the rest {rest:.1f} s, together {half + rest:.1f} s "
        f"({1000 * (half + rest) / pairs:.2f} ms a pair); all of them found again in {again:.1f} s"
    )
    return flows


def use(flows: FlowCache, workers: int, repeats: int = 200) -> None:
    "Time what a training step asks for: maps of all videos once, then window, target and crop of a view."
    ahead, places = seconds(lambda: MotionPlaces(flows).prepare(flows.usable, WINDOW, workers))
    path, generator = flows.usable[0], np.random.default_rng(0)
    entry = flows.entries[path]
    rectangle = (entry.width // 8, entry.height // 8, 3 * entry.width // 4, 3 * entry.height // 4)
    window, flow = seconds(lambda: [flows.flow(path, 5, WINDOW) for _ in range(repeats)])
    target, _ = seconds(lambda: [motion_target(flow[0], rectangle, True, GRID) for _ in range(repeats)])
    crop, _ = seconds(
        lambda: [
            places.rectangle(path, 5, WINDOW, entry.height, entry.width, (0.2, 1.0), (3 / 4, 4 / 3), generator)
            for _ in range(repeats)
        ]
    )
    print(
        f"  scores and crop maps of all videos {ahead:.1f} s; a view: {1000 * window / repeats:.2f} ms to read "
        f"{WINDOW} flows, {1000 * target / repeats:.2f} ms for the target of three quarters of the frame, "
        f"{1000 * crop / repeats:.2f} ms for a crop"
    )


def main() -> None:
    "Print a paragraph for each size of the frames."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="threads")
    parser.add_argument("--videos", type=int, default=120, help="number of videos")
    parser.add_argument("--native", action="store_true", help="also at the videos' own size")
    parser.add_argument("--folder", type=Path, help="where flow files are kept (default: a temporary folder)")
    arguments = parser.parse_args()
    if min(arguments.workers, arguments.videos) < 1:
        parser.error("--workers and --videos must be at least 1")
    paths = find_videos(arguments.videos)
    for size in [UT_VIEWS["data.cache_size"]] + [None] * arguments.native:
        print(f"{'own size' if size is None else f'{size[0]} x {size[1]}'}, {arguments.workers} threads", flush=True)
        if size is None:
            frames = VideoFrames.build(paths, workers=arguments.workers, progress=False)
        else:
            frames = FrameCache.build(
                paths, work_root() / "frames", size=size, workers=arguments.workers, progress=False
            )
        with tempfile.TemporaryDirectory() as temporary:
            use(build(paths, arguments.folder or Path(temporary), frames, arguments.workers), arguments.workers)


if __name__ == "__main__":
    main()
