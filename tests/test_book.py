"""The book holds every notebook once, in the reading order, and its API says what stands behind parameters."""

import importlib.util
import json
import re
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from fima.methods.foreground import foreground_mask
from fima.training.recipe import Recipe
from helpers import NOTEBOOKS, TOP, load_script

book = load_script("book")
book_check = load_script("book_check")
NBS = TOP / "nbs"
TOOL = ["sphinx", "furo", "myst_nb", "sphinx_copybutton", "djangocms_katex"]


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    "The sources of the whole book."
    folder = tmp_path_factory.mktemp("book")
    book.stage(folder, book.contents())
    return folder / "source"


@pytest.fixture(scope="module")
def fields():
    "The hook that explains parameters."
    spec = importlib.util.spec_from_file_location("docments_to_fields", TOP / "book" / "docments_to_fields.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed(source, page="index"):
    "List the pages below a page as Sphinx's tables of contents have them, depth first."
    text = next(file for suffix in (".md", ".ipynb") if (file := source / f"{page}{suffix}").exists()).read_text()
    found = re.findall(r"^```\{toctree\}$(.*?)^```$", text, re.M | re.S)
    below = [each[1:] for tree in found for each in tree.split() if each.startswith("/")]
    return [deeper for each in below for deeper in (each, *listed(source, each))]


# -- the order ---------------------------------------------------------------------------------------------------------


def test_the_reading_order_names_every_notebook_once():
    named = book.notebooks(book.contents())
    assert len(set(named)) == len(named)
    assert set(named) == {str(path.relative_to(NBS)) for path in NOTEBOOKS}


def test_the_table_of_contents_is_the_reading_order(staged):
    pages = listed(staged)
    assert len(set(pages)) == len(pages)
    sources = {
        str(file.relative_to(staged).with_suffix("")) for file in staged.rglob("*") if file.suffix in (".md", ".ipynb")
    }
    assert {*pages, "index"} == sources, "a page that no table of contents has, or the other way round"
    first, *others = [path.removesuffix(".ipynb") for path in book.notebooks(book.contents())]
    assert first == "index" and [page for page in pages if page in others] == others


def test_another_reading_order_makes_another_book(tmp_path):
    entries = [
        "index.ipynb",
        {"section": "Two", "contents": ["2_methods/07_foreground.ipynb", "2_methods/06_pixel.ipynb"]},
    ]
    book.stage(tmp_path, entries)
    pages = listed(tmp_path / "source")
    assert pages[:3] == ["2_methods/two", "2_methods/07_foreground", "2_methods/06_pixel"]
    assert "api/fima.methods.pixel" in pages and "api/fima.methods.decoder" not in pages


def test_sections_may_hold_sections_and_folders_of_their_own():
    entries = [
        {"section": "How to", "contents": ["how_to/a.ipynb", {"section": "More", "contents": ["how_to/b/c.ipynb"]}]}
    ]
    assert book.notebooks(entries) == ["how_to/a.ipynb", "how_to/b/c.ipynb"]
    assert book.chapter_page(entries[0]) == "how_to/how_to"
    assert book.chapter_page(entries[0]["contents"][1]) == "how_to/b/more"


# -- pages -------------------------------------------------------------------------------------------------------------


def test_links_of_the_sources_lead_to_what_is_there(staged):
    "Pages and pictures beside the page, other files in the folder that is copied as it is."
    wrong = []
    for file in staged.rglob("*.*"):
        if file.suffix == ".ipynb":
            cells = json.loads(file.read_text())["cells"]
            text = "\n\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
        elif file.suffix == ".md":
            text = file.read_text()
        else:
            continue
        text = re.sub(r"^```.*?^```|`[^`\n]+`(?!\])", "", text, flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            site = target.startswith("site:")
            folder = staged.parent / "files" / file.parent.relative_to(staged) if site else file.parent
            if "://" not in target and not (folder / target.removeprefix("site:")).resolve().exists():
                wrong.append(f"{file.relative_to(staged)}: {target}")
        for anchor in re.findall(r"\]\((?!\w+:)[^)\s]*#([^)\s]+)\)", text):  # Sphinx names headings in small letters
            if anchor != anchor.lower():
                wrong.append(f"{file.relative_to(staged)}: #{anchor}")
    assert not wrong, "\n".join(wrong)


def test_a_notebook_loses_its_directives_and_nothing_else(staged):
    path = "2_methods/07_foreground.ipynb"
    before, after = book.read(path)["cells"], json.loads((staged / path).read_text())["cells"]
    code = [cell for cell in after if cell["cell_type"] == "code"]
    assert not any("#|" in cell["source"] for cell in code)
    assert any(cell["source"].startswith("def activation_map(") for cell in code)
    assert [o for cell in code for o in cell["outputs"]] == [o for cell in before for o in cell.get("outputs", [])]
    assert after[-1]["source"] == "In the package: [`fima.methods.foreground`](../api/fima.methods.foreground.md)"


def test_what_a_cell_shows():
    output = {"output_type": "display_data", "data": {"text/markdown": ["*a*"]}}
    kept = book.shown({"cell_type": "code", "id": "x", "source": ["#| export\n", "1"], "outputs": [output]})
    assert [(each["cell_type"], each["source"]) for each in kept] == [("code", "1"), ("markdown", "*a*")]
    assert book.shown({"cell_type": "code", "id": "x", "source": "#| hide\n1", "outputs": [output]}) == []
    assert book.shown({"cell_type": "code", "id": "x", "source": "#| default_exp a.b", "outputs": []}) == []
    assert book.shown({"cell_type": "markdown", "id": "x", "source": "Previous: [a](b)"}) == []


# -- the API -----------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    "Two."

    first: int  # what `comes` first, in [0, 1)
    # what comes
    # then
    second: int = 1


@dataclass
class Child:
    "One."

    own: int = 0  # its own


def test_comments_become_fields(fields):
    lines = ["Mark the cells (Eq. 6)."]
    fields.explain(None, "function", "", foreground_mask, None, lines)
    assert ":param beta: Quantile of the activation that a foreground cell must exceed, in [0, 1]" in lines
    assert any(line.startswith(":returns: True on the foreground") for line in lines)
    assert fields.field_comments(Pair) == {"first": "what `comes` first, in [0, 1)", "second": "what comes then"}
    assert fields.field_comments(Child) == {"own": "its own"}
    assert fields.explanations(Recipe)["seed"] == "decides everything random"


def test_markdown_in_a_comment_stays_what_it_says(fields):
    assert fields.rst("a*b, `c`s and d_") == "a\\*b, \\ ``c``\\ s and d\\_"
    assert fields.rst("an odd ` one") == "an odd \\` one"


# -- the finished book -------------------------------------------------------------------------------------------------


def test_the_check_sees_what_is_wrong(tmp_path):
    (tmp_path / "index.html").write_text(
        '<p id="here"><a href="#here">a</a><a href="#there">b</a><a href="gone.html">c</a><a href="https://a.example">d</a>'
        '<script src="https://a.example/a.js"></script><img src="no.png">'
    )
    (tmp_path / "a.css").write_text("@font-face {src: url(https://a.example/a.woff)}")
    found = [wrong for _, wrong in book_check.faults_of_links(tmp_path)]
    places = ["leads nowhere: gone.html", "leads nowhere: no.png", "no such place: #there"]
    hosts = ["needs another host: https://a.example/a.js", "needs another host: https://a.example/a.woff"]
    assert sorted(found) == sorted(places + hosts)


def test_two_notebooks_make_a_site(tmp_path):
    "With the book's own tool, where it is installed: pages, API, search and formulas, and nothing from elsewhere."
    absent = [name for name in TOOL if not importlib.util.find_spec(name)]
    if absent:
        pytest.skip(f"the book's tool is not installed (make book): {', '.join(absent)}")
    section = {"section": "Two", "contents": ["2_methods/06_pixel.ipynb", "2_methods/07_foreground.ipynb"]}
    book.stage(tmp_path, [section])
    assert book.build(tmp_path, "-D", "root_doc=2_methods/two") == 0
    site = tmp_path / "html"
    page = (site / "2_methods" / "07_foreground.html").read_text()
    assert 'href="06_pixel.html"' in page and "formulas.js" in page and "copybutton" in page
    api = (site / "api" / "fima.methods.foreground.html").read_text()
    assert "foreground_mask" in api and "Quantile of the activation that a foreground cell must exceed" in api
    assert re.search(r'\bforeground"?:', (site / "searchindex.js").read_text())
    assert (site / "_static" / "katex" / "katex.min.js").exists()
    assert not [wrong for _, wrong in book_check.faults_of_links(site) if wrong.startswith("needs another host")]
