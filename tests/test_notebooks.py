"""Every notebook is a test: its assertions hold from top to bottom. Templates run with their defaults."""

import nbformat
import papermill
from nbdev.config import get_config
from nbdev.test import test_nb as run_notebook

from helpers import NOTEBOOKS, TEMPLATES, TOP, each_path


@each_path([p for p in NOTEBOOKS if p not in TEMPLATES])
def test_notebook(path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    passed, _ = run_notebook(path, skip_flags=get_config(path=TOP).tst_flags.split(), basepath=TOP)
    assert passed, f"{path.name}: the failing cell is on stderr"


@each_path(TEMPLATES)
def test_template(path, tmp_path, kernel):
    papermill.execute_notebook(path, tmp_path / path.name, cwd=tmp_path, progress_bar=False, km=kernel.ready(tmp_path))


def test_a_failing_notebook_fails(tmp_path):
    "The assertions above rest on this."
    for source, good in (("assert 1 + 1 == 2", True), ("assert 1 + 1 == 3", False), ("#| slow\nassert False", True)):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        notebook.metadata["kernelspec"] = dict(display_name="python3", language="python", name="python3")
        nbformat.write(notebook, tmp_path / "probe.ipynb")
        assert run_notebook(tmp_path / "probe.ipynb", skip_flags=["slow", "gpu"], showerr=False)[0] is good
