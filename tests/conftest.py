"""What every test shares."""
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from fima.cli import main


@pytest.fixture(autouse=True)
def own_work_folder(monkeypatch):
    "Two test processes must not generate the same data set into the same folder at once."
    if "FIMA_WORK" in os.environ: return
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    monkeypatch.setenv("FIMA_WORK", str(Path(__file__).resolve().parent.parent / "data" / "tests" / worker))


@pytest.fixture
def call(capsys, monkeypatch):
    "Run the command line in this process (torch is imported once); answers as a finished process does."
    monkeypatch.setenv("COLUMNS", "120")
    def called(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)
    return called
