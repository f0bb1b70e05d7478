"""The first ten steps of every method as they once were; `python tests/test_golden.py` writes golden_steps.json."""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from fima.methods.registry import method_names
from fima.training.pretrain import pretrain
from fima.training.recipe import make_recipe
from fima.training.trace import CLOSE, TRACED, compare_steps, read_trace

FILE = Path(__file__).parent / "golden_steps.json"
METHODS = sorted(set(method_names()) | {"supervised"})


# At the usual rate a ReLU falls to the other side of zero within ten steps on one processor and not on another.
SLOWLY = {"optimisation.steps": TRACED, "optimisation.learning_rate": 0.0005, "method.pixel_average": "video"}


def steps_of(method, folder):
    "Train a method for ten steps; give the numbers of each."
    supervised = method == "supervised"
    named = {"method.name": "supervised"} if supervised else {}
    recipe = make_recipe("smoke", method=None if supervised else method, overrides=SLOWLY | named)
    pretrain(recipe, folder, progress=False)
    return read_trace(json.loads((folder / "metrics.json").read_text())["trace"])


@pytest.mark.parametrize("method", METHODS)
def test_the_first_ten_steps_are_as_they_were(tmp_path, method):
    "Another processor may change the last bits; a change of what is computed goes beyond `CLOSE`."
    golden = json.loads(FILE.read_text())[method]
    found = compare_steps(
        [{name: float.fromhex(value) for name, value in step.items()} for step in golden], steps_of(method, tmp_path)
    )
    assert found.steps == TRACED and found.largest <= CLOSE, found


def test_a_change_of_the_second_decimal_is_noticed():
    golden = [
        {name: float.fromhex(value) for name, value in step.items()} for step in json.loads(FILE.read_text())["fima"]
    ]
    moved = [{name: value * 1.01 for name, value in step.items()} for step in golden]
    assert compare_steps(golden, moved).verdict == "different"


if __name__ == "__main__":
    written = {}
    for each in METHODS:
        with tempfile.TemporaryDirectory() as place:
            written[each] = [
                {name: value.hex() for name, value in step.items()} for step in steps_of(each, Path(place) / "run")
            ]
        print(each, file=sys.stderr)
    FILE.write_text(json.dumps(written, indent=1) + "\n")
