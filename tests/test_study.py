"""Studies across notebooks at the smoke profile: what is refused, planned, run, stopped, continued and shown."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from fima.evaluation.core.record_format import read_metrics
from fima.study.plan.schema import load_study, reports_folder, repository, study_names
from fima.study.run.jobs import JobError, Kernel, execute
from fima.study.plan.plan import expand, plan
from fima.report.results import published
from fima.report.make import make_report, run_studies
from fima.study.run.run import Resources
from helpers import FIMA, RANDOM, SAME_RUNS, STUDY, VV, check_failed_run, write_study

pytestmark = pytest.mark.usefixtures("module_work")

RETRIEVAL = [{"template": "retrieval", "settings": {"ks": [1, 5]}}]


def test_misspelt_names_are_refused_before_anything_runs(tmp_path):
    for changes, named in [
        ({"evaluations": [{"template": "linear_probe", "settings": {"cilps": 3}}]}, "cilps"),
        ({"evaluations": [{"template": "linear_prob"}]}, "linear_prob"),
        ({"rows": [{"name": "vv", "label": "VV", "overrides": {"method.pixle": False}}]}, "method.pixle"),
        ({"rows": [{"name": "vv", "label": "VV", "evaluation": {"modalty": "rgb"}}]}, "modalty"),
        ({"fctors": {"data.split": [1]}}, "fctors"),
    ]:
        with pytest.raises(ValueError, match=named) as refused:
            run_studies(write_study(tmp_path, STUDY | changes), reports=tmp_path)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_plan_of_table_01_is_right(tmp_path):
    table = plan("table_01", tmp_path)
    assert table.row.unique().tolist() == [
        "vv",
        "vv_vd",
        "vv_pix",
        "vv_fra",
        "fima",
        "random_rgb",
        "random_difference",
        "supervised",
    ]
    assert table.run_id.nunique() == 3 * 7 and set(table.state) == {"missing"} and set(table.seed) == {0, 1, 2}
    switches = {r.name: r.overrides for r in load_study("table_01").rows}
    assert switches["fima"] == {} and switches["vv"] == {"method.pixel": False, "method.frame": False}


def test_fold_study_is_part_of_the_whole(tmp_path):
    whole, fold = plan("ut_interaction", tmp_path), plan("ut_interaction_fold1", tmp_path)
    assert set(fold.run_id) < set(whole.run_id)
    assert sorted(whole.split.unique()) == [1, 2, 3, 4, 5] and whole.seed.nunique() == 2


@pytest.mark.parametrize("profile", ["smoke", "demo", "small", "paper"])
def test_every_study_file_holds_at_every_scale(profile, tmp_path):
    "Planning checks recipes, templates and settings; data of its own size is left out by name at the larger scales."
    table = plan(study_names(), tmp_path, profile)
    paper = {name for name in study_names() if name.startswith(("table_", "figure_"))}
    assert paper <= set(table.study) and set(table.state) == {"missing"}
    if profile in ("smoke", "demo"):
        assert set(table.study) == set(study_names())
    ours = table[table.study.isin(paper)]
    if profile == "paper":
        assert {"ucf101", "kinetics400"} == set(ours.data) and ours.steps.notna().all()


def test_every_artefact_of_the_paper_has_a_study_and_a_notebook():
    tables = {f"table_{n:02}" for n in range(1, 12) if n != 3} | {f"table_03{part}" for part in "abcdef"}
    figures = {f"figure_{n:02}" for n in (3, 4, 5, 7, 8, 9, 10, 11)}
    assert tables | figures <= set(study_names())
    for name in tables | figures:
        study = load_study(name)
        further = ["claims_of_figures"] if name == "figure_07" else []  # reads the figures before it, too
        assert study.results == [name[:8] if name.startswith("table_03") else name, *further]
        assert (repository() / "nbs" / "results" / f"{study.results[0]}.ipynb").is_file()
        assert study.published == (name if name in tables else "")


def test_rows_of_the_tables_are_rows_of_the_paper():
    "Every row of Tables 1, 2, 3 and 7 to 11 has its published numbers, and no published row lacks one of ours."
    for name in study_names():
        if not name.startswith("table_"):
            continue
        study = load_study(name, "paper")
        ours, theirs = {row.name for row in study.rows}, set(published(study.published).row)
        if name in ("table_04", "table_05", "table_06"):
            assert ours and ours <= theirs
        else:
            assert theirs <= ours and ours - theirs <= {"random_rgb", "random_difference", "supervised"}


def test_tables_share_their_runs(tmp_path):
    "The default of each ablation is one run, whatever table asks for it."
    table = plan([name for name in study_names() if name.startswith("table_")], tmp_path)

    def run_of(study, row):
        return table[(table.study == study) & (table.row == row) & (table.seed == 0)].run_id.iloc[0]

    for first, others in SAME_RUNS.items():
        assert {run_of(*which) for which in others} == {run_of(*first)}


def test_several_studies_are_one_graph(tmp_path, call, monkeypatch):
    "Studies run together: shared runs once, what has no videos here left out, and tables and figures at the end."
    (tmp_path / "no_videos").mkdir()
    monkeypatch.setenv("FIMA_DATA", str(tmp_path / "no_videos"))
    words = ("table_08", "figure_04", "--profile", "smoke", "--reports", tmp_path)
    planned = call("study", "plan", *words)
    assert planned.returncode == 0
    assert "8 pre-trainings for 2 studies, 8 to do" in planned.stdout
    assert (tmp_path / "plan.svg").stat().st_size > 1000
    done = call("study", "run", *words)
    assert done.returncode == 1, done.stderr
    assert "left out: the runs on ut_interaction" in done.stderr and done.stderr.count("missing") == 3, done.stderr
    jobs = json.loads(next(tmp_path.glob(".work/2_studies_*/jobs.json")).read_text())
    assert len(jobs) == 6 and len({job["process"] for job in jobs}) == 5
    assert len(list((tmp_path / "runs").iterdir())) == 5
    for file in ("tables/table_08.md", "tables/table_08.tex", "figures/figure_04.png", "index.html"):
        assert (tmp_path / file).stat().st_size > 500, file
    status = call("study", "status", *words)
    assert status.returncode == 0 and "failed" not in status.stdout
    assert "3 to do" in call("study", "plan", *words).stdout


def test_other_code_requeues_nothing_by_itself(tmp_path, made):
    "A record made by other code is unverified: shown as such, neither deleted nor run again."
    study = write_study(tmp_path, STUDY | {"rows": [RANDOM]})
    table = made(study, tmp_path)
    assert table.state.tolist() == ["done"]
    folder = tmp_path / "runs" / table.run_id[0]
    record = folder / table.evaluations[0] / "metrics.json"
    first = json.loads(record.read_text())
    record.write_text(record.read_text().replace(first["code"], "0" * 16))  # as if another code had made it
    assert plan(study, tmp_path).state.tolist() == ["unverified"]
    stamps = [file.stat().st_mtime_ns for file in (record, folder / "metrics.json")]
    for recorded in (True, False):
        assert run_studies(study, reports=tmp_path, progress=False, recorded=recorded).state.tolist() == ["unverified"]
    # neither deleted nor run again
    assert [file.stat().st_mtime_ns for file in (record, folder / "metrics.json")] == stamps


@pytest.fixture
def broken_kernel(tmp_path, monkeypatch):
    "A user's own kernel of the name python3, which would be started where kernels are looked up by name."
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-c", "raise SystemExit('the kernel of another environment')", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "mine", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))


def test_smoke_study_end_to_end(tmp_path, broken_kernel, capfd):
    """One run fails, the others end in a table and a figure; a second call does nothing.

    papermill and Snakemake both fill in what stands in braces, so the folder has some in its name.
    """
    tmp_path = tmp_path / "runs of {x} {0} & co"
    tmp_path.mkdir()
    kept = [row.model_dump() for row in load_study("table_01").rows if row.name in ("fima", "random_difference")]
    broken = {"name": "vv", "label": "VV", "overrides": {"optimisation.batch_size": 100}}
    fields = dict(
        evaluations=[{"template": "linear_probe"}, {"template": "retrieval"}, {"template": "probes"}],
        results=["table_01"],
        reference={"linear_probe": {"chance": 1 / 12}, "probes": {"chance": 1 / 8}},
    )
    study = write_study(tmp_path, STUDY | fields | {"rows": [broken, *kept]})
    after = run_studies(study, reports=tmp_path, progress=False).set_index("row")
    assert after.state.to_dict() == {"vv": "failed", "fima": "done", "random_difference": "done"}
    check_failed_run(tmp_path / "runs" / after.run_id["vv"], capfd.readouterr().err)

    # the table: ours, the published numbers, and what was not run
    text = (tmp_path / "tables" / "trial.md").read_text()
    assert "VV + Pix + Fra (FIMA)" in text and "not run" in text and "75.3" in text and "smoke" in text
    tidy = pd.read_csv(tmp_path / "tables" / "trial.csv").set_index("row")
    assert set(tidy.template) == {"linear_probe", "retrieval", "probes"}
    assert tidy.value.drop("vv").between(0, 1).all()
    assert (tidy.n.drop("vv") == 24).all()
    assert set(" ".join(tidy.run_ids).split()) == set(after.run_id)
    metrics = json.loads((tmp_path / "runs" / text.split("(../runs/")[1].split(")")[0]).read_text())
    assert {
        "videos",
        "estimates",
        "data_fingerprint",
        "left_out",
        "commit",
        "libraries",
        "device",
        "seconds",
        "peak_memory_mb",
    } <= set(metrics)
    for kind in ("png", "svg"):
        assert (tmp_path / "figures" / f"trial.{kind}").stat().st_size > 1000
    assert (tmp_path / "tables" / "trial.tex").exists() and (tmp_path / "notebooks" / "trial-table_01.ipynb").exists()

    # without the broken row: nothing is left to do but the table
    study = write_study(tmp_path, STUDY | fields | {"rows": kept})
    run_studies(study, reports=tmp_path, progress=False)
    stamps = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file() and ".work" not in f.parts}
    assert set(run_studies(study, reports=tmp_path, progress=False).state) == {"done"}
    assert {f: f.stat().st_mtime_ns for f in stamps} == stamps


def test_a_stopped_study_continues_and_leaves_no_process(tmp_path, stopped_midway):
    row = VV | {"overrides": VV["overrides"] | {"optimisation.steps": 150}}
    study = write_study(tmp_path, STUDY | {"rows": [row], "evaluations": RETRIEVAL})
    code = f"from fima.report.make import run_studies; run_studies({str(study)!r}, reports={str(tmp_path)!r})"
    call = [sys.executable, "-c", code]
    folder = tmp_path / "runs" / plan(study, tmp_path).run_id[0]
    kept = stopped_midway(call, folder)
    running = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(p)]
    assert not running
    assert plan(study, tmp_path).state.tolist() == ["partial"]
    assert 0 < kept < 150  # it was stopped, and kept what it had
    after = run_studies(study, reports=tmp_path, progress=False)
    assert after.state.tolist() == ["done"]
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 150


def test_numbers_without_weights_are_made_anew(tmp_path, made):
    "What a fresh clone holds, recipes and numbers alone: a run is made again, and no old number survives."
    study = write_study(tmp_path, STUDY | {"rows": [RANDOM]})
    table = made(study, tmp_path)
    folder = tmp_path / "runs" / table.run_id[0]
    record = folder / table.evaluations[0] / "metrics.json"
    first = json.loads(record.read_text())
    for file in list(folder.rglob("*")):
        if file.is_file() and file.name not in ("recipe.json", "metrics.json"):
            file.unlink()
    record.write_text(json.dumps(first | {"estimates": "old"}))
    assert plan(study, tmp_path).state.tolist() == ["recorded"]
    assert run_studies(study, reports=tmp_path, progress=False, recorded=True).state.tolist() == ["recorded"]
    assert run_studies(study, reports=tmp_path, progress=False).state.tolist() == ["done"]
    assert json.loads(record.read_text())["estimates"] == first["estimates"]


def test_a_job_of_two_processes_is_one_run(tmp_path):
    "torchrun inside a job, from the study's option to the record."
    groups = {"method.query_groups": 2, "method.key_groups": 2, "method.negatives": 4}
    row = VV | {"overrides": VV["overrides"] | groups}
    study = write_study(tmp_path, STUDY | {"rows": [row], "evaluations": RETRIEVAL})
    table = run_studies(study, reports=tmp_path, progress=False, resources=Resources(processes=2))
    assert table.state.tolist() == ["done"]
    metrics = json.loads((tmp_path / "runs" / table.run_id[0] / "metrics.json").read_text())
    assert metrics["processes"] == 2 and metrics["steps"] == 4 and metrics["code"]


def test_kills_change_nothing(tmp_path):
    """kill -9 of the launcher, or of everything, at random moments: called again, the same numbers come out.

    A hundred kills of single runs, and one at each of their writes, are the matter of benchmarks/damage.py.
    """
    rows = [
        {"name": name, "label": name, "overrides": switches | {"optimisation.steps": 40}}
        for name, switches in (("vv", VV["overrides"]), ("fima", {}))
    ]
    trial = STUDY | {"rows": rows, "evaluations": RETRIEVAL}
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        folder.mkdir()
        study = write_study(folder, trial)
    began = time.monotonic()
    whole = run_studies(undisturbed / study.name, reports=undisturbed, progress=False)
    assert set(whole.state) == {"done"}
    needed, generator, ended = time.monotonic() - began, random.Random(0), 0
    call = [FIMA, "study", "run", str(study), "--reports", str(killed)]
    for kill in range(4):
        process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=generator.uniform(0.1, 1) * needed)
        except subprocess.TimeoutExpired:
            pass
        ended += process.poll() is not None
        process.kill()
        for each in Path("/proc").glob("[0-9]*/cmdline") if kill % 2 else []:
            if str(killed).encode() in _read(each) and int(each.parent.name) != os.getpid():
                os.kill(int(each.parent.name), signal.SIGKILL)
        process.wait()
    assert ended < 4, "no call was killed before its end"
    assert set(run_studies(study, reports=killed, progress=False).state) == {"done"}

    def numbers(folder):
        found = {}
        for file in sorted(folder.glob("runs/**/metrics.json")):
            metrics = read_metrics(file)
            names = {"final", "chance", "estimates", "videos", "data_fingerprint", "steps"} & set(metrics)
            found[str(file.relative_to(folder))] = {name: metrics[name] for name in names}
        return found

    assert numbers(killed) == numbers(undisturbed) and len(numbers(killed)) == 4


def _read(file):
    "Read a process's command line; nothing where it has ended."
    try:
        return file.read_bytes()
    except OSError:
        return b""


def test_a_kernel_that_is_killed_is_an_error_and_not_a_wait(tmp_path):
    "Out of memory looks like this: the process that computes is gone from one moment to the next."
    cells = [
        nbformat.v4.new_code_cell("length: float = 600.0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import time; time.sleep(length)"),
    ]
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": dict(display_name="python3", language="python", name="python3")}
    )
    nbformat.write(notebook, tmp_path / "sleeper.ipynb")
    with Kernel() as kernel:

        def kill():
            while not (kernel.manager and kernel.manager.has_kernel):
                time.sleep(0.05)
            time.sleep(3)
            os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        with pytest.raises(JobError, match="the process that computed died"):
            execute(tmp_path / "sleeper.ipynb", tmp_path / "executed.ipynb", {"length": 601.0}, kernel)
    assert (tmp_path / "executed.ipynb").exists()


@pytest.mark.parametrize("deaths", [2, 3])
def test_a_kernel_that_ends_while_it_starts_is_started_again(tmp_path, monkeypatch, capfd, deaths):
    "Two kernels that start at once may be given the same ports; the one that comes late ends."
    start, died = Kernel._start, []

    def dying(self, folder):
        start(self, folder)
        if len(died) < deaths:
            died.append(self.manager.provisioner.pid)
            os.kill(died[-1], signal.SIGKILL)

    monkeypatch.setattr(Kernel, "_start", dying)
    with Kernel() as kernel:
        if deaths < 3:
            assert kernel.ready(tmp_path).is_alive() and len(died) == deaths
        else:
            with pytest.raises(RuntimeError, match="Kernel died before replying"):
                kernel.ready(tmp_path)
    assert capfd.readouterr().err.count("started again") == min(deaths, 2)


def test_the_page_has_the_scale_of_what_its_folder_holds(tmp_path, monkeypatch):
    "The repository's page shows each study at its own scale; a folder of one's own holds what was asked for."
    asked, own = [], write_study(tmp_path, STUDY | {"name": "own", "rows": [{"name": "fima", "label": "FIMA"}]})
    monkeypatch.setenv("FIMA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("fima.report.make.results_notebooks", lambda *_: [])
    monkeypatch.setattr("fima.report.make.build_page", lambda folder, profile, *_: asked.append(profile) or folder)
    for study, *where in (
        ("table_01",),
        ("table_01", reports_folder()),
        (own, tmp_path),
        ("table_01", tmp_path, "smoke"),
    ):
        make_report(study, *where, progress=False)
    assert asked == ["", "", "smoke", "smoke"]
    # a study that names no results notebook has a plain table
    assert "not run" in (tmp_path / "tables" / "own.md").read_text()


def test_a_setting_that_a_method_does_not_read_is_refused_with_its_row(tmp_path):
    row = {"name": "still", "label": "L", "method": "mcl", "overrides": {"method.pixel": False}}
    file = write_study(tmp_path, STUDY | {"rows": [row]})
    with pytest.raises(ValueError, match="trial, row still: method.pixel is no setting of mcl"):
        expand(load_study(file))
