#!/usr/bin/env bash
# OpenCV's DIS optical flow gives other bits when it may not use AVX2, and other bits again without Intel's IPP, for the same frames.
# Expected of a function without randomness: the same flow on every x86-64 processor. Seen with opencv-python-headless 5.0.0.93: another
# one. Without its optimised code (cv2.setUseOptimized(False)) it is the same under all of the switches.
# Exits with 0 while this is so, or where the processor has no AVX2; with 1 once the behaviour has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check opencv-python-headless==5.0.0.93 numpy==2.4.6

cat > flow.py <<'PROGRAM'
import hashlib
import sys

import cv2
import numpy as np

cv2.setUseOptimized(sys.argv[1] == "optimised")
noise = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (90, 140), np.uint8), (0, 0), 2)
noise = noise.astype(int) * 4 % 256
frames = [noise[number:number + 80, 2 * number:2 * number + 120].astype(np.uint8) for number in range(6)]
search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
flow = np.stack([search.calc(one, two, None) for one, two in zip(frames[:-1], frames[1:])])
print(hashlib.sha256(np.stack(frames).tobytes()).hexdigest()[:8], hashlib.sha256(flow.tobytes()).hexdigest()[:8])
PROGRAM

tell() { env "${@:2}" venv/bin/python flow.py "$1" 2>/dev/null; }
venv/bin/python -c 'import cv2, numpy; print("OpenCV", cv2.__version__, "NumPy", numpy.__version__, cv2.getCPUFeaturesLine())'
if ! venv/bin/python -c 'import cv2; raise SystemExit("*AVX2" not in cv2.getCPUFeaturesLine().split())'; then
    echo "skipped: this processor has no AVX2, so there is nothing to compare"
    exit 0
fi
free=$(tell optimised FINDING=1)
without_avx2=$(tell optimised OPENCV_CPU_DISABLE=AVX2)
without_ipp=$(tell optimised OPENCV_IPP=disabled)
base=$(tell baseline FINDING=1)
base_without=$(tell baseline OPENCV_CPU_DISABLE=AVX2 OPENCV_IPP=disabled)
echo "frames and flow, digests:"
printf '  %-34s %s\n' "as OpenCV chooses" "$free" "AVX2 switched off" "$without_avx2" "IPP switched off" "$without_ipp" \
    "not optimised" "$base" "not optimised, AVX2 and IPP off" "$base_without"
echo "expected: one flow in all five lines; seen so far: the first three differ, the last two are the same"
if [ "${free% *}" != "${base% *}" ]; then echo "changed: the frames themselves differ"; exit 1; fi
if [ "$free" = "$without_avx2" ] || [ "$free" = "$without_ipp" ] || [ "$base" != "$base_without" ]; then
    echo "changed: the behaviour is not as described any more"
    exit 1
fi
echo "as described"
