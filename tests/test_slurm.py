"""Studies on Slurm, with stand-ins for its commands: what is submitted, what fails, what stops and continues."""

# The stand-ins record every call and run the jobs here. As on clusters that track processes by control groups,
# `scancel` tells only the batch script and the first process of a step, and kills what is left after a while.

import json
import os
import signal
import subprocess
import sys

import pytest

from fima.study.plan.schema import load_study
from fima.study.run.jobs import Kernel, build_jobs, do_jobs, pending
from fima.study.plan.plan import expand, plan
from fima.report.make import run_studies
from fima.study.run.run import Resources
from fima.study.run.slurm import Slurm, job_name, queued
from helpers import FIMA, PLUGIN, STUDY, VV, check_failed_run, check_refusal, write_study

pytestmark = pytest.mark.usefixtures("module_work")
pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `slurm` is not installed")

COMMANDS = ("sbatch", "srun", "scancel", "squeue", "sacct", "sacctmgr", "scontrol", "sinfo")
STAND_IN = r"""
import fcntl, json, os, re, signal, subprocess, sys, time
from pathlib import Path
place, command, words = Path(__file__).resolve().parent / "state", Path(sys.argv[0]).name, sys.argv[1:]
KILL_WAIT = 40

def option(*names):
    for name in names:
        for number, word in enumerate(words):
            if word == name: return words[number + 1]
            if word.startswith(name + "="): return word.partition("=")[2]

def tell(number, **changes):
    with (place / "lock").open("w") as lock: # one writer at a time
        fcntl.flock(lock, fcntl.LOCK_EX)
        file, new = place / f"{number}.job", place / f"{number}.new"
        new.write_text(json.dumps(json.loads(file.read_text() or "{}") | changes))
        new.replace(file) # readers see the old or the new state

def jobs():
    found = {}
    for file in sorted(place.glob("*.job")):
        if file.stat().st_size: found[file.stem] = json.loads(file.read_text())
    return found

def kill(group, kind):
    try: os.killpg(group, kind)
    except ProcessLookupError: pass

def free(number): # taken as it is asked for: two jobs may be submitted at once
    try: (place / f"{number}.job").touch(exist_ok=False)
    except FileExistsError: return False
    return True

def call():
    with (place / "calls").open("a") as calls: calls.write(json.dumps([command, *words]) + "\n")

def sbatch():
    call()
    if option("-p") != "gpu":
        said = f"sbatch: error: invalid partition specified: {option('-p')}"
        sys.exit(said + "\nsbatch: error: Batch job submission failed")
    number = next(n for n in range(100, 10**6) if free(n))
    tell(number, name=option("--job-name"), state="PENDING", over=False, groups=[])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FIMA_")} # as some clusters
    environment |= {"SLURM_JOB_ID": str(number), "CUDA_VISIBLE_DEVICES": "3,5" if option("--gpus") else ""}
    script = [option("--output").replace("%j", str(number)), option("-D"), option("--wrap")]
    batch = [sys.executable, "-S", str(place.parent / "stand_in.py"), str(number), *script]
    nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen(batch, start_new_session=True, env=environment, **nothing)
    print(number)

def node(number, output, folder, wrapped): # what slurmd does with a batch script
    shell = ["sh", "-c", wrapped]
    with open(output, "w") as log:
        script = subprocess.Popen(shell, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    tell(number, state="RUNNING", groups=[script.pid])
    code, since = script.wait(), time.monotonic()
    def cancelled(): return jobs()[number]["state"].startswith("CANCELLED")
    def steps(): return [group for group in jobs()[number]["groups"][1:] if Path(f"/proc/{group}").exists()]
    while cancelled() and steps() and time.monotonic() < since + KILL_WAIT: time.sleep(.1)
    for group in jobs()[number]["groups"]: kill(group, signal.SIGKILL)
    tell(number, over=True, **({} if cancelled() else {"state": "FAILED" if code else "COMPLETED"}))

def srun():
    first = next(number for number, word in enumerate(words) if not word.startswith("-"))
    number = os.environ["SLURM_JOB_ID"]
    step = subprocess.Popen(words[first:], start_new_session=True, env=os.environ | {"SLURM_STEP_ID": "0"})
    tell(number, groups=[*jobs()[number]["groups"], step.pid])
    sys.exit(step.wait())

def scancel():
    call()
    for number in words:
        job = jobs()[number]
        if job["over"]: continue
        tell(number, state="CANCELLED by 1000", over=not job["groups"])
        for group in reversed(job["groups"]): os.kill(group, signal.SIGTERM) # the first process of each group alone

def squeue():
    for number, job in jobs().items():
        if not job["over"]: print(f"{number}|{job['name']}")

def sacct():
    name, seen, deadline = option("--name"), place / "seen", time.monotonic() + 50
    def mine(): return {number: job for number, job in jobs().items() if job["name"] == name}
    def over(): return str(sorted(number for number, job in mine().items() if job["over"]))
    if name: # the plugin asks ever more rarely
        while over() == (seen.read_text() if seen.exists() else "[]") and time.monotonic() < deadline: time.sleep(.2)
        seen.write_text(over())
    for number, job in mine().items(): print(f"{number}|{job['state'] if job['over'] else 'RUNNING'}")

def sacctmgr(): print("lab")
def scontrol(): print("MaxArraySize = 1001\nMinJobAge = 300 sec")
def sinfo(): pass

if command in globals(): globals()[command]()
else: node(*words)
"""

BROKEN = {"name": "broken", "label": "a failure", "overrides": {"optimisation.batch_size": 100}}
TRIAL = STUDY | {
    "rows": [VV, {"name": "fima", "label": "FIMA"}, BROKEN],
    "evaluations": [{"template": "retrieval", "settings": {"ks": [1, 5]}}],
}
CHECKS = [
    "--slurm-init-seconds-before-status-checks",
    "1",
    "--seconds-between-status-checks",
    "1",
    "--max-status-checks-per-second",
    "10",
]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    "Put the stand-ins onto PATH; gives what they were called with. At the end no process of a job may be left."
    place = tmp_path / "slurm"
    (place / "state").mkdir(parents=True)
    (place / "stand_in.py").write_text(STAND_IN)
    for name in COMMANDS:
        (place / name).write_text(f"#!{sys.executable} -S\n{STAND_IN}")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    # here as in a job with one core
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    calls = place / "state" / "calls"

    def called(command):
        made = map(json.loads, calls.read_text().splitlines() if calls.exists() else [])
        return [words[1:] for words in made if words[0] == command]

    yield called
    for file in (place / "state").glob("*.job"):
        for group in json.loads(file.read_text())["groups"]:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                pass


def asked(words):
    "What one call of sbatch asks for; of its options those with a value."
    long = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    return long | {
        word: words[number + 1]
        for number, word in enumerate(words[:-1])
        if word.startswith("-") and "=" not in word and not words[number + 1].startswith("-")
    }


def record(folder):
    "What a run computed: its last losses, and the estimates of its evaluations."
    metrics = json.loads((folder / "metrics.json").read_text())
    estimates = {file.parent.name: json.loads(file.read_text())["estimates"] for file in folder.glob("*/metrics.json")}
    return metrics["data_fingerprint"], metrics["final"], estimates


def test_a_study_on_slurm_is_the_study_here(tmp_path, cluster, capfd, monkeypatch):
    "Two runs have the metrics of a run in this process; a failing one is a line and keeps its notebook."
    # the encoder of a plugin, named by a relative path: jobs work in another folder, and are handed no variable of ours
    (tmp_path / "hum.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIMA_PLUGINS", "hum.py")
    hum = {"name": "fima", "label": "FIMA", "overrides": {"encoder.name": "hum", "encoder.options": {}}}
    study, reports = write_study(tmp_path, TRIAL | {"rows": [VV, hum, BROKEN]}), tmp_path / "reports"
    slurm = Slurm("gpu", hours=1.5, account="lab", memory=2, cpus=1, jobs=4)
    resources = Resources(cores=1, slurm=slurm, options=CHECKS)
    after = run_studies(study, reports=reports, resources=resources, results=False, progress=False).set_index("row")
    assert after.state.to_dict() == {"vv": "done", "fima": "done", "broken": "failed"}

    # the data, then the two processes that three short runs share
    submitted = [asked(words) for words in cluster("sbatch")]
    assert submitted[0]["--comment"] == "rule_data"
    assert sorted(words["--comment"] for words in submitted[1:]) == ["rule_short-0", "rule_short-1"]
    same = {"-p": "gpu", "-A": "lab", "-t": "90", "--mem": "2048", "--nodes": "1", "--cpus-per-task": "1"}
    same |= {"--signal": "TERM@120"}
    for number, words in enumerate(submitted):
        assert words.items() >= same.items() and words["--job-name"].startswith("fima-")
        assert words.get("--gpus") == (None if number == 0 else "1")
    check_failed_run(reports / "runs" / after.run_id["broken"], capfd.readouterr().err)
    assert not cluster("scancel")

    todo = pending([each for each in expand(load_study(study)) if each.row.name != "broken"], tmp_path / "here")
    (tmp_path / "work" / "stamps").mkdir(parents=True)
    assert not do_jobs(build_jobs(todo, tmp_path / "here", tmp_path / "work", cores=1)[1:], Kernel())
    for name in todo:
        data, losses, estimates = record(reports / "runs" / name)
        same_data, same_losses, same_estimates = record(tmp_path / "here" / "runs" / name)
        assert data == same_data
        assert losses == pytest.approx(same_losses, rel=1e-5)
        assert estimates == same_estimates and estimates

    work = reports / ".work" / "trial"  # a call that was killed leaves a job: the next one ends it before anything else
    (work / "slurm").write_text(job_name(work))
    left = ("--job-name", f"{job_name(work)}_left", "--output", str(tmp_path / "%j.log"), "-D", str(tmp_path))
    subprocess.run(["sbatch", "-p", "gpu", *left, "--wrap=sleep 600"], check=True, stdout=subprocess.DEVNULL)
    assert queued(job_name(work)) == {"103"}
    study = write_study(tmp_path, TRIAL | {"rows": [VV, hum]})
    assert set(run_studies(study, reports=reports, results=False, progress=False).state) == {"done"}
    assert cluster("scancel") == [["103"]] and not queued(job_name(work))


def test_what_slurm_refuses_is_one_line(tmp_path, cluster, capfd):
    study, reports = write_study(tmp_path, TRIAL | {"rows": [VV]}), tmp_path / "reports"
    resources = Resources(slurm=Slurm("gup", cpus=1), options=CHECKS)
    after = run_studies(study, reports=reports, resources=resources, results=False, progress=False)
    assert after.state.tolist() == ["missing"] and len(cluster("sbatch")) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "failed: " in line]
    refusal = "sbatch: error: invalid partition specified: gup sbatch: error: Batch job"
    assert line.startswith(f"failed: data: Slurm refused it: {refusal}")


def test_settings_that_cannot_be_meant_are_refused(tmp_path, cluster, call, monkeypatch):
    study = write_study(tmp_path, TRIAL)
    run = ("study", "run", study, "--reports", tmp_path / "reports")
    for words, said in [
        (["--hours", "2"], "--hours is asked of Slurm: give --slurm"),
        (["--slurm", "gpu; ls"], "partition must be a name"),
        (["--slurm", "gpu", "--memory", "0"], "memory must be above 0"),
    ]:
        check_refusal(call(*run, *words), said)
    monkeypatch.setattr("fima.study.run.slurm.find_spec", lambda name: None)
    assert "pip install -e '.[slurm]'" in call(*run, "--slurm", "gpu").stderr
    assert not cluster("sbatch") and not (tmp_path / "reports" / "runs").exists()


def test_ctrl_c_cancels_the_jobs_and_the_next_call_continues(tmp_path, cluster, stopped_midway):
    "A training keeps a checkpoint though Slurm tells the first process of its step alone; a call here goes on."
    row = VV | {"overrides": VV["overrides"] | {"optimisation.steps": 90}}
    study, reports = write_study(tmp_path, TRIAL | {"rows": [row]}), tmp_path / "reports"
    slurm = ["--slurm", "gpu", "--gpus", "0", "--cpus", "1", *(f"--option={word}" for word in CHECKS)]
    call = [FIMA, "study", "run", str(study), "--reports", str(reports), "--no-results", *slurm]
    folder = reports / "runs" / plan(study, reports).run_id[0]
    kept = stopped_midway(call, folder)
    assert ["101"] in cluster("scancel") and "--gpus" not in asked(cluster("sbatch")[1])
    assert 0 < kept < 90
    after = run_studies(study, reports=reports, results=False, progress=False)
    assert after.state.tolist() == ["done"]
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(10, 91, 10))  # as if nothing had been
