"""README.md and its sister pages are made from notebooks, and what they say can be typed and followed."""

import re
import shlex

import pytest

from fima.cli import main
from helpers import TOP, load_script

README = (TOP / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.strip()
]


@pytest.fixture(scope="module")
def readme():
    return load_script("readme")


PAGES = ["README.md", "reports/README.md", "nbs/README.md"]


def test_pages_are_made_from_their_notebooks(readme):
    assert sorted(readme.PAGES.values()) == sorted(PAGES)
    for name, page in readme.PAGES.items():
        assert readme.render(TOP / "nbs" / f"{name}.ipynb") == (TOP / page).read_text(), f"{page}: make readme"


def test_readme_is_short():
    assert len(README.splitlines()) <= 180


def test_links_start_at_the_page(readme):
    text = "[a](1_data/b.ipynb) ![c](../reports/d.png)"
    assert readme.moved(text, "reports/README.md") == "[a](../nbs/1_data/b.ipynb) ![c](d.png)"
    assert readme.moved("[a](1_data/b.ipynb#e)", "nbs/README.md") == "[a](1_data/b.ipynb#e)"
    kept = "[e](#f) [g](other://h/i)"
    assert readme.moved(f"{text} {kept}") == f"[a](nbs/1_data/b.ipynb) ![c](reports/d.png) {kept}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", (TOP / page).read_text()) if "://" not in t]
    assert len(targets) > 30
    assert not [t for t in targets if t and not ((TOP / page).parent / t).exists()]


def test_every_notebook_is_in_the_reading_order():
    reading = (TOP / "nbs" / "README.md").read_text()
    for path in sorted((TOP / "nbs").glob("*/*.ipynb")):
        assert f"]({path.relative_to(TOP / 'nbs')})" in reading, f"{path.name}: make readme"


def test_make_commands_exist():
    named = {line.split()[1] for line in COMMANDS if line.startswith("make ")} | set(
        re.findall(r"`make (\w+)`", README)
    )
    rules = set(re.findall(r"^(\w+):", (TOP / "Makefile").read_text(), re.M))
    assert {"study", "test", "lab"} <= named <= rules


@pytest.mark.parametrize("line", [line for line in COMMANDS if "bin/fima" in line])
def test_fima_commands_exist(line, capsys, monkeypatch):
    "Every command and option of the README is one that `--help` knows."
    monkeypatch.setenv("COLUMNS", "120")
    words = shlex.split(line.replace("<", "").replace(">", ""))[1:]
    depth = 2 if words[0] in ("study", "data", "checkpoint") else 1
    assert main([*words[:depth], "--help"]) == 0
    known = capsys.readouterr().out
    for word in words[depth:]:
        if word.startswith("--"):
            assert word.split("=")[0] in known


def test_environment_variables_are_read_somewhere():
    source = "\n".join(p.read_text() for p in [*(TOP / "fima").rglob("*.py"), TOP / "scripts" / "environment.py"])
    for name in re.findall(r"^\| `([A-Z_]+)`", README, re.M):
        assert name in source
