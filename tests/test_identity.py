"""A run is its content: other videos or other lists are never taken for those of a finished run, other code is shown and verified, and what a user makes stays the user's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fima.data.sets.catalog import data_root
from fima.evaluation.core.record import evaluated_data, open_run, record, run_features, seen_in_training
from fima.study.plan.schema import load_study, own_folder, published_folder
from fima.study.plan.plan import expand, plan
from fima.report.make import run_studies
from fima.study.plan.verify import verify
from fima.training.fingerprint import code_fingerprint, executed_code, parts_of
from fima.training.pretrain import Stopped, pretrain
from fima.training.recipe import make_recipe
from fima.training.request import requested_recipe

TOP = Path(__file__).resolve().parent.parent
needs_videos = pytest.mark.skipif(
    not data_root() or not (data_root() / "videos" / "weizmann4").is_dir(),
    reason="the real videos are not on this machine",
)
STUDY = {
    "name": "trial",
    "title": "a trial",
    "base": {"profile": "smoke"},
    "evaluations": [{"template": "linear_probe"}],
    "rows": [
        {"name": "vv", "label": "VV", "overrides": {"method.pixel": False, "method.frame": False}},
        {"name": "random", "label": "random", "overrides": {"method.name": "random"}},
    ],
}


@pytest.fixture(autouse=True)
def own_runs(tmp_path, monkeypatch):
    "What these tests run is nobody's."
    monkeypatch.setenv("FIMA_RUNS", str(tmp_path / "own"))


@pytest.fixture
def weizmann(tmp_path, monkeypatch):
    "A copy of a small named set that can be changed."
    folder = tmp_path / "data" / "videos" / "weizmann4"
    shutil.copytree(data_root() / "videos" / "weizmann4", folder, copy_function=shutil.copyfile)
    for each in (folder, *folder.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)
    monkeypatch.setenv("FIMA_DATA", str(tmp_path / "data"))
    return folder


WEIZMANN = {"data.name": "weizmann4", "data.sprites": None, "data.cache_size": (48, 48), "optimisation.steps": 2}


def swap_two(folder):
    "Let a training video and a test video of one class change places in the lists."
    lists = [next(folder.rglob(f"{kind}list01.txt")) for kind in ("train", "test")]
    train, test = (file.read_text().splitlines() for file in lists)
    name = test[0].split("/")[0]
    place = next(number for number, line in enumerate(train) if line.startswith(f"{name}/"))
    train[place], test[0] = test[0].split()[0] + train[place][len(train[place].split()[0]) :], train[place].split()[0]
    for file, lines in zip(lists, (train, test), strict=True):
        file.write_text("\n".join(lines) + "\n")


def damage_and_repair(folder):
    "Change bytes in the middle of a file, its size and its ends as they were."
    file = max(folder.rglob("*.avi"), key=lambda each: each.stat().st_size, default=None) or max(
        folder.rglob("*.mp4"), key=lambda each: each.stat().st_size
    )
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    file.write_bytes(bytes(content))


@needs_videos
@pytest.mark.parametrize("change", [swap_two, damage_and_repair])
def test_other_videos_are_not_those_of_a_finished_run(change, weizmann, tmp_path):
    "Refused by name, with both fingerprints and the way out; nothing finished is overwritten; by --videos they make a run of their own."
    recipe, folder = make_recipe("smoke", overrides=WEIZMANN), tmp_path / "run"
    told = pretrain(recipe, folder, progress=False)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert pretrain(recipe, folder, progress=False) == told
    change(weizmann)
    with pytest.raises(
        ValueError,
        match=f"holds the finished run {recipe.run_id} of weizmann4 with fingerprint {told['data_fingerprint']}; the "
        f"videos that are here have [0-9a-f]{{16}}.*--videos",
    ) as refused:
        pretrain(recipe, folder, progress=False)
    assert "\n" not in str(refused.value)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    of_these = [
        requested_recipe(
            "smoke",
            changes={"optimisation.steps": 2, "data.cache_size": (48, 48)},
            videos={"data.name": "weizmann4", "data.videos": str(weizmann)},
        )
        for _ in range(2)
    ]
    assert (
        of_these[0].run_id == of_these[1].run_id != recipe.run_id
        and of_these[0].data.content != told["data_fingerprint"]
    )


@needs_videos
def test_an_interrupted_run_does_not_continue_with_other_videos(weizmann, tmp_path):
    recipe, folder = make_recipe("smoke", overrides=WEIZMANN), tmp_path / "run"
    with pytest.raises(Stopped):
        pretrain(recipe, folder, stop_after=1, progress=False)
    swap_two(weizmann)
    with pytest.raises(ValueError, match="was begun with other videos .*give another --folder"):
        pretrain(recipe, folder, progress=False)
    assert not (folder / "metrics.json").exists()


@needs_videos
def test_an_evaluation_overwrites_no_numbers_of_other_videos(weizmann, tmp_path):
    recipe, folder = make_recipe("smoke", overrides=WEIZMANN | {"method.name": "random"}), tmp_path / "run"
    pretrain(recipe, folder, progress=False)

    def evaluated():
        opened = open_run(folder, evaluated_data(recipe))
        rows = opened.rows("test")
        features = run_features(opened, "test", 1)
        return record(
            folder / "evaluation",
            opened,
            "linear_probe",
            {},
            rows[["path", "label", "group"]].assign(predicted=rows.label),
            0.0,
        ), features

    first, features = evaluated()
    kept = (folder / "evaluation" / "metrics.json").read_bytes()
    assert first["features"]["test-rgb-1x1-0.875"]["digest"] and first["code"] and first["data_fingerprint"]
    damage_and_repair(weizmann)
    with pytest.raises(ValueError, match="holds the numbers of other videos"):
        evaluated()
    assert (folder / "evaluation" / "metrics.json").read_bytes() == kept
    # features of both sets, each under its own name
    assert len(list((folder / "features").glob("weizmann4-1-*-test-*.npz"))) == 2


@needs_videos
def test_an_evaluation_overwrites_no_other_evaluation(weizmann, tmp_path):
    recipe, folder = make_recipe("smoke", overrides=WEIZMANN | {"method.name": "random"}), tmp_path / "run"
    pretrain(recipe, folder, progress=False)
    opened = open_run(folder, evaluated_data(recipe))
    tested = opened.rows("test")[["path", "label", "group"]].assign(predicted=0)
    # the same once more
    for _ in range(2):
        record(folder / "evaluation", opened, "linear_probe", {"clips": 1}, tested, 0.0)
    kept = (folder / "evaluation" / "metrics.json").read_bytes()
    for template, settings, what in (
        ("linear_probe", {"clips": 2}, "other settings"),
        ("retrieval", {"clips": 1}, "another template"),
    ):
        with pytest.raises(ValueError, match=f"holds the numbers of {what}"):
            record(folder / "evaluation", opened, template, settings, tested, 0.0)
    assert (folder / "evaluation" / "metrics.json").read_bytes() == kept


@needs_videos
def test_features_of_frames_of_another_size_are_not_used(weizmann, tmp_path):
    recipe, folder = make_recipe("smoke", overrides=WEIZMANN | {"method.name": "random"}), tmp_path / "run"
    pretrain(recipe, folder, progress=False)
    at = {
        size: run_features(open_run(folder, recipe.data.model_copy(update={"cache_size": size})), "test", 1).pooled
        for size in ((48, 48), (40, 40))
    }
    again = run_features(open_run(folder, recipe.data), "test", 1).pooled
    assert (at[48, 48] == again).all() and not (at[40, 40] == again).all()


@needs_videos
def test_a_study_does_not_take_runs_of_other_videos(weizmann, tmp_path, call, made):
    "Its plan says so, its run is refused by name, its runs are left out of a verification; the records stay."
    study = tmp_path / "trial.yaml"
    study.write_text(
        yaml.safe_dump(
            STUDY
            | {
                "rows": STUDY["rows"][1:],
                "base": {"profile": "smoke", "overrides": WEIZMANN | {"data.cache_size": [48, 48]}},
            }
        )
    )
    words = (str(study), "--reports", str(tmp_path))
    name = made(study, tmp_path).run_id[0]
    before = snapshot(tmp_path / "runs")
    swap_two(weizmann)
    planned = call("study", "plan", *words, "--no-picture")
    assert planned.returncode == 0 and f"{name} was made from videos with fingerprint" in planned.stderr
    refused = call("study", "run", *words)
    assert (
        refused.returncode == 2
        and f"holds the finished run {name}, made from videos with fingerprint" in refused.stderr
        and "--videos" in refused.stderr
        and refused.stderr.count("\n") == 1
    ), refused.stderr
    found = verify(study, reports=tmp_path, progress=False, cores=1)
    assert set(found.others) == {name} and not found.counts and not (tmp_path / "verified.json").exists()
    assert snapshot(tmp_path / "runs") == before


@needs_videos
def test_videos_seen_in_training_are_told_by_content(tmp_path):
    "Trained on one folder, tested on another: other names, the same bytes; an unrelated folder has none of them."
    from fima.data.video.files import fingerprint

    films = (
        sorted((data_root() / "videos" / "weizmann4").rglob("*.avi"))[:12]
        or sorted((data_root() / "videos" / "weizmann4").rglob("*.mp4"))[:12]
    )
    folders = {"trained": films[:6], "mixed": films[4:10], "other": films[6:12]}
    for folder, mine in folders.items():
        for number, file in enumerate(mine):
            place = tmp_path / folder / "ab"[number % 2] / f"{folder} {number}{file.suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    recipe = requested_recipe(
        "smoke",
        changes={"optimisation.steps": 1, "data.cache_size": (48, 48)},
        videos={"data.name": "own", "data.videos": str(tmp_path / "trained")},
    )
    pretrain(recipe, tmp_path / "run", progress=False)
    known = {fingerprint(file) for file in folders["trained"]}
    for folder in ("mixed", "other"):
        about = evaluated_data(
            recipe, data={"name": "own", "videos": str(tmp_path / folder), "test_share": 0.5, "cache_size": (48, 48)}
        )
        opened = open_run(tmp_path / "run", about)
        rows = opened.rows("test")
        expected = sum(fingerprint(opened.data.folder / path) in known for path in rows.path)
        assert seen_in_training(recipe, rows, about, opened.data.folder) == expected and (
            folder == "mixed" or expected == 0
        )
    shutil.rmtree(tmp_path / "trained")
    assert seen_in_training(recipe, rows, about, opened.data.folder) is None  # nobody knows


@pytest.mark.parametrize(
    "change, said",
    [
        (
            {"evaluations": [{"template": "linear_probe", "settings": {"clips": 0}}]},
            "linear_probe, clips: Input should be greater than or equal to 1",
        ),
        (
            {"evaluations": [{"template": "linear_probe", "settings": {"clips": 10**9}}]},
            "linear_probe, clips: Input should be less than or equal to 10000",
        ),
        (
            {"evaluations": [{"template": "linear_probe", "settings": {"fraction": float("nan")}}]},
            "linear_probe, fraction: Input should be",
        ),
        ({"evaluations": [{"template": "retrieval", "settings": {"ks": [5, 1]}}]}, "must be rising ranks"),
        ({"factors": {"seed": []}}, "factors.seed"),
    ],
    ids=["none", "too many", "no number", "falling", "no values"],
)
def test_settings_of_evaluations_are_checked_by_planning(tmp_path, call, change, said):
    study = tmp_path / "trial.yaml"
    study.write_text(yaml.safe_dump(STUDY | change))
    done = call("study", "plan", study, "--no-picture")
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_stopped_run_keeps_its_trace(tmp_path):
    recipe = make_recipe("smoke", overrides={"optimisation.steps": 12})
    whole = pretrain(recipe, tmp_path / "whole", progress=False)
    with pytest.raises(Stopped):
        pretrain(recipe, tmp_path / "halved", stop_after=5, progress=False)
    halved = pretrain(recipe, tmp_path / "halved", progress=False)
    assert len(whole["trace"]) == 10 and halved["trace"] == whole["trace"] and halved["weights"] == whole["weights"]
    assert float.fromhex(whole["trace"][0]["loss"]) > 0 and whole["environment"]["libraries"]["torch"]


def edited(monkeypatch, old, new, file):
    "Let the package's code read as if one line of it were another."
    import fima.training.fingerprint as code

    read, target = Path.read_text, TOP / "fima" / file
    assert old in read(target)
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self, *rest, **named: (
            read(self, *rest, **named).replace(old, new) if self == target else read(self, *rest, **named)
        ),
    )
    code._parsed.cache_clear()
    code._fingerprint.cache_clear()


@pytest.mark.parametrize(
    "file, old, new, concerned",
    [
        (
            "baselines/dual.py",
            'raise ValueError(f"map_weight must be >= 0',
            'raise ValueError(f"the weight of maps must be >= 0',
            set(),
        ),
        ("baselines/dual.py", '"Compare the activation map of V', '"Hold the activation map of V', set()),
        ("baselines/dual.py", "together / 2 if", "together / 3 if", {"dclr"}),
        ("baselines/fame.py", "FLAT = 1e-6", "FLAT = 1e-7", {"fame"}),
        (
            "method/encoders.py",
            "kernel = (3, 5, 5) if stage == 0",
            "kernel = (3, 3, 3) if stage == 0",
            {"fima", "moco", "dclr", "fame", "mcl"},
        ),
        ("method/encoders.py", '"Build I3D without', '"Make I3D without', set()),
        ("method/inception.py", "padding", "paddings", set()),
        ("data/flow.py", "import cv2", "import cv2 as cv2, math", {"mcl"} - {"mcl"}),
        ("method/pixel.py", "temperature", "temperatur", {"fima", "moco", "fame"}),
    ],
    ids=[
        "message",
        "docstring",
        "DCLR",
        "FAME",
        "encoder",
        "another encoder's docstring",
        "another encoder",
        "import",
        "FIMA's loss",
    ],
)
def test_an_edit_concerns_the_runs_that_execute_it(monkeypatch, file, old, new, concerned):
    recipes = {
        name: make_recipe("demo", method=None if name == "fima" else name)
        for name in ("fima", "moco", "dclr", "fame", "mcl")
    }
    before = {name: code_fingerprint(recipe) for name, recipe in recipes.items()}
    with monkeypatch.context() as patched:
        edited(patched, old, new, file)
        after = {name: code_fingerprint(recipe) for name, recipe in recipes.items()}
    import fima.training.fingerprint as code

    code._parsed.cache_clear()
    code._fingerprint.cache_clear()
    assert {name for name in recipes if before[name] != after[name]} == concerned


@pytest.mark.parametrize(
    "file, old, new, concerned",
    [
        ("data/flow.py", "PRESET_MEDIUM", "PRESET_FAST", {"bias"}),
        ("evaluation/retrieval.py", '"""', '""" # another remark\n', set()),
        ("training/pretrain.py", "zero_grad(", "zero_grad (", set()),
        ("training/pretrain.py", "zero_grad(", "none_grad(", {"finetune"}),
        ("data/own.py", "CONTRADICTION = ", "CONTRADICTION = 'so: ' + ", set()),
    ],
    ids=["flow", "remark", "layout", "step", "folders of one's own"],
)
def test_an_edit_concerns_the_evaluations_that_execute_it(monkeypatch, file, old, new, concerned):
    from fima.training.fingerprint import template_cells

    recipe, templates = make_recipe("demo", base="ut_interaction"), ("bias", "linear_probe", "retrieval", "finetune")
    before = {name: code_fingerprint(recipe, template_cells(name)) for name in templates}
    with monkeypatch.context() as patched:
        edited(patched, old, new, file)
        after = {name: code_fingerprint(recipe, template_cells(name)) for name in templates}
    import fima.training.fingerprint as code

    code._parsed.cache_clear()
    code._fingerprint.cache_clear()
    assert {name for name in templates if before[name] != after[name]} == concerned


def test_records_of_other_code_are_shown_kept_and_verified(tmp_path, call, made):
    "Unverified: neither deleted nor run again. Verified: identical. Different: outdated, set aside, made anew."
    study = tmp_path / "trial.yaml"
    study.write_text(yaml.safe_dump(STUDY))
    words = (str(study), "--reports", str(tmp_path))
    table = made(study, tmp_path).set_index("row")
    assert set(table.state) == {"done"} and set(table.verified) == {"same code, 1 same code"}
    file = tmp_path / "runs" / table.run_id["vv"] / "metrics.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"code": "0" * 16}))
    stamp = file.stat().st_mtime_ns
    assert plan(study, tmp_path).set_index("row").state.to_dict() == {"vv": "unverified", "random": "done"}
    assert (
        run_studies(study, reports=tmp_path, progress=False).set_index("row").state["vv"] == "unverified"
        and file.stat().st_mtime_ns == stamp
    )
    planned = call("study", "plan", *words)  # with its picture
    assert planned.returncode == 0 and "1 unverified" in planned.stdout, planned.stderr
    assert (
        "unverified" in call("study", "status", *words).stdout
        and "unverified" in (tmp_path / "tables" / "trial.md").read_text()
    )
    found = verify(study, reports=tmp_path, progress=False, cores=1)
    assert found.counts == {"identical": 2} and plan(study, tmp_path).set_index("row").state["vv"] == "done"
    assert json.loads((tmp_path / "verified.json").read_text())[file.parent.name]["verdict"] == "identical"

    # a call that goes on has nothing left
    assert verify(study, reports=tmp_path, progress=False, cores=1, unverified=True).counts == {}

    told["trace"][1]["loss"] = (float.fromhex(told["trace"][1]["loss"]) * 1.5).hex()  # as another loss would have it
    file.write_text(json.dumps(told | {"code": "0" * 16}))
    assert plan(study, tmp_path).set_index("row").state["vv"] == "unverified"  # the verdict was about another record
    said = call("study", "verify", *words, "--cores", "1")
    assert (
        said.returncode == 1 and "different, at step 2 first, loss by" in said.stdout and "1 different" in said.stdout
    ), said.stdout + said.stderr
    assert plan(study, tmp_path).set_index("row").state["vv"] == "outdated"
    assert run_studies(study, reports=tmp_path, progress=False).set_index("row").state["vv"] == "done"
    aside = tmp_path / ".work" / "set_aside" / file.parent.name / "1" / "metrics.json"
    # nothing that was finished is lost
    assert json.loads(aside.read_text())["trace"][1]["loss"] == told["trace"][1]["loss"]


def snapshot(folder):
    "List the files of a folder with their sizes and times."
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()}


def test_what_a_user_runs_stays_the_users(tmp_path, call):
    "A study of the package at smoke scale lands in one's own folder, with its table and page; reports/ is not touched; published records are found when planning."
    before = snapshot(published_folder())
    done = call("study", "run", "table_09", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"tables and figures: {own_folder() / 'smoke' / 'index.html'}"
    assert "profile smoke keeps" not in done.stderr  # one seed: nothing is cut
    assert (own_folder() / "smoke" / "tables" / "table_09.md").exists() and (
        own_folder() / "smoke" / "index.html"
    ).exists()
    assert len(list((own_folder() / "smoke").glob("fima-*/metrics.json"))) >= 3
    assert snapshot(published_folder()) == before and not list(published_folder().rglob("*/smoke"))
    # demo scale: the published records, without weights
    assert set(plan("table_09").state) <= {"recorded", "unverified", "missing"}
    assert {run.record(own_folder())[1] for run in expand(load_study("table_09"))} == {published_folder()}
    ignored = subprocess.run(["git", "check-ignore", "-q", "runs/fima-0/metrics.json"], cwd=TOP)
    assert ignored.returncode in (0, 128)  # 128: not a checkout


def test_a_changed_study_is_a_study_of_ones_own(tmp_path, call):
    done = call(
        "study", "run", "table_09", "--profile", "smoke", "--change", "method.beta=0.25", "--seeds", "3", "--no-results"
    )
    assert done.returncode == 0, done.stderr
    file = next((own_folder() / "studies").glob("table_09_*.yaml"))
    recipes = {run.recipe.run_id: run.recipe for run in expand(load_study(file, "smoke"))}
    assert {recipe.method.beta for recipe in recipes.values()} == {0.25} and {
        recipe.seed for recipe in recipes.values()
    } == {3}
    assert str(file) in done.stderr and set(plan(file, profile="smoke").state) == {"done"}
    assert set(plan("table_09", profile="smoke").state) == {"missing"}  # the study itself is as it was
    both = call(
        "study",
        "plan",
        "table_09",
        "--profile",
        "smoke",
        "--change",
        "method.beta=0.25",
        "--seeds",
        "3,4",
        "--no-picture",
    )
    assert (
        both.returncode == 0 and f"{2 * len(recipes)} pre-trainings for 1 study, {len(recipes)} to do" in both.stdout
    ), both.stdout + both.stderr
    none = call("study", "plan", "table_09", "--seeds", "")
    assert none.returncode != 0 and "--seeds must name at least one seed, got ''" in none.stderr
    cut = call("study", "plan", "table_01", "--profile", "smoke", "--no-picture")
    assert "table_01: profile smoke keeps the first of 3 seeds (0)" in cut.stderr


@needs_videos
def test_folders_of_ones_own_from_the_command_line_to_a_table(tmp_path, call):
    "Arbitrary names, no lists: pre-trained, evaluated by a drawn split that is recorded, and a study on lists, headed as the user's and without published numbers."
    source, videos = data_root() / "videos" / "weizmann4", tmp_path / "videos of mine"
    for number, file in enumerate(sorted(source.rglob("*.avi")) or sorted(source.rglob("*.mp4"))):
        place = videos / file.parent.name / f"film ({number}), été{file.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    shown = call("pretrain", "--profile", "smoke", "--videos", videos, "--show")
    recipe = json.loads(shown.stdout)
    assert recipe["data"]["name"] == "own" and len(recipe["data"]["content"]) == 16
    done = call("pretrain", "--profile", "smoke", "--videos", videos, "--change", "optimisation.steps=2")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["data"] == "own videos (videos of mine)" and metrics["groups"] == "each video by itself"
    asked = call("evaluate", folder, "--template", "retrieval")
    assert asked.returncode == 2 and "--test-share 0.25" in asked.stderr, asked.stderr
    drawn = call(
        "evaluate",
        folder,
        "--template",
        "retrieval",
        "--videos",
        videos,
        "--test-share",
        ".25",
        "--change",
        "ks=[1]",
        "--change",
        "clips=1",
    )
    assert drawn.returncode == 0, drawn.stderr
    told = json.loads(Path(drawn.stdout.splitlines()[-2].removeprefix("numbers: ")).read_text())
    assert told["settings"] and told["seen_in_training"] > 0 and told["data_fingerprint"] != metrics["data_fingerprint"]
    moved = tmp_path / "elsewhere"
    videos.rename(moved)
    # the same videos in another place
    assert call(
        "pretrain", "--profile", "smoke", "--videos", moved, "--change", "optimisation.steps=2"
    ).stdout.splitlines()[-1] == str(folder)


def test_videos_that_no_evaluation_can_use_are_refused_before_a_kernel_starts(tmp_path, call, monkeypatch):
    "No test videos, no classes, one group: said with the way out, and nothing is computed; the training's rule of groups holds where no other is given."
    from fima.data.video.video import encode
    from fima.data.sprites.sprites import SpriteOptions, render_video
    import fima.study.run.jobs

    monkeypatch.setattr(fima.study.run.jobs.Kernel, "ready", lambda *given: pytest.fail("a kernel was started"))
    names = [f"{kind}/{person}_{number}.mp4" for kind in "ab" for person in ("p1", "p2") for number in (1, 2)]
    for folder in ("flat", "classes"):
        for number, name in enumerate(names):
            place = tmp_path / folder / (name if folder == "classes" else name.replace("/", "_"))
            place.parent.mkdir(parents=True, exist_ok=True)
            encode(render_video(SpriteOptions(size=48), number, "train")[0], str(place))
    (tmp_path / "train.txt").write_text("".join(f"{name} {1 + (name[0] == 'b')}\n" for name in names if "p1" in name))
    (tmp_path / "test.txt").write_text("".join(f"{name} {1 + (name[0] == 'b')}\n" for name in names if "p2" in name))

    def trained(*words):
        done = call(
            "pretrain",
            "--profile",
            "smoke",
            *words,
            "--change",
            "method.name=random",
            "--change",
            "optimisation.steps=0",
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    flat = trained("--videos", tmp_path / "flat")
    lists = ("--train-list", tmp_path / "train.txt", "--test-list", tmp_path / "test.txt")
    listed = trained("--videos", tmp_path / "classes", *lists, "--groups", r"(p\d)_")
    for words, said in (
        ((flat,), "test must hold videos, got none: give --train-list and --test-list, or --test-share 0.25"),
        (
            (flat, "--videos", tmp_path / "flat", "--test-share", ".25"),
            "an evaluation needs training videos of at least 2 classes",
        ),
        (
            (listed,),
            "test videos must be of at least 2 groups, since intervals draw whole groups (--groups), got p2 alone",
        ),
        ((listed, "--videos", tmp_path / "classes", *lists), "got p2 alone"),
    ):
        done = call("evaluate", *words)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_another_encoder_starts_from_no_options(call):
    shown = json.loads(call("pretrain", "--profile", "smoke", "--change", "encoder.name=r3d_18", "--show").stdout)
    assert shown["encoder"]["name"] == "r3d_18" and "widths" not in shown["encoder"]["options"]
    kept = json.loads(call("pretrain", "--profile", "smoke", "--change", "encoder.name=small3d", "--show").stdout)
    assert kept["encoder"]["options"]["widths"] == [4, 8, 8, 16]
    for change, said in (
        ("optimisation.learning_rat=1", "is no setting (did you mean learning_rate?), got 1"),
        ("method.betta=.1", "did you mean beta?"),
        ("views.photometric.jiter=1", "did you mean jitter?"),
    ):
        done = call("pretrain", "--profile", "smoke", "--change", change, "--show")
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_the_picture_of_a_plan_knows_every_state(call, tmp_path):
    from fima.report.plan_plot import COLOURS, MARKS, SHADES
    from fima.study.plan.plan import STATES

    assert set(SHADES) == set(MARKS) == set(STATES) and set(SHADES.values()) <= set(COLOURS)
    done = call("study", "plan", "mcl_ut")  # the published records, some of them unverified
    assert done.returncode == 0, done.stderr
    for words in (("evaluate", tmp_path, "--template", "../../x"), ("evaluate", tmp_path, "--template", "linear_prob")):
        refused = call(*words)
        assert (
            refused.returncode == 2 and "template must be one of" in refused.stderr and refused.stderr.count("\n") == 1
        ), refused.stderr


def test_verify_refuses_what_it_cannot_do(call):
    for words, said in (
        (["--steps", "11"], "steps must be from 1 to 10"),
        (["--sample", "-1"], "sample must be at least 0"),
        (["--cores", "0"], "cores must be at least 1"),
    ):
        done = call("study", "verify", "table_01", *words)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
