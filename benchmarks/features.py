"""Time feature extraction on this machine: videos per second for decoding, encoding and both, by 0 to 2 readers.

    python benchmarks/features.py [--videos 24] [--repeats 3] [--threads 1] [--device cpu] [--large] [--cached]

UT-Interaction is read where it is there, motion sprites are generated elsewhere. CPU use is processor time, that of
workers included, over wall time: 1.0 is one core kept busy.
Nothing is asserted; the numbers depend on the machine and on what else runs there.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import av
import cv2
import numpy as np
import torch

from fima.data.sets.catalog import data_root
from fima.data.views.clips import FrameSource
from fima.data.sprites.sprites import SpriteOptions, make_sprites
from fima.data.video.video import FrameCache, VideoFrames
from fima.evaluation.core.features import encode_clips, extract
from fima.evaluation.core.eval_clips import ClipFormat, read_clips, to_input
from fima.methods.encoders.encoders import build_encoder

SMALL, LARGE = (("small3d", 48, 16),), (("r2plus1d_18", 112, 16),)  # encoder, crop size, frames per clip


def find_videos(count: int, folder: Path) -> tuple[str, list[str]]:
    "List videos of UT-Interaction, evenly over its classes, or generate motion sprites."
    try:
        paths = sorted((data_root() / "videos" / "ut_interaction").rglob("*.avi"))
    except FileNotFoundError:
        paths = []
    if paths:
        places = np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)
        return "UT-Interaction", [str(paths[place]) for place in places]
    options = SpriteOptions(train=max(count - 1, 1), test=1)
    catalog = make_sprites(folder, options, progress=False)
    return "motion sprites", [str(folder / path) for path in catalog.path]


def processor_seconds() -> float:
    "Give the processor time of this process and of those children that have ended."
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(run: Callable[[], None], videos: int, repeats: int) -> tuple[float, float]:
    "Run once to warm up, then give the medians of videos per second and of processor time over wall time."
    run()
    speeds, uses = [], []
    for _ in range(repeats):
        start, used = perf_counter(), processor_seconds()
        run()
        seconds = perf_counter() - start
        speeds.append(videos / seconds)
        uses.append((processor_seconds() - used) / seconds)
    return median(speeds), median(uses)


def rows(
    encoder: torch.nn.Module, frames: FrameSource, paths: list[str], clip_format: ClipFormat
) -> dict[str, Callable[[], None]]:
    "Name what is timed."
    device = next(encoder.parameters()).device
    cuts = [torch.from_numpy(read_clips(frames, path, clip_format)) for path in paths[:4]]

    def encode_alone() -> None:
        for row in range(len(paths)):
            encode_clips(encoder, to_input(cuts[row % len(cuts)].to(device)))

    def read_alone() -> None:
        for path in paths:
            read_clips(frames, path, clip_format)

    def both(workers: int | None) -> None:
        extract(encoder, frames, paths, clip_format, workers=workers, progress=False)

    timed = {"decode and cut": read_alone, "encode": encode_alone}
    for workers in (0, 1, 2):
        timed[f"both, {workers} workers"] = partial(both, workers)
    return timed | {"both, by default": partial(both, None)}


def write(measured: list[dict], note: str, reports: Path) -> list[Path]:
    "Write the table."
    import pandas as pd

    from fima.report.sheets import write_tables

    shown = [
        {
            "encoder": row["encoder"],
            "what": row["what"],
            "videos a second": f"{row['videos_per_second']:.1f}",
            "cores busy": f"{row['cores']:.2f}",
        }
        for row in measured
    ]
    parts = {"": pd.DataFrame(shown)}
    notes = [note + " Cores busy: processor time, that of readers included, over wall time; two cores are here."]
    return write_tables("features", "Features of real videos", parts, pd.DataFrame(measured), notes, reports)


def main() -> None:
    "Print one row per encoder and part of the work."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=24, help="videos a timed run reads")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs per number")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where the encoder is")
    parser.add_argument("--large", action="store_true", help="R(2+1)D-18 instead of the small encoder")
    parser.add_argument("--cached", action="store_true", help="read decoded frames of 72 x 72 pixels instead of files")
    parser.add_argument("--output", type=Path, help="the folder that holds tables/; default: print alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        name, paths = find_videos(arguments.videos, Path(folder) / "sprites")
        frames = (
            FrameCache.build(paths, Path(folder) / "cache", size=(72, 72), progress=False)
            if arguments.cached
            else VideoFrames.build(paths, progress=False)
        )
        device = (
            torch.cuda.get_device_name()
            if arguments.device.startswith("cuda")
            else f"{platform.machine()} CPU, {os.cpu_count()} cores, {arguments.threads} torch threads"
        )
        print(
            f"{len(paths)} videos of {name}{', cached' if arguments.cached else ''}; {device}; torch "
            f"{torch.__version__}, PyAV {av.__version__}, OpenCV {cv2.__version__}"
        )
        print(f"{'encoder':<13}{'crop':>5}  {'what':<18}{'videos/s':>9}{'CPU use':>9}")
        measured = []
        for encoder_name, crop_size, frames_per_clip in LARGE if arguments.large else SMALL:
            encoder = build_encoder(encoder_name).to(arguments.device)
            clip_format = ClipFormat(frames_per_clip=frames_per_clip, crop_size=crop_size)
            for what, run in rows(encoder, frames, paths, clip_format).items():
                speed, use = measure(run, len(paths), arguments.repeats)
                print(f"{encoder_name:<13}{crop_size:>5}  {what:<18}{speed:>9.2f}{use:>9.2f}", flush=True)
                measured.append(
                    dict(encoder=encoder_name, crop=crop_size, what=what, videos_per_second=speed, cores=use)
                )
        if arguments.output:
            note = f"{len(paths)} videos of {name}, ten clips of each; {device}; medians of {arguments.repeats} runs."
            print(*write(measured, note, arguments.output), sep="\n")


if __name__ == "__main__":
    main()
