"""What notebooks and documents cite of the paper exists there: sections, equations, tables, figures, appendices."""

import json
import re

import pytest

from helpers import NOTEBOOKS, TOP, name_of

# Numbers that the paper has: M. Zhu, X. Lin, R. Dang, C. Liu, Q. Chen, "Fine-Grained Spatiotemporal Motion Alignment
# for Contrastive Video Representation Learning", ACM Multimedia 2023, doi 10.1145/3581783.3611932, with its appendix.
SECTIONS = {"1", "2", "3", "3.1", "3.2", "3.3", "4", "4.1", "4.2", "4.3", "4.4", "4.5", "4.6", "5", "6"}
APPENDICES = {letter for letter in "ABCD"} | {
    f"{letter}.{number + 1}" for letter, count in {"A": 4, "B": 5, "D": 4}.items() for number in range(count)
}
EQUATIONS = {str(number) for number in range(1, 12)}
TABLES = {str(number) for number in range(1, 12)} | {f"3{part}" for part in "abcdef"}
FIGURES = {str(number) for number in range(1, 12)} | {"5a", "5b"}
KINDS = {
    r"Sections?|Sec\.": SECTIONS | APPENDICES,
    r"Appendix|Appendices|App\.": APPENDICES,
    r"Equations?|Eqs?\.": EQUATIONS,
    r"Tables?": TABLES,
    r"Figures?|Figs?\.": FIGURES,
}
NUMBER = r"(?:[A-Z](?:\.\d+)?|\d+(?:\.\d+)*[a-z]?)(?!\w)"
# another paper is cited by its name, right before: "MCL, Section 3.1"
OTHERS = r"(?<!MCL, )(?<!DCLR, )"


def citations(text):
    "List what a text cites: the word, the number, and whether the paper has it."
    found = []
    for word, known in KINDS.items():
        pattern = rf"{OTHERS}\b(?:{word})[ \n]\(?({NUMBER}(?:(?:, | and | or | to |–){NUMBER})*)"
        for match in re.finditer(pattern, text):
            for number in re.findall(NUMBER, match[1]):
                if known is APPENDICES or number not in ("A", "I"):  # else a word: "a figure. A table"
                    there = APPENDICES if number[0].isalpha() else known  # "Table 3d and D.2"
                    found.append((match[0], number, number in there))
    return found


def cited_by(path):
    "Read the text of a notebook's cells, without outputs, or of another file."
    if path.suffix != ".ipynb":
        return path.read_text()
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])


DOCUMENTS = [
    *(TOP / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((TOP / "nbs" / "studies").glob("*.yaml")),
    TOP / "nbs" / "results" / "page.yaml",
]


def test_nothing_is_cited_that_the_paper_does_not_have():
    wrong, seen = [], 0
    for path in [*NOTEBOOKS, *DOCUMENTS]:
        found = citations(cited_by(path))
        seen += len(found)
        wrong += [f"{name_of(path)}: {words!r} ({number})" for words, number, exists in found if not exists]
    assert seen > 300
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "(Section 3.4)",
        "Sec. 4.7",
        "Eq. 12",
        "Eq. 1, 8 and 14",
        "Table 12",
        "Table 3g",
        "Fig. 12",
        "App. A.5",
        "Appendix E",
        "Table 3d and D.5",
    ],
)
def test_a_wrong_number_is_noticed(text):
    assert not all(exists for *_, exists in citations(f"as in {text} of the paper"))


@pytest.mark.parametrize(
    "text",
    [
        "(Section 3.3)",
        "Eq. 1, 8 and 10",
        "Tables 1 to 5 and 7",
        "Fig. 5b",
        "Table 3d and D.2",
        "App. D.4",
        "Section 4.1, Appendix A.3",
    ],
)
def test_a_right_number_passes(text):
    found = citations(f"as in {text} of the paper")
    assert found and all(exists for *_, exists in found)


def test_another_paper_is_another_matter():
    assert not citations("as there (MCL, Section 7.9)")
