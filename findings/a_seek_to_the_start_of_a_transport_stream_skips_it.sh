#!/usr/bin/env bash
# In MPEG-TS with B-frames, a seek to the first frame lands one group of pictures later: OpenCV and decord cannot reach the first pictures.
# Expected: frame 0 is the first picture, whether a reader starts there or is sent there. Seen with opencv-python-headless 5.0.0.93: reading
# gives picture 0 first, but after CAP_PROP_POS_FRAMES = 0 the next one is picture 12, the second keyframe. decord 0.6.0, which seeks
# before it reads, gives picture 12 for index 0 and 13 for index 1. PyAV 18.1.0 does so as well when sent to the stream's own start_time.
# None of them says a word. Without B-frames all are right: the first packet is then decoded at the time at which it is shown.
# Exits with 0 while this is so; with 1 once the behaviour has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check av==18.1.0 opencv-python-headless==5.0.0.93 decord==0.6.0 numpy==2.4.6

cat > seek.py <<'PROGRAM'
from fractions import Fraction

import av
import cv2
import decord
import numpy as np

LEVELS = range(20, 220, 4)  # the brightness of a picture tells its number


def write(path, between):
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": str(between), "g": "12", "b-adapt": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 64, "yuv420p", 1
        for number, level in enumerate(LEVELS):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def number_of(picture):
    return round((float(picture.mean()) - 19.5) / 4)


def look(path):
    capture = cv2.VideoCapture(path)
    read = number_of(capture.read()[1])
    capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
    sought = number_of(capture.read()[1])
    reader = decord.VideoReader(path, num_threads=1)
    indexed = [number_of(reader[index].asnumpy()) for index in (0, 1)]
    with av.open(path) as container:
        stream = container.streams.video[0]
        container.seek(stream.start_time, stream=stream)
        at_start = number_of(next(container.decode(stream)).to_ndarray(format="rgb24"))
    print(f"{path}: OpenCV reads picture {read}, after a seek to frame 0 picture {sought}; decord's frames 0 and 1 are pictures {indexed};")
    print(f"  PyAV after a seek to start_time: picture {at_start}")
    return read, sought, indexed, at_start


print("OpenCV", cv2.__version__, "decord", decord.__version__, "PyAV", av.__version__)
write("plain.ts", 0)
write("between.ts", 2)
assert look("plain.ts") == (0, 0, [0, 1], 0), "a stream without B-frames behaves otherwise"
raise SystemExit(0 if look("between.ts") == (0, 12, [12, 13], 12) else "the start of the stream can be reached now")
PROGRAM
venv/bin/python seek.py 2> complaints || { tail -n 3 complaints; exit 1; }
