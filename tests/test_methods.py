"""All methods under one harness: data, views and losses compose by recipe, and the studies keep their budgets."""

import math

import numpy as np
import pandas as pd
import pytest
from torch.utils.flop_counter import FlopCounterMode

from fima.methods.registry import STRUCTURE
from fima.methods.mcl import Mcl
from fima.data.views.clips import Looped, batches
from fima.data.video.files import write_video
from fima.data.video.video import FrameCache
from fima.methods.encoders.encoders import map_size
from fima.study.plan.schema import load_study
from fima.study.plan.plan import expand
from fima.training.pretrain import Stopped, build_method, build_optimiser, pretrain, step_seed, take_step
from fima.training.recipe import make_recipe
from fima.training.ddp import check_processes
from fima.training.videos import OpenData, open_data
from fima.training.views import open_clips, open_modalities, with_flow

pytestmark = pytest.mark.usefixtures("module_work")

VIEWS = {
    "plain": {},
    "tubelets": {"views.tubelets": {}},
    "fame": {"views.change": "fame"},
    "be": {"views.change": "be"},
    "same": {"views.target": "same"},
    "all": {"views.tubelets": {}, "views.change": "fame", "views.target": "same"},
}


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("method", [None, *STRUCTURE])
def test_every_method_trains_on_every_kind_of_views(method, views, tmp_path):
    recipe = make_recipe("smoke", method=method, overrides=VIEWS[views] | {"optimisation.steps": 2})
    metrics = pretrain(recipe, tmp_path, progress=False)
    assert metrics["steps"] == 2 and metrics["final"] and not metrics["left_out"]


@pytest.mark.parametrize("method", STRUCTURE)
def test_a_stopped_comparator_continues_bit_for_bit(method, tmp_path):
    recipe = make_recipe("smoke", method=method)
    whole = pretrain(recipe, tmp_path / "whole", log_interval=1, progress=False)
    with pytest.raises(Stopped):
        pretrain(recipe, tmp_path / "halved", stop_after=2, progress=False)
    halved = pretrain(recipe, tmp_path / "halved", workers=2, log_interval=1, progress=False)
    assert halved["final"] == whole["final"]
    weights = [tmp_path / name / "checkpoint" / "encoder.safetensors" for name in ("halved", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_shuffles_of_an_epoch_repeat_only_where_asked(tmp_path, monkeypatch):
    "MCL's released code seeds all iterations of an epoch alike; 24 videos in batches of 8 are three steps an epoch."
    seeds, forward = {"step": [], "epoch": []}, Mcl.forward

    def note_seeds(noted):
        def forward_noting(self, batch, generator):
            noted.append(generator.initial_seed())
            return forward(self, batch, generator)

        monkeypatch.setattr(Mcl, "forward", forward_noting)

    for reseed, noted in seeds.items():
        note_seeds(noted)
        recipe = make_recipe("smoke", method="mcl", overrides={"optimisation.reseed": reseed})
        pretrain(recipe, tmp_path / reseed, progress=False)
    assert len(set(seeds["step"])) == 4
    assert seeds["epoch"][0] == seeds["epoch"][1] == seeds["epoch"][2] != seeds["epoch"][3]


def test_preset_released_takes_every_fault_of_mcl():
    recipe, mended = make_recipe("smoke", "released", method="mcl"), make_recipe("smoke", method="mcl")
    motion, options = recipe.views.motion, ("weights", "map", "own_keys")
    assert (motion.flip, motion.sum, motion.pairs, recipe.views.tubelets.sum) == ("released",) * 4
    assert [recipe.method.options[name] for name in options] == ["released"] * 3
    assert recipe.optimisation.reseed == "epoch"
    # the gradient maps are the published ones
    assert [mended.method.options[name] for name in options] == ["fixed", "released", "fixed"]
    assert mended.optimisation.reseed == "step"


@pytest.mark.parametrize("change", ["none", "fame", "be"])
@pytest.mark.parametrize("method", [None, *STRUCTURE])
def test_every_method_on_every_view_change_can_be_shared_out(method, change):
    "What several processes compute is compared with one process in test_distributed."
    groups = {"method.query_groups": 2, "method.key_groups": 2, "method.negatives": 4}
    check_processes(make_recipe("smoke", method=method, overrides={"views.change": change, **groups}), 2)
    with pytest.raises(ValueError, match="method.query_groups must be a multiple of the 2 processes"):
        check_processes(make_recipe("smoke", method=method, overrides={"views.change": change}), 2)


def test_rows_of_one_study_differ_in_method_and_views_alone():
    for name in ("methods", "methods_ut"):
        compared = {
            run.row.name: run.recipe.model_dump(
                exclude={"method": True, "views": {"target", "change", "change_options", "tubelets"}}
            )
            for run in expand(load_study(name))
            if run.recipe.seed == 0 and run.recipe.data.split == 1
        }
        assert all(each == compared["fima"] for each in compared.values())
        shared = {
            run.row.name: [
                getattr(run.recipe.method, field)
                for field in ("temperature", "momentum", "queue_size", "hidden", "dim", "key_groups", "query_groups")
            ]
            for run in expand(load_study(name))
        }
        assert all(each == shared["fima"] for each in shared.values())


def film(kind, frames):
    "Draw a textured ground and, unless it is still, a square that walks over it; uint8 (frames, 48, 48, 3)."
    ground = np.random.default_rng(0).integers(0, 255, (12, 12, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    video = np.repeat(ground[None], frames, 0)
    if kind == "moving":
        for time in range(frames):
            video[time, 16:28, time : time + 12] = 255
    return video


@pytest.mark.parametrize(
    "kinds", [["one frame", "still", "moving", "moving"], ["one frame", "still", "still", "still"]]
)
def test_mcl_trains_on_videos_of_one_frame_and_without_motion(kinds, tmp_path):
    "They have maps of zeros and plain crops; nothing is NaN, and where nothing moves the alignment is exactly 0."
    recipe = make_recipe("smoke", method="mcl", overrides={"optimisation.batch_size": 4})
    for number, kind in enumerate(kinds):
        write_video(film(kind, 1 if kind == "one frame" else 36), tmp_path / f"{number}.mp4")
    catalog = pd.DataFrame({"path": [f"{number}.mp4" for number in range(4)], "label": 0, "split": "train"})
    catalog.attrs["folder"] = str(tmp_path)
    frames = Looped(
        FrameCache.build([str(tmp_path / path) for path in catalog.path], tmp_path / "cache", progress=False), 16
    )
    opened = OpenData(catalog, frames, pd.DataFrame(columns=["path", "reason"]), tmp_path, ["0.mp4"])
    method = build_method(recipe).train()
    opened, flows = with_flow(recipe, opened, method.needs)
    assert len(opened.catalog) == 4 and not len(opened.left_out)
    clips = open_clips(recipe, opened, method, map_size(method.encoder, 8, 32), flows)
    optimiser, modalities = build_optimiser(method, recipe.optimisation), open_modalities(recipe)
    for step, raw in enumerate(batches(clips, 4, 3)):
        still = [kind != "moving" for kind in np.array(kinds)[raw.index.numpy()]]
        assert (raw.source.motion.numpy()[still] < 0.05 * 48).all() and np.isfinite(raw.source.motion.numpy()).all()
        terms = take_step(method, optimiser, raw, modalities, step_seed(0, step))
        assert all(math.isfinite(value) for value in terms.values())
        if "moving" not in kinds:
            assert terms["align_space"] == terms["align_time"] == terms["align_space_time"] == 0


def operations(recipe):
    "Count the convolutions and matrix products of one step."
    method, v = build_method(recipe, 12).train(), recipe.views
    opened, flows = with_flow(recipe, open_data(recipe.data, v.frames_per_clip * v.stride), method.needs)
    clips = open_clips(recipe, opened, method, map_size(method.encoder, v.frames_per_clip, v.crop_size), flows)
    raw = next(iter(batches(clips, recipe.optimisation.batch_size, 1)))
    optimiser = build_optimiser(method, recipe.optimisation)
    with FlopCounterMode(display=False) as counted:
        take_step(method, optimiser, raw, open_modalities(recipe), step_seed(0, 0))
    return counted.get_total_flops()


def test_rows_of_the_second_study_compute_alike():
    "Steps times operations agree with FIMA's to within one step; the videos are few, which changes no operation."
    runs = {run.row.name: run.recipe for run in expand(load_study("methods_compute"))}
    cost = {}
    for name, recipe in runs.items():
        sprites = recipe.data.sprites.__dict__ | {"train": 24, "test": 12}
        data = recipe.data.model_validate(recipe.data.model_dump() | {"sprites": sprites})
        cost[name] = operations(recipe.model_copy(update={"data": data}))
    budget = cost["fima"] * runs["fima"].optimisation.steps
    for name, recipe in runs.items():
        assert abs(recipe.optimisation.steps * cost[name] - budget) <= cost[name], name
