"""Real data sets in their distributors' layouts: small videos under the real names; and a check that is killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fima.data.sets import check
from fima.data.sets.catalog import CatalogError
from fima.data.sets.check import check_data
from fima.data.sets.datasets import DATA_SETS, data_set, find_videos, locate, open_catalog, read_lists
from fima.data.video.files import write_video
from helpers import shared_data


@pytest.fixture(scope="session")
def tiny_video(tmp_path_factory):
    "One real H.264 file of 33 frames."
    path = tmp_path_factory.mktemp("tiny") / "tiny.mp4"
    write_video(np.random.default_rng(0).integers(0, 255, (33, 16, 16, 3)).astype(np.uint8), path)
    return path


@pytest.fixture
def plant(tiny_video, tmp_path):
    "Put the tiny video under many names of a tree (as links of one file), and text files beside them."

    def plant(paths, texts=None, top=tmp_path):
        for folder in {(top / path).parent for path in paths}:
            folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            os.link(tiny_video, top / path)
        for name, text in (texts or {}).items():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_text(text)
        return top

    return plant


@pytest.fixture(autouse=True)
def no_lists_elsewhere(monkeypatch, tmp_path_factory, request):
    "Hand-written trees must not find the official lists of this machine."
    if "official" not in request.fixturenames:
        monkeypatch.setenv("FIMA_DATA", str(tmp_path_factory.mktemp("empty")))


@pytest.fixture
def official():
    "Folder of the official split lists."
    return shared_data("splits")


def refusal(name, folder, **options):
    with pytest.raises(CatalogError) as caught:
        open_catalog(name, folder, **options)
    return caught.value.problems


def sizes(catalog):
    return tuple(int((catalog.split == split).sum()) for split in ("train", "test"))


# -- hand-written lists ------------------------------------------------------------------------------------------------

UCF = [
    f"{name}/v_{video}_g{group:02d}_c01.avi"
    for name, video in (("Archery", "Archery"), ("HandstandPushups", "HandStandPushups"))
    for group in (1, 8, 9)
]
UCF_LISTS = {
    "classInd.txt": "1 Archery\n2 HandstandPushups\n",
    "trainlist01.txt": "".join(f"{path} {1 + path.startswith('H')}\r\n" for path in UCF if "_g01" not in path),
    "testlist01.txt": "".join(f"{path}\n" for path in UCF if "_g01" in path),
}


def under(prefix, texts):
    return {f"{prefix}{name}": text for name, text in texts.items()}


UCF_LAYOUTS = {
    "class folders": lambda path: path,
    "as unpacked": lambda path: f"UCF-101/{path}",
    "videos": lambda path: f"videos/{path}",
    "flat": lambda path: path.rpartition("/")[2],
    "other case": lambda path: f"UCF-101/{path}".replace("HandstandPushups", "HandStandPushups"),
    "file in other case": lambda path: path.replace("v_HandStandPushups", "v_HandstandPushups"),
    "re-encoded": lambda path: f"UCF-101/{path}".replace(".avi", ".mp4"),
    "shouting": lambda path: path.replace(".avi", ".AVI"),
}


@pytest.mark.parametrize("layout", UCF_LAYOUTS)
def test_ucf101_layouts(plant, layout):
    move = UCF_LAYOUTS[layout]
    tree = plant([move(path) for path in UCF], under("ucfTrainTestlist/", UCF_LISTS))
    catalog = open_catalog("ucf101", tree)
    assert sizes(catalog) == (4, 2)
    assert catalog.attrs["missing"] == []
    assert catalog.attrs["name"] == "ucf101"
    assert catalog.attrs["folder"] == str(tree)
    listed = [path for path in UCF if "_g01" not in path] + [path for path in UCF if "_g01" in path]
    assert catalog.path.tolist() == [move(path) for path in listed]
    assert catalog.label.tolist() == [0, 0, 1, 1, 0, 1] and catalog["class"].tolist()[-1] == "HandstandPushups"
    assert catalog.group.tolist()[2] == "v_HandStandPushups_g08"
    assert catalog.attrs["renamed"] == {path: move(path) for path in listed if not move(path).endswith(path)}


@pytest.mark.parametrize("place", ["", "ucfTrainTestlist/", "splits/", "annotations/", "../ucfTrainTestlist/"])
def test_ucf101_lists_are_found(plant, tmp_path, place):
    tree = plant(UCF, under(place, UCF_LISTS), tmp_path / "UCF-101")
    assert sizes(open_catalog("ucf101", tree)) == (4, 2)


def test_lists_elsewhere_and_in_the_data_root(plant, tmp_path, monkeypatch):
    tree = plant(UCF, under("../elsewhere/ucfTrainTestlist/", UCF_LISTS), tmp_path / "videos")
    problems = refusal("ucf101", tree)
    assert problems["missing list of split 1 of ucf101"] == ["trainlist01.txt"]
    assert str(tree) in problems["say where it is with lists=; looked in"]
    for lists in ("elsewhere", "elsewhere/ucfTrainTestlist"):
        assert sizes(open_catalog("ucf101", tree, lists=tmp_path / lists)) == (4, 2)
    assert refusal("ucf101", tree, lists=tmp_path / "none") == {"missing folder": [str(tmp_path / "none")]}
    (tmp_path / "root" / "splits").mkdir(parents=True)
    (tmp_path / "elsewhere" / "ucfTrainTestlist").rename(tmp_path / "root" / "splits" / "ucf101")
    monkeypatch.setenv("FIMA_DATA", str(tmp_path / "root"))
    assert sizes(open_catalog("ucf101", tree)) == (4, 2)
    # what the caller names is not searched around
    assert "missing list of split 1 of ucf101" in refusal("ucf101", tree, lists=tmp_path / "elsewhere")


HMDB = {
    "kick": {
        "The_Film_kick_f_cm_np1_le_med_0.avi": 1,
        "The_Film_kick_f_cm_np1_le_med_1.avi": 2,
        "#20_Rhythm_kick_u_nm_np1_fr_goo_3.avi": 0,
    },
    "kick_ball": {"a[1]&b;c_kick_ball_f_cm_np1_le_med_0.avi": 1, "(d)!_kick_ball_f_nm_np1_ba_bad_12.avi": 2},
}
HMDB_LISTS = {
    f"{name}_test_split1.txt": "".join(f"{video} {mark} \n" for video, mark in videos.items())
    for name, videos in HMDB.items()
}


@pytest.mark.parametrize(
    "place",
    [
        "",
        "testTrainMulti_7030_splits/",
        "test_train_splits/testTrainMulti_7030_splits/",
        "../testTrainMulti_7030_splits/",
    ],
)
@pytest.mark.parametrize("top", ["", "videos/", "hmdb51_org/"])
def test_hmdb51_layouts(plant, tmp_path, place, top):
    tree = plant(
        [f"{top}{name}/{video}" for name, videos in HMDB.items() for video in videos],
        under(place, HMDB_LISTS),
        tmp_path / "hmdb51",
    )
    catalog = open_catalog("hmdb51", tree)
    assert sizes(catalog) == (2, 2) and catalog.label.tolist() == [0, 0, 1, 1]
    assert catalog.group.tolist() == ["The_Film", "The_Film", "a[1]&b;c", "(d)!"]
    assert check_data("hmdb51", tree, progress=False).unlisted == 0  # the unused one is known


def test_hmdb51_lists_that_do_not_fit(plant, tmp_path):
    paths = [f"{name}/{video}" for name, videos in HMDB.items() for video in videos if "#20" not in video]
    tree = plant(paths, HMDB_LISTS | {"hug_test_split2.txt": "x_hug_u_nm_np2_fr_goo_0.avi 2\n"})
    # a missing unused video is no problem
    assert refusal("hmdb51", tree) == {"classes that have a list for another split only": ["hug"]}
    (tree / "hug_test_split2.txt").unlink()
    (tree / "kick_test_split1.txt").write_text(
        "The_Film_kick_f_cm_np1_le_med_0.avi 1\nThe_Film_kick_f_cm_np1_le_med_1.avi 1\n"
    )
    assert sizes(open_catalog("hmdb51", tree)) == (3, 1)
    (tree / "kick_test_split1.txt").write_text("The_Film_kick_f_cm_np1_le_med_0.avi 4\n")
    assert refusal("hmdb51", tree) == {
        "lines without a video and a mark 0, 1 or 2": ["line 1 'The_Film_kick_f_cm_np1_le_med_0.avi 4'"]
    }


KINETICS = {
    "train": [
        ("air drumming", "-a0_bcdefgh", 2),
        ("passing American football (in game)", "BbBbBbBbBbB", 1205),
        ("air drumming", "bbbbbbbbbbb", 1205),
    ],
    "val": [("air drumming", "valid_eo-00", 0), ("passing American football (in game)", "valid_eo-01", 7)],
}
KINETICS_LISTS = {
    f"{split}.csv": "label,youtube_id,time_start,time_end,split,is_cc\n"
    + "".join(f"{label},{video},{start},{start + 10},{split},0\n" for label, video, start in rows)
    for split, rows in KINETICS.items()
}
KINETICS_LAYOUTS = {
    "class folders": lambda split, label, file: f"{split}/{label}/{file}",
    "underscores": lambda split, label, file: f"{split}/{label.replace(' ', '_')}/{file}",
    "mmaction": lambda split, label, file: f"videos_{split}/{label.replace(' ', '_')}/{file}",
    "mirror": lambda split, label, file: f"{split}/{file}",
    "flat": lambda split, label, file: file,
    "re-encoded": lambda split, label, file: f"{split}/{file.replace('.mp4', '.mkv')}",
}


def kinetics_files(move):
    return {
        split: [move(split, label, f"{video}_{start:06d}_{start + 10:06d}.mp4") for label, video, start in rows]
        for split, rows in KINETICS.items()
    }


@pytest.mark.parametrize("place", ["", "annotations/"])
@pytest.mark.parametrize("layout", KINETICS_LAYOUTS)
def test_kinetics_layouts(plant, layout, place):
    files = kinetics_files(KINETICS_LAYOUTS[layout])
    tree = plant(sum(files.values(), []), under(place, KINETICS_LISTS))
    catalog = open_catalog("kinetics400", tree)
    assert sizes(catalog) == (3, 2) and catalog.path.tolist() == files["train"] + files["val"]
    # ids that differ only in case
    assert catalog.label.tolist() == [0, 1, 0, 0, 1] and catalog.group.tolist()[1:3] == ["BbBbBbBbBbB", "bbbbbbbbbbb"]


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "validate.csv"),
        ("kinetics_train.csv", "kinetics_val.csv"),
        ("kinetics-400_train.csv", "kinetics-400_val.csv"),
        ("k400_train.csv", "k400_val.csv"),
    ],
)
def test_kinetics_names_of_lists(plant, names):
    tree = plant(
        sum(kinetics_files(KINETICS_LAYOUTS["mirror"]).values(), []),
        dict(zip(names, KINETICS_LISTS.values(), strict=True)),
    )
    assert sizes(open_catalog("kinetics400", tree)) == (3, 2)


def test_kinetics_missing_videos_are_dropped_and_counted(plant):
    files = kinetics_files(KINETICS_LAYOUTS["mirror"])
    tree = plant(files["train"][:2] + files["val"], KINETICS_LISTS)
    catalog = open_catalog("kinetics400", tree)
    assert sizes(catalog) == (2, 2) and catalog.attrs["missing"] == ["bbbbbbbbbbb_001205_001215.mp4"]
    assert refusal("kinetics400", tree, missing="refuse") == {"missing videos": ["bbbbbbbbbbb_001205_001215.mp4"]}
    checked = check_data("kinetics400", tree, progress=False)
    assert checked.counts.loc["train"].to_dict() == dict(usable=2, short=0, unreadable=0, missing=1, doubled=0)
    assert checked.sound
    for path in files["val"]:
        (tree / path).unlink()
    assert refusal("kinetics400", tree) == {"splits without a row": ["test"]}  # an empty split is refused even so
    (tree / files["train"][1]).unlink()
    assert refusal("kinetics400", tree) == {
        "classes of the lists that are not in the folder": ["passing American football (in game) (2 videos)"]
    }


def test_kinetics_mirror_arranged_by_class_with_replacements(plant):
    "The mirror's own script links files into class folders of the same tree, and takes replacements for broken ones."
    files = kinetics_files(KINETICS_LAYOUTS["mirror"])
    replacement = "replacement/replacement_for_corrupted_k400/BbBbBbBbBbB_001205_001215.mp4"
    tree = plant(sum(files.values(), []) + [replacement], under("annotations/", KINETICS_LISTS))
    for split, rows in KINETICS.items():
        for (label, *_), path in zip(rows, files[split], strict=True):
            link = tree / "videos" / split / label / Path(path).name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(tree / (replacement if "BbBbB" in path else path))
    expected = files["train"] + files["val"]
    expected[1] = replacement
    assert open_catalog("kinetics400", tree).path.tolist() == expected
    arranged = open_catalog("kinetics400", tree / "videos", lists=tree / "annotations")
    assert arranged.path.tolist()[0] == "train/air drumming/-a0_bcdefgh_000002_000012.mp4"


DIVING_LISTS = {
    "Diving48_vocab.json": json.dumps(
        [
            ["Back", "15som", "05Twis", "FREE"],
            ["Inward", "25som", "NoTwis", "PIKE"],
            ["Forward", "Dive", "NoTwis", "PIKE"],
        ]
    ),
    "Diving48_V2_train.json": json.dumps(
        [dict(vid_name=f"-mm_0PT-u8k_0000{n}", label=2 * (n % 2), start_frame=0, end_frame=48) for n in range(4)]
    ),
    "Diving48_V2_test.json": json.dumps(
        [dict(vid_name=f"8qRmKunCjtY_0000{n}", label=2 * n, start_frame=0, end_frame=48) for n in range(2)]
    ),
}
DIVES = [f"-mm_0PT-u8k_0000{n}.mp4" for n in range(4)] + [f"8qRmKunCjtY_0000{n}.mp4" for n in range(2)]


@pytest.mark.parametrize("place", ["", "annotations/", "labels/"])
@pytest.mark.parametrize("top", ["", "rgb/", "videos/"])
def test_diving48_layouts(plant, top, place):
    tree = plant([top + path for path in DIVES], under(place, DIVING_LISTS))
    catalog = open_catalog("diving48", tree)
    assert sizes(catalog) == (4, 2) and catalog.path.tolist() == [top + path for path in DIVES]
    # the number is the place in the vocabulary
    assert catalog.label.tolist() == [0, 2, 0, 2, 0, 2] and catalog["class"].tolist()[1] == "Forward_Dive_NoTwis_PIKE"
    assert set(catalog.group) == {"-mm_0PT-u8k", "8qRmKunCjtY"}


def test_diving48_labels_outside_the_vocabulary(plant):
    tree = plant(
        DIVES, DIVING_LISTS | {"Diving48_vocab.json": json.dumps([["Back", "15som", "05Twis", "FREE"], ["x"]])}
    )
    assert refusal("diving48", tree) == {"unknown classes": ["label 2 outside the vocabulary of 2 (3 videos)"]}


def test_generated_set(plant):
    tree = plant(
        ["train/0.mp4", "train/1.mp4", "test/0.mp4", "test/1.mp4"],
        {
            "catalog.csv": "path,label,class,split,group,seed\n"
            + "".join(f"{split}/{n}.mp4,{n},c{n},{split},{split}{n},7\n" for split in ("train", "test") for n in (0, 1))
        },
    )
    catalog = open_catalog("motion_sprites", tree)  # the same name twice, in two folders
    assert catalog.path.tolist() == ["train/0.mp4", "train/1.mp4", "test/0.mp4", "test/1.mp4"]
    assert catalog.seed.tolist() == [7] * 4
    (tree / "test/1.mp4").unlink()
    assert refusal("motion_sprites", tree)["missing videos"] == ["test/1.mp4"]


# -- one error for everything ------------------------------------------------------------------------------------------


def test_a_class_without_a_folder_is_one_line(plant):
    tree = plant([path for path in UCF if "Archery" in path], UCF_LISTS)
    assert refusal("ucf101", tree) == {
        "classes of the lists that are not in the folder": ["HandstandPushups (3 videos)"]
    }


def test_wrong_folder_says_what_was_looked_for(plant):
    tree = plant(["Typing/a.avi"], UCF_LISTS)
    assert refusal("ucf101", tree) == {
        "none of the 6 listed videos is here": [f"looked for {UCF[1]}", "the folder has Typing/a.avi"]
    }
    (tree / "Typing/a.avi").unlink()
    assert refusal("ucf101", tree) == {
        "none of the 6 listed videos is here": [f"looked for {UCF[1]}", "the folder has no video"]
    }
    checked = check_data("ucf101", tree, progress=False)
    assert checked.counts.missing.tolist() == [4, 2]
    assert list(checked.problems) == ["none of the 6 listed videos is here"]
    assert not checked.sound
    assert refusal("ucf101", tree / "none") == {"missing folder": [str(tree / "none")]}


def test_everything_at_once_and_no_more_than_eight_names(plant):
    names = [f"v_Archery_g02_c{n:02d}.avi" for n in range(1, 13)]
    lists = UCF_LISTS | {
        "classInd.txt": "1 HandstandPushups\n2 Archery\n3 Typing\n",
        "trainlist01.txt": UCF_LISTS["trainlist01.txt"]
        + "".join(f"Archery/{name} 1\n" for name in names)
        + f"{UCF[0]} 1\n",
    }
    tree = plant([*UCF[:-1], "copy/" + UCF[1], UCF[-1].replace("HandstandPushups/", "Archery/")], lists)
    with pytest.raises(CatalogError) as caught:
        open_catalog("ucf101", tree)
    assert caught.value.problems == {
        "missing videos": [f"Archery/{name}" for name in names],
        "videos that are there twice": [f"{UCF[1]} ({UCF[1]}, copy/{UCF[1]})"],
        "classes with videos in another class's folder": ["HandstandPushups (1 in Archery)"],
        "in the training list and the test list": [UCF[0]],
        "classes of classInd.txt that no list names": ["Typing"],
        "classes whose label in the lists is not that of classInd.txt": [
            "Archery (1 in the lists, 2 in classInd.txt)",
            "HandstandPushups (2 in the lists, 1 in classInd.txt)",
        ],
    }
    line = next(line for line in str(caught.value).splitlines() if "missing videos" in line)
    assert line.count("v_Archery") == 8 and line.endswith(" and 4 more") and str(tree) in str(caught.value)


@pytest.mark.parametrize(
    "extra",
    [
        "copy/Archery/v_Archery_g01_c01.avi",
        "Archery/v_Archery_g01_c01.mp4",
        "archery/V_archery_g01_c01.avi",
        "v_Archery_g01_c01.webm",
    ],
    ids=["second copy", "other suffix", "other case", "flat"],
)
def test_two_files_for_one_row(plant, extra):
    tree = plant([*UCF, extra], UCF_LISTS)
    assert refusal("ucf101", tree) == {
        "videos that are there twice": [f"{UCF[0]} ({', '.join(sorted((UCF[0], extra)))})"]
    }
    checked = check_data("ucf101", tree, progress=False)
    assert checked.counts.doubled.to_dict() == {"train": 0, "test": 1}
    assert extra in str(checked)
    assert checked.unlisted == 0


@pytest.mark.parametrize(
    "change, kind",
    [
        ({"classInd.txt": "1 Archery\n2 Handstands\n"}, "unknown classes, classes of classInd.txt that no list names"),
        ({"classInd.txt": "1 Archery\n3 HandstandPushups\n"}, "classes not numbered once each from 1 without a gap"),
        ({"testlist01.txt": "\n"}, "lines without a video path"),
        (
            {
                "testlist01.txt": "".join(path + "\n" for path in UCF if "Archery/v_Archery_g01" in path),
                "trainlist01.txt": f"{UCF[1]} 1\n",
                "classInd.txt": "1 Archery\n",
            },
            "one class only",
        ),
        ({"trainlist01.txt": f"{UCF[1]} 1\n{UCF[2]} 1\n"}, "classes tested and never trained"),
        ({"trainlist01.txt": f"{Path(UCF[1]).name} 1\n"}, "paths without the folder of their class"),
        ({"trainlist01.txt": f"{UCF[1]} 1\n{UCF[1]} 1\n{UCF[4]} 2\n"}, "doubled rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_lists(plant, change, kind):
    assert ", ".join(refusal("ucf101", plant(UCF, UCF_LISTS | change))) == kind


@pytest.mark.parametrize(
    "name, lists, file",
    [
        ("ucf101", UCF_LISTS, "trainlist01.txt"),
        ("ucf101", UCF_LISTS, "classInd.txt"),
        ("hmdb51", HMDB_LISTS, "kick_test_split1.txt"),
        ("kinetics400", KINETICS_LISTS, "val.csv"),
        ("diving48", DIVING_LISTS, "Diving48_vocab.json"),
        ("diving48", DIVING_LISTS, "Diving48_V2_test.json"),
    ],
)
@pytest.mark.parametrize(
    "damage",
    [b"\x89PNG\r\n\x1a\n\xff\xfe\x00", b"\x00" * 40, "ä 1\n".encode("utf-16")],
    ids=["picture", "zeros", "utf-16"],
)
def test_a_list_that_is_no_text(plant, name, lists, file, damage):
    tree = plant(["a.mp4"], lists)
    (tree / file).write_bytes(damage)
    with pytest.raises(CatalogError, match=re.escape(str(tree / file))) as caught:
        open_catalog(name, tree)
    assert caught.value.problems == {"not a text file in UTF-8": [file]}


@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize("split", [0, 6, "1", -1])
def test_a_split_that_does_not_exist(tmp_path, name, split):
    count = data_set(name).splits
    assert refusal(name, tmp_path, split=split) == {
        f"split must be {'1' if count == 1 else f'1 to {count}'} for {name}": [f"got {split!r}"]
    }


def test_links_to_folders_are_followed_once(plant, tmp_path):
    store = plant(UCF, top=tmp_path / "disk")
    tree = plant([], under("ucfTrainTestlist/", UCF_LISTS), tmp_path / "ucf101")
    (tree / "UCF-101").symlink_to(store)
    (store / "back").symlink_to(tree)
    assert sizes(open_catalog("ucf101", tree)) == (4, 2)


def test_locate_keeps_rows_and_their_columns():
    rows = pd.DataFrame({"path": ["x/a.avi", "x/a.avi", "y/A.avi"], "weight": [1, 2, 3]}, index=[7, 8, 9])
    found = locate(rows, "nowhere", ["top/x/a.avi", "top/y/A.mp4"])
    assert found.weight.tolist() == [1, 2, 3] and found.index.tolist() == [7, 8, 9]
    assert found.status.tolist() == ["found", "found", "found"]
    assert found.found.tolist() == [
        "top/x/a.avi",
        "top/x/a.avi",
        "top/y/A.mp4",
    ]


# -- the official lists ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, top", [("ucf101", "UCF-101/"), ("hmdb51", ""), ("diving48", "rgb/")])
def test_official_counts(official, plant, name, top):
    "Every video of the set as a small real file under its real name, all splits."
    listings = {
        split: read_lists(name, official, split, official / name).rows for split in range(1, data_set(name).splits + 1)
    }
    paths = sorted(set().union(*(rows.path for rows in listings.values())))
    tree = plant([top + path for path in paths])
    assert len(find_videos(tree)) == {"ucf101": 13_320, "hmdb51": 6_766, "diving48": 16_997}[name]
    for split, counts in data_set(name).counts.items():
        catalog = open_catalog(name, tree, split)
        assert sizes(catalog) == counts
        assert not catalog.path.duplicated().any()
        assert catalog.attrs["missing"] == []
        assert catalog.attrs["renamed"] == {}
        assert catalog["class"].nunique() == data_set(name).classes - (name == "diving48")
        groups = [set(catalog.group[catalog.split == part]) for part in ("train", "test")]
        assert bool(groups[0] & groups[1]) == (name == "hmdb51")
    if name != "ucf101":
        return
    (tree / "UCF-101/HandstandPushups").rename(tree / "UCF-101/HandStandPushups")  # as some copies have it
    assert sizes(open_catalog(name, tree, 1)) == (9_537, 3_783)
    for path in (tree / "UCF-101/Archery").iterdir():
        path.unlink()
    assert refusal(name, tree, split=1) == {"classes of the lists that are not in the folder": ["Archery (145 videos)"]}


# -- the check ---------------------------------------------------------------------------------------------------------


def many(plant, count, top):
    "A UCF101 of two classes with many videos."
    paths = [
        f"{name}/v_{name}_g{group:02d}_c{n:03d}.avi"
        for name in ("Archery", "Biking")
        for group in (1, 8)
        for n in range(count // 4)
    ]
    lists = {
        "classInd.txt": "1 Archery\n2 Biking\n",
        "testlist01.txt": "".join(path + "\n" for path in paths if "_g01" in path),
        "trainlist01.txt": "".join(f"{path} {1 + path.startswith('B')}\n" for path in paths if "_g08" in path),
    }
    tree = plant(paths, lists, top)
    for path, data in ((paths[5], b""), (paths[-5], b"no video" * 50)):
        (tree / path).unlink()
        (tree / path).write_bytes(data)
    (tree / paths[9]).unlink()
    return tree


SLOWED = """
import sys, time
from fima.data.sets import check
probe = check.probe
check.probe = lambda path: (time.sleep(.02), probe(path))[1]
check.check_data("ucf101", sys.argv[1], report=sys.argv[2], progress=False)
"""


def started(tree, report):
    "Start a slow check and wait until a part of it is done."

    # a shell's background jobs are deaf to Ctrl-C, and hand that on
    def hears():
        return signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-c", SLOWED, str(tree), str(report)],
        start_new_session=True,
        stderr=subprocess.PIPE,
        preexec_fn=hears,
    )
    journal, patience = report.with_suffix(".jsonl"), time.monotonic() + 60
    while not journal.is_file() or journal.read_bytes().count(b"\n") < 30:
        assert process.poll() is None and time.monotonic() < patience, process.stderr.read().decode()
        time.sleep(0.01)
    return process, journal


def members(session):
    "Processes of a session that still run."
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.skipif(
    sys.platform != "linux", reason="a patched function reaches worker processes, and /proc is there, on Linux alone"
)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_check_that_was_stopped_goes_on(plant, tmp_path, monkeypatch, how):
    tree = many(plant, 400, tmp_path / "set")
    undisturbed = check_data("ucf101", tree, report=tmp_path / "undisturbed.csv", progress=False)
    report = tmp_path / "stopped.csv"
    process, journal = started(tree, report)
    if how == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, how)  # a terminal sends Ctrl-C to the whole group
    process.communicate()
    assert process.returncode and not report.exists()
    patience = time.monotonic() + 20
    while members(process.pid):
        assert time.monotonic() < patience
        time.sleep(0.05)  # no worker is left behind
    done = {json.loads(line)["path"] for line in journal.read_bytes().splitlines() if line}
    assert 30 <= len(done) < 399
    with open(journal, "ab") as file:
        file.write(b'{"path": "cut sh')  # a line that the kill cut short
    asked, inspect = [], check.inspect_videos

    def remembering(paths, *options):
        asked.extend(paths)
        return inspect(paths, *options)

    monkeypatch.setattr(check, "inspect_videos", remembering)
    checked = check_data("ucf101", tree, report=report, progress=False)
    assert not done & set(asked) and len(done) + len(asked) == 399
    assert report.read_bytes() == (tmp_path / "undisturbed.csv").read_bytes()
    pd.testing.assert_frame_equal(checked.files, undisturbed.files)
    assert checked.counts.to_numpy().sum() == 400
    assert checked.counts.sum().to_dict() == dict(usable=397, short=0, unreadable=2, missing=1, doubled=0)


def test_a_file_that_changed_is_opened_again(plant, tmp_path, tiny_video):
    tree = many(plant, 40, tmp_path / "set")
    report = tmp_path / "deep" / "report.csv"
    first = check_data("ucf101", tree, report=report, progress=False)
    broken = first.files.path[first.files.status == "unreadable"].tolist()
    assert len(broken) == 2 and not first.sound
    (tree / broken[0]).write_bytes(tiny_video.read_bytes())
    second = check_data("ucf101", tree, report=report, progress=False)
    assert second.files.path[second.files.status == "unreadable"].tolist() == broken[1:]
    assert pd.read_csv(report).status.tolist() == second.files.status.tolist()


def test_short_videos_by_rule(plant, tmp_path):
    tree = plant(UCF, UCF_LISTS)
    looped, dropped = (
        check_data("ucf101", tree, minimum_frames=34, short=short, progress=False) for short in ("loop", "drop")
    )
    assert looped.counts.short.tolist() == dropped.counts.short.tolist() == [4, 2]
    assert looped.sound
    assert not dropped.sound
    assert looped.files.reason[0] == "33 frames, fewer than 34"
    assert "6 short: repeated" in str(looped)
    assert "6 short: left out" in str(dropped)
    assert check_data("ucf101", tree, minimum_frames=33, progress=False).counts.usable.tolist() == [4, 2]


def test_a_thorough_check_finds_what_a_light_one_cannot(plant, tmp_path, tiny_video):
    tree = plant(UCF, UCF_LISTS)
    data = bytearray(tiny_video.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    (tree / UCF[0]).unlink()
    (tree / UCF[0]).write_bytes(data)
    light, thorough = (
        check_data("ucf101", tree, thorough=thorough, report=tmp_path / "report.csv", progress=False)
        for thorough in (False, True)
    )
    assert light.counts.unreadable.sum() == 0
    assert thorough.files.path[thorough.files.status == "unreadable"].tolist() == [UCF[0]]
    # the better answer is kept
    assert check_data("ucf101", tree, report=tmp_path / "report.csv", progress=False).counts.unreadable.sum() == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_the_report_does_not_depend_on_the_number_of_workers(plant, tmp_path, workers):
    tree = many(plant, 80, tmp_path / "set")
    for name, count in (("one", 2), ("other", workers)):
        check_data("ucf101", tree, report=tmp_path / f"{name}.csv", workers=count, progress=False)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "other.csv").read_bytes()
    table = pd.read_csv(tmp_path / "one.csv")
    assert table.columns.tolist() == [
        "path",
        "class",
        "split",
        "status",
        "reason",
        "frames",
        "fps",
        "seconds",
        "width",
        "height",
        "codec",
    ]
    assert table[["split", "path"]].apply(tuple, axis=1).is_monotonic_increasing


def test_a_check_of_bad_lists_says_so(plant):
    tree = plant(UCF[:3] + ["x/other.mp4"], UCF_LISTS | {"classInd.txt": "1 Archery\n2 HandstandPushups\n3 Typing\n"})
    checked = check_data("ucf101", tree, progress=False)
    assert checked.problems == {
        "classes of the lists that are not in the folder": ["HandstandPushups (3 videos)"],
        "classes of classInd.txt that no list names": ["Typing"],
    }
    assert checked.unlisted == 1
    assert checked.counts.missing.tolist() == [2, 1]
    assert not checked.sound
    assert "HandstandPushups (3 videos)" in str(checked)
