#!/usr/bin/env bash
# Frames of H.264 with B-frames in AVI carry presentation times that are not in the order of presentation.
# Expected: frames that a decoder hands out in order of presentation have increasing times, so that sorting by time, as readers of clips do
# to be safe, changes nothing. Seen with PyAV 18.1.0 (libavformat 62.12.102): the pictures come in the order in which they were written, and
# their times begin 1, 3, 4, 2. AVI stores no times; the demuxer numbers packets, which lie in the order of decoding. The same stream in MP4
# has increasing times.
# Exits with 0 while this is so; with 1 once the behaviour has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6

cat > times.py <<'PROGRAM'
from fractions import Fraction

import av
import numpy as np

LEVELS = range(20, 220, 5)  # the brightness of a picture is its number


def write(path):
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2", "g": "12", "b-adapt": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 64, "yuv420p", 1
        for number, level in enumerate(LEVELS):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read(path):
    with av.open(path) as container:
        return [(frame.pts, frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]


def in_order(values):
    return list(values) == sorted(values)


answers = {}
for path in ("a.avi", "a.mp4"):
    write(path)
    frames = read(path)
    shown, by_time = [level for _, level in frames], [level for _, level in sorted(frames)]
    answers[path] = len(frames), in_order(shown), in_order(by_time)
    print(path, len(frames), "frames; first times", [time for time, _ in frames][:6])
    print("  as decoded in order:", in_order(shown), "; sorted by time in order:", in_order(by_time))
print("PyAV", av.__version__, "libavformat", ".".join(map(str, av.library_versions["libavformat"])))
assert answers["a.mp4"] == (40, True, True), "MP4 behaves otherwise"
raise SystemExit(0 if answers["a.avi"] == (40, True, False) else "the times of AVI are in order now")
PROGRAM
venv/bin/python times.py 2>/dev/null
