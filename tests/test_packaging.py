"""settings.ini is the source of name, version and requirements; everything else that repeats them must agree."""

import configparser
import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fima
from helpers import TOP


@pytest.fixture(scope="module")
def settings():
    parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
    parser.read(TOP / "settings.ini")
    return parser["DEFAULT"]


@pytest.fixture(scope="module")
def pyproject():
    return tomllib.loads((TOP / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def project(pyproject):
    return pyproject["project"]


@pytest.fixture(scope="module")
def locked():
    "Name -> the pins of requirements.txt (one per environment marker)."
    pins = {}
    for line in (TOP / "requirements.txt").read_text().splitlines():
        text = line.split("#")[0].strip()
        if text:
            pin = Requirement(text)
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def test_name_and_python(settings, project):
    assert project["name"] == settings["lib_name"] == settings["lib_path"]
    assert project["requires-python"] == f">={settings['min_python']}"
    assert project["description"] == settings["description"]


def test_version(settings, project):
    assert project["dynamic"] == ["version"]
    assert fima.__version__ == settings["version"] == version("fima")


@pytest.mark.parametrize("field", ["requirements", "dev_requirements"])
def test_pyproject_lists_the_same_requirements(settings, project, field):
    listed = project["dependencies"] if field == "requirements" else project["optional-dependencies"]["dev"]
    assert listed == settings[field].split()


def test_what_studies_on_slurm_need_is_an_extra_that_the_tests_have_too(settings, project):
    listed = settings["slurm_requirements"].split()
    assert project["optional-dependencies"]["slurm"] == listed
    assert set(listed) <= set(settings["dev_requirements"].split())


def test_environment_lists_the_same_requirements(settings):
    entries = yaml.safe_load((TOP / "environment.yml").read_text())["dependencies"]
    assert f"python>={settings['min_python']}" in entries
    installed = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    assert installed == [*settings["requirements"].split(), *settings["dev_requirements"].split(), "-e ."]


def test_lock_satisfies_every_requirement(settings, locked):
    for entry in (settings["requirements"] + " " + settings["dev_requirements"]).split():
        wanted = Requirement(entry)
        if wanted.name == "torch":
            continue
        pins = locked.get(canonicalize_name(wanted.name), [])
        assert pins, f"{wanted.name} is not in requirements.txt: make lock"
        for pin in pins:
            exact = [clause.version for clause in pin.specifier if clause.operator == "=="]
            assert len(exact) == 1 and exact[0] in wanted.specifier, f"{pin} does not meet {entry}: make lock"


def test_lock_runs_on_every_machine(settings, locked):
    "torch is pinned apart, exactly; no local version, index or CUDA package stands in the lock."
    text = (TOP / "requirements.txt").read_text()
    assert "torch" not in locked and not [name for name in locked if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert "://" not in text and "--" not in re.sub(r"#.*", "", text) and not re.search(r"==\S+\+", text)
    assert re.search(r"(^| )torch==[\d.]+( |$)", settings["requirements"])


def test_what_is_installed_is_what_is_locked(settings, locked):
    "Only in an environment made by `make setup`: elsewhere newer versions inside the ranges are fine."
    if Path(sys.prefix).resolve() != (TOP / ".venv").resolve():
        pytest.skip("not running in .venv")
    for name, pins in locked.items():
        here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
        for pin in here:
            assert pin.specifier.contains(version(name)), f"{pin} is locked, {version(name)} installed: make setup"
    pinned = re.search(r"torch==([\d.]+)", settings["requirements"])[1]
    assert version("torch").split("+")[0] == pinned


def test_nbdev_keeps_what_papermill_needs(settings):
    assert "tags" in settings["allowed_cell_metadata_keys"].split()
    assert settings["tst_flags"].split() == ["slow", "gpu"]


def test_every_folder_of_the_package_is_shipped(pyproject):
    "setuptools is told the packages by name, because two of them lie under nbs/."
    settings = pyproject["tool"]["setuptools"]
    folders = {".".join(file.parent.relative_to(TOP).parts) for file in (TOP / "fima").rglob("*.py")}
    assert set(settings["packages"]) == folders | {"fima.templates", "fima.pages"}
    assert all(list((TOP / folder).glob("*")) for folder in settings["package-dir"].values())


def test_what_an_installed_package_reads_is_shipped(pyproject):
    "Every template and study file, and of the results what is no notebook."
    settings = pyproject["tool"]["setuptools"]
    for package, places in settings["package-data"].items():
        folder = TOP / settings["package-dir"][package]
        shipped = {file for pattern in places for file in folder.glob(pattern)}
        assert shipped == {
            file
            for file in folder.iterdir()
            if file.is_file() and (package == "fima.templates" or file.suffix != ".ipynb")
        }


def test_the_citation_is_of_this_version(settings):
    citation = yaml.safe_load((TOP / "CITATION.cff").read_text())
    assert citation["version"] == settings["version"] and citation["references"][0]["doi"] == "10.1145/3581783.3611932"
    assert f"## {citation['version']}" in (TOP / "CHANGELOG.md").read_text()


def test_links_of_the_pages_lead_somewhere():
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        links = [
            link.split("#")[0]
            for link in re.findall(r"\]\(([^)\s]+)\)", (TOP / page).read_text())
            if "://" not in link and not link.startswith("#")
        ]
        assert not [link for link in links if not (TOP / link).exists()], page
