"""What must not hang on the machine: computations repeated in processes with other instructions or BLAS kernels."""

import json
import os
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from fima.data.flow.flow import FlowCache, baseline_opencv, dense_flow, flow_identity
from fima.data.sprites.sprites import SpriteOptions, render_video, sprite_catalog
from fima.data.video.files import write_video
from fima.data.video.video import FrameCache
from fima.evaluation.core.features import encode_clips
from fima.evaluation.protocols.probes import motion_clips
from fima.methods.encoders.encoders import build_encoder
from fima.training.checkpoint import environment, provenance

NO_AVX2, NO_AVX = dict(OPENCV_CPU_DISABLE="AVX2"), dict(OPENCV_CPU_DISABLE="SSE4.1,SSE4.2,AVX,FP16,AVX2")
INSTRUCTIONS = [{}, NO_AVX2, NO_AVX, dict(OPENCV_IPP="sse42"), NO_AVX | dict(OPENCV_IPP="disabled")]
KERNELS = ["Haswell", "Nehalem", "Prescott"]  # of OpenBLAS, beside the one that it chooses here

FLOW = """
import hashlib, json, sys
import cv2, numpy as np
from fima.data.flow.flow import dense_flow, flow_identity
digest, free = hashlib.sha256(), hashlib.sha256()
search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
with np.load(sys.argv[1]) as clips:
    for name in clips.files:
        digest.update(dense_flow(clips[name]).tobytes())
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clips[name]]
        free.update(search.calc(grey[0], grey[1], None).tobytes())
print(json.dumps([digest.hexdigest(), free.hexdigest(), flow_identity()]))
"""

PROBE = """
import sys
import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info
from fima.data.flow.motion import cell_means
from fima.evaluation.protocols.linear import class_scores, fit_logistic
with np.load(sys.argv[1]) as held:
    train, codes, test, maps = (held[name] for name in ("train", "codes", "test", "maps"))
scores = {f"scores_{C:g}": class_scores(test, *fit_logistic(train, codes, C)) for C in (1., 100.)}
loose = LogisticRegression(max_iter=5000).fit(train[:, 0], codes).decision_function(test[:, 0])
kernels = [held["architecture"] for held in threadpool_info() if "scipy_openblas" in held["prefix"]]
product, cells = maps.reshape(-1, 72) @ np.ones((72, 7), np.float32), cell_means(maps, (7, 7))
np.savez(sys.argv[2], kernels=kernels, loose=loose, product=product, cells=cells, **scores)
"""


def fresh(program, *given, **switches):
    "What a program prints in a process of its own."
    kept = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    command = [sys.executable, "-c", program, *map(str, given)]
    return subprocess.run(command, env=kept | switches, capture_output=True, text=True, check=True).stdout


def test_flow_is_the_same_on_other_instructions(tmp_path):
    if "*AVX2" not in cv2.getCPUFeaturesLine():
        pytest.skip("this OpenCV has no AVX2 to switch off here")
    noise = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8), (0, 0), 2)
    pan = np.stack([noise[number : number + 80, 2 * number : 2 * number + 120] for number in range(6)])
    np.savez(
        tmp_path / "clips.npz",
        sprites=render_video(SpriteOptions(), 0, "train")[0],
        large=render_video(SpriteOptions(size=96), 1, "test")[0][:12],
        pan=pan,
    )
    ours, free, about = zip(
        *(json.loads(fresh(FLOW, tmp_path / "clips.npz", **switches)) for switches in INSTRUCTIONS), strict=True
    )
    if len(set(free)) == 1:
        pytest.skip("this OpenCV does not heed OPENCV_CPU_DISABLE and OPENCV_IPP")
    assert len(set(ours)) == 1
    assert all(one == flow_identity() for one in about)  # so a cache may be shared among them


@pytest.mark.parametrize(
    "changed",
    [
        ("getCPUFeaturesLine", lambda: "NEON *FP16"),
        ("getBuildInformation", lambda: "another build"),
        ("__version__", "4.9.0"),
    ],
)
def test_flow_of_another_opencv_is_not_used(tmp_path, monkeypatch, changed):
    path = str(tmp_path / "0.mp4")
    write_video(render_video(SpriteOptions(size=32), 0, "train")[0], path)
    frames = FrameCache.build([path], tmp_path / "frames", progress=False)
    file, before = FlowCache.build([path], tmp_path / "flow", frames).entries[path].file, flow_identity()
    with np.load(file) as held:
        assert flow_identity().items() <= json.loads(str(held["about"])).items()
    stamp = file.stat().st_mtime_ns
    FlowCache.build([path], tmp_path / "flow", frames)
    assert file.stat().st_mtime_ns == stamp
    monkeypatch.setattr(cv2, *changed)
    assert flow_identity() != before
    FlowCache.build([path], tmp_path / "flow", frames)
    with np.load(file) as held:
        assert flow_identity().items() <= json.loads(str(held["about"])).items()


def test_threads_share_the_baseline_path():
    "Threads that overlap at random all get the same flow, and what was set before is set afterwards."
    clips = [render_video(SpriteOptions(size=32 + 16 * (number % 3)), number, "train")[0][:8] for number in range(6)]
    expected, found, before = [dense_flow(clip) for clip in clips], {}, (cv2.useOptimized(), cv2.ipp.useIPP())

    def work(number):
        for _ in range(3):
            found.setdefault(number, []).append(dense_flow(clips[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    with baseline_opencv():
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join()
    for number, flows in found.items():
        for flow in flows:
            np.testing.assert_array_equal(flow, expected[number])
    assert (cv2.useOptimized(), cv2.ipp.useIPP()) == before and len(found) == 6


def test_a_setting_of_the_user_is_given_back():
    cv2.setUseOptimized(False)
    try:
        dense_flow(np.zeros((2, 32, 32, 3), np.uint8))
        assert not cv2.useOptimized()
    finally:
        cv2.setUseOptimized(True)


def probe_data(file):
    "Features of an untrained encoder for clips of the motion sprites, made into rows; maps as of a flow."
    options = SpriteOptions(train=96, test=48)
    catalog = sprite_catalog(options)
    clips, drawn = motion_clips(catalog, 15), {}
    for video in catalog.itertuples():
        drawn[video.path] = render_video(options, int(video.number), video.split)[0]
    cut = np.stack([drawn[clip.path][clip.start : clip.start + 16 : 2] for clip in clips.itertuples()])
    inputs = torch.as_tensor(cut[:, :, 8:40, 8:40]).permute(0, 4, 1, 2, 3).float().div(255)
    encoder = build_encoder("small3d", generator=torch.Generator().manual_seed(0))
    rows = encode_clips(encoder, inputs.diff(dim=2, append=inputs[:, :, -1:]), 16).astype(float)
    train = clips.split.eq("train").to_numpy()
    mean, scale = rows[train].mean(0), rows[train].std(0) + 1e-12
    ready = ((rows - mean) / scale)[:, None]
    maps = np.random.default_rng(0).random((16, 2, 72, 72), np.float32)
    np.savez(file, train=ready[train], test=ready[~train], codes=clips.motion[train].to_numpy(), maps=maps)


def test_predictions_do_not_hang_on_the_blas(tmp_path):
    if not any("scipy_openblas" in held["prefix"] for held in threadpool_info()):
        pytest.skip("NumPy has no OpenBLAS here, so no kernel can be chosen")
    probe_data(tmp_path / "in.npz")
    fresh(PROBE, tmp_path / "in.npz", tmp_path / "own.npz")
    own, products = dict(np.load(tmp_path / "own.npz")), []
    # how far from the minimum the old stopping rule ended: the room for other predictions
    assert np.abs(own["loose"] - own["scores_1"]).max() > 1e-6
    for kernel in KERNELS:
        fresh(PROBE, tmp_path / "in.npz", tmp_path / "other.npz", OPENBLAS_CORETYPE=kernel)
        other = dict(np.load(tmp_path / "other.npz"))
        for name in ("scores_1", "scores_100"):
            np.testing.assert_array_equal(other[name].argmax(1), own[name].argmax(1))
            np.testing.assert_allclose(other[name], own[name], atol=1e-8)
        np.testing.assert_array_equal(other["cells"], own["cells"])  # bit for bit: MCL trains on them
        products.append(not np.array_equal(other["product"], own["product"]))
    if not any(products):
        pytest.skip(f"OpenBLAS keeps to one kernel here: {own['kernels'].tolist()}")


def test_the_environment_is_recorded():
    recorded = provenance()["environment"]
    assert recorded == environment()
    assert {"opencv", "scipy", "scikit-learn", "numpy", "torch", "av", "kornia"} <= set(recorded["libraries"])
    owners = {
        held["filepath"].split(os.sep)[-2].split(".")[0] for held in threadpool_info() if held["user_api"] == "blas"
    }
    assert owners & {"numpy", "scipy"} <= set(recorded["blas"])
    assert os.sep not in json.dumps(recorded)


def test_the_environment_costs_no_import():
    code = (
        "import sys, fima.training.checkpoint; print({'sklearn', 'scipy.linalg', 'threadpoolctl'} & set(sys.modules))"
    )
    assert fresh(code).strip() == "set()"
