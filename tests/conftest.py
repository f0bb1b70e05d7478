"""What every test shares."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from fima import plugins
from fima.cli import main
from fima.plugins import DATA_SETS, ENCODERS, METHODS, VIEW_CHANGES
from helpers import TOP


@pytest.fixture(autouse=True)
def work_of_a_worker(monkeypatch):
    "Two test processes must not generate the same data set into the same folder at once."
    if "FIMA_WORK" in os.environ:
        return
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    monkeypatch.setenv("FIMA_WORK", str(TOP / "data" / "tests" / worker))


@pytest.fixture
def own_work(tmp_path, monkeypatch):
    "A work folder for one test, empty."
    monkeypatch.setenv("FIMA_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


@pytest.fixture(scope="module")
def module_work(tmp_path_factory):
    "A work folder that the tests of one file share."
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FIMA_WORK", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def own_registries():
    "What one test registers is nothing that another one finds."
    before = {
        registry.kind: (registry, {name: registry[name] for name in registry})
        for registry in (DATA_SETS, ENCODERS, METHODS, VIEW_CHANGES)
    }
    loaded = set(plugins._plugins)
    yield
    for registry, entries in before.values():
        registry.entries = entries
    for named in set(plugins._plugins) - loaded:
        sys.modules.pop(plugins._plugins.pop(named).name, None)  # a notebook may have forgotten it itself


@pytest.fixture(scope="session")
def kernel():
    "One kernel for every template that a test process executes; it is emptied in between, and holds what was imported."
    from fima.study.run.jobs import Kernel

    with Kernel() as held:
        yield held


@pytest.fixture
def made(kernel):
    "Make what a study lacks by its jobs, without Snakemake and its processes; gives the plan afterwards."
    from fima.study.plan.schema import load_study
    from fima.study.run.jobs import build_jobs, make_run, pending, prepare_data
    from fima.study.plan.plan import expand, plan

    def make(study, reports):
        jobs = build_jobs(pending(expand(load_study(study)), reports), reports, reports / ".work" / "here")
        for job in jobs:
            assert not (prepare_data(job) if job["kind"] == "data" else make_run(job, kernel))
        return plan(study, reports)

    return make


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


@pytest.fixture
def stopped_midway():
    "Start a command that trains, press Ctrl-C once it has logged a step, and give the step of its checkpoint."

    def stopped(call, folder):
        def hears():
            return signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are deaf to Ctrl-C

        process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=hears)
        deadline = time.monotonic() + 400
        while not (folder / "log.jsonl").exists() or not (folder / "log.jsonl").read_text():
            assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=200)
        assert process.returncode and not (folder / "metrics.json").exists() and not (folder / "failure.json").exists()
        return int((folder / "checkpoint" / "latest").read_text().split("_")[1])

    return stopped
