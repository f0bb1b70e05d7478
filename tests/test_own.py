"""Videos of one's own and some classes of a known set: what is opened and refused, and that no leak slips through."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fima.data.sets.catalog import CatalogError, content_fingerprint
from fima.data.sets.check import check_data, check_own
from fima.data.sets.classes import data_title
from fima.data.sets.datasets import data_set, open_catalog
from fima.data.sets.own import ALONE, grouped_split, own_catalog
from fima.data.video.files import fingerprint, write_video
from fima.data.video.video import FrameCache, VideoFrames
from helpers import shared_data

pytestmark = pytest.mark.usefixtures("own_work")


@pytest.fixture
def five():
    "Five whole classes of UCF101."
    return shared_data("videos/ucf101_5")


def plant(folder, *paths, **texts):
    "Make files, each with bytes of its own, and lists beside them."
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(f"bytes of {path}".encode())
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture
def tree(tmp_path):
    "Two classes of four videos, and lists that fit."
    paths = [f"{name}/{name} {number}.mp4" for name in ("jump", "wave") for number in range(4)]
    return plant(
        tmp_path / "mine",
        *paths,
        train="".join(f"{path} {1 + ('wave' in path)}\n" for path in paths if path[-5] in "01"),
        test="".join(f"{path}\n" for path in paths if path[-5] in "23"),
    )


def opened(tree, **options):
    return own_catalog(tree, tree / "train.txt", tree / "test.txt", **options)


def refusal(tree, **options):
    with pytest.raises(CatalogError) as caught:
        opened(tree, **options)
    assert all(len(line) < 500 for line in str(caught.value).splitlines())
    return caught.value.problems


# -- what is opened ----------------------------------------------------------------------------------------------------

NAMES = [
    "a.mp4",
    "B 2.MOV",
    "c's, (best) #1 & more.mkv",
    "日本.webm",
    "no-class_7.avi",
    "- x.mp4",
    "x.y.z.m4v",
    "100%.mpg",
]


def test_any_names_without_lists_and_classes(tmp_path):
    catalog = own_catalog(plant(tmp_path / "mine", *NAMES, "notes.txt", ".hidden.mp4"))
    assert sorted(catalog.path) == sorted(NAMES) and set(catalog.split) == {"train"} and set(catalog.label) == {0}
    assert catalog.group.tolist() == catalog.path.tolist()
    assert catalog.attrs["groups"] == ALONE
    assert catalog.attrs["labelled"] is False
    assert catalog.attrs["folder"] == str(tmp_path / "mine")


def test_flat_lists_with_labels(tmp_path):
    lists = dict(
        train="".join(f"{name} {7 + number % 2}\n" for number, name in enumerate(NAMES[:6])),
        test=f"{NAMES[6]} 7\n{NAMES[7]} 8\n",
        names="7 tag\n8 game\n",
    )
    catalog = opened(plant(tmp_path / "mine", *NAMES, **lists))
    assert catalog.label.tolist() == [0, 1] * 4 and catalog["class"].tolist() == ["7", "8"] * 4
    (tmp_path / "mine" / "names.txt").write_text("".join(f"{number} class {number}\n" for number in range(1, 9)))
    named = opened(tmp_path / "mine", class_index=tmp_path / "mine" / "names.txt")
    assert named["class"].tolist() == ["class 7", "class 8"] * 4 and named.label.tolist() == [6, 7] * 4


def test_class_folders_with_and_without_labels(tree):
    labelled = opened(tree, groups=r"(\d)\.mp4")
    assert labelled.label.tolist() == [0, 0, 1, 1] * 2 and set(labelled.group) == {"0", "1", "2", "3"}
    (tree / "train.txt").write_text(re.sub(r" \d$", "", (tree / "train.txt").read_text(), flags=re.M))
    assert opened(tree, groups=r"(\d)\.mp4").to_dict() == labelled.to_dict()
    bare = own_catalog(tree)
    assert bare["class"].nunique() == 2 and set(bare.split) == {"train"} and bare.attrs["labelled"]
    assert opened(tree, classes=["wave", "jump"]).attrs["classes"] == (2, 2)


# -- spelling ----------------------------------------------------------------------------------------------------------

SPELLINGS = [
    "jump/./jump 0.mp4",
    "jump//jump 0.mp4",
    "jump/../jump/jump 0.mp4",
    "./jump/jump 0.mp4",
    "wave/../jump/./jump 0.mp4",
    "jump\\jump 0.mp4",
    "  jump/jump 0.mp4  ",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_leak_by_spelling_is_found(tree, spelling):
    with open(tree / "test.txt", "a") as file:
        file.write(f"{spelling}\n")
    (names,) = refusal(tree).values()
    assert names[0].startswith("jump/jump 0.mp4") and list(refusal(tree)) == ["in the training list and the test list"]
    assert spelling.strip() == "jump/jump 0.mp4" or spelling.strip() in names[0]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_doubled_row_by_spelling_is_found(tree, spelling):
    with open(tree / "train.txt", "a") as file:
        file.write(f"{spelling} 1\n")
    assert [name.split(" (")[0] for name in refusal(tree)["doubled rows"]] == ["jump/jump 0.mp4"]


@pytest.mark.parametrize("spelling", SPELLINGS[:4])
def test_named_sets_see_spelling_too(tmp_path, spelling, monkeypatch):
    monkeypatch.setenv("FIMA_DATA", str(tmp_path))
    spelling = spelling.replace("jump 0.mp4", "v_jump_g01_c01.avi")
    tree = plant(
        tmp_path / "set",
        *(f"{name}/v_{name}_g0{n}_c01.avi" for name in ("jump", "wave") for n in (1, 2)),
        classInd="1 jump\n2 wave\n",
        trainlist01="jump/v_jump_g01_c01.avi 1\nwave/v_wave_g01_c01.avi 2\n",
        testlist01=f"jump/v_jump_g02_c01.avi\nwave/v_wave_g02_c01.avi\n{spelling}\n",
    )
    with pytest.raises(CatalogError) as caught:
        open_catalog("ucf101", tree)
    assert list(caught.value.problems) == ["in the training list and the test list"]


@pytest.mark.parametrize(
    "line, kind",
    [
        ("/tmp/jump.mp4", "absolute paths"),
        ("C:\\videos\\jump.mp4", "absolute paths"),
        ("//server/jump.mp4", "absolute paths"),
        ("../jump.mp4", "paths that lead out"),
        ("jump/../../jump.mp4", "paths that lead out"),
        ("./../mine/jump/jump 0.mp4", "paths that lead out"),
        ("wave/wave 2.mp4 -1", "labels that are not whole numbers from 1"),
        (f"wave/wave 2.mp4 {'9' * 30}", "labels that are not whole numbers from 1"),
        ("wave/wave 2.mp4 1000001", "labels that are not whole numbers from 1"),
        (f"wave/wave 2.mp4 -{'9' * 30}", "labels that are not whole numbers from 1"),
        (f"wave/{'long' * 90}.mp4", "missing files"),
        ("wave/wave 2.mp4 0", "labels that count from 0"),
        ("wave/wave 2.mp4 1.5", "missing files"),
        ("7", "lines without a video path"),
        ("wave/wave 2.mp4 00", "labels that count from 0"),
    ],
)
def test_what_a_line_must_not_be(tree, line, kind):
    with open(tree / "train.txt", "a") as file:
        file.write(f"{line}\n")
    ((found, names),) = refusal(tree).items()
    assert found.startswith(kind) and len(names) == 1 and (line in names[0] or repr(line) in names[0])


def test_labels_and_classes_that_count_from_0(tree):
    (tree / "train.txt").write_text((tree / "train.txt").read_text().replace(" 1\n", " 0\n").replace(" 2\n", " 1\n"))
    ((kind, names),) = refusal(tree).items()
    assert kind == "labels that count from 0 (they must count from 1)" and len(names) == 2
    plant(tree, index="0 jump\n1 wave\n")
    with pytest.raises(CatalogError, match=r"classes numbered from 0 \(they must be numbered from 1\)"):
        opened(tree, class_index=tree / "index.txt")


@pytest.mark.parametrize("disk, listed", [("e\u0301", "\u00e9"), ("\u00e9", "e\u0301"), ("\u1112\u1161", "\ud558")])
def test_accents_composed_differently(tree, disk, listed):
    plant(tree, f"wave/caf{disk}.mp4")
    with open(tree / "train.txt", "a") as file:
        file.write(f"wave/caf{listed}.mp4 2\n")
    assert refusal(tree) == {
        "missing files": [
            f"wave/caf{listed}.mp4 (there is wave/caf{disk}.mp4, the same name with its accents composed differently)"
        ]
    }


def test_accents_of_class_folders_are_one_class(tmp_path):
    tree = plant(
        tmp_path / "mine",
        *(f"{name}/{n}.mp4" for name in ("e\u0301t", "\u00e9t", "or") for n in range(2)),
        train="e\u0301t/0.mp4 1\n\u00e9t/0.mp4 1\nor/0.mp4 2\n",
        test="e\u0301t/1.mp4 1\nor/1.mp4 2\n",
    )
    assert set(opened(tree)["class"]) == {"\u00e9t", "or"}


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda path: path.with_name("ODD.mp4").touch(), "(there is wave/ODD.mp4)"),
        (lambda path: path.with_name(" odd.mp4").touch(), "with other blanks"),
    ],
    ids=["case", "blank"],
)
def test_what_is_listed_must_be_a_file(tree, make, said):
    make(tree / "wave" / "odd.mp4")
    with open(tree / "train.txt", "a") as file:
        file.write("wave/odd.mp4 2\n")
    ((kind, (name,)),) = refusal(tree).items()
    assert kind == "missing files" and name.startswith("wave/odd.mp4") and said in name


NO_FILES = {
    "pipe": (os.mkfifo, "cannot be read: not a regular file"),
    "device": (lambda path: path.symlink_to(os.devnull), "cannot be read: not a regular file"),
    "folder": (lambda path: path.mkdir(), "cannot be read: not a regular file"),
    "loop": (lambda path: path.symlink_to(path), "cannot be read: "),
    "dead link": (lambda path: path.symlink_to("nowhere.mp4"), "no such file"),
}


@pytest.mark.parametrize("listed", [False, True], ids=["walked", "listed"])
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_by_name_and_nothing_else_is(tree, kind, listed):
    "Such an entry is never opened, which would wait for ever at a pipe; the other videos are used."
    make, reason = NO_FILES[kind]
    make(tree / "wave" / "odd.mp4")
    if listed:
        with open(tree / "train.txt", "a") as file:
            file.write("wave/odd.mp4 2\n")
    catalog = opened(tree) if listed else own_catalog(tree)
    files = check_own(catalog, minimum_frames=1, progress=False).files.set_index("path")
    assert files.status["wave/odd.mp4"] == "unreadable" and files.reason["wave/odd.mp4"].startswith(reason)
    paths = [str(tree / path) for path in catalog.path]
    for source in (
        VideoFrames.build(paths, progress=False),
        FrameCache.build(paths, tree.parent / "frames", progress=False),
    ):
        refused = source.left_out.set_index("path").reason
        assert refused[str(tree / "wave" / "odd.mp4")].startswith(reason)
        assert len(source.usable) + len(refused) == len(catalog)


def test_a_folder_of_videos_may_be_called_like_a_video(tree):
    (tree / "wave" / "set.mov").mkdir()
    (tree / "wave" / "set.mov" / "one.mp4").touch()
    assert "wave/set.mov" not in own_catalog(tree).path.tolist()


# -- content -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [shutil.copy, os.link, lambda old, new: Path(new).symlink_to(old)], ids=["copy", "hard link", "link"]
)
@pytest.mark.parametrize("name", ["wave/other.mp4", "jump/JUMP 0.mp4", "deep/er/x.avi"])
def test_a_training_video_in_the_test_list_under_another_name(tree, how, name):
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    how(tree / "jump" / "jump 0.mp4", tree / name)
    tested = (tree / "test.txt").read_text()
    if name.startswith("jump"):
        tested = tested.replace("jump/jump 2.mp4", name)
    elif name.startswith("wave"):
        tested += f"{name}\n"
    else:
        tested += f"{name} 1\n"
    plant(tree, test=tested, index="1 jump\n2 wave\n")
    with pytest.raises(CatalogError) as caught:
        opened(tree, class_index=tree / "index.txt")
    assert caught.value.problems == {
        "test videos that are also in training, byte for byte": [f"{name} is jump/jump 0.mp4"]
    }
    assert "remove one row" in str(caught.value)


def test_a_link_that_leads_out_is_followed(tree, tmp_path):
    plant(tmp_path / "elsewhere", "far.mp4")
    (tree / "jump" / "far.mp4").symlink_to(tmp_path / "elsewhere" / "far.mp4")
    with open(tree / "train.txt", "a") as file:
        file.write("jump/far.mp4 1\n")
    assert "jump/far.mp4" in set(opened(tree).path)


def test_the_content_is_part_of_the_name(tree):
    catalog, before = opened(tree), content_fingerprint(opened(tree), tree)
    assert re.fullmatch("[0-9a-f]{16}", before) and content_fingerprint(catalog[::-1], str(tree) + "/") == before
    shutil.copytree(tree, tree.with_name("copy"))
    assert content_fingerprint(catalog, tree.with_name("copy")) == before  # where it lies does not matter
    for column, value in (("path", "jump/jump 1.mp4"), ("class", "x"), ("label", 7), ("split", "test"), ("group", "x")):
        changed = catalog.copy()
        changed.loc[0, column] = value
        assert content_fingerprint(changed, tree) != before
    (tree / catalog.path[0]).write_bytes(b"other bytes")
    assert content_fingerprint(catalog, tree) != before
    (tree / catalog.path[0]).unlink()
    assert content_fingerprint(catalog, tree) == content_fingerprint(catalog.drop(0), tree)


# -- groups, classes, lists --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "groups, said",
    [
        ("(", "must be a regular expression, got '('"),
        ("a(?:b)", "must have one capture, in brackets, got 0"),
        ("(a)(b)", "got 2"),
        ("[", "must be a regular expression"),
        ("", "got 0"),
    ],
)
def test_a_bad_rule_for_groups(tree, groups, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        own_catalog(tree, groups=groups)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("groups", [r"(jump)", r"jump ?()", r"jump|(wave)"])
def test_videos_without_a_group_are_listed(tree, groups):
    with pytest.raises(CatalogError) as caught:
        own_catalog(tree, groups=groups)
    ((kind, names),) = caught.value.problems.items()
    assert repr(groups) in kind and {"wave/wave 0.mp4", "jump/jump 0.mp4"} & set(names)


def test_labels_that_contradict_the_folders(tree):
    (tree / "train.txt").write_text((tree / "train.txt").read_text().replace("jump 1.mp4 1", "jump 1.mp4 2"))
    assert refusal(tree) == {
        "labels that contradict the folders (a class index says that the labels count)": [
            "jump (labels 1, 2)",
            "label 2 (jump, wave)",
        ]
    }
    plant(tree, index="1 jump\n2 wave\n", other="1 up\n2 down\n")
    assert refusal(tree, class_index=tree / "index.txt") == {
        "listed labels that differ from the class's number": ["jump/jump 1.mp4"]
    }


@pytest.mark.parametrize("given", ["train_list", "test_list"])
def test_one_list_is_not_enough(tree, given):
    with pytest.raises(ValueError, match="given together or not at all"):
        own_catalog(tree, **{given: tree / "train.txt"})


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda folder: None, "missing folder"),
        (lambda folder: folder.mkdir(), "no video in the folder"),
        (lambda folder: folder.touch(), "missing folder"),
    ],
)
def test_a_folder_without_videos(tmp_path, make, said):
    make(tmp_path / "mine")
    with pytest.raises(CatalogError, match=said):
        own_catalog(tmp_path / "mine")


# -- a split by groups -------------------------------------------------------------------------------------------------


def many(folder, classes=3, groups=8, videos=3):
    return plant(folder, *(f"c{c}/p{g}_{n}.mp4" for c in range(classes) for g in range(groups) for n in range(videos)))


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.8])
def test_whole_groups_on_one_side_and_every_class_on_both(tmp_path, fraction):
    catalog = own_catalog(many(tmp_path / "mine"), groups=r"(p\d)_")  # people who appear in every class
    drawn = grouped_split(catalog, fraction, 3)
    assert drawn.groupby("group").split.nunique().eq(1).all() and drawn.groupby("class").split.nunique().eq(2).all()
    assert abs((drawn.split == "test").mean() - fraction) <= 0.1
    assert drawn.drop(columns="split").equals(catalog.drop(columns="split"))
    assert drawn.attrs["split"] == dict(rule="whole groups, drawn by seed", share=fraction, seed=3)


def test_a_split_depends_on_the_seed_alone(tmp_path):
    catalog = own_catalog(many(tmp_path / "mine"))
    drawn = grouped_split(catalog, seed=5)
    again = grouped_split(catalog.sample(frac=1, random_state=2), seed=5)
    assert drawn.set_index("path").split.to_dict() == again.set_index("path").split.to_dict()
    assert (grouped_split(catalog, seed=6).split != drawn.split).any()


def test_copies_stay_on_one_side(tmp_path):
    folder = many(tmp_path / "mine", groups=4, videos=1)
    for name in ("c0/p3_0.mp4", "c1/p2_0.mp4"):
        shutil.copy(folder / "c0/p0_0.mp4", folder / name)
    for seed in range(20):
        sides = grouped_split(own_catalog(folder), 0.3, seed).set_index("path").split
        assert sides[["c0/p0_0.mp4", "c0/p3_0.mp4", "c1/p2_0.mp4"]].nunique() == 1


def test_an_impossible_split_is_one_line(tmp_path):
    folder = many(tmp_path / "mine")
    with pytest.raises(
        CatalogError, match=r"cannot be on both sides of a split by groups \(3\): c0 \(24 videos in one group\)"
    ):
        grouped_split(own_catalog(folder, groups="^(c.)"))
    for fraction in (0, 1, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="share must lie between 0 and 1"):
            grouped_split(own_catalog(folder), fraction)
    with pytest.raises(ValueError, match="seed must be"):
        grouped_split(own_catalog(folder), seed=-1)


def test_unlabelled_videos_can_be_split(tmp_path):
    drawn = grouped_split(own_catalog(plant(tmp_path / "mine", *NAMES)), 0.25, 0)
    assert drawn.split.value_counts().to_dict() == {"train": 6, "test": 2}


# -- some classes of a known set ---------------------------------------------------------------------------------------


def cut_of(name, **options):
    catalog = open_catalog(name, **options)
    return data_title(name, *catalog.attrs["classes"]), catalog


@pytest.fixture
def hmdb(tmp_path, monkeypatch):
    monkeypatch.setenv("FIMA_DATA", str(tmp_path))
    folder = plant(tmp_path / "hmdb", *(f"{name}/film{n}_{name}_x_{n}.avi" for name in ("hug", "kick") for n in (1, 2)))
    for name in ("hug", "jump", "kick"):
        (folder / f"{name}_test_split1.txt").write_text(f"film1_{name}_x_1.avi 1\nfilm2_{name}_x_2.avi 2\n")
    return folder


def test_a_refusal_names_the_way_out(hmdb):
    with pytest.raises(CatalogError) as caught:
        open_catalog("hmdb51", hmdb)
    way_out = "to go on with the 2 classes that are here: --classes present, or by name: --classes hug,kick"
    assert str(caught.value).splitlines()[-1].strip() == way_out
    title, catalog = cut_of("hmdb51", folder=hmdb, classes="present")
    assert title == "hmdb51, 2 of 51 classes"
    assert catalog.label.tolist() == [0, 0, 1, 1]
    assert catalog["class"].tolist() == ["hug", "hug", "kick", "kick"]
    checked = check_data("hmdb51", hmdb, classes=["hug", "kick"], progress=False)
    assert "hmdb51, 2 of 51 classes" in str(checked)
    assert "published" not in str(checked)
    assert checked.counts.unreadable.tolist() == [2, 2]


@pytest.mark.parametrize(
    "classes, said",
    [
        (["hug", "kik"], "got 'kik' (did you mean kick?)"),
        (["hug"], "two or more, got hug"),
        (["hug", "hug"], "once each, got hug again"),
        ([], "two or more, got none"),
        ("hug", "two or more, got hug"),
    ],
)
def test_bad_classes_are_one_line(hmdb, classes, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        open_catalog("hmdb51", hmdb, classes=classes)
    assert len(str(caught.value).splitlines()) == 1


def test_kinetics_and_diving_can_be_cut(tmp_path, monkeypatch):
    monkeypatch.setenv("FIMA_DATA", str(tmp_path))
    rows = [(name, f"{name[0]}{n}bcdefgh", n) for name in ("archery", "yoga", "bowling") for n in (1, 2)]
    kinetics = plant(tmp_path / "k", *(f"{video}_000001_000011.mp4" for name, video, _ in rows if name != "bowling"))
    for split, number in (("train", 1), ("val", 2)):
        (kinetics / f"{split}.csv").write_text(
            "label,youtube_id,time_start,time_end,split\n"
            + "".join(f"{name},{video},1,11,{split}\n" for name, video, n in rows if n == number)
        )
    title, catalog = cut_of("kinetics400", folder=kinetics, classes="present")
    assert title == "kinetics400, 2 of 400 classes"
    assert catalog.groupby("class").label.first().to_dict() == {"archery": 0, "yoga": 1}
    assert catalog.attrs["missing"] == []
    diving = plant(tmp_path / "d", *(f"v{n}_00001.mp4" for n in range(4)))
    (diving / "Diving48_vocab.json").write_text(json.dumps([["A", "x"], ["B", "x"], ["C", "x"]]))
    for split, first in (("train", 0), ("test", 2)):
        dives = [
            dict(vid_name=f"v{first}_00001", label=0),
            dict(vid_name=f"v{first + 1}_00001", label=2),
            dict(vid_name=f"w{first}_00001", label=1),
        ]
        (diving / f"Diving48_V2_{split}.json").write_text(json.dumps(dives))
    title, catalog = cut_of("diving48", folder=diving, classes=["C_x", "A_x"])
    assert title == "diving48, 2 of 48 classes" and catalog.label.tolist() == [0, 1, 0, 1]


def test_five_classes_by_every_door(five):
    official = five.parent.parent / "splits" / "ucf101"
    own_set = {split: open_catalog("ucf101_5", five, split) for split in (1, 2, 3)}
    counts = {
        split: tuple(int((catalog.split == side).sum()) for side in ("train", "test"))
        for split, catalog in own_set.items()
    }
    assert counts == data_set("ucf101_5").counts == {1: (443, 178), 2: (445, 176), 3: (453, 168)}
    names = sorted(set(own_set[1]["class"]))
    doors = [cut_of("ucf101", folder=five, classes="present"), cut_of("ucf101", folder=five)]
    if official.is_dir():
        doors += [
            cut_of("ucf101", folder=five, lists=official, classes=classes) for classes in ("present", names[::-1])
        ]
    for title, catalog in doors:
        assert title == "ucf101, 5 of 101 classes"
        assert catalog.sort_values("path").to_dict("list") == own_set[1].sort_values("path").to_dict("list")
    assert own_set[1].groupby("class").group.nunique().tolist() == [25] * 5
    mine = own_catalog(
        five,
        five / "splits" / "trainlist01.txt",
        five / "splits" / "testlist01.txt",
        r"(v_[^/]+_g\d+)_c",
        five / "classInd.txt",
    )
    assert mine.sort_values("path").to_dict("list") == own_set[1].sort_values("path").to_dict("list")
    assert (
        content_fingerprint(mine, five)
        == content_fingerprint(own_set[1], five)
        != content_fingerprint(own_set[2], five)
    )


def test_the_listed_digests_are_the_fingerprints(five):
    table = pd.read_csv(five / "videos.csv")
    for row in table.iloc[::60].itertuples():
        assert row.sha256.startswith(fingerprint(five / row.file))


def test_the_refusal_for_96_missing_classes(five):
    official = five.parent.parent / "splits" / "ucf101"
    if not official.is_dir():
        pytest.skip("official lists not here")
    with pytest.raises(CatalogError) as caught:
        open_catalog("ucf101", five, lists=official)
    assert len(caught.value.problems["classes of the lists that are not in the folder"]) == 96
    names = "BrushingTeeth,CuttingInKitchen,JumpingJack,Lunges,WallPushups"
    assert f"--classes present, or by name: --classes {names}" in str(caught.value)


# -- a set of somebody else --------------------------------------------------------------------------------------------

PLUGIN = """
import pandas as pd
from fima.data.sets.datasets import DataSet
from fima.data.sets.lists import check_table
from fima.plugins import DATA_SETS, register_data_set

@register_data_set("toy", splits=2)
def toy(folder, split):
    names = sorted(path.name for path in folder.glob("*.mp4"))
    sides = ["test" if name[1] == str(split) else "train" for name in names]
    rows = [(name, "ab".index(name[0]), name[0], side, name) for name, side in zip(names, sides, strict=True)]
    return pd.DataFrame(rows, columns=["path", "label", "class", "split", "group"])

PLAYED = DataSet(lambda lists, split: check_table(toy(lists, split), "played"), classes=4, counts={1: (9, 9)})
DATA_SETS.add("played", f"{__name__}:PLAYED")

@register_data_set("wrong")
def wrong(folder, split): return toy(folder, split).assign(label=["0", "1", "-1", "9" * 30, "x", "0"])
"""

USED = """
import sys
from fima.data.sets.catalog import CatalogError
from fima.data.sets.check import check_data
from fima.data.sets.classes import data_title
from fima.data.sets.datasets import open_catalog
for name, split in (("toy", 1), ("toy", 2), ("played", 1)):
    catalog = open_catalog(name, sys.argv[1], split)
    print(data_title(name, *catalog.attrs["classes"]), catalog.path[catalog.split == "test"].tolist())
print(str(check_data("toy", sys.argv[1], progress=False)).splitlines()[0].split(":")[0])
for name, split in (("toy", 3), ("wrong", 1), ("toi", 1)):
    try: open_catalog(name, sys.argv[1], split)
    except ValueError as error: print(" ".join(str(error).split()))
"""


def test_a_data_set_of_somebody_else(tmp_path):
    plant(tmp_path / "mine", *(f"{name}{number}.mp4" for name in "ab" for number in (1, 2, 3)))
    (tmp_path / "more.py").write_text(PLUGIN)
    done = subprocess.run(
        [sys.executable, "-c", USED, str(tmp_path / "mine")],
        capture_output=True,
        text=True,
        env=os.environ | {"FIMA_PLUGINS": str(tmp_path / "more.py")},
    )
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "toy ['a1.mp4', 'b1.mp4']",
        "toy ['a2.mp4', 'b2.mp4']",
        "played, 2 of 4 classes ['a1.mp4', 'b1.mp4']",
        "toy, split 1",
    ], done.stderr
    assert "split must be 1 to 2 for toy (1): got 3" in lines[4]
    assert "labels that are not whole numbers from 0 to 999,999 (3)" in lines[5]
    assert "did you mean toy?" in lines[6]


# -- the check ---------------------------------------------------------------------------------------------------------


def test_a_check_of_ones_own(tmp_path):
    folder = tmp_path / "mine"
    for name in ("run/anna 1", "run/ben 1", "sit/anna 2", "sit/carla 1"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(
            np.random.default_rng(len(name)).integers(0, 255, (33, 16, 16, 3)).astype(np.uint8), folder / f"{name}.mp4"
        )
    shutil.copy(folder / "run/anna 1.mp4", folder / "run/anna 3.mp4")
    (folder / "sit/carla 2.mp4").write_bytes(b"")
    checked = check_own(own_catalog(folder, groups=r"/(\w+) "), progress=False)
    assert checked.counts.loc["train"].to_dict() == dict(usable=5, short=0, unreadable=1, missing=0, doubled=0)
    assert not checked.sound
    assert checked.remarks["groups"] == [r"3 by /(\w+) "]
    assert "run/anna 3.mp4 is run/anna 1.mp4" in str(checked)
    assert "no test videos" in checked.remarks
    bare = check_own(own_catalog(folder, classes=["run", "sit"]), progress=False)
    assert bare.remarks["groups"] == [ALONE] and bare.title == "mine"
