#!/usr/bin/env bash
# A PyAV encoder that is told to be BT.709 or full range writes the tag into the file, and turns RGB frames into YUV as if it had not been
# told: by BT.601, limited range. Every reader that believes the tag then shows other colours than were given.
# Expected: colorspace and color_range of the encoder decide how RGB frames, which it converts by itself, are converted. Seen with PyAV
# 18.1.0: a red of (200, 40, 40) comes back 12 to 14 levels off with the tag BT.709, a green 26 levels off, and at full range grey
# stays while dark and bright values move by 9 to 11 levels. Converted first with VideoFrame.reformat to the same two settings, each comes
# back within 2 levels.
# Exits with 0 while this is so; with 1 once the behaviour has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6

cat > colours.py <<'PROGRAM'
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [128, 128, 128]])
PICTURE = np.repeat(np.repeat(COLOURS.reshape(2, 2, 3), 32, axis=0), 32, axis=1).astype(np.uint8)


def there_and_back(space, span, first):
    with av.open("clip.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 64, "yuv420p", 1
        stream.codec_context.colorspace, stream.codec_context.color_range = space, span
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(PICTURE, format="rgb24")
            if first:
                frame = frame.reformat(
                    format="yuv420p", dst_colorspace=space, src_color_range=ColorRange.JPEG, dst_color_range=span
                )
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open("clip.mp4") as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (space, span), "the tag is not in the file"
        shown = frame.to_ndarray(format="rgb24")[16::32, 16::32].reshape(4, 3).astype(int)
    return np.abs(shown - COLOURS).max(axis=1).tolist()


print("PyAV", av.__version__, "; largest change of red, green, blue and grey, in levels:")
answers = {}
for name, space, span in (
    ("BT.601 limited", Colorspace.ITU601, ColorRange.MPEG),
    ("BT.709 limited", Colorspace.ITU709, ColorRange.MPEG),
    ("BT.601 full", Colorspace.ITU601, ColorRange.JPEG),
):
    answers[name] = [max(there_and_back(space, span, first)) for first in (False, True)]
    print(f"  {name}: left to the encoder {there_and_back(space, span, False)}, converted first {there_and_back(space, span, True)}")
assert all(converted <= 4 for _, converted in answers.values()), "frames that were converted first change as well"
left = [answers[name][0] for name in ("BT.601 limited", "BT.709 limited", "BT.601 full")]
raise SystemExit(0 if left[0] <= 4 and left[1] >= 20 and left[2] >= 8 else "the encoder converts to its tag now")
PROGRAM
venv/bin/python colours.py 2> complaints || { tail -n 3 complaints; exit 1; }
