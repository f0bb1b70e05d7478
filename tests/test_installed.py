"""An installed package, without its repository: train, evaluate, a study, a plugin; nothing is written beside it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from helpers import PLUGIN, TOP

COPIED = ("pyproject.toml", "LICENSE", "fima", "nbs/studies", "nbs/results")
STUDY = """
name: mine
title: My study
rows:
  - {name: fima, label: FIMA}
  - {name: hum, label: Hummed, overrides: {encoder.name: hum, encoder.options: {}}}
evaluations:
  - {template: linear_probe}
"""


def quiet(*words, **options):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, **options)
    said = (done.stderr or done.stdout).strip()[-200:]
    if done.returncode:
        pytest.skip(f"a wheel cannot be built or installed here: {said}")


def files(folder):
    return sorted(str(file) for file in folder.rglob("*") if "__pycache__" not in file.parts and file.is_file())


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    "Build a wheel of a copy, install it where only its dependencies are, and give the environment's folder."
    place = tmp_path_factory.mktemp("installed")
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for part in COPIED:
        target = place / "copy" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (TOP / part).is_dir():
            shutil.copytree(TOP / part, target, ignore=ignored)
        else:
            shutil.copy(TOP / part, target)
    alone = ("--quiet", "--no-index", "--no-deps", "--disable-pip-version-check")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pip = (sys.executable, "-m", "pip")
    quiet(*pip, "wheel", *alone, "--no-build-isolation", "-w", place, place / "copy", env=environment)
    quiet(sys.executable, "-m", "venv", "--without-pip", place / "venv")
    inside = {"base": str(place / "venv"), "platbase": str(place / "venv")}
    packages = Path(sysconfig.get_path("purelib", vars=inside))
    # the dependencies; links among them, such as an editable fima, are not followed
    packages.joinpath("dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python, wheel = place / "venv" / "bin" / "python", next(place.glob("*.whl"))
    quiet(*pip, "--python", python, "install", *alone, wheel, env=environment)
    shutil.rmtree(place / "copy")
    return python.parent, packages / "fima"


def test_an_installed_package_does_it_all(installed, tmp_path):
    scripts, package = installed
    before = files(package.parent.parent)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FIMA_", "PYTHONPATH"))}
    environment |= {"FIMA_PLUGINS": "hum.py", "COLUMNS": "120", "PYTHONDONTWRITEBYTECODE": "1"}
    (tmp_path / "hum.py").write_text(PLUGIN)
    (tmp_path / "mine.yaml").write_text(STUDY)

    def fima(*words, code=0):
        call = [scripts / "fima", *map(str, words)]
        done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if not code else done.stderr

    assert "Usage: fima" in fima("--help")
    run = Path(fima("pretrain", "--profile", "smoke").splitlines()[-1])
    assert run.parent == tmp_path / "runs" and (run / "metrics.json").exists()
    said = fima("evaluate", run, "--template", "linear_probe")
    assert "n = 24" in said and Path(said.splitlines()[-1].removeprefix("pictures: ")).exists()
    fima("study", "run", "mine.yaml", "--profile", "smoke")  # jobs work in other folders, and find runs and plugin
    table = (tmp_path / "runs" / "smoke" / "tables" / "mine.md").read_text()
    assert "Hummed" in table and "not run" not in table
    assert "pre-trainings for 1 study" in fima("study", "plan", "table_01")  # a study that comes with the package
    assert "2 runs: 2 identical" in fima("study", "verify", "mine.yaml", "--profile", "smoke", "--steps", 2)
    videos = next((tmp_path / "runs" / ".data").glob("**/videos"))
    (tmp_path / "clips").mkdir()
    for number, file in enumerate(sorted(videos.glob("**/*.mp4"))[:4]):
        shutil.copy(file, tmp_path / "clips" / f"day {number}.mp4")
    own = json.loads(fima("pretrain", "--profile", "smoke", "--videos", "clips", "--show"))
    assert own["data"]["videos"] == str(tmp_path / "clips") and own["data"]["content"]
    refused = fima("study", "report", "table_01", "--publish", code=2)
    assert "checkout" in refused and refused.count("\n") == 1
    assert files(package.parent.parent) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clips", "hum.py", "mine.yaml", "runs"]
