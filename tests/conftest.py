"""What every test shares."""
import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_work_folder(monkeypatch):
    "Two test processes must not generate the same data set into the same folder at once."
    if "FIMA_WORK" in os.environ: return
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    monkeypatch.setenv("FIMA_WORK", str(Path(__file__).resolve().parent.parent / "data" / "tests" / worker))
