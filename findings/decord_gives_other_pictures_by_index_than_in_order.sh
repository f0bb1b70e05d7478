#!/usr/bin/env bash
# decord gives picture 15 when a file is read in order, and another picture when index 15 is asked for by itself: for H.264 in AVI, with
# and without B-frames, and for MPEG-4 with B-frames in AVI and in MP4. Nothing is said, and the number of pictures is right.
# Expected: get_batch, which samplers of clips call with indices of their own, returns what reading in order returns. Seen with decord 0.6.0
# on files of 50 pictures whose brightness is their number: indices 5, 15, 25, 35, 45 give 5, 3, 1, 11, 21 (H.264 in AVI), 1, 2, 15, 31, 44
# (MPEG-4 with B-frames in AVI) and each number plus two (the same in MP4). H.264 in MP4 is right, and so is MPEG-4 without B-frames in AVI.
# opencv-python-headless 5.0.0.93 gives the asked pictures of all of these files.
# Exits with 0 while this is so; with 1 once the behaviour has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check av==18.1.0 opencv-python-headless==5.0.0.93 decord==0.6.0 numpy==2.4.6

cat > by_index.py <<'PROGRAM'
from fractions import Fraction

import av
import cv2
import decord
import numpy as np

LEVELS = range(20, 220, 4)  # the brightness of a picture tells its number
ASKED = [5, 15, 25, 35, 45]
FILES = {  # codec, B-frames in a row, container -> whether decord finds the asked pictures
    ("libx264", 0, "avi"): False,
    ("libx264", 2, "avi"): False,
    ("mpeg4", 2, "avi"): False,
    ("mpeg4", 2, "mp4"): False,
    ("libx264", 2, "mp4"): True,
    ("mpeg4", 0, "avi"): True,
}


def write(path, codec, between):
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": str(between), "g": "12", "b_strategy": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 64, "yuv420p", 1
        stream.bit_rate = 4_000_000
        for number, level in enumerate(LEVELS):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def number(picture):
    return round((float(picture.mean()) - LEVELS[0]) / LEVELS.step)


def by_opencv(path):
    capture, found = cv2.VideoCapture(path), []
    for place in ASKED:
        capture.set(cv2.CAP_PROP_POS_FRAMES, place)
        found.append(number(capture.read()[1]))
    return found


same = []
for (codec, between, container), right in FILES.items():
    path = f"clip.{container}"
    write(path, codec, between)
    reader = decord.VideoReader(path)
    in_order = [number(reader[place].asnumpy()) for place in range(len(reader))]
    jumped = [number(picture) for picture in decord.VideoReader(path).get_batch(ASKED).asnumpy()]
    assert in_order == list(range(len(LEVELS))), (path, codec, in_order)
    assert by_opencv(path) == ASKED, (path, codec)
    print(f"{codec}, {between} B-frames, {container}: asked {ASKED}, decord gives {jumped}; in order all are right")
    same.append((jumped == ASKED) == right)
print("decord", decord.__version__, "OpenCV", cv2.__version__, "PyAV", av.__version__)
if not all(same):
    print("decord finds other pictures now")
raise SystemExit(not all(same))
PROGRAM
venv/bin/python by_index.py 2>/dev/null
