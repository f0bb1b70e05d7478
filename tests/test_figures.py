"""Figures from finished runs of the smoke profile: from checkpoints of any kind to files, and without weights."""

import shutil
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fima.methods.encoders.encoders import build_encoder
from fima.report.sheets import read_sheet
from fima.study.plan.schema import load_study
from fima.study.plan.plan import expand
from fima.training.pretrain import pretrain
from fima.training.recipe import make_recipe
from fima.training.weights import import_checkpoint
from helpers import TOP, VV, contents, run_cells

pytestmark = pytest.mark.usefixtures("module_work")

FULL = "VV + Pix + Fra (FIMA)"
FIGURES = ["figure_03", "figure_04", "figure_05", "figure_07", "figure_08", "figure_09", "figure_10", "figure_11"]
SMALL = {"figure_05": dict(videos=5, clips=2)}  # a parameter of a notebook, to save time
each = pytest.mark.parametrize("figure", FIGURES)


@pytest.fixture(scope="module")
def runs(module_work):
    "One run of FIMA and one of the baseline; the second without its training state."
    recipes = {FULL: make_recipe("smoke"), "VV": make_recipe("smoke", overrides=VV["overrides"])}
    folders = {label: module_work / "runs" / recipe.run_id for label, recipe in recipes.items()}
    for label, recipe in recipes.items():
        pretrain(recipe, folders[label], progress=False)
    shutil.rmtree(next((folders["VV"] / "checkpoint").glob("step_*")))
    return folders


def draw(figure, **parameters):
    "Run the cells of a results notebook in this process, its parameters changed."
    return run_cells(f"results/{figure}", **parameters)


def read_table(reports, figure):
    "Read the numbers of a figure, and their table as text."
    table = reports / "tables" / f"{figure}_own.csv"
    return pd.read_csv(table), table.with_suffix(".md").read_text()


@each
def test_figure_from_runs(figure, runs, tmp_path, capsys):
    "Files appear as png and svg with a table, and a second run writes the same bytes."
    folders = {label: str(folder) for label, folder in runs.items()}
    draw(figure, folders=folders, reports=str(tmp_path), **SMALL.get(figure, {}))
    assert "not run" not in capsys.readouterr().out
    files = contents(tmp_path)
    assert set(files) == {
        f"figures/{figure}_own.png",
        f"figures/{figure}_own.svg",
        *(f"tables/{figure}_own.{kind}" for kind in ("csv", "json", "md", "tex")),
    }
    assert ElementTree.fromstring(files[f"figures/{figure}_own.svg"]).tag.endswith("}svg")
    with Image.open(tmp_path / "figures" / f"{figure}_own.png") as picture:
        assert picture.width > 400 and np.ptp(np.asarray(picture.convert("L"))) > 200
    assert all(len(held) < 1_000_000 for held in files.values())
    numbers, text = read_table(tmp_path, figure)
    assert {"row", "measure", "value", "low", "high", "n", "run"} == set(numbers) and numbers.n.between(0, 24).all()
    known = numbers.dropna(subset=["value", "low"])
    assert len(known) and (known.low <= known.value + 1e-4).all() and (known.value <= known.high + 1e-4).all()
    assert "24 test videos in 24 groups; smoke profile" in text
    assert f"../runs/{runs[FULL].name}/metrics.json" in text
    draw(figure, folders=folders, reports=str(tmp_path), **SMALL.get(figure, {}))
    assert contents(tmp_path) == files


@each
def test_without_weights_nothing_is_touched(figure, tmp_path, capsys):
    "Of the study's own runs none is here; files of an earlier day stay."
    for name in (figure, f"{figure}_ut_interaction"):
        for kind in ("png", "svg"):
            (tmp_path / "figures").mkdir(exist_ok=True)
            (tmp_path / "figures" / f"{name}.{kind}").write_text("of an earlier day")
    before = contents(tmp_path)
    for profile in ("", "smoke"):
        draw(figure, reports=str(tmp_path), profile=profile)
    said = capsys.readouterr().out
    assert said.count(f"{figure}: not run; the files of this name are left as they are") == 2
    assert said.count(f"{figure}_ut_interaction: not run; the files") == 2
    assert contents(tmp_path) == before


@each
def test_study_shows_runs_of_two_data_sets(figure):
    shown = expand(load_study(figure))
    assert list(dict.fromkeys(run.study for run in shown)) == ["table_01", "ut_interaction"]
    assert {(run.recipe.data.split, run.recipe.seed) for run in shown} == {(1, 0)}
    claims = ["claims_of_figures"] if figure == "figure_07" else []  # once, after the last figure that claims something
    assert load_study(figure).results == [figure, *claims]


def test_readings_come_from_the_records_given(tmp_path, capsys):
    "A reading whose figure is not in this folder says so, whatever is published or lies in one's own."
    run_cells("results/claims_of_figures", reports=str(tmp_path))
    assert "not run" in capsys.readouterr().out and not contents(tmp_path)
    (tmp_path / "tables").mkdir()
    shutil.copy(TOP / "reports" / "tables" / "figure_03.json", tmp_path / "tables")
    table = run_cells("results/claims_of_figures", reports=str(tmp_path))["table"]
    published = read_sheet(TOP / "reports" / "tables" / "claims_of_figures.json").parts[0].table
    drawn = table["in these runs"] != "not run"
    assert table[drawn].map(str).values.tolist() == published[:1].map(str).values.tolist()  # Figure 3, motion sprites
    assert len(table) == len(published) and set(table.verdict[~drawn].map(str)) == {"not run"}
    assert not table[["should be larger", "than"]][~drawn].map(lambda cell: "[" in cell).any(axis=None)


def test_attention_needs_the_decoder(runs, tmp_path, capsys):
    fima = runs[FULL]
    lone = {"an encoder's file": str(fima / "checkpoint" / "encoder.safetensors")}
    draw("figure_07", folders=lone, reports=str(tmp_path))
    assert "figure_07_own: not run: the decoder's weights are not here" in capsys.readouterr().out
    draw("figure_07", folders={"VV": str(runs["VV"])}, reports=str(tmp_path))
    assert "figure_07_own: not run: the decoder's weights are not here" in capsys.readouterr().out
    # a run without a decoder that has its training state
    baseline = tmp_path / "baseline"
    pretrain(make_recipe("smoke", overrides=VV["overrides"]), baseline, progress=False)
    draw("figure_07", folders={"VV": str(baseline)}, reports=str(tmp_path / "reports"))
    assert "not run: VV has no motion decoder" in capsys.readouterr().out
    assert not (tmp_path / "reports").exists()


def test_masks_say_whose_they_are(runs, tmp_path):
    "The key encoder's where the training state is here, else the query encoder's."
    fima = runs[FULL]
    for label, source, encoder in (
        ("whole", fima, "key encoder"),
        ("file", fima / "checkpoint" / "encoder.safetensors", "query encoder"),
    ):
        draw("figure_08", folders={label: str(source)}, reports=str(tmp_path))
        assert f"masks by the {encoder}" in read_table(tmp_path, "figure_08")[1]


def test_failures_are_the_lowest(runs, tmp_path):
    "Figure 9 has the numbers of Figure 8 and shows other videos, by its rule."
    folders = {FULL: str(runs[FULL])}
    for figure in ("figure_08", "figure_09"):
        draw(figure, folders=folders, reports=str(tmp_path))
    tables = {figure: read_table(tmp_path, figure) for figure in ("figure_08", "figure_09")}
    pd.testing.assert_frame_equal(tables["figure_08"][0], tables["figure_09"][0])
    numbers = tables["figure_09"][0].set_index("row").value
    failed = round(24 * (1 - numbers["the sum is right"]))
    assert f"{failed} of 24 fused masks hold less than half" in tables["figure_09"][1]
    assert numbers["best half"] >= numbers[["RGB", "motion", "both", "middle of the frame"]].max()


def test_the_same_run_twice_has_the_same_numbers(runs, tmp_path):
    fima = str(runs[FULL])
    draw("figure_10", folders={"one": fima, "two": fima}, reports=str(tmp_path))
    numbers, text = read_table(tmp_path, "figure_10")
    both = numbers.pivot(index="measure", columns="row", values="value")
    assert (both.one == both.two).all() and "one minus two: silhouette 0.00 [0.00, 0.00]" in text


def test_a_checkpoint_of_another_architecture(runs, tmp_path, capsys):
    "Figures that need an encoder alone draw another's, beside a run of ours and on its videos."
    torch.manual_seed(0)
    torch.save({"state_dict": build_encoder("r2plus1d_18").state_dict()}, tmp_path / "theirs.pth")
    theirs = import_checkpoint(tmp_path / "theirs.pth", tmp_path / "theirs", crop_size=32, frames_per_clip=8)
    folders = {"ours": str(runs[FULL]), "theirs": str(theirs)}
    for figure in ("figure_03", "figure_05"):
        draw(figure, folders=folders, reports=str(tmp_path / "reports"), **SMALL.get(figure, {}))
        numbers, _ = read_table(tmp_path / "reports", figure)
        assert numbers[numbers.row == "theirs"].value.notna().any()
        assert (tmp_path / "reports" / "figures" / f"{figure}_own.svg").exists()
    assert "not run" not in capsys.readouterr().out
