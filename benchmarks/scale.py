"""Time what grows with a data set: opening it, and reading its batches by several workers and processes.

    python benchmarks/scale.py [--names 60 600 2400 13320] [--repetitions 3] [--output reports]

A data set of many videos is made of a few generated ones under many names, with other bytes behind their end, so that
every name is a file of its own content. Opening is a probe of every file the first time, a look into the cache of
probes later. Reading is timed by wall time, for workers 0, 1 and 2 and for one process and two that share the machine.
Writes <output>/tables/scale.{json,md,csv,tex}. Nothing is asserted; the numbers depend on the machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

SOURCES, BATCH, STEPS = 12, 24, 20


def make_names(folder: Path, number: int) -> None:
    "Write so many files; each has bytes of its own behind its end."
    from fima.data.sprites.sprites import SpriteOptions, make_sprites

    few = SpriteOptions(train=SOURCES - 1, test=1)
    catalog = make_sprites(folder / "few", few, progress=False)
    contents = [(folder / "few" / path).read_bytes() for path in catalog.path]
    (folder / "many").mkdir()
    for name in range(number):
        padding = name.to_bytes(8, "big")
        box = (8 + len(padding)).to_bytes(4, "big") + b"free" + padding
        (folder / "many" / f"v_{name:05d}.mp4").write_bytes(contents[name % SOURCES] + box)


def opening(folder: str) -> None:
    "Open a data set twice; print processor seconds of both, of the data set of clips, and the peak memory."
    import pandas as pd

    from fima.data.video.video import VideoFrames
    from fima.data.views.clips import ClipDataset, ClipOptions

    paths = sorted(str(path) for path in (Path(folder) / "many").iterdir())
    empty = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took = []
    for _ in range(2):
        begun = process_time()
        frames = VideoFrames.build(paths, cache=Path(folder) / "probes", workers=1, progress=False)
        took.append(process_time() - begun)
    begun = process_time()
    ClipDataset(pd.DataFrame({"path": paths}), frames, ClipOptions(frames_per_clip=8, crop_size=32))
    took.append(process_time() - begun)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - empty) / 1024
    print(json.dumps([*took, grown]))


def reading(folder: str, workers: str) -> None:
    "Read batches; print batches a second of wall time."
    import pandas as pd

    from fima.data.video.video import VideoFrames
    from fima.data.views.clips import ClipDataset, ClipOptions, batches

    paths = sorted(str(path) for path in (Path(folder) / "many").iterdir())[:240]
    frames = VideoFrames.build(paths, cache=Path(folder) / "probes", workers=1, progress=False)
    clips = ClipDataset(pd.DataFrame({"path": paths}), frames, ClipOptions(frames_per_clip=8, crop_size=32))
    loader = iter(batches(clips, BATCH, STEPS + 2, workers=int(workers)))
    next(loader), next(loader)
    begun = perf_counter()
    for _ in loader:
        pass
    print(json.dumps(STEPS / (perf_counter() - begun)))


def started(*words: str) -> subprocess.Popen:
    "Start a measurement in a process of its own."
    environment = os.environ | dict(OMP_NUM_THREADS="1", PYTHONPATH=str(Path(__file__).resolve().parents[1]))
    return subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, env=environment)


def answers(*words: str, processes: int = 1) -> list:
    "Measure in so many processes at once."
    running = [started(*words) for _ in range(processes)]
    return [json.loads(each.communicate()[0].splitlines()[-1]) for each in running]


def main() -> None:
    "Measure opening for each number of names, and reading for each number of workers and processes."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=int, nargs="+", default=[60, 600, 2400, 13320], help="videos of a data set")
    parser.add_argument("--repetitions", type=int, default=3, help="processes a number")
    parser.add_argument("--opening", help=argparse.SUPPRESS)
    parser.add_argument("--reading", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="the folder that holds tables/; default: print alone")
    arguments = parser.parse_args()
    if arguments.opening:
        opening(arguments.opening)
        return
    if arguments.reading:
        reading(*arguments.reading)
        return
    opened, read = [], []
    for number in arguments.names:
        with tempfile.TemporaryDirectory() as folder:
            make_names(Path(folder), number)
            first, again, dataset, grown = answers("--opening", folder)[0]
            opened.append(dict(videos=number, first=first, again=again, dataset=dataset, memory_mebibytes=grown))
            print(json.dumps(opened[-1]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        make_names(Path(folder), 240)
        for processes in (1, 2):
            for workers in (0, 1, 2):
                rates = [
                    sum(answers("--reading", folder, str(workers), processes=processes))
                    for _ in range(arguments.repetitions)
                ]
                read.append(dict(processes=processes, workers=workers, batches_per_second=median(rates)))
                print(json.dumps(read[-1]), flush=True)
    if arguments.output:
        print(*write(opened, read, arguments), sep="\n")


def write(opened: list[dict], read: list[dict], arguments: argparse.Namespace) -> list[Path]:
    "Write both tables as one sheet."
    import pandas as pd

    from fima.report.sheets import write_tables
    from fima.training.checkpoint import device_name

    sections = {
        "Opening": pd.DataFrame(
            {
                "videos": [f"{row['videos']:,}" for row in opened],
                "first time, s": [f"{row['first']:.2f}" for row in opened],
                "ms a video": [f"{1000 * row['first'] / row['videos']:.2f}" for row in opened],
                "again, s": [f"{row['again']:.2f}" for row in opened],
                "data set of clips, s": [f"{row['dataset']:.2f}" for row in opened],
                "memory, MiB": [f"{row['memory_mebibytes']:.1f}" for row in opened],
            }
        ),
        "Reading": pd.DataFrame(
            {
                "processes": [str(row["processes"]) for row in read],
                "workers of each": [str(row["workers"]) for row in read],
                "batches a second, all processes": [f"{row['batches_per_second']:.2f}" for row in read],
            }
        ),
    }
    notes = [
        f"{device_name()}, two cores. Opening: processor seconds of one thread; *again* finds the probes in their "
        "cache. Memory: growth of the peak while opening. Videos are generated, 32 frames of 64 x 64, each name with "
        "bytes of its own.",
        f"Reading: wall time, batches of {BATCH} videos (two clips and their sub-clips of 8 frames at 32 pixels), "
        f"median of {arguments.repetitions}; nothing is computed of them.",
    ]
    table = pd.concat([pd.DataFrame(opened), pd.DataFrame(read)], ignore_index=True)
    return write_tables("scale", "What grows with a data set", sections, table, notes, arguments.output)


if __name__ == "__main__":
    main()
