"""Studies across notebooks: what is refused, planned, run, stopped, continued and shown. Everything runs the smoke profile."""
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from fima.study.files import load_study
from fima.study.jobs import JobError, Kernel, execute
from fima.study.plan import plan
from fima.study.run import run

STUDY = {
    "name": "trial", "title": "a trial", "base": {"profile": "smoke"},
    "rows": [{"name": "vv", "label": "VV", "overrides": {"method.pixel": False, "method.frame": False}}],
    "evaluations": [{"template": "linear_probe"}],
}


@pytest.fixture(scope="module", autouse=True)
def generated_videos(tmp_path_factory):
    "Keep generated videos and caches out of the repository."
    before = os.environ.get("FIMA_WORK")
    os.environ["FIMA_WORK"] = str(tmp_path_factory.mktemp("work"))
    yield
    os.environ.pop("FIMA_WORK") if before is None else os.environ.update(FIMA_WORK=before)


def write(folder, **changes):
    "Write a study file into a folder."
    file = Path(folder) / "trial.yaml"
    file.write_text(yaml.safe_dump(STUDY | changes))
    return file


def test_misspelt_names_are_refused_before_anything_runs(tmp_path):
    for changes, named in [
        ({"evaluations": [{"template": "linear_probe", "settings": {"cilps": 3}}]}, "cilps"),
        ({"evaluations": [{"template": "linear_prob"}]}, "linear_prob"),
        ({"rows": [{"name": "vv", "label": "VV", "overrides": {"method.pixle": False}}]}, "method.pixle"),
        ({"rows": [{"name": "vv", "label": "VV", "evaluation": {"modalty": "rgb"}}]}, "modalty"),
        ({"fctors": {"data.split": [1]}}, "fctors"),
    ]:
        with pytest.raises(ValueError, match=named) as refused: run(write(tmp_path, **changes), reports=tmp_path)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_plan_of_table_01_is_right(tmp_path):
    table = plan("table_01", tmp_path)
    assert table.row.tolist() == ["vv", "vv_vd", "vv_pix", "vv_fra", "fima", "random_rgb", "random_difference", "supervised"]
    assert table.run_id.nunique() == 7 and set(table.state) == {"missing"}
    switches = {r.name: r.overrides for r in load_study("table_01").rows}
    assert switches["fima"] == {} and switches["vv"] == {"method.pixel": False, "method.frame": False}


def test_fold_study_is_part_of_the_whole(tmp_path):
    whole, fold = plan("ut_interaction", tmp_path), plan("ut_interaction_fold1", tmp_path)
    assert set(fold.run_id) < set(whole.run_id)
    assert sorted(whole.split.unique()) == [1, 2, 3, 4, 5] and whole.seed.nunique() == 2


def test_smoke_study_end_to_end(tmp_path, capfd):
    "One run fails, the others end in a table and a figure; a second call does nothing."
    kept = [row.model_dump() for row in load_study("table_01").rows if row.name in ("fima", "random_difference")]
    broken = {"name": "vv", "label": "VV", "overrides": {"optimisation.batch_size": 100}}
    parts = dict(evaluations=[{"template": "linear_probe"}, {"template": "retrieval"}, {"template": "probes"}], results=["table_01"],
                 reference={"linear_probe": {"chance": 1 / 12}, "probes": {"chance": 1 / 8}})
    study = write(tmp_path, rows=[broken, *kept], **parts)
    after = run(study, reports=tmp_path, progress=False).set_index("row")
    assert after.state.to_dict() == {"vv": "failed", "fima": "done", "random_difference": "done"}

    folder = tmp_path / "runs" / after.run_id["vv"]  # the failure: its notebook is kept, and told of in one line
    notebook = nbformat.read(folder / "pretrain.ipynb", 4)
    assert any(o.get("ename") == "ValueError" for c in notebook.cells for o in c.get("outputs", []))
    lines = [line for line in capfd.readouterr().err.splitlines() if "failed: " in line]
    assert len(lines) == 1 and "batch_size" in lines[0] and str(folder / "pretrain.ipynb") in lines[0]

    text = (tmp_path / "tables" / "trial.md").read_text()  # the table: ours, the published numbers, and what was not run
    assert "VV + Pix + Fra (FIMA)" in text and "not run" in text and "75.3" in text and "smoke" in text
    tidy = pd.read_csv(tmp_path / "tables" / "trial.csv").set_index("row")
    assert set(tidy.template) == {"linear_probe", "retrieval", "probes"} and tidy.value.drop("vv").between(0, 1).all() and (tidy.n.drop("vv") == 24).all()
    assert set(" ".join(tidy.run_ids).split()) == set(after.run_id)
    told = json.loads((tmp_path / "runs" / text.split("(../runs/")[1].split(")")[0]).read_text())
    assert {"videos", "estimates", "data_fingerprint", "left_out", "commit", "libraries", "device", "seconds", "peak_memory_mb"} <= set(told)
    for kind in ("png", "svg"): assert (tmp_path / "figures" / f"trial.{kind}").stat().st_size > 1000
    assert (tmp_path / "tables" / "trial.tex").exists() and (tmp_path / "notebooks" / "trial-table_01.ipynb").exists()

    study = write(tmp_path, rows=kept, **parts)  # without the broken row: nothing is left to do but the table
    run(study, reports=tmp_path, progress=False)
    stamps = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file() and ".work" not in f.parts}
    assert set(run(study, reports=tmp_path, progress=False).state) == {"done"}
    assert {f: f.stat().st_mtime_ns for f in stamps} == stamps


def test_a_stopped_study_continues_and_leaves_no_process(tmp_path):
    row = STUDY["rows"][0] | {"overrides": STUDY["rows"][0]["overrides"] | {"optimisation.steps": 150}}
    study = write(tmp_path, rows=[row], evaluations=[{"template": "retrieval", "settings": {"ks": [1, 5]}}])
    call = [sys.executable, "-c", f"from fima.study.run import run; run({str(study)!r}, reports={str(tmp_path)!r})"]
    hears = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)              # a shell's background jobs are deaf to Ctrl-C
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=hears)
    folder = tmp_path / "runs" / plan(study, tmp_path).run_id[0]
    deadline = time.monotonic() + 240
    while not (folder / "log.jsonl").exists() or not (folder / "log.jsonl").read_text():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(.1)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    assert process.returncode and not (folder / "metrics.json").exists() and not (folder / "failure.json").exists()
    running = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(p)]
    assert not running
    assert plan(study, tmp_path).state.tolist() == ["partial"]
    kept = int((folder / "checkpoint" / "latest").read_text().split("_")[1])  # it was told to stop, and kept what it had
    assert 0 < kept < 150
    after = run(study, reports=tmp_path, progress=False)
    assert after.state.tolist() == ["done"]
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 150


def _read(file):
    "Read a process's command line; nothing where it has ended."
    try: return file.read_bytes()
    except OSError: return b""


def test_a_kernel_that_is_killed_is_an_error_and_not_a_wait(tmp_path):
    "Out of memory looks like this: the process that computes is gone from one moment to the next."
    cells = [nbformat.v4.new_code_cell("length: float = 600.0", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell("import time; time.sleep(length)")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": dict(display_name="python3", language="python", name="python3")})
    nbformat.write(notebook, tmp_path / "sleeper.ipynb")
    with Kernel() as kernel:
        def kill():
            while not (kernel.manager and kernel.manager.has_kernel): time.sleep(.05)
            time.sleep(3)
            os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)
        threading.Thread(target=kill, daemon=True).start()
        with pytest.raises(JobError, match="the process that computed died"): execute(tmp_path / "sleeper.ipynb", tmp_path / "executed.ipynb", {"length": 601.0}, kernel)
    assert (tmp_path / "executed.ipynb").exists()
