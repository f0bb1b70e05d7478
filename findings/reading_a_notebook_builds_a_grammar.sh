#!/usr/bin/env bash
# Where JupyterLab is installed, `import nbformat` takes seconds of processor time in every process: jsonschema, which nbformat uses,
# imports rfc3987-syntax when it finds it, and that package compiles the grammar of IRIs at its import, whether an IRI is ever checked or not.
# JupyterLab brings it (jupyter-server, jupyter-events, jsonschema[format-nongpl]), so papermill, nbclient and nbconvert pay for it as well.
# Expected: an optional check costs nothing until it is used. Seen with nbformat 5.11.1, jsonschema 4.26.0, rfc3987-syntax 1.1.0, lark 1.3.1:
# the import takes several times as long as without that one package (compared within one call; medians of five).
# Exits with 0 while this is so; with 1 once the behaviour has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check nbformat==5.11.1 'jsonschema[format-nongpl]==4.26.0' rfc3987-syntax==1.1.0 lark==1.3.1

cat > measure.py <<'PROGRAM'
import statistics
import subprocess
import sys

PROGRAM = """
import sys, time
if sys.argv[1] == "without": sys.modules["rfc3987_syntax"] = None
began = time.process_time()
import nbformat
print(time.process_time() - began, "lark" in sys.modules)
"""
seconds, loaded = {"with": [], "without": []}, {}
for _ in range(5):
    for kind in seconds:
        told = subprocess.run([sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True, check=True).stdout.split()
        seconds[kind].append(float(told[0]))
        loaded[kind] = told[1] == "True"
medians = {kind: statistics.median(values) for kind, values in seconds.items()}
for kind in seconds:
    print(f"import nbformat {kind} rfc3987-syntax: {medians[kind]:.2f} s of processor time; grammar compiler loaded: {loaded[kind]}")
sys.exit(not (loaded["with"] and not loaded["without"] and medians["with"] > 2 * medians["without"]))
PROGRAM

if venv/bin/python measure.py; then echo "as described"; else echo "changed: the behaviour is not as described any more"; exit 1; fi
