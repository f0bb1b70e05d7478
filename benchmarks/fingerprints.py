"""What it costs to know files by their bytes: a first pass reads them, a second one asks for size and times alone.

python benchmarks/fingerprints.py [--files 10000]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fima.data.sets.catalog import data_root
from fima.data.sets.datasets import find_videos
from fima.data.video import files


def arguments():
    "Read the command line."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000, help="small generated files")
    return parser.parse_args()


def generate(folder, count):
    "Write small files, a hundred a folder."
    for number in range(count):
        place = folder / f"{number // 100:03d}"
        place.mkdir(exist_ok=True)
        (place / f"{number}.avi").write_bytes(number.to_bytes(4, "big") * 500)
    return sorted(map(str, folder.rglob("*.avi")))


SECOND = """
import sys, time
from fima.data.video import files
paths = sys.stdin.read().split("\\n")
began = time.perf_counter()
files.fingerprints(paths)
print(time.perf_counter() - began)
"""


def measure(name, paths):
    "Print the seconds of a first pass, of a second one, and of one in a new process."
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        found = files.fingerprints(paths)
        seconds.append(time.perf_counter() - began)
    again = subprocess.run(
        [sys.executable, "-c", SECOND], input="\n".join(paths), capture_output=True, text=True, check=True
    )
    megabytes = sum(map(os.path.getsize, paths)) / 1e6
    print(
        f"{name}: {len(found):,} files, {megabytes:,.1f} MB: first pass {seconds[0]:.3f} s, second {seconds[1]:.3f} s, "
        f"in a new process {float(again.stdout):.3f} s"
    )


def main():
    "Measure a real set where it is here, and a generated one."
    count = arguments().files
    with tempfile.TemporaryDirectory() as work:
        os.environ["FIMA_WORK"] = f"{work}/work"
        root = data_root()
        videos = root and root / "videos" / "ucf101_5"
        if videos and videos.is_dir():
            measure("ucf101_5", [str(videos / path) for path in find_videos(videos)])
        else:
            print("ucf101_5: not here")
        generated = Path(work) / "generated"
        generated.mkdir()
        paths = generate(generated, count)
        time.sleep(files.SETTLED / 1e9 + 0.1)  # younger files are not remembered
        measure("generated", paths)


if __name__ == "__main__":
    main()
