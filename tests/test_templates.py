"""Templates under papermill itself, without our launcher: what is misspelt or of another kind is refused inside."""

import ast
import json

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from fima.study.plan.schema import template_parameters
from fima.training.fingerprint import studies_folder

TEMPLATES = sorted(studies_folder().glob("*.ipynb"))


def execute(name, folder, given, kernel):
    papermill.execute_notebook(
        studies_folder() / f"{name}.ipynb",
        folder / "out.ipynb",
        given,
        cwd=folder,
        progress_bar=False,
        km=kernel.ready(folder),
    )


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.stem)
def test_every_template_checks_itself_before_it_computes(template):
    cells = [cell for cell in nbformat.read(template, 4).cells if cell.cell_type == "code"]
    assert "parameters" in cells[0].metadata.tags
    statements = [
        each for each in ast.parse(cells[1].source).body if not isinstance(each, (ast.Import, ast.ImportFrom))
    ]
    assert ast.unparse(statements[0]) == f"check_injected('{template.stem}', globals())"


@pytest.mark.parametrize(
    "given, said",
    [
        ({"cilps": 4}, "got the unknown cilps (did you mean clips?)"),
        ({"clips": "4"}, "clips of template linear_probe must be int, got '4' (str)"),
        # papermill's own
        ({"splits": (1, 2)}, "splits of template linear_probe must be list or tuple, got '(1, 2)' (str)"),
        ({"clips": 2.5}, "clips of template linear_probe must be int, got 2.5 (float)"),
        ({"run": 3}, "run of template linear_probe must be str, got 3 (int)"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_papermill_called_directly_is_refused(tmp_path, kernel, given, said):
    with pytest.raises(PapermillExecutionError) as caught:
        execute("linear_probe", tmp_path, given, kernel)
    assert caught.value.ename == "ValueError" and said in caught.value.evalue and "\n" not in caught.value.evalue


def test_papermill_completes_a_part_of_a_recipe(tmp_path, kernel):
    changes = {"optimisation.steps": 1}
    execute(
        "pretrain",
        tmp_path,
        {"recipe": {"method": {"pixel": False}}, "changes": changes, "folder": str(tmp_path / "run")},
        kernel,
    )
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (recipe["profile"], recipe["method"]["pixel"], recipe["optimisation"]["steps"]) == ("smoke", False, 1)


def test_kinds_are_read_off_the_tagged_cell(tmp_path):
    text = 'a: int = 1 # a comment\nb = "x"\nc: list[int] = []\nd = float("nan")'
    cell = nbformat.v4.new_code_cell(text, metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "toy.ipynb")
    assert template_parameters(tmp_path / "toy.ipynb") == {"a": "int", "b": "str", "c": "list", "d": ""}
