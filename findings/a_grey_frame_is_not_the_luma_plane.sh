#!/usr/bin/env bash
# PyAV's to_ndarray(format="gray") is not the luma plane of a frame: its levels are spread from 16..235 to 0..255, and where a file is
# BT.709, the matrix of HD video, colours are weighed anew by BT.601.
# Expected: grey is the first plane, untouched, since YUV keeps brightness apart from colour; energy of frame differences, thresholds and
# flow would then not hang on which of the two a program reads. Seen with PyAV 18.1.0: in a BT.709 file a green has luma 149 and grey 133,
# a red luma 80 and grey 87; in a BT.601 file the green has 131 and 134, the red 91 and 87. Only at full range and BT.601 are both alike.
# format="gray" of BT.709 is what cv2.cvtColor makes of the RGB frame, within two levels.
# Exits with 0 while this is so; with 1 once the behaviour has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check av==18.1.0 opencv-python-headless==5.0.0.93 numpy==2.4.6

cat > grey.py <<'PROGRAM'
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [128, 128, 128]])
PICTURE = np.repeat(np.repeat(COLOURS.reshape(2, 2, 3), 32, axis=0), 32, axis=1).astype(np.uint8)


def write(path, space, span):
    tag = dict(dst_colorspace=space, dst_color_range=span)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 64, "yuv420p", 1
        stream.codec_context.colorspace, stream.codec_context.color_range = space, span
        frame = av.VideoFrame.from_ndarray(PICTURE, format="rgb24").reformat(format="yuv420p", **tag)
        frame.pts, frame.time_base, frame.colorspace, frame.color_range = 0, Fraction(1, 25), space, span
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def centres(picture):
    return picture[[16, 16, 48, 48], [16, 48, 16, 48]].astype(int)


apart = {}
for name, space, span in (
    ("BT.601, limited", Colorspace.ITU601, ColorRange.MPEG),
    ("BT.709, limited", Colorspace.ITU709, ColorRange.MPEG),
    ("BT.601, full", Colorspace.ITU601, ColorRange.JPEG),
):
    write("clip.mp4", space, span)
    with av.open("clip.mp4") as container:
        frame = next(container.decode(video=0))
    plane = np.asarray(frame.planes[0]).reshape(-1, frame.planes[0].line_size)[:64, :64]
    luma, grey = centres(plane), centres(frame.to_ndarray(format="gray"))
    of_rgb = centres(cv2.cvtColor(frame.to_ndarray(format="rgb24"), cv2.COLOR_RGB2GRAY))
    print(f"{name}: luma {luma.tolist()}, grey {grey.tolist()}, grey of the RGB frame {of_rgb.tolist()}")
    apart[name] = abs(luma - grey).max(), abs(of_rgb - grey).max()
print("PyAV", av.__version__, "libswscale", ".".join(map(str, av.library_versions["libswscale"])))
assert apart["BT.601, full"][0] <= 1, "full range is no longer alike"
as_seen = apart["BT.601, limited"][0] >= 3 and apart["BT.709, limited"][0] >= 12 and apart["BT.709, limited"][1] <= 2
if not as_seen:
    print("grey is nearer to luma now, or farther from RGB")
raise SystemExit(not as_seen)
PROGRAM
venv/bin/python grey.py 2>/dev/null
