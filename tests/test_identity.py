"""A run is its content: other videos or other code are never taken for its own, and a user's runs stay theirs."""

import json
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from fima.data.sets.catalog import data_root
from fima.data.sprites.sprites import SpriteOptions, render_video
from fima.data.video.files import fingerprint, write_video
from fima.evaluation.core.eval_clips import ClipSampling
from fima.evaluation.core.record import evaluated_data, open_run, record, run_features, seen_in_training
from fima.report.make import run_studies
from fima.report.plan_plot import COLOURS, MARKS, SHADES
from fima.study.plan.plan import STATES, expand, plan
from fima.study.plan.schema import load_study, own_folder, published_folder
from fima.study.plan.verify import verify
from fima.study.run.jobs import Kernel
from fima.training import fingerprint as code
from fima.training.fingerprint import code_fingerprint, template_cells
from fima.training.pretrain import Stopped, pretrain
from fima.training.recipe import make_recipe
from fima.training.request import requested_recipe
from helpers import RANDOM, STUDY, TOP, VV, check_refusal, contents, write_study

needs_videos = pytest.mark.skipif(
    not data_root() or not (data_root() / "videos" / "weizmann4").is_dir(),
    reason="the real videos are not on this machine",
)
TRIAL = STUDY | {"rows": [VV, RANDOM]}
ONE_CLIP = ClipSampling(clips=1)


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


def videos_of(folder):
    "List the videos below a folder, whichever of two formats they have."
    return sorted(folder.rglob("*.avi")) or sorted(folder.rglob("*.mp4"))


def swap_two(folder):
    "Let a training video and a test video of one class change places in the lists."
    lists = [next(folder.rglob(f"{kind}list01.txt")) for kind in ("train", "test")]
    train, test = (file.read_text().splitlines() for file in lists)
    name = test[0].split("/")[0]
    place = next(number for number, line in enumerate(train) if line.startswith(f"{name}/"))
    trained, _, label = train[place].partition(" ")
    train[place], test[0] = f"{test[0].split()[0]} {label}", trained
    for file, lines in zip(lists, (train, test), strict=True):
        file.write_text("\n".join(lines) + "\n")


def damage_and_repair(folder):
    "Change bytes in the middle of a file, its size and its ends as they were."
    file = max(videos_of(folder), key=lambda each: each.stat().st_size)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    file.write_bytes(bytes(content))


@needs_videos
@pytest.mark.parametrize("change", [swap_two, damage_and_repair])
def test_other_videos_are_not_those_of_a_finished_run(change, weizmann, tmp_path):
    "Refused with both fingerprints and the way out; nothing is overwritten; by --videos they make a run of their own."
    recipe, folder = make_recipe("smoke", overrides=WEIZMANN), tmp_path / "run"
    metrics = pretrain(recipe, folder, progress=False)
    before = contents(folder)
    assert pretrain(recipe, folder, progress=False) == metrics
    change(weizmann)
    finished = f"holds the finished run {recipe.run_id} of weizmann4 with fingerprint {metrics['data_fingerprint']}; "
    with pytest.raises(ValueError, match=finished + "the videos that are here have [0-9a-f]{16}.*--videos") as refused:
        pretrain(recipe, folder, progress=False)
    assert "\n" not in str(refused.value)
    assert contents(folder) == before
    of_these = [
        requested_recipe(
            "smoke",
            changes={"optimisation.steps": 2, "data.cache_size": (48, 48)},
            videos={"data.name": "weizmann4", "data.videos": str(weizmann)},
        )
        for _ in range(2)
    ]
    assert of_these[0].run_id == of_these[1].run_id != recipe.run_id
    assert of_these[0].data.content != metrics["data_fingerprint"]


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
        run_features(opened, "test", ONE_CLIP)
        tested = rows[["path", "label", "group"]].assign(predicted=rows.label)
        return record(folder / "evaluation", opened, "linear_probe", {}, tested, 0.0)

    first = evaluated()
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
        size: run_features(
            open_run(folder, recipe.data.model_copy(update={"cache_size": size})), "test", ONE_CLIP
        ).pooled
        for size in ((48, 48), (40, 40))
    }
    again = run_features(open_run(folder, recipe.data), "test", ONE_CLIP).pooled
    assert (at[48, 48] == again).all() and not (at[40, 40] == again).all()


@needs_videos
def test_a_study_does_not_take_runs_of_other_videos(weizmann, tmp_path, call, made):
    "Its plan says so, its run is refused by name, its runs are left out of a verification; the records stay."
    base = {"profile": "smoke", "overrides": WEIZMANN | {"data.cache_size": [48, 48]}}
    study = write_study(tmp_path, TRIAL | {"rows": [RANDOM], "base": base})
    words = (str(study), "--reports", str(tmp_path))
    name = made(study, tmp_path).run_id[0]
    before = snapshot(tmp_path / "runs")
    swap_two(weizmann)
    planned = call("study", "plan", *words, "--no-picture")
    assert planned.returncode == 0 and f"{name} was made from videos with fingerprint" in planned.stderr
    refused = call("study", "run", *words)
    check_refusal(refused, f"holds the finished run {name}, made from videos with fingerprint", "--videos")
    found = verify(study, reports=tmp_path, progress=False, cores=1)
    assert set(found.others) == {name} and not found.counts and not (tmp_path / "verified.json").exists()
    assert snapshot(tmp_path / "runs") == before


@needs_videos
def test_videos_seen_in_training_are_told_by_content(tmp_path):
    "Trained on one folder, tested on another: other names, the same bytes; an unrelated folder has none of them."
    films = videos_of(data_root() / "videos" / "weizmann4")[:12]
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
        assert seen_in_training(recipe, rows, about, opened.data.folder) == expected
        assert folder == "mixed" or expected == 0
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
    check_refusal(call("study", "plan", write_study(tmp_path, TRIAL | change), "--no-picture"), said)


def test_a_stopped_run_keeps_its_trace(tmp_path):
    recipe = make_recipe("smoke", overrides={"optimisation.steps": 12})
    whole = pretrain(recipe, tmp_path / "whole", progress=False)
    with pytest.raises(Stopped):
        pretrain(recipe, tmp_path / "halved", stop_after=5, progress=False)
    halved = pretrain(recipe, tmp_path / "halved", progress=False)
    assert len(whole["trace"]) == 10 and halved["trace"] == whole["trace"] and halved["weights"] == whole["weights"]
    assert float.fromhex(whole["trace"][0]["loss"]) > 0 and whole["environment"]["libraries"]["torch"]


def forget_code():
    "Let the package's code be read anew."
    code._parsed.cache_clear()
    code._fingerprint.cache_clear()


@contextmanager
def edited(file, old, new):
    "Let the package's code read as if one line of it were another."
    read, target = Path.read_text, TOP / "fima" / file
    assert old in read(target)

    def read_edited(self, *rest, **named):
        text = read(self, *rest, **named)
        return text.replace(old, new) if self == target else text

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "read_text", read_edited)
        forget_code()
        yield
    forget_code()


@pytest.mark.parametrize(
    "file, old, new, concerned",
    [
        (
            "methods/dclr.py",
            'raise ValueError(f"map_weight must be >= 0',
            'raise ValueError(f"the weight of maps must be >= 0',
            set(),
        ),
        ("methods/dclr.py", '"Compare the activation map of V', '"Hold the activation map of V', set()),
        ("methods/dclr.py", "together / 2 if", "together / 3 if", {"dclr"}),
        ("methods/fame.py", "FLAT = 1e-6", "FLAT = 1e-7", {"fame"}),
        (
            "methods/encoders/encoders.py",
            "kernel = (3, 5, 5) if stage == 0",
            "kernel = (3, 3, 3) if stage == 0",
            {"fima", "moco", "dclr", "fame", "mcl"},
        ),
        ("methods/encoders/encoders.py", '"Build I3D without', '"Make I3D without', set()),
        ("methods/encoders/inception.py", "padding", "paddings", set()),
        ("data/flow/flow.py", "import cv2", "import cv2 as cv2, math", set()),
        ("methods/pixel.py", "temperature", "temperatur", {"fima", "moco", "fame"}),
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
def test_an_edit_concerns_the_runs_that_execute_it(file, old, new, concerned):
    recipes = {
        name: make_recipe("demo", method=None if name == "fima" else name)
        for name in ("fima", "moco", "dclr", "fame", "mcl")
    }
    before = {name: code_fingerprint(recipe) for name, recipe in recipes.items()}
    with edited(file, old, new):
        after = {name: code_fingerprint(recipe) for name, recipe in recipes.items()}
    assert {name for name in recipes if before[name] != after[name]} == concerned


@pytest.mark.parametrize(
    "file, old, new, concerned",
    [
        ("data/flow/flow.py", "PRESET_MEDIUM", "PRESET_FAST", {"bias"}),
        ("evaluation/protocols/retrieval.py", '"""', '""" # another remark\n', set()),
        ("training/pretrain.py", "zero_grad(", "zero_grad (", set()),
        ("training/pretrain.py", "zero_grad(", "none_grad(", {"finetune"}),
        ("data/sets/own.py", "CONTRADICTION = ", "CONTRADICTION = 'so: ' + ", set()),
    ],
    ids=["flow", "remark", "layout", "step", "folders of one's own"],
)
def test_an_edit_concerns_the_evaluations_that_execute_it(file, old, new, concerned):
    recipe, templates = make_recipe("demo", base="ut_interaction"), ("bias", "linear_probe", "retrieval", "finetune")
    before = {name: code_fingerprint(recipe, template_cells(name)) for name in templates}
    with edited(file, old, new):
        after = {name: code_fingerprint(recipe, template_cells(name)) for name in templates}
    assert {name for name in templates if before[name] != after[name]} == concerned


def test_records_of_other_code_are_shown_kept_and_verified(tmp_path, call, made):
    "Unverified: neither deleted nor run again. Verified: identical. Different: outdated, set aside, made anew."
    study = write_study(tmp_path, TRIAL)
    words = (str(study), "--reports", str(tmp_path))
    table = made(study, tmp_path).set_index("row")
    assert set(table.state) == {"done"} and set(table.verified) == {"same code, 1 same code"}
    file = tmp_path / "runs" / table.run_id["vv"] / "metrics.json"
    metrics = json.loads(file.read_text())
    file.write_text(json.dumps(metrics | {"code": "0" * 16}))
    stamp = file.stat().st_mtime_ns
    assert plan(study, tmp_path).set_index("row").state.to_dict() == {"vv": "unverified", "random": "done"}
    assert run_studies(study, reports=tmp_path, progress=False).set_index("row").state["vv"] == "unverified"
    assert file.stat().st_mtime_ns == stamp
    planned = call("study", "plan", *words)  # with its picture
    assert planned.returncode == 0 and "1 unverified" in planned.stdout, planned.stderr
    assert "unverified" in call("study", "status", *words).stdout
    assert "unverified" in (tmp_path / "tables" / "trial.md").read_text()
    found = verify(study, reports=tmp_path, progress=False, cores=1)
    assert found.counts == {"identical": 2} and plan(study, tmp_path).set_index("row").state["vv"] == "done"
    assert json.loads((tmp_path / "verified.json").read_text())[file.parent.name]["verdict"] == "identical"

    # a call that goes on has nothing left
    assert verify(study, reports=tmp_path, progress=False, cores=1, unverified=True).counts == {}

    # as another loss would have it
    metrics["trace"][1]["loss"] = (float.fromhex(metrics["trace"][1]["loss"]) * 1.5).hex()
    file.write_text(json.dumps(metrics | {"code": "0" * 16}))
    assert plan(study, tmp_path).set_index("row").state["vv"] == "unverified"  # the verdict was about another record
    said = call("study", "verify", *words, "--cores", "1")
    assert said.returncode == 1, said.stdout + said.stderr
    assert "different, at step 2 first, loss by" in said.stdout and "1 different" in said.stdout
    assert plan(study, tmp_path).set_index("row").state["vv"] == "outdated"
    assert run_studies(study, reports=tmp_path, progress=False).set_index("row").state["vv"] == "done"
    aside = tmp_path / ".work" / "set_aside" / file.parent.name / "1" / "metrics.json"
    # nothing that was finished is lost
    assert json.loads(aside.read_text())["trace"][1]["loss"] == metrics["trace"][1]["loss"]


def snapshot(folder):
    "List the files of a folder with their sizes and times."
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()}


def test_what_a_user_runs_stays_the_users(tmp_path, call):
    "A study of the package lands in one's own folder; reports/ is not touched, and its records are found in planning."
    before = snapshot(published_folder())
    done = call("study", "run", "table_09", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"tables and figures: {own_folder() / 'smoke' / 'index.html'}"
    assert "profile smoke keeps" not in done.stderr  # one seed: nothing is cut
    assert (own_folder() / "smoke" / "tables" / "table_09.md").exists()
    assert (own_folder() / "smoke" / "index.html").exists()
    assert len(list((own_folder() / "smoke").glob("fima-*/metrics.json"))) >= 3
    assert snapshot(published_folder()) == before and not list(published_folder().rglob("*/smoke"))
    # demo scale: the published records, without weights
    assert set(plan("table_09").state) <= {"recorded", "unverified", "missing"}
    assert {run.record(own_folder())[1] for run in expand(load_study("table_09"))} == {published_folder()}
    ignored = subprocess.run(["git", "check-ignore", "-q", "runs/fima-0/metrics.json"], cwd=TOP)
    assert ignored.returncode in (0, 128)  # 128: not a checkout


def test_a_changed_study_is_a_study_of_ones_own(tmp_path, call):
    changed = ("table_09", "--profile", "smoke", "--change", "method.beta=0.25", "--seeds")
    done = call("study", "run", *changed, "3", "--no-results")
    assert done.returncode == 0, done.stderr
    file = next((own_folder() / "studies").glob("table_09_*.yaml"))
    recipes = {run.recipe.run_id: run.recipe for run in expand(load_study(file, "smoke"))}
    assert {recipe.method.beta for recipe in recipes.values()} == {0.25}
    assert {recipe.seed for recipe in recipes.values()} == {3}
    assert str(file) in done.stderr and set(plan(file, profile="smoke").state) == {"done"}
    assert set(plan("table_09", profile="smoke").state) == {"missing"}  # the study itself is as it was
    both = call("study", "plan", *changed, "3,4", "--no-picture")
    assert both.returncode == 0, both.stdout + both.stderr
    assert f"{2 * len(recipes)} pre-trainings for 1 study, {len(recipes)} to do" in both.stdout
    none = call("study", "plan", "table_09", "--seeds", "")
    assert none.returncode != 0 and "--seeds must name at least one seed, got ''" in none.stderr
    cut = call("study", "plan", "table_01", "--profile", "smoke", "--no-picture")
    assert "table_01: profile smoke keeps the first of 3 seeds (0)" in cut.stderr


@needs_videos
def test_folders_of_ones_own_from_the_command_line_to_a_table(tmp_path, call):
    "Arbitrary names, no lists: pre-trained, and evaluated by a drawn split that is recorded."
    videos = tmp_path / "videos of mine"
    for number, file in enumerate(videos_of(data_root() / "videos" / "weizmann4")):
        place = videos / file.parent.name / f"film ({number}), été{file.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    shown = call("pretrain", "--profile", "smoke", "--videos", videos, "--show")
    recipe = json.loads(shown.stdout)
    assert recipe["data"]["name"] == "own" and len(recipe["data"]["content"]) == 16
    train = ("pretrain", "--profile", "smoke", "--change", "optimisation.steps=2", "--videos")
    done = call(*train, videos)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["data"] == "own videos (videos of mine)" and metrics["groups"] == "each video by itself"
    asked = call("evaluate", folder, "--template", "retrieval")
    assert asked.returncode == 2 and "--test-share 0.25" in asked.stderr, asked.stderr
    words = ("--template", "retrieval", "--change", "ks=[1]", "--change", "clips=1")
    drawn = call("evaluate", folder, *words, "--videos", videos, "--test-share", ".25")
    assert drawn.returncode == 0, drawn.stderr
    found = json.loads(Path(drawn.stdout.splitlines()[-2].removeprefix("numbers: ")).read_text())
    assert found["settings"] and found["seen_in_training"] > 0
    assert found["data_fingerprint"] != metrics["data_fingerprint"]
    moved = tmp_path / "elsewhere"
    videos.rename(moved)
    # the same videos in another place
    assert call(*train, moved).stdout.splitlines()[-1] == str(folder)


def test_videos_that_no_evaluation_can_use_are_refused_before_a_kernel_starts(tmp_path, call, monkeypatch):
    "No test videos, no classes, one group (by the training's rule where no other is given): said with the way out."
    monkeypatch.setattr(Kernel, "ready", lambda *given: pytest.fail("a kernel was started"))
    names = [f"{kind}/{person}_{number}.mp4" for kind in "ab" for person in ("p1", "p2") for number in (1, 2)]
    for folder in ("flat", "classes"):
        for number, name in enumerate(names):
            place = tmp_path / folder / (name if folder == "classes" else name.replace("/", "_"))
            place.parent.mkdir(parents=True, exist_ok=True)
            write_video(render_video(SpriteOptions(size=48), number, "train")[0], str(place))
    (tmp_path / "train.txt").write_text("".join(f"{name} {1 + (name[0] == 'b')}\n" for name in names if "p1" in name))
    (tmp_path / "test.txt").write_text("".join(f"{name} {1 + (name[0] == 'b')}\n" for name in names if "p2" in name))

    def trained(*words):
        changes = ("--change", "method.name=random", "--change", "optimisation.steps=0")
        done = call("pretrain", "--profile", "smoke", *words, *changes)
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
        check_refusal(call("evaluate", *words), said)


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
        check_refusal(call("pretrain", "--profile", "smoke", "--change", change, "--show"), said)


def test_the_picture_of_a_plan_knows_every_state(call, tmp_path):
    assert set(SHADES) == set(MARKS) == set(STATES) and set(SHADES.values()) <= set(COLOURS)
    done = call("study", "plan", "mcl_ut")  # the published records, some of them unverified
    assert done.returncode == 0, done.stderr
    for template in ("../../x", "linear_prob"):
        check_refusal(call("evaluate", tmp_path, "--template", template), "template must be one of")


def test_verify_refuses_what_it_cannot_do(call):
    for words, said in (
        (["--steps", "11"], "steps must be from 1 to 10"),
        (["--sample", "-1"], "sample must be at least 0"),
        (["--cores", "0"], "cores must be at least 1"),
    ):
        check_refusal(call("study", "verify", "table_01", *words), said)
