"""What the benchmarks share: a measurement in a process of its own, of this state of the code or another."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def alone(script: str, words: list[str], state: Path = HERE):
    "Run a script with `--measure` and some words in a process of one thread; give what it prints last, read as JSON."
    environment = os.environ | dict(PYTHONPATH=str(state), OMP_NUM_THREADS="1")
    call = [sys.executable, script, "--measure", *words]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, cwd=state)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} in {state}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def parser_of(script_says: str, repetitions: int) -> argparse.ArgumentParser:
    "Make a parser with the options of every benchmark that compares."
    parser = argparse.ArgumentParser(description=script_says.splitlines()[0])
    parser.add_argument("--before", type=Path, help="a checkout of an earlier state")
    parser.add_argument("--repetitions", type=int, default=repetitions, help="processes of each measurement")
    parser.add_argument("--output", type=Path, help="the folder that holds tables/; default: print alone")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    return parser
