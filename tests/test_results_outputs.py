"""What a results notebook shows, as it is stored, is what its published tables hold."""

import json
import re
from html import unescape

import pytest

from fima.report.sheets import read_sheet
from helpers import TOP, each_path

ROOM = TOP / "nbs" / "results"
MEND = "`fima study report NAMES --publish`, then `python scripts/results_outputs.py`"
_ROW = re.compile(r"<tr[^>]*>(.*?)</tr>", re.S)
_CELL = re.compile(r"<t[hd][^>]*>(.*?)</t[hd]>", re.S)


def sheets_written(outputs):
    "Read the published tables whose files a notebook names as written."
    said = "".join("".join(output.get("text", "")) for output in outputs)
    files = [TOP / "reports" / "tables" / name for name in re.findall(r"(?<!\S)\w+\.json\b", said)]
    return [read_sheet(file) for file in dict.fromkeys(files) if file.exists()]


def shown_tables(outputs):
    "Read the tables that are shown: columns, and rows of cells as text; the index is left out."
    found = []
    for output in outputs:
        for text in re.findall(r"<table.*?</table>", "".join(output.get("data", {}).get("text/html", "")), re.S):
            head, *rows = [[unescape(cell) for cell in _CELL.findall(row)] for row in _ROW.findall(text)]
            cells = [tuple(row[1:]) for row in rows if any(row[1:])]  # a line may name the index alone
            found.append((tuple(head[1:]), cells))
    return found


def as_text(part):
    "Give the columns of a part and its rows as text, without links to runs, which notebooks leave out."
    table = part.table.drop(columns="runs", errors="ignore")
    return list(table.columns), [tuple(map(str, row)) for row in table.itertuples(index=False)]


def cut(head, rows, columns):
    "Take some columns out of rows; none where they lack one."
    places = [head.index(name) for name in columns if name in head]
    return {tuple(row[place] for place in places) for row in rows} if len(places) == len(columns) else set()


def differences(outputs):
    "List the rows that only the notebook or only its published tables have; a notebook may show columns beside them."
    sheets, shown, wrong = sheets_written(outputs), shown_tables(outputs), []
    published = [as_text(part) for sheet in sheets for part in sheet.parts]
    for head, rows in shown:
        alike = [(columns, set(lines)) for columns, lines in published if set(columns) <= set(head)]
        known = [any(cut(head, [row], columns) <= lines for columns, lines in alike) for row in rows]
        wrong += [f"shown only: {row}" for row, there in zip(rows, known, strict=True) if alike and not there]

    def unseen(part):
        columns, lines = as_text(part)
        seen = set().union(*(cut(head, rows, columns) for head, rows in shown))
        return [f"published only: {line}" for line in lines if line not in seen]

    for sheet in sheets:  # all its orderings, and its numbers: with what stands beside them, or alone
        wrong += [line for part in sheet.parts if part.claims for line in unseen(part)]
        numbers = [part for part in sheet.parts if part.heading.startswith(("Ours", "Published and ours"))]
        wrong += min((unseen(part) for part in [*sheet.parts[:1], *numbers]), key=len)
    return wrong


def outputs_of(path):
    return [output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", [])]


def with_tables():
    "List the results notebooks that write tables of studies."
    texts = {path: path.read_text() for path in sorted(ROOM.glob("*.ipynb"))}
    return [path for path, text in texts.items() if re.search(r"\b(write_tables|keep)\(", text)]


@each_path(with_tables())
def test_a_notebook_shows_what_is_published(path):
    outputs = outputs_of(path)
    assert sheets_written(outputs), f"{path.name} stores no table; {MEND}"
    wrong = differences(outputs)
    assert not wrong, "\n".join([f"{len(wrong)} rows differ; {MEND}", *wrong[:6]])


@pytest.mark.parametrize("name", ["table_01", "methods"])
def test_a_changed_digit_is_seen(name):
    outputs = outputs_of(ROOM / f"{name}.ipynb")
    text = json.dumps(outputs)
    number = re.search(r"<td>(\d+\.\d \[\d+\.\d, \d+\.\d\])</td>", text)[1]
    digit = str((int(number[0]) + 1) % 10)
    assert differences(json.loads(text.replace(f"<td>{number}</td>", f"<td>{digit}{number[1:]}</td>", 1)))
