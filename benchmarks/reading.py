"""Time the reader in this state of the code, in an earlier one, and PyAV alone: videos a processor second, in turns.

    git worktree add ../before 3bfd698
    python benchmarks/reading.py [--before ../before] [--videos 32] [--repetitions 5] [--output reports]

What is read of a video is what a step of the paper's profile needs: two windows of 32 frames at random moments, of each
a clip of 16 frames and two sub-clips of 16, all cut at random and scaled to 112 pixels. One thread, no reading process.
Files: videos of UCF101 (five classes) brought to its published size of 320 x 240, as MPEG-4 in AVI with a keyframe
every twelve frames and as H.264 with B-frames and a keyframe every 50; motion sprites where there is no UCF101.
Writes <output>/tables/reading.{json,md,csv,tex}. Nothing is asserted; the numbers depend on the machine.
"""

import argparse
import gc
import json
import tempfile
from fractions import Fraction
from pathlib import Path
from statistics import median
from time import process_time

import av
import numpy as np

from turns import HERE, alone, parser_of

FORMATS = {  # suffix of the file, encoder, its options, B-frames
    "MPEG-4 in AVI": ("avi", "mpeg4", {"qscale": "3"}, 12, 0),
    "H.264 with B-frames": ("mp4", "libx264", {}, 50, 2),
}
WAYS = ("PyAV, one pass, to rgb24", "PyAV, a seek a window, to rgb24", "before", "now, exact", "now")
WINDOW, SIDE = 32, 112


def sources(count: int, folder: Path) -> list[str]:
    "List videos of UCF101, evenly over its classes, or generate motion sprites."
    from fima.data.sets.catalog import data_root
    from fima.data.sprites.sprites import SpriteOptions, make_sprites

    try:
        paths = sorted(map(str, (data_root() / "videos" / "ucf101_5").rglob("*.avi")))
    except FileNotFoundError:
        paths = []
    if not paths:
        catalog = make_sprites(folder, SpriteOptions(train=count - 1, test=1, frames=80), progress=False)
        paths = [str(folder / path) for path in catalog.path]
    return [paths[place] for place in np.linspace(0, len(paths) - 1, count).astype(int)]


def encode(source: str, target: Path, name: str) -> None:
    "Bring a video to 320 x 240 in one of `FORMATS`."
    _, codec, options, interval, b_frames = FORMATS[name]
    with av.open(source) as given, av.open(str(target), "w") as made:
        stream = made.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt, stream.options = 320, 240, "yuv420p", options
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = interval, b_frames
        for number, frame in enumerate(given.decode(video=0)):
            frame = frame.reformat(320, 240, "yuv420p")
            frame.pts, frame.pict_type = number, 0
            frame.time_base = Fraction(1, 25)
            made.mux(stream.encode(frame))
        made.mux(stream.encode())


def our_reader(paths: list[str], exact: bool):
    "Give a function that reads a video as a step does."
    import pandas as pd

    try:
        from fima.data.video.video import VideoFrames
        from fima.data.views.clips import ClipDataset, ClipOptions
    except ImportError:  # the state of November 2026 and before
        from fima.data.clips import ClipDataset
        from fima.data.video import VideoFrames

        clips = ClipDataset(pd.DataFrame({"path": paths}), VideoFrames.build(paths, progress=False))
        return lambda row: clips[0, row]
    options = dict(exact=True) if exact else {}
    frames = VideoFrames.build(paths, progress=False, **options)
    clips = ClipDataset(pd.DataFrame({"path": paths}), frames, ClipOptions())
    return lambda row: clips[0, row]


def pyav_reader(paths: list[str], seek: bool):
    "Give a function that decodes two windows by PyAV and converts their frames, and cuts nothing."
    counts = []
    for path in paths:
        with av.open(path) as container:
            counts.append(sum(1 for _ in container.decode(video=0)))

    def read(row):
        generator = np.random.default_rng(row)
        starts = sorted(generator.integers(0, counts[row] - WINDOW, 2).tolist())
        wanted = [set(range(start, start + WINDOW)) for start in starts]
        if not seek:
            wanted = [set.union(*wanted)]
        for numbers in wanted:
            with av.open(paths[row]) as container:
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1
                if seek:
                    container.seek(round(min(numbers) / 25 / stream.time_base), stream=stream)
                for frame in container.decode(stream):
                    number = round(frame.pts * stream.time_base * 25)
                    if number in numbers:
                        frame.to_ndarray(format="rgb24")
                    if number >= max(numbers):
                        break

    return read


def measure(way: str, folder: str) -> None:
    "Read some videos of a folder to warm up, then all of them twice; print videos a processor second."
    paths = sorted(map(str, Path(folder).iterdir()))
    if way.startswith("PyAV"):
        read = pyav_reader(paths, "seek" in way)
    else:
        read = our_reader(paths, way == "now, exact")
    for row in range(0, len(paths), 4):
        read(row)
    gc.collect()
    gc.freeze()  # else a search for garbage among all that torch has loaded falls on one way or the other
    begun = process_time()
    for row in 2 * list(range(len(paths))):
        read(row)
    print(json.dumps(2 * len(paths) / (process_time() - begun)))


def write(rows: list[dict], arguments: argparse.Namespace) -> list[Path]:
    "Write the table."
    import cv2
    import pandas as pd

    from fima.report.sheets import write_tables
    from fima.training.checkpoint import device_name

    sections = {}
    for name in FORMATS:
        here = [row for row in rows if row["format"] == name]
        before = next((row["videos_per_second"] for row in here if row["way"] == "before"), None)
        sections[name] = pd.DataFrame(
            {
                "way": [row["way"] for row in here],
                "videos a second [lowest, highest]": [
                    f"{row['videos_per_second']:.1f} [{row['low']:.1f}, {row['high']:.1f}]" for row in here
                ],
                "over before": [f"{row['videos_per_second'] / before:.2f}" if before else "-" for row in here],
            }
        )
    notes = [
        f"Videos a processor second of one thread, medians of {arguments.repetitions} processes a way, in turns. "
        f"{arguments.videos} videos of UCF101 (five classes) brought to 320 x 240; of each two windows of 32 frames, "
        "a clip of 16 and two sub-clips of 16 of each, all cut at random and scaled to 112 pixels. PyAV's rows decode "
        "and convert, and cut nothing.",
        f"{device_name()}, PyAV {av.__version__}, OpenCV {cv2.__version__}. *Before* is commit 3bfd698 of 21 November "
        "2026, which still sought in AVI; *exact* converts whole frames to RGB before it cuts and scales them.",
    ]
    return write_tables("reading", "Reading the clips of a step", sections, pd.DataFrame(rows), notes, arguments.output)


def main() -> None:
    "Measure all ways of reading in turns."
    parser = parser_of(__doc__, 5)
    parser.add_argument("--videos", type=int, default=32, help="videos of each format")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    ways = [way for way in WAYS if way != "before" or arguments.before]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        found = sources(arguments.videos, Path(temporary) / "sprites")
        for name, (suffix, *_) in FORMATS.items():
            folder = Path(temporary) / suffix
            folder.mkdir()
            for number, path in enumerate(found):
                encode(path, folder / f"{number:03d}.{suffix}", name)
            speeds = {way: [] for way in ways}
            for _ in range(arguments.repetitions):
                for way in ways:
                    state = arguments.before.resolve() if way == "before" else HERE
                    speeds[way].append(alone(__file__, [way, str(folder)], state))
            for way, measured in speeds.items():
                rows.append(dict(format=name, way=way, videos_per_second=median(measured), low=min(measured)))
                rows[-1] |= dict(high=max(measured), repetitions=len(measured))
                print(json.dumps(rows[-1]), flush=True)
    if arguments.output:
        print(*write(rows, arguments), sep="\n")


if __name__ == "__main__":
    main()
