"""Other people's checkpoints: the published networks written out a second time, and every file to be refused."""

import collections
import datetime
import json
import os
import pickle
import random
import subprocess
import sys
import time
import uuid
from argparse import Namespace
from copy import deepcopy
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nbdev.config import update_version
from safetensors.torch import load_file, save_file

import fima
from fima.cli import main
from fima.methods.encoders.encoders import build_encoder
from fima.training.checkpoint import read_encoder, save_checkpoint, save_encoder
from fima.training.recipe import Recipe, make_recipe
from fima.training.weights import (
    export_encoder,
    import_checkpoint,
    load_encoder,
    match_weights,
    read_weights,
    weights_fingerprint,
)

from helpers import TOP

# -- the published networks, under their published names ---------------------------------------------------------------


class Published:
    "A plain forward pass over a state dict; with `state=None` it makes random weights of its shapes as it goes."

    def __init__(self, state=None, eps=1e-5):
        self.making, self.state, self.eps = state is None, {} if state is None else state, eps
        self.generator = torch.Generator().manual_seed(0)

    def conv(self, maps, name, outputs, kernel, stride=(1, 1, 1), padding=(0, 0, 0)):
        if self.making:
            inputs = maps.shape[1]
            std = (2 / (inputs * kernel[0] * kernel[1] * kernel[2])) ** 0.5
            self.state[f"{name}.weight"] = torch.randn(outputs, inputs, *kernel, generator=self.generator) * std
        return F.conv3d(maps, self.state[f"{name}.weight"], stride=stride, padding=padding)

    def norm(self, maps, name):
        if self.making:
            C = maps.shape[1]
            drawn = torch.rand(4, C, generator=self.generator)
            self.state |= {
                f"{name}.weight": 0.5 + drawn[0],
                f"{name}.bias": 0.2 * drawn[1] - 0.1,
                f"{name}.running_mean": 0.2 * drawn[2] - 0.1,
                f"{name}.running_var": 0.5 + drawn[3],
                f"{name}.num_batches_tracked": torch.tensor(7),
            }
        fields = [self.state[f"{name}.{field}"] for field in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(maps, *fields, training=False, eps=self.eps)


class PublishedI3D(Published):
    "Inception-v1 with three axes; `port` is Carreira's (TensorFlow's padding, its names), otherwise FIMA's and FAME's."

    BLOCKS = (
        dict(b=(64, 96, 128, 16, 32, 32), c=(128, 128, 192, 32, 96, 64)),
        dict(
            b=(192, 96, 208, 16, 48, 64),
            c=(160, 112, 224, 24, 64, 64),
            d=(128, 128, 256, 24, 64, 64),
            e=(112, 144, 288, 32, 64, 64),
            f=(256, 160, 320, 32, 128, 128),
        ),
        dict(b=(256, 160, 320, 32, 128, 128), c=(384, 192, 384, 48, 128, 128)),
    )

    def __init__(self, state=None, port=False):
        super().__init__(state, 1e-3 if port else 1e-5)
        self.port = port

    def padded(self, maps, kernel, stride):
        "Pad with zeros, last axis first: released code ignores the size, TensorFlow wants ceil(size / stride) outputs."
        zeros = []
        for size, k, s in list(zip(maps.shape[2:], kernel, stride, strict=True))[::-1]:
            total = max((-(-size // s) - 1) * s + k - size, 0) if self.port else max(k - s, 0)
            zeros += [total // 2, total - total // 2]
        return F.pad(maps, zeros)

    def unit(self, maps, name, outputs, size, step=1):
        kernel, stride = (size,) * 3, (step,) * 3
        maps = self.conv(self.padded(maps, kernel, stride), f"{name}.conv3d", outputs, kernel, stride)
        return F.relu(self.norm(maps, f"{name}.{'bn' if self.port else 'batch3d'}"))

    def pool(self, maps, kernel, stride):
        return F.max_pool3d(self.padded(maps, kernel, stride), kernel, stride, ceil_mode=not self.port)

    def block(self, maps, name, widths):
        names = (
            ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")
            if self.port
            else ("branch_0", "branch_1.0", "branch_1.1", "branch_2.0", "branch_2.1", "branch_3.1")
        )
        places = [f"{name}.{part}" for part in names]
        direct = self.unit(maps, places[0], widths[0], 1)
        wide = self.unit(self.unit(maps, places[1], widths[1], 1), places[2], widths[2], 3)
        narrow = self.unit(self.unit(maps, places[3], widths[3], 1), places[4], widths[4], 3)
        pooled = self.unit(self.pool(maps, (3, 3, 3), (1, 1, 1)), places[5], widths[5], 1)
        return torch.cat([direct, wide, narrow, pooled], 1)

    def __call__(self, clip):
        letter = "C" if self.port else "c"
        maps = self.pool(self.unit(clip, f"{letter}onv3d_1a_7x7", 64, 7, 2), (1, 3, 3), (1, 2, 2))
        maps = self.unit(self.unit(maps, f"{letter}onv3d_2b_1x1", 64, 1), f"{letter}onv3d_2c_3x3", 192, 3)
        for stage, (blocks, kernel, stride) in enumerate(
            zip(self.BLOCKS, ((1, 3, 3), (3, 3, 3), (2, 2, 2)), ((1, 2, 2), (2, 2, 2), (2, 2, 2)), strict=True), start=3
        ):
            maps = self.pool(maps, kernel, stride)
            for name, widths in blocks.items():
                maps = self.block(maps, f"{'M' if self.port else 'm'}ixed_{stage}{name}", widths)
        return maps


class PublishedResNet(Published):
    "torchvision's video ResNet-18: `split` is R(2+1)D, otherwise R3D."

    def __init__(self, state=None, split=True):
        super().__init__(state)
        self.split = split

    def stem(self, clip):
        if not self.split:
            return F.relu(self.norm(self.conv(clip, "stem.0", 64, (3, 7, 7), (1, 2, 2), (1, 3, 3)), "stem.1"))
        maps = F.relu(self.norm(self.conv(clip, "stem.0", 45, (1, 7, 7), (1, 2, 2), (0, 3, 3)), "stem.1"))
        return F.relu(self.norm(self.conv(maps, "stem.3", 64, (3, 1, 1), (1, 1, 1), (1, 0, 0)), "stem.4"))

    def full(self, maps, name, planes, middle, step):
        if not self.split:
            return self.conv(maps, name, planes, (3, 3, 3), (step,) * 3, (1, 1, 1))
        maps = F.relu(
            self.norm(self.conv(maps, f"{name}.0", middle, (1, 3, 3), (1, step, step), (0, 1, 1)), f"{name}.1")
        )
        return self.conv(maps, f"{name}.3", planes, (3, 1, 1), (step, 1, 1), (1, 0, 0))

    def block(self, maps, name, planes, step):
        inputs = maps.shape[1]
        middle = inputs * planes * 27 // (inputs * 9 + 3 * planes)
        found = F.relu(self.norm(self.full(maps, f"{name}.conv1.0", planes, middle, step), f"{name}.conv1.1"))
        found = self.norm(self.full(found, f"{name}.conv2.0", planes, middle, 1), f"{name}.conv2.1")
        if step > 1:
            maps = self.norm(
                self.conv(maps, f"{name}.downsample.0", planes, (1, 1, 1), (step,) * 3), f"{name}.downsample.1"
            )
        return F.relu(found + maps)

    def __call__(self, clip):
        maps = self.stem(clip)
        for depth, planes in enumerate((64, 128, 256, 512), start=1):
            for number in range(2):
                maps = self.block(maps, f"layer{depth}.{number}", planes, 2 if depth > 1 and number == 0 else 1)
        return maps


NETWORKS = dict(
    i3d=lambda state=None: PublishedI3D(state),
    port=lambda state=None: PublishedI3D(state, port=True),
    r2plus1d_18=lambda state=None: PublishedResNet(state),
    r3d_18=lambda state=None: PublishedResNet(state, split=False),
)


@pytest.fixture(scope="module")
def state_dicts():
    "Random weights of every published network, made by running it once."
    made = {}
    for name, network in NETWORKS.items():
        run = network()
        with torch.no_grad():
            run(torch.zeros(1, 3, 16, 32, 32))
        made[name] = run.state
    return made


def difference(one, other):
    "Largest difference over the largest value."
    assert one.shape == other.shape and other.abs().amax() > 0.1
    return float((one - other).abs().amax() / other.abs().amax())


CLIPS = [(name, (16, 112, 112)) for name in NETWORKS] + [
    ("i3d", (16, 224, 224)),
    ("i3d", (32, 112, 112)),
    ("r2plus1d_18", (32, 64, 64)),
    ("r3d_18", (10, 57, 64)),
]
# a stride divides none of these
CLIPS += [(name, size) for name in ("i3d", "port") for size in ((10, 50, 41), (9, 33, 64), (13, 100, 90))]


@pytest.mark.parametrize(
    "name, size", CLIPS, ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value))
)
def test_features_are_those_of_the_published_network(state_dicts, name, size):
    clip = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    encoder = match_weights(state_dicts[name]).encoder
    with torch.no_grad():
        assert difference(encoder(clip), NETWORKS[name](state_dicts[name])(clip)) < 1e-5


def test_eps_and_padding_are_what_tells_the_two_i3d_apart(state_dicts):
    "The comparison above must be able to fail: the other eps, or the other padding, is seen."
    clip = torch.randn(1, 3, 10, 50, 41, generator=torch.Generator().manual_seed(1))
    even = torch.randn(1, 3, 8, 64, 64, generator=torch.Generator().manual_seed(1))
    weights = match_weights(state_dicts["i3d"]).encoder.state_dict()
    other = build_encoder("i3d", norm_eps=1e-3).eval()
    other.load_state_dict(weights)
    padded = build_encoder("i3d", padding="tensorflow").eval()
    padded.load_state_dict(weights)
    published = NETWORKS["i3d"](state_dicts["i3d"])
    with torch.no_grad():
        assert difference(other(even), published(even)) > 1e-4
        assert difference(padded(even), published(even)) < 1e-5
        assert padded(clip).shape == published(clip).shape and difference(padded(clip), published(clip)) > 1e-2


# -- how it is wrapped -------------------------------------------------------------------------------------------------


def moco(state, prefix="module."):
    "Put an encoder into a training script's state, beside its copy, heads, decoder and queues."
    wrapped = {f"{prefix}encoder_q.{name}": value for name, value in state.items()}
    wrapped |= {f"{prefix}encoder_k.{name}": value + 1 for name, value in state.items()}
    beside = (
        "queue",
        "queue_ptr",
        "motion_queue",
        "queue_dense",
        "cls_token",
        "projector_dense.net.0.weight",
        "projector_dense_k.net.0.weight",
        "embedding1.weight",
        "embedding2.bias",
        "transformer_decoder.layers.0.linear1.weight",
        "pos_embedding.pe",
    )
    return wrapped | {prefix + name: torch.ones(3) for name in beside}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("wrap", ["bare", "moco", "data parallel", "backbone", "head within", "no counters", "half"])
def test_the_encoder_is_found_whatever_stands_around_it(state_dicts, name, wrap):
    state = state_dicts[name]
    wrapped = {
        "bare": lambda: state,
        "moco": lambda: moco(state),
        "data parallel": lambda: {f"module.{n}": v for n, v in state.items()} | {"module.fc.weight": torch.ones(3, 3)},
        "backbone": lambda: (
            {f"model.backbone.{n}": v for n, v in state.items()} | {"model.cls_head.fc_cls.weight": torch.ones(3)}
        ),
        "head within": lambda: moco(state | {"id_head.2.weight": torch.ones(3), "fc.bias": torch.ones(3)}),
        "no counters": lambda: {n: v for n, v in state.items() if "num_batches" not in n},
        "half": lambda: {n: v.half() if v.is_floating_point() else v for n, v in state.items()},
    }[wrap]()
    found = match_weights(wrapped)
    assert found.name == ("i3d" if name == "port" else name) and bool(found.options) == (name == "port")
    assert set(found.used) | set(found.left_out) == set(wrapped) == set(found.report.name)
    assert not set(found.used) & set(found.left_out)
    assert len(found.used) == sum("num_batches" not in n for n in state)
    weights = found.encoder.state_dict()
    for theirs, ours in found.used.items():
        assert torch.equal(weights[ours], wrapped[theirs].to(weights[ours].dtype))
    assert not found.encoder.training and len(set(found.used.values())) == len(found.used)
    if wrap == "bare":
        assert match_weights(wrapped, found.name).used == found.used
    if wrap in ("moco", "head within"):
        kinds = found.report.set_index("name").part
        assert all("encoder_q" in n for n in found.used)
        stems = {"i3d": "conv3d_1a_7x7.conv3d", "port": "Conv3d_1a_7x7.conv3d"}
        assert kinds[f"module.encoder_k.{stems.get(name, 'stem.0')}.weight"] == "key encoder"
        assert kinds["module.motion_queue"] == "queue"
        assert kinds["module.projector_dense.net.0.weight"] == "head"
        assert kinds["module.cls_token"] == "decoder"


@pytest.mark.parametrize(
    "counter",
    [
        torch.tensor(7),
        torch.tensor(torch.nan),
        torch.tensor(2**62, device="meta"),
        torch.tensor([3]).to_sparse(),
        torch.ones(3, 3),
        torch.tensor(1j),
    ],
    ids=["number", "nan", "meta", "sparse", "mis-shaped", "complex"],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_counters_of_a_file_are_never_read(state_dicts, name, counter):
    "Whatever they are, the encoder starts with zeros and the report says that they were left out."
    counters = {n: counter for n in state_dicts[name] if n.endswith("num_batches_tracked")}
    found = match_weights(state_dicts[name] | counters)
    plain = match_weights({n: v for n, v in state_dicts[name].items() if n not in counters})
    kinds = found.report.set_index("name").part
    assert counters
    assert set(found.left_out) == set(counters)
    assert set(kinds[list(counters)]) == {"counter"}
    assert found.used == plain.used
    assert weights_fingerprint(found.encoder) == weights_fingerprint(plain.encoder)
    for ours, value in found.encoder.state_dict().items():
        if ours.endswith("num_batches_tracked"):
            assert torch.equal(value, torch.tensor(0)) and value.dtype == torch.long


def test_an_imported_encoder_shares_no_memory_with_the_file_and_draws_no_random_number(state_dicts):
    state = {name: value.clone() for name, value in state_dicts["r3d_18"].items()}
    before = torch.get_rng_state()
    encoder = match_weights(state).encoder
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        for value in encoder.parameters():
            value.zero_()
    assert all(torch.equal(state[name], state_dicts["r3d_18"][name]) for name in state)
    assert all(parameter.requires_grad for parameter in encoder.parameters())


WRONG = {  # name -> changes to a good state of R(2+1)D-18, what the message says
    "unknown": (
        lambda s: s | {"layer5.0.conv1.0.weight": torch.ones(3)},
        "nearest to r2plus1d_18: 1 unknown (layer5.0.conv1.0.weight)",
    ),
    "head in the middle": (
        lambda s: s | {"layer4.0.projection.weight": torch.ones(3)},
        "1 unknown (layer4.0.projection.weight)",
    ),
    "missing": (
        lambda s: {n: v for n, v in s.items() if not n.startswith("layer4.1.conv")},
        "nearest to r2plus1d_18: 20 missing (layer4.1.conv1.0.0.weight, ",
    ),
    "mis-shaped": (
        lambda s: s | {"stem.0.weight": torch.ones(45, 2, 1, 7, 7)},
        "1 mis-shaped (stem.0.weight (45, 2, 1, 7, 7) for (45, 3, 1, 7, 7))",
    ),
    "nothing known": (
        lambda s: {"conv1.weight": torch.ones(64, 3, 7, 7), "bn1.bias": torch.ones(64)},
        "2 unknown (conv1.weight, bn1.bias); ",
    ),
    "nan": (
        lambda s: s | {"layer1.0.conv1.0.0.weight": s["layer1.0.conv1.0.0.weight"] * torch.nan},
        "1 weights are NaN or infinite: layer1.0.conv1.0.0.weight",
    ),
    "infinite": (
        lambda s: (
            {f"module.{n}": v for n, v in s.items()} | {"module.stem.1.running_var": torch.full((45,), torch.inf)}
        ),
        "NaN or infinite: module.stem.1.running_var",
    ),
    "too large": (
        lambda s: s | {"stem.1.bias": torch.full((45,), 1e300, dtype=torch.float64)},
        "NaN or infinite: stem.1.bias",
    ),
    "negative variance": (
        lambda s: {f"module.{n}": v for n, v in s.items()} | {"module.stem.1.running_var": -s["stem.1.running_var"]},
        "1 weights are negative variances: module.stem.1.running_var",
    ),
    "integers": (
        lambda s: s | {"stem.1.bias": torch.ones(45, dtype=torch.int8)},
        "1 weights are not dense floating-point numbers: stem.1.bias",
    ),
    "sparse": (
        lambda s: s | {"stem.1.bias": torch.ones(45).to_sparse()},
        "not dense floating-point numbers: stem.1.bias",
    ),
    "no numbers": (
        lambda s: s | {"stem.1.bias": torch.ones(45, device="meta")},
        "not dense floating-point numbers: stem.1.bias",
    ),
    "two encoders": (
        lambda s: {f"{p}.{n}": v for p in ("rgb", "flow") for n, v in s.items()},
        "hold several encoders (rgb., flow.)",
    ),
    "copy alone": (
        lambda s: {f"module.encoder_k.{n}": v for n, v in s.items()},
        "a momentum copy alone (module.encoder_k.)",
    ),
    "empty": (lambda s: {}, "nearest to i3d: 285 missing"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(state_dicts, kind):
    change, said = WRONG[kind]
    with pytest.raises(ValueError) as refused:
        match_weights(change(state_dicts["r2plus1d_18"]))
    assert said in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 1200


@pytest.mark.parametrize(
    "name, wanted", [("r3d_18", "r2plus1d_18"), ("r2plus1d_18", "r3d_18"), ("r3d_18", "i3d"), ("i3d", "r3d_18")]
)
def test_an_architecture_that_is_asked_for_must_be_there(state_dicts, name, wanted):
    unknown = r"\d+ unknown \(.* and \d+ more\); \d+ missing \("
    with pytest.raises(ValueError, match=f"another architecture than {wanted}; nearest to {wanted}: {unknown}"):
        match_weights(state_dicts[name], wanted)


def test_deeper_and_mixed_networks_of_the_same_names_are_refused(state_dicts):
    deeper = state_dicts["r2plus1d_18"] | {
        name.replace("layer3.1", "layer3.2"): value
        for name, value in state_dicts["r2plus1d_18"].items()
        if "layer3.1" in name
    }
    with pytest.raises(ValueError, match="nearest to r2plus1d_18: 24 unknown"):
        match_weights(deeper)
    mixed = {
        name: value[:, :, :1] if "layer3" in name and value.ndim == 5 and value.shape[2] == 3 else value
        for name, value in state_dicts["r3d_18"].items()
    }
    with pytest.raises(ValueError, match="nearest to r3d_18: 4 mis-shaped"):
        match_weights(mixed)


# -- files -------------------------------------------------------------------------------------------------------------

SMALL = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.num_batches_tracked": torch.tensor(3)}


@pytest.mark.parametrize(
    "content",
    [
        SMALL,
        {"state_dict": SMALL, "epoch": 3, "arch": "I3D", "optimizer": {"state": {0: {"step": 1}}}},
        {"model": {"model_state": SMALL}},
        {
            "state_dict": SMALL,
            "best_acc1": np.float32(81.5),
            "args": Namespace(lr=0.1, out=Path("x"), best=np.float64(1)),
            "rank": np.int64(0),
        },
        {"state_dict": {n: torch.nn.Parameter(v) if v.ndim else v for n, v in SMALL.items()} | {"note": "x"}},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_training_scripts_are_read(tmp_path, content, zipped):
    torch.save(content, tmp_path / "a.pth.tar", _use_new_zipfile_serialization=zipped)
    read = read_weights(tmp_path / "a.pth.tar")
    assert read.keys() == SMALL.keys() and all(torch.equal(read[name], SMALL[name]) for name in SMALL)


BESIDE = {
    "array": np.arange(4.0),
    "array of text": np.array(["a", "b"]),
    "array in Fortran's order": np.asfortranarray(np.ones((2, 3), np.int8)),
    "empty array": np.empty((0, 3)),
    "number": np.uint16(3),
    "kind of number": np.float32,
    "dtype": np.dtype("float64"),
    "Python's random state": random.Random(0).getstate(),
    "NumPy's random state": np.random.RandomState(0).get_state(),
    "RandomState": np.random.RandomState(0),
    "Generator": np.random.default_rng(0),
    "state of a Generator": np.random.default_rng(0).bit_generator.state,
    "torch's random state": torch.get_rng_state(),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "defaultdict of numbers": collections.defaultdict(int, a=1),
    "deque": collections.deque([1, 2], maxlen=5),
    "Counter": collections.Counter("abca"),
    "datetime": datetime.datetime(2023, 7, 1, 12),
    "with a zone": datetime.datetime(2023, 7, 1, tzinfo=datetime.timezone.utc),
    "date and duration": (datetime.date(2023, 7, 1), datetime.timedelta(3)),
    "SimpleNamespace": SimpleNamespace(lr=0.1, out=Path("x"), inner=SimpleNamespace(a=1)),
    "paths": (Path("a/b"), PurePosixPath("a"), PureWindowsPath("C:/a")),
    "sets": ({1, 2}, frozenset({3}), set()),
    "bytes": (b"\x00\xff", bytearray(b"ab"), 1 + 2j, slice(1, 2), range(3)),
    "UUID": uuid.UUID(int=5),
    "exact numbers": (Decimal("0.1"), Fraction(1, 3)),
    "kinds": [int, float, str, list, dict],
}


@pytest.mark.parametrize("what", BESIDE)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_lies_beside_the_weights_is_no_hindrance(tmp_path, what, zipped):
    content = {"state_dict": SMALL, "beside": BESIDE[what], "within": [{"a": (BESIDE[what],)}]}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    read = read_weights(tmp_path / "a.pth")
    assert read.keys() == SMALL.keys() and all(torch.equal(read[name], SMALL[name]) for name in SMALL)


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
@pytest.mark.parametrize("kind", ["WindowsPath", "PosixPath"])
def test_a_path_of_another_python_or_system_is_read(tmp_path, module, kind):
    "Neither class need be here: Python 3.13 has another module, and the other system another class."
    torch.save(
        {"state_dict": SMALL, "out": PurePosixPath("abcde")}, tmp_path / "a.pth", _use_new_zipfile_serialization=False
    )
    data = (tmp_path / "a.pth").read_bytes()
    assert data.count(b"cpathlib\nPurePosixPath\n") == 1
    (tmp_path / "b.pth").write_bytes(data.replace(b"cpathlib\nPurePosixPath\n", f"c{module}\n{kind}\n".encode()))
    assert read_weights(tmp_path / "b.pth").keys() == SMALL.keys()


def test_weights_in_a_defaultdict_are_found(tmp_path):
    torch.save(collections.defaultdict(dict, state_dict=collections.defaultdict(list, SMALL)), tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").keys() == SMALL.keys()


class Unknown:
    "A class of somebody's training script."


def test_an_object_of_an_unknown_class_is_refused_by_name_with_a_way_out(tmp_path):
    torch.save({"state_dict": SMALL, "config": Unknown()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"test_weights\.Unknown.*save it again where it was made.*state_dict"):
        read_weights(tmp_path / "a.pth")


def test_a_header_of_a_hundred_thousand_layers_is_one_line(tmp_path, capsys):
    save_file({f"layer{n}.weight": torch.zeros(1) for n in range(100_000)}, tmp_path / "many.safetensors")
    began = time.process_time()
    assert main(["checkpoint", "import", str(tmp_path / "many.safetensors"), str(tmp_path / "run")]) == 2
    assert time.process_time() - began < 10  # it takes under two seconds
    said = capsys.readouterr().err
    assert said.startswith("fima: ") and said.count("\n") == 1 and len(said) < 2000


def test_safetensors_is_read(tmp_path):
    save_file(SMALL, tmp_path / "a.safetensors")
    assert all(torch.equal(value, SMALL[name]) for name, value in read_weights(tmp_path / "a.safetensors").items())


def test_a_suffix_is_known_in_any_case(run, tmp_path):
    save_file(SMALL, tmp_path / "a.SAFETENSORS")
    assert read_weights(tmp_path / "a.SAFETENSORS").keys() == SMALL.keys()
    (tmp_path / "cut.SafeTensors").write_bytes((tmp_path / "a.SAFETENSORS").read_bytes()[:-4])
    for load in (read_weights, load_encoder):
        with pytest.raises(ValueError, match="is not a complete safetensors file"):
            load(tmp_path / "cut.SafeTensors")
    ours = export_encoder(run, tmp_path / "OURS.SAFETENSORS")
    assert load_encoder(ours)[1] == load_encoder(run)[1]
    with pytest.raises(ValueError, match="written by fima .*load_encoder reads"):
        import_checkpoint(ours, tmp_path / "run")


class Hostile:
    "Runs a command wherever it is unpickled."

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


class Evaluated(Hostile):
    "Evaluates an expression wherever it is unpickled."

    def __reduce__(self):
        return eval, (f"open({str(self.marker)!r}, 'w')",)


@pytest.mark.parametrize("kind", [Hostile, Evaluated])
@pytest.mark.parametrize("where", ["zip", "legacy", "in the arguments", *(f"protocol {p}" for p in range(6))])
def test_a_hostile_file_is_refused_and_not_executed(tmp_path, kind, where):
    marker, file = tmp_path / "executed", tmp_path / "hostile.pth"
    content = {"state_dict": SMALL, "args": Namespace(x=kind(marker)) if where == "in the arguments" else kind(marker)}
    if where.startswith("protocol"):
        file.write_bytes(pickle.dumps(content["args"], int(where[-1])))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=where != "legacy")
    for read in (read_weights, load_encoder, lambda f: import_checkpoint(f, tmp_path / "run")):
        with pytest.raises(ValueError, match="nothing of it was executed") as refused:
            read(file)
        assert "\n" not in str(refused.value)
    assert not marker.exists() and not (tmp_path / "run").exists()
    if not where.startswith("protocol"):  # the same file does run its command where code is allowed to
        torch.load(file, weights_only=False)
        assert marker.exists()


def bad_files(folder):
    "Write files that are no checkpoints; name -> what the refusal says."
    torch.save({"state_dict": SMALL}, folder / "good.pth")
    save_file(SMALL, folder / "good.safetensors")
    whole = {kind: (folder / f"good.{kind}").read_bytes() for kind in ("pth", "safetensors")}
    for fraction in (0.1, 0.5, 0.95):
        for kind, content in whole.items():
            (folder / f"cut{fraction}.{kind}").write_bytes(content[: int(len(content) * fraction)])
    for kind in whole:
        (folder / f"empty.{kind}").write_bytes(b"")
    (folder / "text.pth").write_text("<html>404 not found</html>\n")
    (folder / "noise.pth").write_bytes(np.random.default_rng(0).bytes(4096))
    (folder / "pth.safetensors").write_bytes(whole["pth"])
    torch.save(torch.nn.Conv3d(3, 4, 1), folder / "module.pth")
    torch.save({"epoch": 3, "state_dict": {}}, folder / "none.pth")
    torch.save(torch.ones(3), folder / "tensor.pth")
    loop = {"epoch": 1}
    loop["state_dict"] = loop
    torch.save(loop, folder / "loop.pth")
    (folder / "folder.pth").mkdir()
    said = {
        f"cut{fraction}.{kind}": "cut off" if kind == "pth" else "not a complete safetensors file"
        for fraction in (0.1, 0.5, 0.95)
        for kind in whole
    }
    return said | {
        "empty.pth": "cut off",
        "empty.safetensors": "not a complete",
        "text.pth": "cannot|another kind",
        "noise.pth": "another kind",
        "pth.safetensors": "not a complete",
        "module.pth": "Python object .*Conv3d",
        "none.pth": "holds no weights",
        "tensor.pth": "holds no weights",
        "loop.pth": "holds no weights",
        "folder.pth": "there is no such file",
        "absent.pth": "there is no such file",
    }


def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path):
    for name, said in bad_files(tmp_path).items():
        with pytest.raises(ValueError, match=said) as refused:
            read_weights(tmp_path / name)
        assert "\n" not in str(refused.value) and name in str(refused.value)


# -- runs, and back ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(state_dicts, tmp_path_factory):
    "An R(2+1)D-18 as FIMA's training script keeps it, imported."
    folder = tmp_path_factory.mktemp("imported")
    torch.save(
        {"epoch": 200, "arch": "r2plus1d_18", "state_dict": moco(state_dicts["r2plus1d_18"])},
        folder / "checkpoint_0199.pth.tar",
    )
    return import_checkpoint(folder / "checkpoint_0199.pth.tar", folder / "run")


def test_an_imported_checkpoint_is_a_finished_run(state_dicts, run):
    metrics = json.loads((run / "metrics.json").read_text())
    recipe = Recipe.model_validate_json((run / "recipe.json").read_text())
    origin = metrics["origin"]
    assert metrics["run"] == recipe.run_id
    assert recipe.run_id.startswith("imported-")
    assert metrics["parameters"] == 31_300_125
    assert origin["file"] == "checkpoint_0199.pth.tar"
    assert origin["weights"] == recipe.method.weights
    assert len(origin["weights"]) == 16
    assert origin["used"]["module.encoder_q.stem.0.weight"] == "stem.0.weight" and "module.queue" in origin["left_out"]
    views = recipe.views
    assert (views.crop_size, views.frames_per_clip, views.stride) == (112, 16, 2)
    assert recipe.preset == views.difference == "released"
    encoder, kept = read_encoder(run)
    assert kept == recipe and weights_fingerprint(encoder) == recipe.method.weights
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, torch.tensor(0) if "num_batches" in name else state_dicts["r2plus1d_18"][name])


def test_weights_have_one_name_whatever_file_they_came_in(state_dicts, run, tmp_path):
    weights = state_dicts["r2plus1d_18"]
    save_file({f"backbone.{n}": v for n, v in weights.items()}, tmp_path / "other.safetensors")
    assert load_encoder(tmp_path / "other.safetensors")[1] == load_encoder(run)[1]
    changed = weights | {"stem.1.running_mean": weights["stem.1.running_mean"] + 1e-6}
    assert weights_fingerprint(match_weights(changed).encoder) != load_encoder(run)[1].method.weights


def test_views_of_an_import_can_be_said_and_a_folder_belongs_to_one_run(state_dicts, run, tmp_path):
    torch.save(state_dicts["r2plus1d_18"], tmp_path / "weights.pt")
    again = import_checkpoint(tmp_path / "weights.pt", run)  # the same weights: the same run
    assert again == run
    options = dict(crop_size=64, frames_per_clip=32, stride=1)
    wide = load_encoder(import_checkpoint(tmp_path / "weights.pt", tmp_path / "wide", **options))[1].views
    assert (wide.crop_size, wide.frames_per_clip, wide.stride) == (64, 32, 1)
    with pytest.raises(ValueError, match="must be new or of the run imported-"):
        import_checkpoint(tmp_path / "weights.pt", run, crop_size=64)
    with pytest.raises(ValueError, match="weights.pt: weights are of another architecture than r3d_18"):
        import_checkpoint(tmp_path / "weights.pt", tmp_path / "r3d", encoder="r3d_18")
    assert not (tmp_path / "r3d").exists()


def test_a_crop_size_of_zero_is_refused_and_not_replaced(run, tmp_path):
    save_encoder(tmp_path / "ours" / "encoder.safetensors", *load_encoder(run))
    save_file(load_file(tmp_path / "ours" / "encoder.safetensors"), tmp_path / "theirs.safetensors")
    with pytest.raises(ValueError, match="views.crop_size: Input should be greater than or equal to 8 .got 0."):
        import_checkpoint(tmp_path / "theirs.safetensors", tmp_path / "zero", crop_size=0)
    assert not (tmp_path / "zero").exists()


BAD_RECIPES = (
    "{}",
    "",
    "not json",
    '{"data": {"name": "ucf"}}',
    '{"data": 3, "views": {"stride": 0}, "seed": -1}',
    "\0\0",
    '{"data"',
)


@pytest.mark.parametrize("content", [*(text.encode() for text in BAD_RECIPES), b"\xff\xfe\x00"], ids=repr)
def test_a_folder_whose_recipe_is_damaged_is_named(state_dicts, tmp_path, content):
    torch.save(state_dicts["r3d_18"], tmp_path / "weights.pt")
    claimed = tmp_path / "run" / "recipe.json"
    claimed.parent.mkdir()
    claimed.write_bytes(content)
    with pytest.raises(ValueError, match="its recipe does not fit this version of fima: ") as refused:
        import_checkpoint(tmp_path / "weights.pt", claimed.parent)
    assert str(refused.value).startswith(f"{claimed}: ")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
    assert claimed.read_bytes() == content and os.listdir(claimed.parent) == ["recipe.json"]


def test_export_and_load_are_exact(run, tmp_path):
    file = export_encoder(run, tmp_path / "new" / "encoder.safetensors")
    encoder, recipe = fima.load_encoder(str(file))
    first, kept = load_encoder(run)
    assert recipe == kept and not encoder.training
    for name, value in first.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value)
    twice = export_encoder(file, tmp_path / "twice.safetensors")
    assert twice.read_bytes() == file.read_bytes()
    with pytest.raises(ValueError, match="written by fima .*load_encoder reads"):
        import_checkpoint(file, tmp_path / "run")


def test_the_training_state_of_a_run_is_not_taken_for_a_checkpoint_of_others(tmp_path):
    "Our I3D has the names of Carreira's: without its recipe its eps would be guessed wrong."
    encoder = torch.nn.ModuleDict({"encoder": build_encoder("i3d")})
    save_checkpoint(tmp_path, 3, encoder, torch.optim.SGD(encoder.parameters(), lr=0.1))
    for load in (load_encoder, lambda file: import_checkpoint(file, tmp_path / "run")):
        with pytest.raises(ValueError, match="written by fima .the training state of a run"):
            load(tmp_path / "checkpoint" / "step_0000003" / "method.safetensors")


def test_every_encoder_of_ours_survives_export(tmp_path):
    for name, options in dict(
        small3d={"temporal_stride": 8, "widths": [4, 8, 8]},
        i3d={"norm_eps": 1e-3, "padding": "tensorflow"},
        i3d_plain={},
    ).items():
        recipe = make_recipe(
            "smoke", overrides={"encoder.name": name.removesuffix("_plain"), "encoder.options": options}
        )
        encoder = build_encoder(recipe.encoder.name, **recipe.encoder.options).eval()
        save_encoder(tmp_path / "run" / "checkpoint" / "encoder.safetensors", encoder, recipe)
        loaded, kept = load_encoder(export_encoder(tmp_path / "run", tmp_path / f"{name}.safetensors"))
        clip = torch.rand(1, 3, 8, 33, 33)
        assert kept == recipe and torch.equal(loaded(clip), encoder(clip))


def damaged(folder, change):
    "A file of ours whose weights were changed."
    recipe = make_recipe("smoke")
    save_encoder(folder / "ours.safetensors", build_encoder(recipe.encoder.name, **recipe.encoder.options), recipe)
    weights = load_file(folder / "ours.safetensors")
    save_file(change(weights), folder / "ours.safetensors", metadata={"recipe": recipe.model_dump_json()})
    return folder / "ours.safetensors"


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda w: w | {"stage0.0.weight": w["stage0.0.weight"] * torch.nan},
            "1 weights are NaN or infinite: stage0.0.weight",
        ),
        (
            lambda w: w | {"stage0.1.running_var": w["stage0.1.running_var"] * torch.inf},
            "1 weights are NaN or infinite: stage0.1.running_var",
        ),
        (
            lambda w: w | {"stage0.1.running_var": w["stage0.1.running_var"] - 1.001},
            "1 weights are negative variances: stage0.1.running_var",
        ),
        (lambda w: w | {"stage9.0.weight": torch.ones(3)}, r"recipe's small3d: 1 unknown \(stage9.0.weight\)"),
        (lambda w: {n: v for n, v in w.items() if n != "stage1.0.weight"}, r"1 missing \(stage1.0.weight\)"),
        (lambda w: w | {"stage0.1.bias": torch.ones(7)}, r"1 mis-shaped \(stage0.1.bias \(7,\) for \(4,\)\)"),
    ],
    ids=["nan", "infinite", "negative variance", "unknown", "missing", "mis-shaped"],
)
def test_a_file_of_ours_that_is_damaged_is_refused(tmp_path, change, said):
    file = damaged(tmp_path, change)
    for load in (load_encoder, fima.load_encoder, read_encoder):
        with pytest.raises(ValueError, match=said) as refused:
            load(file)
        assert "\n" not in str(refused.value)


def test_a_recipe_that_is_not_there_or_not_ours_is_refused(tmp_path):
    save_file(SMALL, tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="holds no recipe in its header"):
        read_encoder(tmp_path / "none.safetensors")
    for text in BAD_RECIPES:
        save_file(SMALL, tmp_path / "odd.safetensors", metadata={"recipe": text})
        with pytest.raises(ValueError, match="its recipe does not fit this version of fima") as refused:
            load_encoder(tmp_path / "odd.safetensors")
        assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="holds no finished encoder"):
        load_encoder(tmp_path)


def of_widths(folder, widths):
    "A small file of ours whose recipe asks for other layers."
    file, recipe = damaged(folder, dict), make_recipe("smoke").model_dump(mode="json")
    recipe["encoder"]["options"]["widths"] = widths
    save_file(load_file(file), file, metadata={"recipe": json.dumps(recipe)})
    return file


@pytest.mark.parametrize(
    "widths, said",
    [
        (
            [40000] * 3,
            "its recipe does not fit this version of fima: encoder: .*at most 2,000,000,000 parameters and has "
            "86,409,240,000",
        ),
        ([10**12] * 3, "its recipe does not fit this version of fima: .*Storage size"),
        ([2**70] * 3, "does not fit this version of fima: .*must lie within 64 bits"),
        ([-1] * 3, "does not fit this version of fima: .*negative dimension"),
        (["x"] * 3, "does not fit this version of fima: encoder: "),
    ],
    ids=["giant", "overflow", "no integer", "negative", "words"],
)
def test_a_recipe_that_asks_for_impossible_layers_is_refused_in_one_line(tmp_path, widths, said):
    file = of_widths(tmp_path, widths)
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint" / "encoder.safetensors").write_bytes(file.read_bytes())
    for load, source in ((load_encoder, file), (read_encoder, file), (read_encoder, tmp_path / "run")):
        with pytest.raises(ValueError, match=said) as refused:
            load(source)
        assert "\n" not in str(refused.value) and str(refused.value).startswith(str(source))


@pytest.mark.parametrize(
    "name, options",
    [("small3d", {"widths": [4, 8, 8], "temporal_stride": 8}), ("i3d", {}), ("r2plus1d_18", {}), ("r3d_18", {})],
)
@pytest.mark.parametrize("kept", [torch.float32, torch.float16, torch.float64], ids=str)
def test_an_encoder_is_read_as_if_it_were_built_and_filled(tmp_path, name, options, kept):
    "Numbers, types, layout, gradients and mode are those of the plain way, and no random number is drawn for it."
    recipe = make_recipe("smoke", overrides={"encoder.name": name, "encoder.options": options})
    plain = build_encoder(name, **options)
    for buffer, value in plain.named_buffers():
        value.fill_(3) if "num_batches" in buffer else value.uniform_(0.5, 1.5)
    save_encoder(tmp_path / "encoder.safetensors", deepcopy(plain).to(kept), recipe)
    plain.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    before = torch.get_rng_state()
    read, _ = read_encoder(tmp_path / "encoder.safetensors")
    assert torch.equal(torch.get_rng_state(), before) and not any(module.training for module in read.modules())
    size = (tmp_path / "encoder.safetensors").stat().st_size
    with open(tmp_path / "encoder.safetensors", "r+b") as file:
        file.write(bytes(size))  # what was read is its own
    for kind in ("named_parameters", "named_buffers"):
        for (one, value), (other, wanted) in zip(getattr(read, kind)(), getattr(plain, kind)(), strict=True):
            assert one == other and type(value) is type(wanted) and torch.equal(value, wanted) and value.is_leaf
            assert (value.dtype, value.device, value.stride(), value.requires_grad) == (
                wanted.dtype,
                wanted.device,
                wanted.stride(),
                wanted.requires_grad,
            )
    clip = torch.rand(1, 3, 8, 33, 33)
    with torch.no_grad():
        assert torch.equal(read(clip), plain.eval()(clip))


# -- import fima -------------------------------------------------------------------------------------------------------


def test_importing_fima_stays_light():
    code = """import sys, fima
heavy = sys.modules.keys() & {'torch', 'numpy', 'pandas', 'av', 'cv2'}
assert not heavy, heavy
assert not hasattr(fima, 'nothing_of_this_name')
from fima import load_encoder
assert load_encoder is fima.load_encoder and 'torch' in sys.modules"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_load_encoder_survives_a_change_of_version(tmp_path):
    "nbdev writes the version into fima/__init__.py at each export; the rest of the file must stand."
    text = (TOP / "fima" / "__init__.py").read_text()
    (tmp_path / "__init__.py").write_text(text.replace(fima.__version__, "0.0.0"))
    update_version(tmp_path)
    assert (tmp_path / "__init__.py").read_text() == text
