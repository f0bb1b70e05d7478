"""Studies across notebooks: what is refused, planned, run, stopped, continued and shown. Everything runs the smoke profile."""

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
import yaml

from fima.evaluation.core.record_format import read_metrics
from fima.study.plan.schema import load_study, reports_folder, repository, study_names
from fima.study.run.jobs import JobError, Kernel, execute
from fima.study.plan.plan import expand, plan
from fima.report.report import published
from fima.report.make import make_report, run_studies
from fima.study.run.run import Resources

STUDY = {
    "name": "trial",
    "title": "a trial",
    "base": {"profile": "smoke"},
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
        with pytest.raises(ValueError, match=named) as refused:
            run_studies(write(tmp_path, **changes), reports=tmp_path)
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
    "Recipes, templates and their settings are checked by planning; data of its own size has no settings at the larger scales, and is left out by name."
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
        assert (
            study.results == [name[:8] if name.startswith("table_03") else name]
            and (repository() / "nbs" / "results" / f"{study.results[0]}.ipynb").is_file()
        )
        assert study.published == (name if name in tables else "")


def test_rows_of_the_tables_are_rows_of_the_paper():
    "Every row of Tables 1, 2, 3 and 7 to 11 has its published numbers, and no published row lacks one of ours."
    for name in study_names():
        study = load_study(name, "paper") if name.startswith("table_") else None
        if study is None:
            continue
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

    same = {
        run_of(*which)
        for which in [
            ("table_01", "vv_pix"),
            ("table_02", "dc_fs_md"),
            ("table_03a", "threshold_0_7"),
            ("table_03b", "blocks_2"),
            ("table_03c", "width_512_heads_4"),
            ("table_03d", "ratio_0_5"),
            ("table_03e", "both"),
            ("table_03f", "both"),
            ("table_10", "negatives_784"),
            ("table_11", "dc_fs_md"),
        ]
    }
    assert len(same) == 1
    assert (
        len(
            {
                run_of(*which)
                for which in [
                    ("table_01", "fima"),
                    ("table_07", "width_512"),
                    ("table_08", "shared"),
                    ("table_09", "infonce"),
                ]
            }
        )
        == 1
    )
    assert (
        run_of("table_02", "vd") == run_of("table_01", "vv_vd") == run_of("table_11", "vd") == run_of("table_10", "vd")
    )


def test_several_studies_are_one_graph(tmp_path, call, monkeypatch):
    "Studies run together: shared runs once, short runs in few processes, what has no videos here left out, a picture of the plan, tables, figures and the page at the end."
    (tmp_path / "no_videos").mkdir()
    monkeypatch.setenv("FIMA_DATA", str(tmp_path / "no_videos"))
    words = ("table_08", "figure_04", "--profile", "smoke", "--reports", tmp_path)
    planned = call("study", "plan", *words)
    assert (
        planned.returncode == 0
        and "8 pre-trainings for 2 studies, 8 to do" in planned.stdout
        and (tmp_path / "plan.svg").stat().st_size > 1000
    )
    done = call("study", "run", *words)
    assert (
        done.returncode == 1
        and "left out: the runs on ut_interaction" in done.stderr
        and done.stderr.count("missing") == 3
    ), done.stderr
    jobs = json.loads(tmp_path.glob(".work/2_studies_*/jobs.json").__next__().read_text())
    assert len(jobs) == 6 and len({job["process"] for job in jobs}) == 5
    assert len(list((tmp_path / "runs").iterdir())) == 5
    for file in ("tables/table_08.md", "tables/table_08.tex", "figures/figure_04.png", "index.html"):
        assert (tmp_path / file).stat().st_size > 500, file
    status = call("study", "status", *words)
    assert status.returncode == 0 and "failed" not in status.stdout
    assert "3 to do" in call("study", "plan", *words).stdout


def test_other_code_requeues_nothing_by_itself(tmp_path, made):
    "A record made by other code is unverified: shown as such, neither deleted nor run again."
    study = write(tmp_path, rows=[STUDY["rows"][0] | {"name": "random", "overrides": {"method.name": "random"}}])
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


def test_smoke_study_end_to_end(tmp_path, capfd):
    "One run fails, the others end in a table and a figure; a second call does nothing."
    kept = [row.model_dump() for row in load_study("table_01").rows if row.name in ("fima", "random_difference")]
    broken = {"name": "vv", "label": "VV", "overrides": {"optimisation.batch_size": 100}}
    parts = dict(
        evaluations=[{"template": "linear_probe"}, {"template": "retrieval"}, {"template": "probes"}],
        results=["table_01"],
        reference={"linear_probe": {"chance": 1 / 12}, "probes": {"chance": 1 / 8}},
    )
    study = write(tmp_path, rows=[broken, *kept], **parts)
    after = run_studies(study, reports=tmp_path, progress=False).set_index("row")
    assert after.state.to_dict() == {"vv": "failed", "fima": "done", "random_difference": "done"}

    folder = tmp_path / "runs" / after.run_id["vv"]  # the failure: its notebook is kept, and told of in one line
    notebook = nbformat.read(folder / "pretrain.ipynb", 4)
    assert any(o.get("ename") == "ValueError" for c in notebook.cells for o in c.get("outputs", []))
    lines = [line for line in capfd.readouterr().err.splitlines() if "failed: " in line]
    assert len(lines) == 1 and "batch_size" in lines[0] and str(folder / "pretrain.ipynb") in lines[0]

    # the table: ours, the published numbers, and what was not run
    text = (tmp_path / "tables" / "trial.md").read_text()
    assert "VV + Pix + Fra (FIMA)" in text and "not run" in text and "75.3" in text and "smoke" in text
    tidy = pd.read_csv(tmp_path / "tables" / "trial.csv").set_index("row")
    assert (
        set(tidy.template) == {"linear_probe", "retrieval", "probes"}
        and tidy.value.drop("vv").between(0, 1).all()
        and (tidy.n.drop("vv") == 24).all()
    )
    assert set(" ".join(tidy.run_ids).split()) == set(after.run_id)
    told = json.loads((tmp_path / "runs" / text.split("(../runs/")[1].split(")")[0]).read_text())
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
    } <= set(told)
    for kind in ("png", "svg"):
        assert (tmp_path / "figures" / f"trial.{kind}").stat().st_size > 1000
    assert (tmp_path / "tables" / "trial.tex").exists() and (tmp_path / "notebooks" / "trial-table_01.ipynb").exists()

    study = write(tmp_path, rows=kept, **parts)  # without the broken row: nothing is left to do but the table
    run_studies(study, reports=tmp_path, progress=False)
    stamps = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file() and ".work" not in f.parts}
    assert set(run_studies(study, reports=tmp_path, progress=False).state) == {"done"}
    assert {f: f.stat().st_mtime_ns for f in stamps} == stamps


def test_a_stopped_study_continues_and_leaves_no_process(tmp_path, stopped_midway):
    row = STUDY["rows"][0] | {"overrides": STUDY["rows"][0]["overrides"] | {"optimisation.steps": 150}}
    study = write(tmp_path, rows=[row], evaluations=[{"template": "retrieval", "settings": {"ks": [1, 5]}}])
    call = [
        sys.executable,
        "-c",
        f"from fima.report.make import run_studies; run_studies({str(study)!r}, reports={str(tmp_path)!r})",
    ]
    folder = tmp_path / "runs" / plan(study, tmp_path).run_id[0]
    kept = stopped_midway(call, folder)
    running = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(p)]
    assert not running
    assert plan(study, tmp_path).state.tolist() == ["partial"]
    assert 0 < kept < 150  # it was told to stop, and kept what it had
    after = run_studies(study, reports=tmp_path, progress=False)
    assert after.state.tolist() == ["done"]
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 150


def test_numbers_without_weights_are_made_anew(tmp_path, made):
    "What a fresh clone holds, recipes and numbers alone: a run is trained and evaluated again, and no old number survives."
    study = write(tmp_path, rows=[STUDY["rows"][0] | {"name": "random", "overrides": {"method.name": "random"}}])
    table = made(study, tmp_path)
    folder = tmp_path / "runs" / table.run_id[0]
    record = folder / table.evaluations[0] / "metrics.json"
    first = json.loads(record.read_text())
    for file in [
        file for file in folder.rglob("*") if file.is_file() and file.name not in ("recipe.json", "metrics.json")
    ]:
        file.unlink()
    record.write_text(json.dumps(first | {"estimates": "old"}))
    assert plan(study, tmp_path).state.tolist() == ["recorded"] and run_studies(
        study, reports=tmp_path, progress=False, recorded=True
    ).state.tolist() == ["recorded"]
    assert run_studies(study, reports=tmp_path, progress=False).state.tolist() == ["done"]
    assert json.loads(record.read_text())["estimates"] == first["estimates"]


def test_a_job_of_two_processes_is_one_run(tmp_path):
    "torchrun inside a job, from the study's option to the record."
    row = STUDY["rows"][0] | {
        "overrides": STUDY["rows"][0]["overrides"]
        | {"method.query_groups": 2, "method.key_groups": 2, "method.negatives": 4}
    }
    study = write(tmp_path, rows=[row], evaluations=[{"template": "retrieval", "settings": {"ks": [1, 5]}}])
    table = run_studies(study, reports=tmp_path, progress=False, resources=Resources(processes=2))
    assert table.state.tolist() == ["done"]
    told = json.loads((tmp_path / "runs" / table.run_id[0] / "metrics.json").read_text())
    assert told["processes"] == 2 and told["steps"] == 4 and told["code"]


def test_ten_kills_change_nothing(tmp_path):
    "kill -9 of the launcher, or of everything as when a machine is lost, at random moments: called again, the same numbers come out."
    rows = [
        {"name": name, "label": name, "overrides": switches | {"optimisation.steps": 40}}
        for name, switches in (("vv", {"method.pixel": False, "method.frame": False}), ("fima", {}))
    ]
    parts = dict(rows=rows, evaluations=[{"template": "retrieval", "settings": {"ks": [1, 5]}}])
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        folder.mkdir()
    began = time.monotonic()
    assert set(run_studies(write(undisturbed, **parts), reports=undisturbed, progress=False).state) == {"done"}
    needed, generator, ended, study = time.monotonic() - began, random.Random(0), 0, write(killed, **parts)
    call = [
        sys.executable,
        "-c",
        "import sys; from fima.cli import main; sys.exit(main(sys.argv[1:]))",
        "study",
        "run",
        str(study),
        "--reports",
        str(killed),
    ]
    for kill in range(10):
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
    assert ended < 10, "no call was killed before its end"
    assert set(run_studies(study, reports=killed, progress=False).state) == {"done"}

    def numbers(folder):
        told = {
            str(file.relative_to(folder)): read_metrics(file) for file in sorted(folder.glob("runs/**/metrics.json"))
        }
        return {
            name: {
                key: value
                for key, value in record.items()
                if key in ("final", "chance", "estimates", "videos", "data_fingerprint", "steps")
            }
            for name, record in told.items()
        }

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


def test_the_page_has_the_scale_of_what_its_folder_holds(tmp_path, monkeypatch):
    "The repository's page shows each study at its own scale; a folder of one's own holds what was asked for."
    asked, own = [], tmp_path / "own.yaml"
    own.write_text(
        "name: own\ntitle: T\nbase: {profile: smoke}\nrows: [{name: fima, label: FIMA}]\nevaluations: [{template: "
        "linear_probe}]\n"
    )
    monkeypatch.setattr("fima.report.make.results_notebooks", lambda *_: [])
    monkeypatch.setattr("fima.report.make.build_page", lambda folder, profile: asked.append(profile) or folder)
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
    file = tmp_path / "own.yaml"
    file.write_text(
        "name: own\ntitle: T\nbase: {profile: smoke}\nrows: [{name: still, label: L, method: mcl, overrides: "
        "{method.pixel: false}}]\nevaluations: [{template: linear_probe}]\n"
    )
    with pytest.raises(ValueError, match="own, row still: method.pixel is no setting of mcl"):
        expand(load_study(file))
