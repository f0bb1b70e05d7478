"""Figures from finished runs: from checkpoints of any kind to files in reports/, and what happens where weights are missing. Everything runs the smoke profile."""

import os
import shutil
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fima.methods.encoders.encoders import build_encoder
from fima.study.plan.schema import load_study
from fima.study.plan.plan import expand
from fima.training.pretrain import pretrain
from fima.training.recipe import make_recipe
from fima.training.weights import import_checkpoint

RESULTS = Path(__file__).resolve().parent.parent / "nbs" / "results"
FIGURES = ["figure_03", "figure_04", "figure_05", "figure_07", "figure_08", "figure_09", "figure_10", "figure_11"]
SMALL = {"figure_05": dict(videos=5, clips=2)}  # a parameter of a notebook, to save time
each = pytest.mark.parametrize("figure", FIGURES)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "One run of FIMA and one of the baseline; the second without its training state."
    work, before = tmp_path_factory.mktemp("work"), os.environ.get("FIMA_WORK")
    os.environ["FIMA_WORK"] = str(work / "data")
    recipes = {
        "VV + Pix + Fra (FIMA)": make_recipe("smoke"),
        "VV": make_recipe("smoke", overrides={"method.pixel": False, "method.frame": False}),
    }
    for label, recipe in recipes.items():
        pretrain(recipe, work / "runs" / recipe.run_id, progress=False)
    folders = {label: work / "runs" / recipe.run_id for label, recipe in recipes.items()}
    shutil.rmtree(next((folders["VV"] / "checkpoint").glob("step_*")))
    yield folders
    os.environ.pop("FIMA_WORK") if before is None else os.environ.update(FIMA_WORK=before)


@pytest.fixture(autouse=True)
def same_videos(runs, monkeypatch):
    "The runs' own generated videos, also where another fixture has chosen a place for each test."
    monkeypatch.setenv("FIMA_WORK", str(next(iter(runs.values())).parents[1] / "data"))


def execute(figure, **parameters):
    "Run the cells of a results notebook in this process, its parameters changed."
    notebook, space = nbformat.read(RESULTS / f"{figure}.ipynb", 4), {}
    with matplotlib.rc_context({"backend": "agg"}):
        for cell in notebook.cells:
            if cell.cell_type != "code":
                continue
            exec(compile(cell.source, figure, "exec"), space)
            if "parameters" in cell.metadata.get("tags", []):
                assert not set(parameters) - set(space), "the notebook has no such parameter"
                space.update(parameters)
    return space


def files_of(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in Path(folder).rglob("*") if file.is_file()}


def told(reports, figure):
    return pd.read_csv(reports / "tables" / f"{figure}_own.csv"), (reports / "tables" / f"{figure}_own.md").read_text()


@each
def test_figure_from_runs(figure, runs, tmp_path, capsys):
    "Files appear as png and svg with a table, and a second run writes the same bytes."
    folders = {label: str(folder) for label, folder in runs.items()}
    execute(figure, folders=folders, reports=str(tmp_path), **SMALL.get(figure, {}))
    assert "not run" not in capsys.readouterr().out
    files = files_of(tmp_path)
    assert set(files) == {
        f"figures/{figure}_own.png",
        f"figures/{figure}_own.svg",
        *(f"tables/{figure}_own.{kind}" for kind in ("csv", "md", "tex")),
    }
    assert ElementTree.fromstring(files[f"figures/{figure}_own.svg"]).tag.endswith("}svg")
    with Image.open(tmp_path / "figures" / f"{figure}_own.png") as picture:
        assert picture.width > 400 and np.ptp(np.asarray(picture.convert("L"))) > 200
    assert all(len(held) < 1_000_000 for held in files.values())
    numbers, text = told(tmp_path, figure)
    assert {"row", "measure", "value", "low", "high", "n", "run"} == set(numbers) and numbers.n.between(0, 24).all()
    known = numbers.dropna(subset=["value", "low"])
    assert len(known) and (known.low <= known.value + 1e-4).all() and (known.value <= known.high + 1e-4).all()
    assert (
        "24 test videos in 24 groups; smoke profile" in text
        and f"../runs/{runs['VV + Pix + Fra (FIMA)'].name}/metrics.json" in text
    )
    execute(figure, folders=folders, reports=str(tmp_path), **SMALL.get(figure, {}))
    assert files_of(tmp_path) == files


@each
def test_without_weights_nothing_is_touched(figure, tmp_path, capsys):
    "Of the study's own runs none is here; files of an earlier day stay."
    for name in (figure, f"{figure}_ut_interaction"):
        for kind in ("png", "svg"):
            (tmp_path / "figures").mkdir(exist_ok=True)
            (tmp_path / "figures" / f"{name}.{kind}").write_text("of an earlier day")
    before = files_of(tmp_path)
    for profile in ("", "smoke"):
        execute(figure, reports=str(tmp_path), profile=profile)
    said = capsys.readouterr().out
    assert said.count(f"{figure}: not run; the files of this name are left as they are") == 2
    assert said.count(f"{figure}_ut_interaction: not run; the files") == 2
    assert files_of(tmp_path) == before


@each
def test_study_shows_runs_of_two_data_sets(figure):
    shown = expand(load_study(figure))
    assert list(dict.fromkeys(run.study for run in shown)) == ["table_01", "ut_interaction"]
    assert {(run.recipe.data.split, run.recipe.seed) for run in shown} == {(1, 0)}
    assert load_study(figure).results == [figure]


def test_attention_needs_the_decoder(runs, tmp_path, capsys):
    fima = runs["VV + Pix + Fra (FIMA)"]
    lone = {"an encoder's file": str(fima / "checkpoint" / "encoder.safetensors")}
    execute("figure_07", folders=lone, reports=str(tmp_path))
    assert "figure_07_own: not run: the decoder's weights are not here" in capsys.readouterr().out
    execute("figure_07", folders={"VV": str(runs["VV"])}, reports=str(tmp_path))
    assert "figure_07_own: not run: the decoder's weights are not here" in capsys.readouterr().out
    baseline = pretrain_baseline(tmp_path / "baseline")
    execute("figure_07", folders={"VV": str(baseline)}, reports=str(tmp_path / "reports"))
    assert "not run: VV has no motion decoder" in capsys.readouterr().out
    assert not (tmp_path / "reports").exists()


def pretrain_baseline(folder):
    "Keep the training state of a run without a decoder."
    pretrain(make_recipe("smoke", overrides={"method.pixel": False, "method.frame": False}), folder, progress=False)
    return folder


def test_masks_say_whose_they_are(runs, tmp_path):
    "The key encoder's where the training state is here, else the query encoder's."
    fima = runs["VV + Pix + Fra (FIMA)"]
    for label, source, encoder in (
        ("whole", fima, "key encoder"),
        ("file", fima / "checkpoint" / "encoder.safetensors", "query encoder"),
    ):
        execute("figure_08", folders={label: str(source)}, reports=str(tmp_path))
        assert f"masks by the {encoder}" in told(tmp_path, "figure_08")[1]


def test_failures_are_the_lowest(runs, tmp_path):
    "Figure 9 has the numbers of Figure 8 and shows other videos, by its rule."
    folders = {"VV + Pix + Fra (FIMA)": str(runs["VV + Pix + Fra (FIMA)"])}
    for figure in ("figure_08", "figure_09"):
        execute(figure, folders=folders, reports=str(tmp_path))
    tables = {figure: told(tmp_path, figure) for figure in ("figure_08", "figure_09")}
    pd.testing.assert_frame_equal(tables["figure_08"][0], tables["figure_09"][0])
    numbers = tables["figure_09"][0].set_index("row").value
    failed = round(24 * (1 - numbers["the sum is right"]))
    assert f"{failed} of 24 fused masks hold less than half" in tables["figure_09"][1]
    assert numbers["best half"] >= numbers[["RGB", "motion", "both", "middle of the frame"]].max()


def test_the_same_run_twice_has_the_same_numbers(runs, tmp_path):
    fima = str(runs["VV + Pix + Fra (FIMA)"])
    execute("figure_10", folders={"one": fima, "two": fima}, reports=str(tmp_path))
    numbers, text = told(tmp_path, "figure_10")
    both = numbers.pivot(index="measure", columns="row", values="value")
    assert (both.one == both.two).all() and "one minus two: silhouette 0.00 [0.00, 0.00]" in text


def test_a_checkpoint_of_another_architecture(runs, tmp_path, capsys):
    "Figures that need an encoder alone draw another's, beside a run of ours and on its videos."
    torch.manual_seed(0)
    torch.save({"state_dict": build_encoder("r2plus1d_18").state_dict()}, tmp_path / "theirs.pth")
    theirs = import_checkpoint(tmp_path / "theirs.pth", tmp_path / "theirs", crop_size=32, frames_per_clip=8)
    folders = {"ours": str(runs["VV + Pix + Fra (FIMA)"]), "theirs": str(theirs)}
    for figure in ("figure_03", "figure_05"):
        execute(figure, folders=folders, reports=str(tmp_path / "reports"), **SMALL.get(figure, {}))
        numbers, _ = told(tmp_path / "reports", figure)
        assert (
            numbers[numbers.row == "theirs"].value.notna().any()
            and (tmp_path / "reports" / "figures" / f"{figure}_own.svg").exists()
        )
    assert "not run" not in capsys.readouterr().out
