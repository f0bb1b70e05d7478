"""README.md and its sister pages are made from notebooks, and what they say can be typed and followed."""

import json
import re
import shlex

import pytest

from fima.cli import main
from fima.report.drawings import drawing_words, drawings, words_of
from fima.report.findings import draw_findings, findings
from helpers import TOP, load_script

README = (TOP / "README.md").read_text()
# the front door, and the page that holds what a user looks up
SAID = README + "".join(
    "".join(cell["source"]) + "\n" for cell in json.loads((TOP / "nbs" / "using.ipynb").read_text())["cells"]
)
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", SAID, re.S)
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
    assert len(README.splitlines()) <= 180 and len(README.encode()) <= 14_000


def test_readme_begins_with_what_came_out():
    "The sentences are those that the tables give now."
    found = findings(TOP / "reports")
    assert len(found) == 5
    places = [README.index(f"**{each.head}.** {each.caveat} {each.numbers}") for each in found]
    assert places == sorted(places) and places[0] < README.index("images/method.svg") < README.index("make study")


def test_readme_fits_a_telephone():
    "Rows of its table and lines of its commands: what cannot be broken there."
    rows = [line for line in README.splitlines() if line.startswith("|")]
    assert len(rows) > 5 and max(map(len, rows)) <= 90
    longest = max(len(word) for line in rows for word in re.split(r"[ |]+", line) if "--" not in word)
    assert longest <= 14


@pytest.mark.parametrize("name", sorted(drawings()))
def test_drawings_say_what_the_code_is(name):
    title, draw = drawings()[name]
    assert drawing_words(TOP / "nbs" / "images" / f"{name}.svg") == words_of(draw()), "python scripts/drawings.py"


def test_the_figure_of_the_front_door_is_of_these_tables():
    assert drawing_words(TOP / "nbs" / "images" / "findings.svg") == words_of(draw_findings(TOP / "reports"))


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
    named = {line.split()[1] for line in COMMANDS if line.startswith("make ")} | set(re.findall(r"`make (\w+)`", SAID))
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
    for name in re.findall(r"^\| `([A-Z_]+)`", SAID, re.M):
        assert name in source
