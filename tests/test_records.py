"""Records are small, lose nothing, and say so where a part of them is gone."""

import json
import math
import multiprocessing
import random
import shutil
import sys

import numpy as np
import pytest

from fima.evaluation.core.record import compare_records
from fima.evaluation.core.record_format import LISTS, ROW_COLUMNS, find_list, is_packed, list_digest, lists_folder
from fima.evaluation.core.record_format import pack_column, pack_videos, unpack_column, unpack_videos
from fima.evaluation.core.record_format import read_metrics, write_metrics
from fima.report.results import load_results
from helpers import TOP, load_script

REPORTS = TOP / "reports"
RECORDS = sorted(REPORTS.glob("runs/*/*/metrics.json"))

DRAWS = {
    "bools": lambda draw: draw.random() < 0.5,
    "one": lambda draw: True,
    "bytes": lambda draw: draw.randint(-128, 127),
    "words": lambda draw: draw.randint(-(2**15), 2**15 - 1),
    "integers": lambda draw: draw.randint(-(2**31), 2**31 - 1),
    "longs": lambda draw: draw.randint(-(2**63), 2**63 - 1),
    "big": lambda draw: draw.choice([1, -1]) * draw.getrandbits(200),
    "singles": lambda draw: float(np.float32(draw.gauss(0, 1))),
    "doubles": lambda draw: draw.gauss(0, 10.0 ** draw.randint(-300, 300)),
    "zeros": lambda draw: draw.choice([0.0, -0.0]),
    "extremes": lambda draw: draw.choice([5e-324, 2.0**-149, sys.float_info.max, 3.5e38, -1e-45, math.inf, -math.inf]),
    "text": lambda draw: draw.choice(
        ["", "a/b.mp4", "Ünïcödé/Äpfel.mp4", "日本.avi", 'a "b"', "\n\t\\", "\ud83d\ude00", "i1:a"]
    ),
    "mixed": lambda draw: draw.choice([1, 1.0, True, "1", None, [1, {"a": None}]]),
}


def drawn(kind, rows, missing=0.0, seed=0):
    "A column of one kind, the same for the same seed."
    draw = random.Random(f"{kind} {rows} {missing} {seed}")
    return [None if draw.random() < missing else DRAWS[kind](draw) for _ in range(rows)]


def same(first, second):
    "Equal to the last bit, and in type and order: JSON tells 1 from 1.0 and True, and 0.0 from -0.0."
    return json.dumps(first) == json.dumps(second)


def table(rows=60, **more):
    "What an evaluation found, invented."
    return {
        "path": [f"wave/{video:02}.mp4" for video in range(rows)],
        "label": [video % 6 for video in range(rows)],
        "predicted": [video % 5 for video in range(rows)],
        "group": [f"g{video // 4}" for video in range(rows)],
        "hit_1": [video % 3 == 0 for video in range(rows)],
    } | more


def metrics_of(videos):
    "A record of these rows."
    return {
        "run": "fima-0",
        "data_set": "ut_interaction",
        "split": 1,
        "data_fingerprint": "0",
        "settings": {},
        "estimates": {"accuracy": {"value": 0.1 + 0.2}},
        "videos": videos,
        "code": "0123456789abcdef",
    }


# -- nothing is lost ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", DRAWS)
def test_a_column_returns_to_the_last_bit(kind, missing):
    for rows in (0, 1, 7, 8, 9, 64, 600):
        for seed in range(5):
            values = drawn(kind, rows, missing, seed)
            packed = json.loads(json.dumps(pack_column(values)))  # as a file keeps it
            assert same(unpack_column(packed, rows), values)
            assert len(json.dumps(packed)) <= len(json.dumps(values))


def test_the_narrowest_kind_is_taken():
    "A wider one would be exact too: this is what makes records small."
    kinds = {
        "bools": "bool",
        "bytes": "i1",
        "words": "i2",
        "integers": "i4",
        "longs": "i8",
        "big": "json",
        "singles": "f4",
        "doubles": "f8",
        "zeros": "f4",
        "mixed": "json",
    }
    assert {kind: pack_column(drawn(kind, 600)).split(":")[0] for kind in kinds} == kinds
    assert pack_column(drawn("singles", 600, 0.3)).startswith("f4?:")
    assert len(pack_column(drawn("bools", 600))) < 600 / 8 * 4 / 3 + 30


@pytest.mark.parametrize(
    "videos",
    [
        {},
        {"path": []},
        {"hit_1": [True, None]},
        table(0),
        table(1),
        table(),
        table(path=["same.mp4"] * 60, start=list(range(0, 600, 10))),  # clips: a path comes more than once
        table(split=[1] * 20 + [2] * 20 + [3] * 20),  # several splits, pooled
        table(path=[f"Ünïcödé/{video}.mp4" for video in range(60)], label=[2**70] * 60),
        {name: drawn("text", 30) for name in ("list", "rows", "columns", "path")},  # names that the form uses
        {kind: drawn(kind, 30, 0.2) for kind in DRAWS},
    ],
    ids=lambda videos: f"{len(videos)} columns",
)
def test_a_table_returns_with_its_order(videos):
    packed = pack_videos(videos)
    kept = json.loads(json.dumps(packed.videos))  # as a file keeps it
    assert is_packed(kept) and not is_packed(videos)
    assert same(unpack_videos(packed._replace(videos=kept)), videos)
    assert set(packed.shared) == set(ROW_COLUMNS) & set(videos)


def test_old_and_new_records_read_alike(tmp_path):
    metrics = metrics_of(table(cos=drawn("doubles", 60, 0.1), scene=drawn("bools", 60, 0.1)))
    old, new = (tmp_path / "runs" / name / "probe" / "metrics.json" for name in ("old", "new"))
    old.parent.mkdir(parents=True)
    old.write_text("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in metrics.items()) + "\n}\n")
    write_metrics(new, metrics)
    assert same(read_metrics(old), metrics) and same(read_metrics(new), metrics)
    plain, packed = (json.loads(file.read_text())["videos"] for file in (old, new))
    assert isinstance(plain["path"], list) and is_packed(packed)
    assert new.stat().st_size < old.stat().st_size / 2 and '"code": "0123456789abcdef"' in new.read_text()[-100:]
    compared = compare_records(old, new)
    assert compared.difference.tolist() == [0] and compared.n.tolist() == [60]


def test_records_that_are_no_evaluation_s_are_left_alone(tmp_path):
    for content in ({"steps": 4, "videos": 22}, {"no": "videos"}, [1, 2], {"videos": None}):
        (tmp_path / "metrics.json").write_text(json.dumps(content))
        assert read_metrics(tmp_path / "metrics.json") == content


# -- where the list lies -----------------------------------------------------------------------------------------------


def test_a_list_is_kept_once_for_a_data_set(tmp_path):
    runs = tmp_path / "reports" / "runs"
    files = [runs / run / name / "metrics.json" for run in ("a", "b", "c") for name in ("probe", "retrieval")]
    for number, file in enumerate(files):
        write_metrics(file, metrics_of(table(predicted=[number] * 60)))
    kept = list((tmp_path / "reports").rglob(f"{LISTS}/*"))
    assert [file.parent for file in kept] == [tmp_path / "reports" / LISTS]
    write_metrics(files[0], metrics_of(table(label=[1] * 60)))  # other labels: another list
    assert len(list((tmp_path / "reports" / LISTS).iterdir())) == 2
    assert read_metrics(files[0])["videos"]["label"] == [1] * 60
    for file in files[1:]:
        assert read_metrics(file)["videos"]["label"] == table()["label"]


def test_a_list_is_looked_for_upwards_nearest_first(tmp_path):
    metrics, digest = metrics_of(table()), pack_videos(table()).videos["list"]
    file = tmp_path / "1" / "2" / "3" / "4" / "probe" / "metrics.json"
    write_metrics(file, metrics)
    assert find_list(file, digest).parent == file.parent / LISTS  # an evaluation outside a run's folder
    places = [file.parents[above] for above in range(6)]
    for lower, upper in zip(places, places[1:], strict=False):
        shutil.copytree(lower / LISTS, upper / LISTS)
        assert find_list(file, digest).parent == lower / LISTS
        shutil.rmtree(lower / LISTS)
        if upper != places[-1]:
            assert same(read_metrics(file), metrics)
    with pytest.raises(ValueError, match="at most 4 above it, got none"):
        read_metrics(file)  # five above


def test_lists_are_written_where_the_run_belongs(tmp_path):
    assert lists_folder(tmp_path / "reports" / "runs" / "a" / "probe") == tmp_path / "reports" / LISTS
    assert lists_folder(tmp_path / "mine" / "probe") == tmp_path / "mine" / "probe" / LISTS
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.json").touch()
    assert lists_folder(tmp_path / "mine" / "probe") == tmp_path / "mine" / LISTS
    write_metrics(tmp_path / "mine" / "probe" / "metrics.json", metrics_of(table()))
    shutil.move(tmp_path / "mine", tmp_path / "moved")  # a run of one's own moves as a whole
    assert same(read_metrics(tmp_path / "moved" / "probe" / "metrics.json"), metrics_of(table()))


def test_relative_names_lead_to_the_same_list(tmp_path, monkeypatch):
    file = tmp_path / "runs" / "a" / "probe" / "metrics.json"
    write_metrics(file, metrics_of(table()))
    names = ("metrics.json", "probe/../probe/metrics.json", "a/probe/metrics.json", "runs/a/probe/metrics.json")
    for folder, name in zip(file.parents, names, strict=False):
        monkeypatch.chdir(folder)
        assert same(read_metrics(name), metrics_of(table()))


def refused(file):
    "Read a record that cannot be read; its message, one line."
    with pytest.raises(ValueError) as error:
        read_metrics(file)
    assert "\n" not in str(error.value) and str(file) in str(error.value)
    return str(error.value)


def test_what_is_damaged_or_gone_is_refused_by_name(tmp_path):
    file = tmp_path / "runs" / "a" / "probe" / "metrics.json"
    write_metrics(file, metrics_of(table()))
    (kept,) = (tmp_path / LISTS).iterdir()
    whole, record = kept.read_text(), file.read_text()
    changed = [whole.replace("wave/00", "wave/99"), whole.replace('"label"', '"group"')]
    for damaged in ("", "[]", "7", '{"path": 3}', "{}", whole[:-20], *changed):
        kept.write_text(damaged)
        assert f"its list of videos {kept} must hold what its name" in refused(file)
    kept.unlink()
    assert f"{LISTS}/{kept.name}" in refused(file)
    with pytest.raises(ValueError, match="its list of videos must lie"):
        compare_records(file, file)
    kept.write_text(whole)
    assert same(read_metrics(file), metrics_of(table()))
    file.write_text(record[:-10])
    assert "got a file that is not JSON" in refused(file)
    with pytest.raises(ValueError, match="must be of one length, got {'path': 2, 'label': 1}"):
        write_metrics(file, {"videos": {"path": ["a", "b"], "label": [1]}})


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 59},
        {"rows": "60"},
        {"rows": None},
        {"list": None},
        {"list": "../../x"},
        *(
            {"columns": {name: value}}
            for name, value in (("hit_1", "bool:AAAA"), ("new", None), ("new", 7), ("new", [1]))
        ),
    ],
    ids=str,
)
def test_a_record_that_says_another_thing_than_its_list_is_refused(tmp_path, change):
    file = tmp_path / "runs" / "a" / "probe" / "metrics.json"
    write_metrics(file, metrics_of(table()))
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"videos": record["videos"] | change}))
    refused(file)


def test_a_damaged_list_is_mended_by_the_next_evaluation_and_a_whole_one_never_touched(tmp_path):
    file = tmp_path / "runs" / "a" / "probe" / "metrics.json"
    write_metrics(file, metrics_of(table()))
    (kept,) = (tmp_path / LISTS).iterdir()
    whole, stamp = kept.read_text(), kept.stat()
    write_metrics(file, metrics_of(table()))
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == (stamp.st_mtime_ns, stamp.st_ino)
    kept.write_text(whole[:40])
    write_metrics(file, metrics_of(table()))
    assert kept.read_text() == whole


def write_many(folder, mine, start):
    "Write records of forty data sets, together with other processes."
    start.wait()
    for turn in range(40):
        videos = table(600, path=[f"{turn}/{video}.mp4" for video in range(600)], predicted=[mine] * 600)
        file = folder / "runs" / f"{mine}-{turn}" / "probe" / "metrics.json"
        write_metrics(file, metrics_of(videos))
        assert same(read_metrics(file)["videos"], videos)


def test_several_processes_write_the_same_lists_at_once(tmp_path):
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(4)
    writers = [fork.Process(target=write_many, args=(tmp_path, number, start)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len(list((tmp_path / LISTS).iterdir())) == 40
    assert len(list(tmp_path.glob("runs/*/probe/metrics.json"))) == 160
    for file in (tmp_path / LISTS).iterdir():
        assert list_digest(json.loads(file.read_text())) == file.stem


# -- what is committed -------------------------------------------------------------------------------------------------


def test_committed_records_are_packed_whole_and_small():
    if not RECORDS:
        pytest.skip("no records here")
    for file in RECORDS:
        packed = json.loads(file.read_text())["videos"]
        assert is_packed(packed), f"{file} holds plain lists: python scripts/compact_records.py"
        assert find_list(file, packed["list"]).parent == REPORTS / LISTS
        videos = read_metrics(file)["videos"]
        assert list(videos) == list(packed["columns"])
        assert {len(values) for values in videos.values()} == {packed["rows"]}
        assert same(pack_videos(videos).videos["list"], packed["list"])
    used = {json.loads(file.read_text())["videos"]["list"] for file in RECORDS}
    assert {file.stem for file in (REPORTS / LISTS).iterdir()} >= used
    size = sum(file.stat().st_size for kind in ("runs", LISTS) for file in (REPORTS / kind).rglob("*.json"))
    records = sum(1 for _ in (REPORTS / "runs").rglob("metrics.json"))
    assert size <= 4_500 * records, f"{records} records in reports hold {size:,} bytes, lists and recipes among them"


def test_estimates_follow_from_the_rows_that_are_kept():
    "Not only the form: what the rows say is what the record says."
    if not RECORDS:
        pytest.skip("no records here")
    for file in RECORDS[::20]:
        metrics = read_metrics(file)
        videos, right = metrics["videos"], np.equal(metrics["videos"]["label"], metrics["videos"]["predicted"])
        assert math.isclose(metrics["estimates"]["accuracy"]["value"], right.mean(), abs_tol=1e-12)
        for name in set(metrics["estimates"]) & set(videos):
            there = [value for value in videos[name] if value is not None]
            assert math.isclose(metrics["estimates"][name]["value"], np.mean(there), abs_tol=1e-9)
            assert metrics["estimates"][name]["n"] == len(there)


def test_a_study_reads_packed_records():
    results = load_results("table_01", REPORTS)
    made = results[results.metrics.notna()]
    if made.empty:
        pytest.skip("no records of table_01 here")
    assert {len(each["videos"]["path"]) for each in made.metrics} <= {600, 1200}
    assert all(isinstance(column, list) for each in made.metrics for column in each["videos"].values())


def test_the_script_converts_once_and_loses_nothing(tmp_path):
    "Old records on a copy: equal before and after, and a second call finds nothing to do."
    compact, before = load_script("compact_records").compact, {}
    for number, videos in enumerate((table(cos=drawn("doubles", 60)), table(1), table(0))):
        run = tmp_path / "runs" / f"run-{number}"
        (run / "probe").mkdir(parents=True)
        files = {
            run / "recipe.json": {"seed": number, "rate": 1e-3},
            run / "metrics.json": {"final": {"whole": 0.1 + 0.2}, "videos": 96},
            run / "probe" / "metrics.json": metrics_of(videos),
        }
        for file, content in files.items():
            file.write_text(json.dumps(content, indent=1) + "\n")
            before[file] = content
    compact(tmp_path)
    assert all(same(read_metrics(file), content) for file, content in before.items())
    assert all(is_packed(json.loads(file.read_text())["videos"]) for file in before if file.parent.name == "probe")
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")}
    compact(tmp_path)
    assert stamps == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")}
