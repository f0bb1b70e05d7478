"""Data cards: official lists are counted exactly, sections are alike, and writing them again changes nothing."""

import json
import re
import shutil

import cv2
import numpy as np
import pandas as pd
import papermill
import pytest
import yaml

from fima.data.sets.card_facts import CARD_FACTS
from fima.data.sets.cards import (
    checksum,
    count_rows,
    leakage,
    official_rows,
    save_picture,
    typical_and_atypical,
    write_card,
)
from fima.data.sets.datasets import data_set
from helpers import TOP, shared_data

CARDS = TOP / "data_cards"
NOTEBOOK = TOP / "nbs" / "results" / "data_cards.ipynb"
SECTIONS = [
    "A row",
    "Counts",
    "Split and leakage",
    "Examples",
    "Decoding and resizing done",
    "Consent and bias",
    "Unfit uses",
    "How to get it",
]


def each_card():
    return pytest.mark.parametrize("name", [*CARD_FACTS, "motion_sprites"])


@pytest.fixture
def lists():
    "Folder of the official split lists."
    return shared_data("splits")


# -- the cards in the repository ---------------------------------------------------------------------------------------


@each_card()
def test_a_card_has_front_matter_and_every_section(name):
    text = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    front, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", text, re.S).groups()
    assert {key for key, value in yaml.safe_load(front).items() if value} == {
        "name",
        "version",
        "licence",
        "paper",
        "url",
        "checksum",
    }
    headings = [re.match(r"[^(]*", heading)[0].strip() for heading in re.findall(r"^## (.*)", body, re.M)]
    assert headings == SECTIONS
    assert all(part.strip() for part in re.split(r"^## .*", body, flags=re.M))


@each_card()
def test_the_picture_of_a_card_is_there_and_small(name):
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", (CARDS / f"{name}.md").read_text(encoding="utf-8")):
        assert (CARDS / picture).stat().st_size <= 150_000
        assert cv2.imread(str(CARDS / picture)).std() > 10


@pytest.mark.parametrize("name", list(CARD_FACTS))
def test_official_numbers_are_marked_and_sourced(name):
    text = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    assert "| official, not computed here | value | source |" in text
    for what, value, source in CARD_FACTS[name].official:
        assert f"| {what} | {value} | {source} |" in text


# -- what the lists tell -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "diving48"])
def test_a_card_tells_the_official_counts(name, lists):
    splits = official_rows(name, lists / name)
    text = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    assert checksum(splits) in text
    for number, (rows, counts) in enumerate(zip(splits, data_set(name).counts.values(), strict=True), 1):
        assert tuple(count_rows(rows).videos[["train", "test"]]) == counts
        for side, count in zip(("train", "test"), counts, strict=True):
            assert f"| {number} | {side} | {count:,} |" in text


def test_leakage_of_the_official_lists(lists):
    for name in ("ucf101", "diving48"):
        for rows in official_rows(name, lists / name):
            assert leakage(rows) == dict(shared=0, test_videos=0, same_class=0)
    films = [leakage(rows) for rows in official_rows("hmdb51", lists / "hmdb51")]
    assert [film["shared"] for film in films] == [133, 149, 144] and [film["same_class"] for film in films] == [0, 0, 0]
    by_part = [leakage(rows, CARD_FACTS["hmdb51"].part) for rows in official_rows("hmdb51", lists / "hmdb51")]
    assert [found["same_class"] for found in by_part] == [78, 93, 105]


def test_leakage_agrees_with_a_loop(lists):
    rows = official_rows("hmdb51", lists / "hmdb51")[1]
    trained = rows[rows.split == "train"].group.unique().tolist()
    videos = sum(row.group in trained for row in rows[rows.split == "test"].itertuples())
    assert leakage(rows)["test_videos"] == videos == 527


def test_checksum_sees_what_matters():
    rows = pd.DataFrame([("a.mp4", "run", "train"), ("b.mp4", "sit", "test")], columns=["path", "class", "split"])
    assert checksum([rows]) == checksum([rows[::-1]])
    for column in rows:
        assert checksum([rows.assign(**{column: "other"})]) != checksum([rows])
    assert checksum([rows, rows]) != checksum([rows])


# -- examples and pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column, value", [("seconds", 60.0), ("width", 4000), ("height", 20), ("fps", 120.0)])
def test_whatever_differs_most_is_atypical(column, value):
    rng = np.random.default_rng(0)
    files = pd.DataFrame(
        dict(
            path=[f"{n:02d}" for n in range(30)],
            seconds=rng.uniform(4, 6, 30),
            width=rng.integers(300, 340, 30),
            height=rng.integers(220, 260, 30),
            fps=rng.choice([25.0, 30.0], 30),
        )
    )
    files.loc[17, column] = value
    typical, atypical = typical_and_atypical(files.sample(frac=1, random_state=3))
    assert atypical == "17" and typical != "17"


def test_a_picture_is_written_once(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert save_picture(picture, tmp_path / "a.png")
    assert (cv2.imread(str(tmp_path / "a.png"))[..., ::-1] == picture).all()
    assert not save_picture(picture, tmp_path / "a.png")
    assert save_picture(picture[::-1], tmp_path / "a.png")
    assert save_picture(picture[:10], tmp_path / "a.png")


def test_a_card_of_an_unknown_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="name must be one of"):
        write_card("imagenet", tmp_path)
    assert not list(tmp_path.iterdir())


# -- the notebook that writes them -------------------------------------------------------------------------------------


def run(tmp_path, cards):
    "Execute the notebook, cells with real data included, and return what it printed."
    done = papermill.execute_notebook(
        NOTEBOOK, tmp_path / "done.ipynb", parameters=dict(cards=str(cards)), cwd=tmp_path, progress_bar=False
    )
    return "".join(output.get("text", "") for cell in done.cells for output in cell.get("outputs", []))


def contents(folder):
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(folder.iterdir())}


def test_without_data_the_notebook_writes_nothing(tmp_path, monkeypatch):
    for folder in ("empty", "cards"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("FIMA_DATA", str(tmp_path / "empty"))
    said = run(tmp_path, tmp_path / "cards")
    assert not list((tmp_path / "cards").iterdir())
    for name in CARD_FACTS:
        assert f"{name} is not here" in said


def test_with_data_the_notebook_changes_no_card(lists, tmp_path):
    shared_data("videos/ut_interaction")
    shutil.copytree(CARDS, tmp_path / "cards")
    before = contents(tmp_path / "cards")
    run(tmp_path, tmp_path / "cards")
    assert contents(tmp_path / "cards") == before


def test_with_data_the_notebook_writes_every_card_anew(lists, tmp_path):
    shared_data("videos/ut_interaction")
    run(tmp_path, tmp_path / "cards")
    for name in CARD_FACTS:
        assert (tmp_path / "cards" / f"{name}.md").read_bytes() == (CARDS / f"{name}.md").read_bytes()


def test_cells_that_read_videos_are_marked_slow():
    sources = [
        "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    ]
    reading = [source for source in sources if 'place("videos"' in source]
    assert len(reading) == 3 and all(source.startswith("#| slow") for source in reading)
