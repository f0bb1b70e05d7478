"""The page about one encoder: its numbers are those of its records, for a run of ours and for another's weights."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from fima.data.video.files import write_video
from fima.evaluation.core.record import smoke_run
from fima.evaluation.core.record_format import read_metrics
from fima.methods.encoders.encoders import build_encoder
from fima.report.encoder_page import LARGEST, report_encoder
from fima.training.weights import import_checkpoint
from helpers import TOP, check_refusal
from test_page import PHONE, browser, visit  # noqa: F401, a fixture

pytestmark = pytest.mark.usefixtures("module_work")
VOID = {"meta", "img", "br", "hr", "input", "link", "rect"}
SECTIONS = ["summary", "floors", "protocols", "neighbours", "looks", "relies", "sure", "provenance"]


class Strict(HTMLParser):
    "Refuse tags that are not closed in order, doubled identifiers, pictures without words and anything to be loaded."

    def __init__(self, text):
        super().__init__()
        self.stack, self.ids, self.faults, self.sections = [], [], [], []
        self.feed(text)
        self.close()
        self.faults += [f"never closed: {tag}" for tag in self.stack]

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if len(given) < len(attributes):
            self.faults.append(f"an attribute twice: {tag}")
        if identifier := given.get("id"):
            self.faults += [f"id twice: {identifier}"] * (identifier in self.ids)
            self.ids.append(identifier)
        if tag == "section":
            self.sections.append(identifier)
        if tag == "img" and not (given.get("alt") and given["src"].startswith("data:image/jpeg;base64,")):
            self.faults.append("a picture without words, or from elsewhere")
        if tag in ("script", "link", "iframe") or "http" in (given.get("href") or "")[:5]:
            self.faults.append(f"not self-contained: {tag} {given}")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.faults.append(f"closed out of order: {tag}")


def check_page(page, folder):
    "Assert that a page is whole, stands alone and tells the numbers of its records; give its text."
    text = page.read_text()
    assert len(text.encode()) < LARGEST == 3_000_000
    read = Strict(text)
    assert not read.faults and read.sections == SECTIONS
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(read.ids)
    assert not re.search(r"https?://|url\(|@import", text)
    records = {name: read_metrics(folder / name / "metrics.json") for name in ("protocols", "bias", "references")}
    told = re.findall(r'<data value="([^"]+)" data-from="(\w+) (\w+) (\w+)">([^<]+)</data>', text)
    assert len(told) == text.count("<data ") > 60
    for value, record, name, field, printed in told:
        recorded = records[record]["estimates"][name][field]
        assert float(value) == recorded and printed == f"{100 * recorded:.1f}"
    for name in records["protocols"]["estimates"]:  # every protocol is on the page
        assert name == "accuracy" or f'data-from="protocols {name} value"' in text
    assert records["protocols"]["data_fingerprint"] in text and str(TOP.parent) + "/" not in text
    return text


def test_the_parser_sees_faults():
    "The tests below rest on this."
    for bad in (
        "<p><b></p></b>",
        "<p>",
        '<p id="a"></p><p id="a"></p>',
        '<img src="x.png" alt="x">',
        "<script></script>",
    ):
        assert Strict(bad).faults, bad
    assert not Strict('<p id="a">one<br>two</p><svg><rect x="1"/></svg>').faults


@pytest.fixture(scope="module")
def ours(module_work, kernel, tmp_path_factory):
    "The page about a smoke run on the embedded set; its folder."
    place = tmp_path_factory.mktemp("ours")
    changes = {"linear": ["logistic", "best_test_epoch"], "epochs": 1, "clips": 2}
    run = smoke_run(place / "run")
    page = report_encoder(run, changes=changes, folder=place / "report", kernel=kernel, progress=False)
    return page, place / "report"


def test_a_run_of_ours(ours):
    text = check_page(*ours)
    assert "Where the decoder looks" in text and "<code>best_test_epoch</code> chooses its epoch" in text
    assert "not known here" not in text and "true masks of the generated videos" in text
    chance = json.loads((ours[1] / "references" / "metrics.json").read_text())["chance"]["largest_class"]
    assert f"right for {100 * chance:.1f}." in text


@pytest.fixture(scope="module")
def anothers(module_work, tmp_path_factory):
    "A plain state dict of R(2+1)D, imported; a folder of squares that move along one axis or the other."
    place = tmp_path_factory.mktemp("anothers")
    torch.manual_seed(0)
    state = build_encoder("r2plus1d_18").state_dict() | {
        "fc.weight": torch.zeros(400, 512),
        "fc.bias": torch.zeros(400),
    }
    torch.save({name: value.contiguous() for name, value in state.items()}, place / "theirs.pth")
    import_checkpoint(place / "theirs.pth", place / "run", crop_size=32, frames_per_clip=4, stride=2)
    lists = {"train": [], "test": []}
    generator = np.random.default_rng(0)
    for number in range(10):
        split, axis = ("test", "train")[number >= 4], number % 2
        frames = np.repeat(generator.integers(0, 120, (1, 48, 48, 3), dtype=np.uint8), 16, axis=0)
        for time, frame in enumerate(frames):
            place_of = [16 + 2 * (number // 2 % 2), 8 + time]
            row, column = place_of[::-1] if axis else place_of
            frame[row : row + 12, column : column + 12] = 230
        name = f"{('across', 'down')[axis]}/{number}.mp4"
        (place / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(frames, place / "videos" / name)
        lists[split].append(f"{name} {axis + 1}")
    for split, lines in lists.items():
        (place / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return place


def words_for(place, *more):
    lists = ("--train-list", place / "train.txt", "--test-list", place / "test.txt")
    return ("report", place / "run", "--videos", place / "videos", *lists, *more)


def test_anothers_weights(call, anothers):
    "By the command, from a file of another's to a page; its recipe names no folder of this machine."
    page = anothers / "pages" / "page.html"
    done = call(*words_for(anothers, "--quick", "--change", "clips=1", "--folder", anothers / "report", "--file", page))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(page)
    text = check_page(page, anothers / "report")
    assert str(anothers) not in text and "not known here" in text and "Where the decoder looks" not in text
    assert "no comparison can be told apart, whatever its size" in text  # of 16 sign patterns none is rare enough
    assert "median masks" in text and "4 groups of test videos" in text and "fc.weight" in text
    again = call(*words_for(anothers, "--change", "linear=[paper]"))
    check_refusal(again, "linear must name logistic")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, {"width": 1200, "height": 800}], ids=lambda size: f"{size['width']}px")
def test_the_page_opens_without_a_fault(browser, ours, size, scheme):  # noqa: F811
    "Nothing to load, no picture missing, no words too small, and no scrolling sideways but inside tables."
    tab, faults = visit(browser, ours[0], size, scheme)
    assert not faults
    tab.close()


@pytest.mark.parametrize(
    "words, said",
    [
        (["/nowhere"], "nowhere"),
        ([TOP / "tests"], "holds no finished encoder"),
        ([TOP / "tests", "--change", "linear"], "--change must look like name=value"),
    ],
    ids=str,
)
def test_a_bad_call_is_one_line(call, words, said):
    check_refusal(call("report", *words), said)
