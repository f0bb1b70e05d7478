"""Tables of studies from planted records: every number leads to its runs, gaps say so, and verdicts follow."""

import csv
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt

from fima.data.sets.check import check_own
from fima.data.sets.own import own_catalog
from fima.data.sets.own_card import own_card
from fima.data.video.files import write_video
from fima.evaluation.core.record_format import read_metrics
from fima.study.plan.schema import load_study, repository
from fima.study.run.jobs import Kernel, execute
from fima.report.result_plots import keep_figure, show_rows
from fima.study.plan.plan import expand
from fima.report.page_cells import mark_up_sheet
from fima.report.sheets import Number, Sheet, SheetPart, Verdict, excerpt, read_sheet, render_sheet
from fima.report.tables import keep, lay_out_published, tabulate
from fima.training.checkpoint import write_json
from fima.training.fingerprint import studies_folder

STUDIES = ["table_01", "table_02", *(f"table_03{part}" for part in "abcdef"), *(f"table_{n:02}" for n in range(4, 12))]
ROOM = repository() / "nbs" / "results"


def plant(study, reports, accuracy, leave=(), fail=(), profile="smoke"):
    "Write records on 60 videos with an accuracy for each row; `leave` rows have none, `fail` rows leave a failure."
    easy = np.random.default_rng(0).permutation(60) / 60
    for run in expand(load_study(study, profile)):
        folder, name = run.folder(reports), run.row.name
        if name in leave:
            continue
        if name in fail:
            folder.mkdir(parents=True)
            write_json(folder / "failure.json", {"error": "planted"})
            continue
        right = (easy < accuracy[name]).tolist()
        videos = {
            "path": [f"videos/class_{v % 3}/{v}.mp4" for v in range(60)],
            "group": [f"g{v // 2}" for v in range(60)],
            "label": [v % 3 for v in range(60)],
            "predicted": [v % 3 if hit else (v + 1) % 3 for v, hit in enumerate(right)],
        }
        videos |= {f"hit_{k}": right for k in (1, 5, 10, 20)}
        for evaluation in run.evaluations:
            (folder / evaluation.name).mkdir(parents=True, exist_ok=True)
            write_json(folder / evaluation.name / "metrics.json", {"videos": videos, "commit": "planted"})
        write_json(
            folder / "metrics.json",
            {"steps": 4, "seconds": 1.5, "device": "planted", "commit": "planted", "at_chance": [], "left_out": []},
        )


def rows_of(study, profile="smoke"):
    return [row.name for row in load_study(study, profile).rows]


def rising(study, profile="smoke"):
    "Better from row to row."
    rows = rows_of(study, profile)
    return dict(zip(rows, np.linspace(0.2, 0.9, len(rows)), strict=True))


def of_seeds(study, folder, seeds=(0, 1, 2)):
    "Copy a study that is made with several seeds at every scale: a claim of one seed stays open, whatever came out."
    copy = folder / f"{study}.yaml"
    said = yaml.safe_load((studies_folder() / f"{study}.yaml").read_text())
    copy.write_text(yaml.safe_dump(said | {"seeds": list(seeds), "every_seed": True}, sort_keys=False))
    return copy


def check_latex(text):
    "Balanced environments and braces, rows as wide as their table, no special character and no Markdown by accident."
    assert text.startswith("% needs \\usepackage{booktabs}\n")
    bare = re.sub(r"\\[\\&%$#_{}]", "", re.sub(r"^%.*$", "", text, flags=re.M))
    assert bare.count("{") == bare.count("}") and not re.search(r"[%#_^~]", bare.replace("\\textasciitilde{}", ""))
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[<>|]", re.sub(r"\$[^$]*\$", "", bare))
    assert "](" not in text
    assert text.isascii()
    for name in ("table*", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") > 0
    for columns, body in re.findall(r"\\begin\{tabular\}\{(l+)\}(.*?)\\end\{tabular\}", text, re.S):
        assert re.findall(r"\\(?:top|mid|bottom)rule", body) == [r"\toprule", r"\midrule", r"\bottomrule"]
        for line in [line for line in body.splitlines() if line and not line.endswith("rule")]:
            assert line.endswith(r" \\") and len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1, line


@pytest.mark.parametrize("study", STUDIES)
def test_a_failed_and_a_missing_run_say_so_in_every_format(study, tmp_path):
    rows = rows_of(study)
    missing, failed = rows[-1:], rows[:1] if len(rows) > 2 else []
    plant(study, tmp_path, rising(study), missing, failed)
    tabled = tabulate(study, tmp_path, "smoke")
    data, markdown, csv, latex, verdicts = keep(tabled)
    assert render_sheet(read_sheet(data))["md"] == markdown.read_text()  # what is printed follows from the data
    text = markdown.read_text()
    gone = {row.label for row in tabled.study.rows if row.name in missing + failed}
    ours = [name for name in tabled.table if name.startswith("ours: ")]
    assert ours
    for line in tabled.table.to_dict("records"):
        assert all((str(line[name]) == "not run") == (line["row"] in gone) for name in ours)

    sections = dict(re.split("\n+", section, maxsplit=1) for section in text.split("\n## ")[1:])
    assert {"Published and ours", "Runs behind every number", "Cost"} <= set(sections)
    assert "smoke profile" in text
    assert "motion_sprites" in text
    beside, sources = sections["Published and ours"], sections["Runs behind every number"]
    for label in gone:
        assert re.search(rf"^\| {re.escape(label)} +\|.*not run", beside, re.M)
        assert re.search(rf"^\| {re.escape(label)} +\|.*\| not run +\|$", sources, re.M)
    assert len(re.findall(r"\| seeds +\|", beside)) == 1 and re.search(r"\| n +\|", beside)

    table = pd.read_csv(csv, dtype=str, keep_default_na=False)
    assert {"run_ids", "n", "seeds", "spread", "low", "high", "data_set", "profile", "state"} <= set(table)
    assert not table.duplicated(["row", "template", "measure"]).any()
    assert set(table[table.state == "not run"].row) == set(missing + failed)
    assert ((table.value == "") == (table.state == "not run")).all()
    assert (table.run_ids != "").all()
    check_latex(latex.read_text())
    for label in gone:
        assert re.search(rf"^{re.escape(label.replace('_', chr(92) + '_'))} & .*not run", latex.read_text(), re.M)

    verdict = pd.read_csv(verdicts, keep_default_na=False)
    concerned = verdict.better.isin(missing + failed) | verdict.worse.isin(missing + failed)
    assert concerned.any() == bool(tabled.study.claims)
    assert (verdict.verdict[concerned] == "not run").all()
    assert not (verdict.verdict[~concerned] == "not run").any()


@pytest.mark.parametrize("study", ["table_01", "table_03d", "table_06"])
def test_every_number_leads_to_its_runs(study, tmp_path):
    plant(study, tmp_path, rising(study), rows_of(study)[:1])
    tabled = tabulate(study, tmp_path, "smoke")
    _, markdown, csv, *_ = keep(tabled)
    links = re.findall(r"\]\((\.\./runs/[^)]+)\)", markdown.read_text())
    assert all((markdown.parent / link).is_file() for link in links)
    columns = pd.read_csv(csv, keep_default_na=False)
    files = {(tmp_path / file).resolve() for line in columns.files for file in line.split()}
    assert (
        files
        == {(markdown.parent / link).resolve() for link in links}
        == {file.resolve() for file in tmp_path.glob("runs/*/*/metrics.json")}
    )
    for line in tabled.sources.itertuples():  # the number in the line is the number in the file
        if not line.runs.targets:
            continue
        videos = read_metrics(markdown.parent / line.runs.targets[0][1])["videos"]
        accuracy = np.mean(np.equal(videos["label"], videos["predicted"]))
        assert re.search(r"(\d+\.\d) \[", line.numbers)[1] == f"{100 * accuracy:.1f}"


@pytest.mark.parametrize(
    "study, better, worse",
    [
        ("table_09", "triplet", "infonce"),
        ("table_07", "width_256", "width_512"),
        ("table_02", "dc", "dc_fs"),
        ("table_06", "vv", "fima"),
    ],
)
def test_an_ordering_turned_round_is_contradicted(study, better, worse, tmp_path):
    even = dict.fromkeys(rows_of(study), 0.5)
    plant(study, tmp_path, even | {better: 0.8, worse: 0.3})
    tested = tabulate(study, tmp_path, "smoke").tested
    claim = tested[(tested.better == worse) & (tested.worse == better)]
    assert len(claim) and (claim.verdict == "open").all() and (claim.difference < 0).all()  # one seed decides nothing
    study = of_seeds(study, tmp_path)
    plant(study, tmp_path, even | {better: 0.8, worse: 0.3})
    tested = tabulate(study, tmp_path, "smoke").tested
    claim = tested[(tested.better == worse) & (tested.worse == better)]
    assert len(claim) and (claim.verdict == "contradicted").all() and (claim.difference < 0).all()
    plant(study, tmp_path, even | {better: 0.3, worse: 0.8})
    tested = tabulate(study, tmp_path, "smoke").tested
    assert (tested[(tested.better == worse) & (tested.worse == better)].verdict == "supported").all()
    plant(study, tmp_path, even)
    assert set(tabulate(study, tmp_path, "smoke").tested.verdict) == {"open"}


def test_untrained_encoders_are_a_floor(tmp_path):
    accuracy = dict.fromkeys(rows_of("table_01"), 0.4) | {"random_difference": 0.9, "fima": 0.7, "random_rgb": 0.1}
    study = of_seeds("table_01", tmp_path)
    plant(study, tmp_path, accuracy)
    floor = tabulate(study, tmp_path, "smoke").floor.query("measure == 'linear probe'").set_index("rows").verdict
    assert len(floor) == 10
    assert floor["VV + Pix + Fra (FIMA) > random encoder"] == Verdict("supported")
    assert floor["VV > random encoder, difference clips"] == Verdict("contradicted")


@pytest.mark.parametrize(
    ("study", "whose"),
    [("table_09", "the paper"), ("mcl", "MCL's paper"), ("mcl_ut", "MCL's paper"), ("ask_foreground", "this study")],
)
def test_orderings_are_headed_by_whose_they_are(study, whose, tmp_path):
    plant(study, tmp_path, dict.fromkeys(rows_of(study), 0.4))
    tabled = tabulate(study, tmp_path, "smoke")
    sheet = read_sheet(keep(tabled)[0])
    kinds = {part.heading: part.claims for part in sheet.parts if part.heading.startswith("Orderings")}
    assert kinds == {f"Orderings that {whose} claims": "own" if whose == "this study" else "paper"}
    assert any(note.startswith(f"Orderings that {whose} claims, tested here") for note in sheet.notes)
    assert f"Orderings that {whose} claims, tested here" in excerpt(study, "", reports=tmp_path)


def test_a_row_that_the_paper_has_not_shows_a_dash(tmp_path):
    table = tabulate("table_01", tmp_path, "smoke", "losses").table.set_index("losses")
    assert table.loc["random encoder"].filter(like="paper: ").tolist() == ["-"] * 4
    assert table.loc["VV", "paper: HMDB51 finetune"] == Number("48.8", 48.8)


def test_published_rows_of_others_stand_in_no_table_of_ours(tmp_path):
    for study in ("table_04", "table_05", "table_06"):
        tabled, paper = tabulate(study, tmp_path, "smoke"), lay_out_published(study)
        text = keep(tabled, {"Published": paper.table}, paper.notes, "Ours, on other data")[1].read_text()
        theirs, ours = (
            re.split(r"\n## ", text.split(f"\n## {head}\n")[1])[0] for head in ("Published", "Ours, on other data")
        )
        assert text.index("## Published") < text.index("## Ours")
        assert "FAME" in theirs
        assert "FAME" not in ours
        assert "paper: " not in ours
        for note in paper.notes:
            assert f"\n{note}\n" in text


def test_at_the_papers_scale_our_rows_stand_beside_the_papers(tmp_path):
    table = tabulate("table_04", tmp_path, "paper").table.set_index("row")
    assert table.loc["FIMA, I3D, UCF101", "paper: UCF101 linear"] == Number("75.3", 75.3)
    assert {
        "ours: linear probe",
        "ours: fine-tuned",
        "ours: HMDB51 linear probe",
        "ours: HMDB51 fine-tuned",
    } <= set(table)


def test_where_nothing_was_run_earlier_files_stay(tmp_path):
    plant("table_09", tmp_path, rising("table_09"))

    def write():
        tabled = tabulate("table_09", tmp_path, "smoke")
        files = keep(tabled) + keep_figure(show_rows(tabled), "table_09", [tabled])
        plt.close("all")
        return {file: file.read_bytes() for file in files}

    before = write()
    assert write() == before  # the same records give the same files
    for file in tmp_path.glob("runs/*/*/metrics.json"):
        file.unlink()
    assert write() == before
    for file in before:
        file.unlink()
    assert b"not run" in write()[Path(tmp_path / "tables" / "table_09.md")]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    "Results notebooks on planted records: Table 3 with gaps, Table 11 with some of its cost measured, and with none."
    reports = tmp_path_factory.mktemp("reports")
    for part in "abcdef":
        plant(f"table_03{part}", reports, rising(f"table_03{part}"), rows_of(f"table_03{part}")[:1])
    plant("table_11", reports, rising("table_11"))
    (reports / "tables").mkdir()
    head = (
        "variant,row,backbone,batch,crop,frames,parameters_encoder,parameters_trained,seconds_per_step,seconds_low,"
        "seconds_high,peak_mebibytes,device,precision,threads,repetitions,commit\n"
    )
    lines = [
        "vd,VV + VD,i3d,2,224,16,12287264,13468000,2.0,1.9,2.1,5000",
        "dc,DC,i3d,2,224,16,12287264,13468000,2.5,2.4,2.6,5500",
        "dc_fs_md,DC + FS + MD,i3d,2,224,16,12287264,17674592,3.0,2.9,3.1,6000",
    ]
    (reports / "tables" / "cost.csv").write_text(
        head + "".join(f"{line},planted cpu,float32,1,3,planted\n" for line in lines)
    )
    with Kernel() as kernel:
        for name, folder in (("table_03", reports), ("table_11", reports), ("table_11", reports / "bare")):
            given = {"studies": [f"table_03{part}" for part in "abcdef"]} if name == "table_03" else {"study": name}
            execute(
                ROOM / f"{name}.ipynb",
                folder / "notebooks" / f"{name}.ipynb",
                given | {"reports": str(folder), "profile": "smoke"},
                kernel,
            )
    return reports


def test_notebooks_write_their_tables_and_figures(executed):
    for study in (*(f"table_03{part}" for part in "abcdef"), "table_11"):
        for kind in ("json", "md", "csv", "tex"):
            assert (executed / "tables" / f"{study}.{kind}").stat().st_size
        check_latex((executed / "tables" / f"{study}.tex").read_text())
    for name in ("table_03", "table_11"):
        assert (executed / "figures" / f"{name}.png").stat().st_size > 5000
        assert (executed / "figures" / f"{name}.svg").exists()
    drawing = (executed / "figures" / "table_03.svg").read_text()
    assert drawing.count(">not run<") == 6 and "UCF101 fine-tuned" in drawing and "distance threshold" in drawing


def test_measured_cost_stands_beside_the_papers(executed):
    sheet = read_sheet(executed / "tables" / "table_11.json")
    heading = "i3d, planted cpu, float32: batch 2, 224 pixels, 16 frames"
    table = next(part.table for part in sheet.parts if part.heading == heading).map(str).set_index("losses")
    assert table.loc[
        "VV + VD", ["encoder, million", "encoder and decoder, million", "seconds a step", "over VD", "peak memory, MiB"]
    ].tolist() == ["12.3", "12.3", "2 [1.9, 2.1]", "1.00", "5000"]
    assert table.loc["DC + FS + MD", ["encoder and decoder, million", "over VD", "paper: over VD"]].tolist() == [
        "16.5",
        "1.50",
        "1.10",
    ]
    missing = table.loc["DC + FS", ["encoder, million", "seconds a step", "peak memory, MiB", "repetitions"]]
    assert missing.tolist() == ["not measured"] * 4
    assert table["paper: GPU-days"].str[:4].tolist() == ["3.43", "3.53", "3.54", "3.78"]
    assert any("GPUs times days" in note for note in sheet.notes)


def test_without_a_measurement_the_cost_says_so(executed):
    text = (executed / "bare" / "tables" / "table_11.md").read_text()
    assert len(re.findall(r"^\| (?:VV|DC).*not measured", text, re.M)) == 4 and "3.78" in text


# -- names of others -------------------------------------------------------------------------------------------------

NAMES = (
    "![walk](https://example.org/a.png)",
    "<img src=https://example.org/a.png>",
    "walk | run",
    "two\nlines",
    "=1+1",
    "@sum",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_name_loads_nothing_and_breaks_nothing(tmp_path, name):
    "In Markdown, on the page and in csv; as words of a cell, of a column, of a heading and of a sentence."
    table = pd.DataFrame({"class": [name, "walk"], name: ["1", "2"]})
    sheet = Sheet(f"Classes of {name}", [f"Made of {name}."], [SheetPart(f"By {name}", table)], table)
    texts = render_sheet(sheet)
    page = MarkdownIt("commonmark").enable("table").render(texts["md"])
    assert "<img" not in page and page.count("<tr>") == 3 and page.count("<td") == 4
    for piece in mark_up_sheet(sheet):  # headings are escaped by the template
        cells = [cell.html for table in piece.tables for row in (table.head, *table.body) for cell in row]
        assert not any("<img" in str(html) for html in (*piece.words, *cells))
    (tmp_path / "numbers.csv").write_text(texts["csv"])
    first = pd.read_csv(tmp_path / "numbers.csv")["class"][0]
    assert first == (f"'{name}" if name[0] in "=@" else name)
    (tmp_path / "sheet.json").write_text(texts["json"])
    assert read_sheet(tmp_path / "sheet.json").parts[0].table.iloc[0, 0] == name  # the data keep it as it is


def test_cards_and_reports_of_ones_own_show_names_as_they_are(tmp_path):
    folder = tmp_path / "![x](https:"
    for number, name in enumerate(("=a|b", "c`d")):
        (folder / name).mkdir(parents=True)
        write_video(np.full((40, 32, 32, 3), 40 * number, np.uint8), folder / name / "![y](z).mp4")
    catalog = own_catalog(folder)
    checked = check_own(catalog, report=tmp_path / "report.csv", progress=False)
    card = own_card(catalog, checked, folder.name).text.split("---\n", 2)[2]
    pictures = [line for line in MarkdownIt("commonmark").render(card).split("<img")[1:]]
    assert len(pictures) == 1 and "%21%5Bx%5D" in pictures[0].split('"')[1]  # its own picture, beside it
    with open(tmp_path / "report.csv") as file:
        assert {row["class"] for row in csv.DictReader(file)} == {"'=a|b", "c`d"}
