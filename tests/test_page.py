"""The page of results stands alone, tells what was not run, lets no markup through, and reads well in a browser."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fima.plugins import pandas as pd
from fima.report import page as module
from fima.report.page import build_page, owner, page_words, source_links
from fima.report.sheets import Links, Number, Sheet, SheetPart, Verdict, write_sheet
from fima.study.plan.schema import load_study, repository, study_names
from helpers import TOP

PHONE, LAPTOP, DESKTOP = ({"width": w, "height": h} for w, h in ((390, 844), (1200, 800), (1440, 900)))
EVIL = "<script>alert('from a study file')</script>"


class Seen(HTMLParser):
    "Collect what a page holds: tags with their attributes, identifiers, words by section."

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "section":
            self.open.append(dict(attributes)["id"])

    def handle_endtag(self, tag):
        if tag == "section":
            self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.words[self.open[-1]] = self.words.get(self.open[-1], "") + data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    "A copy of the repository's records, tables and figures: the tests leave its page alone, and nobody changes theirs."
    folder = tmp_path_factory.mktemp("reports")
    for kind in ("runs/*/metrics.json", "runs/*/*/metrics.json", "tables/*.*", "figures/*.*"):
        for file in (TOP / "reports").glob(kind):
            target = folder / file.relative_to(TOP / "reports")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return folder


@pytest.fixture(scope="module")
def text(reports):
    return build_page(reports).read_text()


@pytest.fixture(scope="module")
def seen(text):
    return Seen(text)


def empty_page(tmp_path, monkeypatch, **changes):
    "A page of one study, changed, of which nothing was run."
    monkeypatch.setattr(module, "study_names", lambda: ["table_01"])
    monkeypatch.setattr(
        module, "load_study", lambda name, profile=None: load_study(name, profile).model_copy(update=changes)
    )
    return build_page(tmp_path, "smoke").read_text()


# -- the page as text --------------------------------------------------------------------------------------------------


def loads(text):
    "What a page would fetch or execute."
    tags = Seen(text).tags
    fetched = [
        attributes[name]
        for tag, attributes in tags
        for name in ("src", "srcset", "poster", "data")
        if attributes.get(name) and not attributes[name].startswith("data:")
    ]
    handlers = [name for tag, attributes in tags for name in attributes if name.startswith("on")]
    return (
        fetched
        + handlers
        + [tag for tag, _ in tags if tag in ("script", "link", "iframe", "object", "embed", "base")]
        + re.findall(r"@import|url\([^)]*", "".join(re.findall(r"<style>(.*?)</style>", text, re.S)))
    )


def test_the_page_loads_nothing(text):
    assert not loads(text)


@pytest.mark.parametrize(
    "part",
    [
        '<script src="https://a.example/a.js"></script>',
        '<link rel="stylesheet" href="a.css">',
        '<img src="a.png">',
        "<style>p { background: url(a.png) }</style>",
        '<p onclick="a()">',
    ],
)
def test_something_to_load_is_seen(part):
    assert loads(part)


def test_the_same_files_give_the_same_page(reports, text):
    assert build_page(reports).read_text() == text


def test_the_page_is_small_enough_to_send(text):
    assert len(text) < 6_000_000


def test_every_link_leads_somewhere(reports, seen):
    identifiers = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    targets = {attributes["href"] for attributes in seen.all("a")}
    assert {target[1:] for target in targets if target.startswith("#")} <= set(identifiers)
    files = {target for target in targets if not re.match(r"#|[a-z]+:", target)}
    assert not [target for target in files if not (reports / target).is_file()]
    labelled = {attributes["aria-labelledby"] for _, attributes in seen.tags if "aria-labelledby" in attributes}
    assert labelled <= set(identifiers)


def test_sources_are_linked_from_the_repositorys_page():
    folder = repository() / "reports"
    for name in study_names():
        links = source_links(name, load_study(name), folder)
        assert links and all((folder / target).is_file() for _, target in links)
    assert source_links("table_01", load_study("table_01"), Path("/elsewhere")) == []


def test_every_study_and_every_figure_has_its_place(seen, reports):
    identifiers = {attributes["id"] for _, attributes in seen.tags if "id" in attributes}
    names = set(study_names()) | set(page_words()["artefacts"])
    assert names <= identifiers
    assert {
        owner(file.stem, names) for kind in ("tables/*.json", "figures/*.png") for file in reports.glob(kind)
    } <= identifiers
    assert len(seen.all("img")) == len(list(reports.glob("figures/*.png")))


def test_the_papers_tables_and_figures_come_first_in_its_order(seen):
    sections = [attributes["id"] for attributes in seen.all("section")]
    tables, figures = ([name for name in sections if name.startswith(kind)] for kind in ("table_", "figure_"))
    assert tables == sorted(tables) and figures == sorted(figures)
    assert (
        sections.index(tables[-1])
        < sections.index(figures[0])
        < sections.index(figures[-1])
        < sections.index("ut_interaction")
    )


def test_tables_and_figures_are_told_to_those_who_cannot_see_them(text, seen):
    assert all(attributes.get("alt") for attributes in seen.all("img"))
    tables = re.findall(r"<table>.*?</table>", text, re.S)
    assert tables and all("<caption" in table and 'scope="col"' in table and 'scope="row"' in table for table in tables)
    assert not [caption for caption in re.findall(r"<caption[^>]*>(.*?)</caption>", text, re.S) if not caption.strip()]
    figures = re.findall(r"<figure.*?</figure>", text, re.S)
    assert all(len(re.sub("<[^>]+>", "", figure.split("<figcaption>")[1])) > 20 for figure in figures)


def test_every_figure_of_the_paper_has_words_of_its_own():
    patterns = page_words()["figures"]
    assert "*" in patterns
    assert not [name for name in page_words()["artefacts"] if name.startswith("figure_") and f"{name}*" not in patterns]


def test_what_was_not_run_says_so(tmp_path, monkeypatch):
    seen = Seen(empty_page(tmp_path, monkeypatch))
    for name in page_words()["artefacts"]:
        assert "not run" in seen.words[name], name
    assert "Nothing has been run" in seen.words["summary"]
    assert "0 of" in seen.words["runs"]


def test_no_markup_gets_through(tmp_path, monkeypatch):
    links = Links(((EVIL, "javascript:alert(1)"), ("a", "javascript:alert(1)")))
    table = pd.DataFrame({"claim": [EVIL], "verdict": [Verdict(EVIL)], "number": [Number(EVIL)], "runs": [links]})
    sheet = Sheet(
        EVIL, [f"Words {EVIL} [here](javascript:alert(1))."], [SheetPart(EVIL, table, "own")], table[["claim"]]
    )
    write_sheet("table_01", sheet, tmp_path)
    claims = [claim.model_copy(update={"words": EVIL}) for claim in load_study("table_01").claims[:1]]
    text = empty_page(tmp_path, monkeypatch, title=EVIL, claims=claims)
    assert not loads(text) and text.count("alert(") >= 6 and "&lt;script&gt;" in text
    assert "javascript:" not in "".join(attributes.get("href", "") for attributes in Seen(text).all("a"))


def luminance(colour):
    "Relative luminance of #rrggbb (WCAG 2)."
    digits = colour.lstrip("#")
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    return sum(
        weight * (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
        for weight, value in zip((0.2126, 0.7152, 0.0722), channels, strict=True)
    )


def contrast(one, two):
    dark, light = sorted((luminance(one), luminance(two)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_enough_in_light_and_dark():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    schemes = re.findall(r":root \{(.*?)\n *\}", (TOP / "nbs" / "results" / "page.css").read_text(), re.S)[:2]
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", scheme))
        pairs = (
            [(name, ground) for name in ("ink", "soft", "link") for ground in ("paper", "panel")]
            + [("mark", "paper")]
            + [(name, f"{name}-back") for name in ("supported", "contradicted", "open")]
        )
        assert not {
            pair: contrast(colours[pair[0]], colours[pair[1]])
            for pair in pairs
            if contrast(colours[pair[0]], colours[pair[1]]) < 4.5
        }


# -- the page in a browser ---------------------------------------------------------------------------------------------

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    "A Chromium with an empty profile; it asks nobody for anything."
    program = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))),
        None,
    )
    if not program:
        pytest.skip(
            "no Chromium on this machine (Debian: apt-get install chromium): the page is not opened in a browser"
        )
    driver = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: the page is not opened in a browser"
    )
    with driver.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=program, args=FLAGS, viewport=DESKTOP
        )
        yield context
        context.close()


def visit(browser, file, size=DESKTOP, scheme="light"):
    "Open a file, unfold everything, and list what went wrong on the way."
    tab, faults = browser.new_page(), []
    tab.set_viewport_size(size)
    tab.emulate_media(color_scheme=scheme)

    def hear(message):
        if message.type in ("error", "warning"):
            faults.append(f"{message.type}: {message.text}")

    def watch(request):
        if not re.match(r"file:|data:", request.url):
            faults.append(f"asked for {request.url[:100]}")

    tab.on("console", hear)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("requestfailed", lambda request: faults.append(f"failed: {request.url[:100]}"))
    tab.on("request", watch)
    tab.goto(file.as_uri(), wait_until="load")
    tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    faults += tab.evaluate(
        "[...document.images].filter(image => !image.naturalWidth).map(image => 'picture without content: ' + "
        "image.alt)"
    )
    faults += tab.evaluate(
        "document.documentElement.scrollWidth > innerWidth ? ['the page is ' + document.documentElement.scrollWidth + "
        "' wide'] : []"
    )
    faults += tab.evaluate(
        "[...document.querySelectorAll('th, td, caption')].filter(cell => parseFloat(getComputedStyle(cell).fontSize) "
        "< 12).map(cell => 'too small: ' + cell.textContent)"
    )
    faults += tab.evaluate(
        "[...document.querySelectorAll('table *')].filter(part => part.textContent.trim() && "
        "parseFloat(getComputedStyle(part).fontSize) < 12).map(part => 'too small: ' + part.textContent)"
    )
    return tab, faults


@pytest.mark.parametrize(
    "size", [PHONE, {"width": 820, "height": 1180}, DESKTOP], ids=lambda size: f"{size['width']}px"
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_without_a_fault(browser, reports, text, size, scheme):
    tab, faults = visit(browser, reports / "index.html", size, scheme)
    assert not faults
    assert tab.evaluate("document.images.length") == text.count("<img ")
    tab.close()


def test_the_profile_without_a_run_opens_too(browser, tmp_path, monkeypatch):
    empty_page(tmp_path, monkeypatch)
    tab, faults = visit(browser, tmp_path / "index.html", PHONE)
    assert not faults
    tab.close()


def test_faults_are_seen(browser, tmp_path):
    "The two tests above rest on this."
    (tmp_path / "bad.html").write_text(
        '<!doctype html><meta name="viewport" content="width=device-width"><img src="absent.png" alt="x"><div '
        'style="width: 900px">wide</div>'
        '<table style="font-size: 9px"><tr><td>small</td></tr></table><script>undefined.nothing</script>'
    )
    tab, faults = visit(browser, tmp_path / "bad.html", PHONE)
    for word in ("failed: file", "picture without content", "wide", "too small: small", "undefined"):
        assert any(word in fault for fault in faults), word
    tab.close()


CUT_OFF = """
const boxes = [...document.querySelectorAll('.scroll')].map(box => ({
    name: box.getAttribute('aria-labelledby'), wide: box.scrollWidth > box.clientWidth + 1,
    out: box.getBoundingClientRect().right > innerWidth,
    folded: getComputedStyle(box.querySelector('thead')).display === 'none',
    cells: [...box.querySelectorAll('th, td')].filter(cell => cell.scrollWidth > cell.clientWidth + 1).length,
}));
"""


def cut_off(tab):
    "Tables of which something lies to the right of what is seen, and how many have their rows folded."
    boxes = tab.evaluate(f"() => {{ {CUT_OFF} return boxes; }}")
    return [box for box in boxes if box["wide"] or box["out"] or box["cells"]], sum(box["folded"] for box in boxes)


def test_no_cell_is_cut_off(browser, reports, text):
    "A table that is too wide for its place folds its rows, and then says of each number which column it is of."
    folded = {}
    for size in (PHONE, {"width": 820, "height": 1180}, LAPTOP, DESKTOP):
        tab, _ = visit(browser, reports / "index.html", size)
        faults, folded[size["width"]] = cut_off(tab)
        assert not faults, size
        labels = tab.evaluate(
            "[...document.querySelectorAll('#table_01 td')].map(cell => getComputedStyle(cell, '::before').content)"
        )
        tab.close()
        assert any("R@1" in label for label in labels)
    assert folded[390] > folded[820] > folded[1200] > 0


def test_a_cell_that_is_cut_off_is_seen(browser, reports, text, tmp_path):
    "The test above rests on this: without folding, tables would be cut off on a telephone."
    (tmp_path / "index.html").write_text(re.sub(r'<table class="needs-\d+">', "<table>", text))
    tab, _ = visit(browser, tmp_path / "index.html", PHONE)
    faults, folded = cut_off(tab)
    assert faults and not folded
    tab.close()


@pytest.mark.parametrize("size", [PHONE, LAPTOP, DESKTOP], ids=lambda size: f"{size['width']}px")
def test_the_summary_fits_one_screen(browser, reports, text, size):
    "With its five findings, its table and its counts; on a wide screen with the numbers of the findings, too."
    tab = browser.new_page()
    tab.set_viewport_size(size)
    tab.goto((reports / "index.html").as_uri(), wait_until="load")
    summary = tab.evaluate(
        "(({top, bottom}) => ({top, bottom}))(document.getElementById('summary').getBoundingClientRect())"
    )
    assert 0 < summary["top"] < summary["bottom"] <= size["height"]
    assert tab.locator("#summary li").count() == 5 and tab.locator("#summary table").count() == 1
    seen = [each.is_visible() for each in tab.locator("#summary li p").all()]
    assert all(seen) if size != PHONE else not any(seen)
    tab.close()


def test_dark_is_dark(browser, reports, text):
    grounds = {}
    for scheme in ("light", "dark"):
        tab, _ = visit(browser, reports / "index.html", scheme=scheme)
        grounds[scheme] = sum(
            map(int, re.findall(r"\d+", tab.evaluate("getComputedStyle(document.body).backgroundColor"))[:3])
        )
        tab.close()
    assert grounds["dark"] < 200 < 600 < grounds["light"]
