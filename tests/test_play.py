"""Notebooks with controls: readers without a kernel see the picture, and no control that is dead."""

import json

import pytest

from helpers import TOP

PLAY = sorted((TOP / "nbs" / "play").glob("*.ipynb"))


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", PLAY, ids=lambda path: path.stem)
def test_no_dead_control_is_stored(path):
    "The view of a widget is of one session; stored, it would be an error message in the place of a picture."
    kinds = {kind for cell in code_cells(path) for output in cell["outputs"] for kind in output.get("data", {})}
    assert "application/vnd.jupyter.widget-view+json" not in kinds, "drop the stored view of the controls"


def test_every_control_has_a_stored_picture():
    cells = [cell for cell in code_cells(TOP / "nbs/play/knobs.ipynb") if "turn = play(" in "".join(cell["source"])]
    assert len(cells) == 5
    for cell in cells:
        kinds = [set(output["data"]) for output in cell["outputs"]]
        assert kinds == [{"image/png", "text/plain"}, {"text/plain"}], "a picture, then the names of its controls"
        assert "".join(cell["outputs"][1]["data"]["text/plain"]).startswith("Controls, where a kernel runs: ")


def test_the_live_run_is_cut_in_tests():
    "Two minutes for readers, seconds here: the parameter says so itself."
    source = "\n".join("".join(cell["source"]) for cell in code_cells(TOP / "nbs/play/live.ipynb"))
    assert 'minutes = 0.05 if "IN_TEST" in os.environ else 2.0' in source
