"""How-to pages, glossary and reading paths: what they say can be typed and followed."""

import json
import re
import shlex
from functools import cache

import pytest

from fima.cli import main
from fima.study.plan.plan import expand
from fima.study.plan.schema import load_study
from helpers import NOTEBOOKS, TOP, each_path, load_script, name_of

PAGES = sorted((TOP / "nbs" / "how_to").glob("*.ipynb"))
LINES = [
    (page.stem, line.split("#")[0].strip())
    for page in PAGES
    for cell in json.loads(page.read_text())["cells"]
    if cell["cell_type"] == "markdown"
    for block in re.findall(r"```sh\n(.*?)```", "".join(cell["source"]), re.S)
    for line in block.splitlines()
]
COMMANDS = [(page, line) for page, line in LINES if line.startswith("fima ")]


def prose(path):
    "Give the markdown of a notebook."
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def headings(path):
    "List what a link into a notebook can lead to, as GitHub and as Jupyter spell it."
    found = re.findall(r"^#+ (.+)$", prose(path), re.M)
    github = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in found}
    return github | {heading.replace(" ", "-") for heading in found}


def unknown_options(line, known):
    "List the options of a line that a help text does not name."
    words = [word.split("=")[0] for word in shlex.split(line) if word.startswith("--")]
    return [word for word in words if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", known)]


def test_there_are_pages_and_commands():
    assert len(PAGES) >= 6 and len(COMMANDS) >= 15
    assert unknown_options("fima study run x --slurmy gpu --jobs 3", "--slurm <str> --jobs <int>") == ["--slurmy"]


@pytest.mark.parametrize("page, line", COMMANDS)
def test_commands_and_options_exist(page, line, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = shlex.split(line)[1:]
    depth = 2 if words[0] in ("study", "data", "checkpoint") else 1
    assert main([*words[:depth], "--help"]) == 0
    assert not unknown_options(line, capsys.readouterr().out)


@pytest.mark.parametrize("page, line", [(page, line) for page, line in LINES if line.startswith("papermill ")])
def test_papermill_lines_name_templates_and_their_parameters(page, line):
    import yaml

    from fima.study.plan.schema import check_parameters

    words = shlex.split(line)
    given = {}
    for place, word in enumerate(words):
        if word == "-p":
            given[words[place + 1]] = words[place + 2]
        if word == "-y":
            given |= yaml.safe_load(words[place + 1])
    assert given
    check_parameters(TOP / words[1], given)


def test_each_page_runs_what_it_says():
    "Of the steps of a page at least one is executed, and none is left to prose alone."
    for page in PAGES:
        code = [c for c in json.loads(page.read_text())["cells"] if c["cell_type"] == "code"]
        fast = ["".join(c["source"]) for c in code if not "".join(c["source"]).startswith("#| slow")]
        assert any("typed(" in source or "papermill.execute_notebook(" in source for source in fast), page.name


cached_headings = cache(headings)


@each_path(NOTEBOOKS)
def test_links_into_a_notebook_find_their_heading(path):
    lost = []
    for target, anchor in re.findall(r"\]\(([^)\s#:]+\.ipynb)#([^)\s]+)\)", prose(path)):
        if anchor not in cached_headings((path.parent / target).resolve()):
            lost.append(f"{target}#{anchor}")
    assert not lost


def test_every_word_of_the_glossary_is_linked_in_it_or_from_elsewhere():
    "A word has a notebook that builds the thing; and the glossary is linked where words first count."
    glossary = TOP / "nbs" / "glossary.ipynb"
    entries = re.split(r"^### ", prose(glossary), flags=re.M)[1:]
    assert len(entries) >= 30
    words = [entry.splitlines()[0] for entry in entries]
    assert all(re.fullmatch("[a-z -]+", word) for word in words), "a heading that GitHub and Jupyter spell alike"
    assert not [entry.splitlines()[0] for entry in entries if len(entry.split()) < 12]
    linking = [path for path in NOTEBOOKS if re.match(r"\d_", path.parent.name) and "glossary.ipynb#" in prose(path)]
    assert len(linking) >= 15, [name_of(path) for path in linking]


def test_the_method_is_read_before_containers_and_lists():
    order = [str(path.relative_to(TOP / "nbs")) for path in load_script("reading_order").notebooks()]
    assert order.index("1_data/3_sprites/02_sprites.ipynb") < order.index("2_methods/10_fima.ipynb")
    assert order.index("2_methods/10_fima.ipynb") < order.index("1_data/1_video/01_files.ipynb")
    assert order.index("2_methods/10_fima.ipynb") < order.index("1_data/2_sets/02_lists.ipynb")


def test_all_twenty_questions_have_an_answer_and_a_place():
    found = re.findall(r"^\*\*(\d+) [^*]+\*\* (.+)$", prose(TOP / "nbs" / "reading.ipynb"), re.M)
    assert [int(number) for number, _ in found] == list(range(1, 21))
    assert all(len(answer.split()) >= 20 and ".ipynb)" in answer for _, answer in found)


def test_the_method_of_the_eighteenth_answer_joins_a_study(tmp_path, monkeypatch):
    "Its two files, as they are printed, give a plan with a run for each row and seed."
    answer = prose(TOP / "nbs" / "reading.ipynb").split("**18 ")[1].split("**19 ")[0]
    for kind, name in (("python", "mine.py"), ("yaml", "mine.yaml")):
        (tmp_path / name).write_text(re.search(rf"```{kind}\n(.*?)```", answer, re.S)[1])
    monkeypatch.setenv("FIMA_PLUGINS", str(tmp_path / "mine.py"))
    runs = expand(load_study(tmp_path / "mine.yaml"))
    assert [run.row.name for run in runs].count("agree") == 3 and len(runs) == 9
