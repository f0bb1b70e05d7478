"""The command line as a person meets it; where a new process proves nothing more, `main` is called in this one."""

import json
import os
import resource
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from fima.evaluation.core.record_format import read_metrics
from helpers import FIMA, check_refusal, shared_data


def program(*words):
    "Run the installed program from a folder that is not the repository's."
    return subprocess.run(
        [FIMA, *map(str, words)], capture_output=True, text=True, cwd="/", env=os.environ | {"COLUMNS": "120"}
    )


def ends(result, code):
    assert result.returncode == code, result.stdout + result.stderr
    return result


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["study"],
        ["study", "plan"],
        ["study", "run"],
        ["study", "report"],
        ["data"],
        ["data", "check"],
        ["data", "card"],
        ["data", "make"],
        ["pretrain"],
        ["evaluate"],
        ["report"],
        ["compare"],
        ["checkpoint"],
        ["checkpoint", "import"],
        ["checkpoint", "export"],
    ],
    ids=" ".join,
)
def test_help_everywhere(call, words):
    said = ends(call(*words, "--help"), 0).stdout
    assert said.startswith(f"Usage: {' '.join(['fima', *words])} ")
    for line in said.split("Options:")[1].splitlines()[1:]:
        if line.startswith("  --"):
            assert len(line.split("  ")[-1]) > 3, f"an option without a word of help: {line}"


def test_help_is_quick():
    "Processor time, the best of three: other processes may be busy."

    def cost():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ends(program("--help"), 0)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cost() for _ in range(3)) < 0.6


@pytest.mark.parametrize(
    "words, said",
    [
        (["studdy"], "No such command 'studdy'"),
        ([], "Missing command"),
        (["study", "plan"], "name studies"),
        (["study", "plan", "tabel_01"], "table_01"),
        (["study", "run", "table_01", "--cores", "0"], "cores must be at least 1"),
        (["study", "report", "tabel_01"], "table_01"),
        (["data", "check", "ucf11"], "source must be one of"),
        (["data", "check", "ucf101", "/nowhere"], "nowhere"),
        (["data", "check", "hmdb51", "--train-list", "x"], "--train-list"),
        (["data", "check", "motion_sprites", "/nowhere"], "nowhere"),
        (["data", "check"], "name a known data set, or a folder by --videos"),
        (["data", "check", "--videos", "/nowhere"], "--videos must be a folder that exists, got '/nowhere'"),
        (["data", "check", "--videos", ".", "--train-list", "x"], "given together or not at all"),
        (["data", "check", "--videos", "tests", "--groups", "("], "groups must be a regular expression"),
        (["data", "check", "ucf101", ".", "--groups", "(a)"], "are for a folder of your own, got --groups with ucf101"),
        (["data", "check", "ucf101", ".", "--videos", "."], "the folder must be named once"),
        (["data", "check", "ucf101", ".", "--classes", "a,,b"], "--classes must be names with commas between them"),
        (["data", "card", "--videos", ".", "--file", "card.txt"], "--file must be a .md file"),
        (["data", "card", "weizmann4", "."], "source must be one of ucf101"),
        (["data", "make", "--size", "7"], "size must be an integer >= 16"),
        (["data", "make", "--train", "many"], "--train"),
        (["pretrain", "--profile", "dmo"], "profile must be one of smoke, demo"),
        (
            ["pretrain", "--method", "mocov3"],
            "method must be one of fima, moco, moco_vd, be, fame, iic, dclr, mcl, got 'mocov3'",
        ),
        (
            ["pretrain", "--profile", "smoke", "--method", "mcl", "--change", "method.pixel=false"],
            "method.pixel is no setting of mcl",
        ),
        (["pretrain", "--change", "method.pxel=false"], "method.pxel"),
        (["pretrain", "--change", "method.pixel"], "--change must look like name=value"),
        (["evaluate", "/nowhere"], "nowhere"),
        (["compare", "/nowhere", "/there"], "first must be the metrics.json of an evaluation"),
        (["checkpoint", "import", "/nowhere", "/tmp/run"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_argument_is_one_line(call, words, said):
    result = call(*words)
    check_refusal(result, said)
    assert result.stdout == ""


HEAVY = (
    "sympy",
    "kornia",
    "matplotlib",
    "papermill",
    "jupyter_client",
    "nbformat",
    "pandas",
    "scipy",
    "sklearn",
    "snakemake",
    "tensorboard",
)
WRONG = [
    ["pretrain", "--profile", "dmo"],
    ["pretrain", "--method", "moka"],
    ["pretrain", "--change", "method.pxel=false"],
    ["pretrain", "--change", "seed=-3"],
    ["pretrain", "--videos", "/nowhere"],
    ["study", "plan", "tabel_01"],
    ["study", "plan", "table_01", "--change", "method.pxel=1"],
    ["study", "run", "table_01", "--change", "method.pxel=1"],
    ["study", "run", "tabel_01"],
    ["study", "run", "table_01", "--cores", "0"],
    ["study", "report", "tabel_01"],
    ["study", "status", "tabel_01"],
    ["study", "verify", "--steps", "11"],
    ["evaluate", "nowhere"],
    ["evaluate", "/", "--template", "../../x"],
    ["compare", "a", "b"],
    ["data", "check", "ucf11"],
    ["data", "card", "ucf11"],
    ["data", "make", "--size", "7"],
    ["checkpoint", "import", "nowhere", "run"],
    ["checkpoint", "export", "nowhere", "e.safetensors"],
]


def test_a_wrong_call_waits_for_nothing_heavy(tmp_path):
    "One process for all of them: what one imports, it has imported for nothing. `benchmarks/start.py` tells the time."
    code = """import json, sys
from fima.cli import main
heavy, wrong = json.loads(sys.argv[1])
for words in wrong: print(json.dumps([main(words), sorted(set(heavy) & set(sys.modules))]))"""
    environment = os.environ | {"FIMA_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([HEAVY, WRONG])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[2, []]] * len(WRONG), done.stdout + done.stderr
    assert not list(tmp_path.iterdir())  # and nothing is written


def test_the_program_itself():
    "The exit code and the line come out of the installed program too."
    result = program("pretrain", "--profile", "dmo")
    check_refusal(result, "fima: profile must be")
    assert result.stdout == ""


def test_debug_shows_the_traceback():
    result = program("--debug", "pretrain", "--profile", "dmo")
    assert result.returncode == 1 and "Traceback" in result.stderr


def test_plan_of_table_1(call, tmp_path):
    said = ends(call("study", "plan", "table_01", "--reports", tmp_path, "--each"), 0).stdout
    for row in ("vv", "vv_vd", "vv_pix", "vv_fra", "fima", "random_rgb", "supervised"):
        assert f" {row} " in said
    assert "missing" in said and [file.name for file in tmp_path.iterdir()] == ["plan.svg"]
    ends(call("study", "plan", "table_01", "--reports", tmp_path / "further", "--no-picture"), 0)
    assert not (tmp_path / "further").exists()


def test_make_and_check(call, tmp_path, own_work):
    folder = tmp_path / "sprites"
    make = ("data", "make", "--folder", folder, "--test", 12, "--size", 16, "--frames", 32, "--train")
    ends(call(*make, 12), 0)
    counts = ends(call("data", "check", "motion_sprites", folder), 0).stdout.splitlines()
    assert [line.split()[:3] for line in counts[2:4]] == [["train", "12", "0"], ["test", "12", "0"]]
    check_refusal(call(*make, 13), "made with other options")
    victim = next(folder.glob("videos/*/*.mp4"))
    victim.write_bytes(b"")
    said = ends(call("data", "check", "motion_sprites", folder), 1).stdout
    assert f"{victim.name}: empty" in said
    # one a folder: two copies of a set do not overwrite each other
    (report,) = (own_work / "checks").glob("motion_sprites_1_*.csv")
    assert pd.read_csv(report).status.value_counts().to_dict() == {"usable": 23, "unreadable": 1}


def test_check_of_a_folder_with_lists(call, tmp_path):
    "A tree laid out as UCF101 is, lists as its authors give them."
    for split, name in (
        ("train", "v_Archery_g08_c01"),
        ("test", "v_Archery_g01_c01"),
        ("train", "v_Bowling_g09_c01"),
        ("test", "v_Bowling_g02_c01"),
    ):
        (tmp_path / "data" / name.split("_")[1]).mkdir(parents=True, exist_ok=True)
        with open(tmp_path / f"{split}list01.txt", "a") as file:
            file.write(f"{name.split('_')[1]}/{name}.mp4\n")
    sprites = tmp_path / "sprites"
    ends(call("data", "make", "--folder", sprites, "--train", 2, "--test", 2, "--size", 16, "--frames", 32), 0)
    lists = ("--train-list", tmp_path / "trainlist01.txt", "--test-list", tmp_path / "testlist01.txt")
    words = ("data", "check", tmp_path / "data", *lists)
    assert "missing files (4)" in ends(call(*words), 2).stderr
    listed = (line for split in ("train", "test") for line in (tmp_path / f"{split}list01.txt").read_text().split())
    for source, line in zip(sorted(sprites.glob("videos/*/*.mp4")), listed, strict=True):
        shutil.copy(source, tmp_path / "data" / line)
    assert "4 usable, 0 of them short, 0 left out" in ends(call(*words), 0).stdout


def test_check_and_card_of_a_folder_without_lists(call, tmp_path):
    sprites, mine = tmp_path / "sprites", tmp_path / "mine"
    ends(call("data", "make", "--folder", sprites, "--train", 4, "--test", 4, "--size", 16, "--frames", 32), 0)
    mine.mkdir()
    for number, source in enumerate(sorted(sprites.glob("videos/*/*.mp4"))):
        shutil.copy(source, mine / f"day {number % 2}, {number}.mp4")
    said = ends(call("data", "check", "--videos", mine), 0).stdout
    assert "8 videos, 8 usable" in said
    assert "each video by itself" in said
    assert "none: no class folders and no labels" in said
    # a folder as the first word, too
    assert "groups (1): 2 by (day .)" in ends(call("data", "check", mine, "--groups", "(day .)"), 0).stdout
    card = ends(call("data", "card", "--videos", mine), 0).stdout
    assert "| train | 8 | 1 | 8 | 8 | 8 |" in card and "Not stated." in card
    ends(call("data", "card", "--videos", mine, "--file", tmp_path / "cards" / "mine.md"), 0)
    written = (tmp_path / "cards" / "mine.md").read_text()
    assert written.replace("(mine.png)", "") == card.rstrip("\n").replace("(mine.png)", "") + "\n"
    assert (tmp_path / "cards" / "mine.png").stat().st_size > 500
    (mine / "day 0, 0.mp4").write_bytes(b"")
    assert "empty file" in ends(call("data", "check", "--videos", mine), 1).stdout


def test_check_of_some_classes(call, tmp_path):
    words = ["data", "check", "ucf101", shared_data("videos/ucf101_5"), "--report", tmp_path / "found.csv", "--classes"]
    said = ends(call(*words, "Lunges,WallPushups"), 0).stdout
    assert said.startswith("ucf101, 2 of 101 classes, split 1: ")
    assert "published" not in said
    assert [line.split()[1] for line in said.splitlines()[2:4]] == ["185", "72"]
    assert "(did you mean Lunges?)" in ends(call(*words, "Lunge,WallPushups"), 2).stderr


def test_check_of_real_video(call, tmp_path):
    shared_data("videos/ut_interaction")
    result = call("data", "check", "ut_interaction", "--split", 2, "--report", tmp_path / "found.csv")
    counts = ends(result, 0).stdout.splitlines()
    assert [line.split()[:2] for line in counts[2:4]] == [["train", "96"], ["test", "24"]]
    assert (pd.read_csv(tmp_path / "found.csv").status == "usable").sum() == 120


def test_pretrain_and_evaluate(call, tmp_path, own_work):
    run = tmp_path / "run"
    said = ends(call("pretrain", "--profile", "smoke", "--change", "method.frame=false", "--folder", run), 0).stdout
    assert json.loads(said[: said.rindex("}") + 1])["steps"] == 4 and (run / "metrics.json").exists()
    probe = ("evaluate", run, "--template", "linear_probe", "--change")
    assert "n = 24" in ends(call(*probe, "clips=2"), 0).stdout
    assert len(list(run.glob("linear_probe-*/metrics.json"))) == 1
    assert "unknown clip" in ends(call(*probe, "clip=2"), 2).stderr
    assert "solver: Input should be 'logistic' or 'sgd' (got magic)" in ends(call(*probe, "solver=magic"), 2).stderr


def test_a_file_under_every_protocol(call, tmp_path, own_work):
    "Train, export to one file, evaluate the file under every protocol, compare with another evaluation."
    run, file = tmp_path / "run", tmp_path / "encoder.safetensors"
    ends(call("pretrain", "--profile", "smoke", "--folder", run), 0)
    assert str(file) in ends(call("checkpoint", "export", run, file), 0).stdout
    words = ("evaluate", file, "--change", "epochs=2", "--change", "clips=2", "--change", "ks=[1, 5]")
    table = ends(call(*words, "--folder", tmp_path / "once"), 0).stdout
    for protocol in ("paper", "released", "best_test_epoch", "logistic", "fame", "coclr", "iic", "tclr"):
        assert f" {protocol} " in table
    ends(call("evaluate", run, *words[2:], "--folder", tmp_path / "twice"), 0)
    once, twice = (read_metrics(tmp_path / name / "metrics.json") for name in ("once", "twice"))
    # the file holds all that the run does
    assert once["videos"] == twice["videos"] and once["chosen"] == twice["chosen"]
    compared = ends(call("compare", tmp_path / "once", tmp_path / "twice"), 0).stdout.splitlines()
    assert len(compared) == 1 + len(once["estimates"]) and all(line.split()[3] == "0.0" for line in compared[1:])
    imported = ends(call("checkpoint", "import", file, tmp_path / "imported"), 2).stderr
    assert "was written by fima" in imported


def test_fold_numbers_must_be_numbers(call, tmp_path, own_work):
    ends(call("pretrain", "--profile", "smoke", "--change", "optimisation.steps=0", "--folder", tmp_path / "run"), 0)
    assert "--splits must be numbers" in ends(call("evaluate", tmp_path / "run", "--splits", "1;2"), 2).stderr
