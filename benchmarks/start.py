"""How long a call takes to be answered, as a multiple of `import torch`: processor time, medians of several processes.

python benchmarks/start.py          every call, five times
python benchmarks/start.py 3        three times
"""

import os
import resource
import subprocess
import sys
import tempfile
from statistics import median

IMPORT = "import torch"
CALL = "import sys; from fima.cli import main; sys.exit(main(sys.argv[1:]))"
HELP = ["--help", "pretrain --help", "study run --help"]
WRONG = [
    "pretrain --profile dmo",
    "pretrain --method moka",
    "pretrain --change method.pxel=false",
    "pretrain --change seed=-3",
    "pretrain --videos /nowhere",
    "study plan tabel_01",
    "study plan table_01 --change method.pxel=1",
    "study run tabel_01",
    "study run table_01 --change method.pxel=1",
    "study run table_01 --cores 0",
    "study report tabel_01",
    "study status tabel_01",
    "study verify --steps 11",
    "evaluate nowhere",
    "evaluate . --template ../../x",
    "compare a b",
    "data check ucf11",
    "data check ucf101 /nowhere",
    "data card ucf11",
    "data make --size 7",
    "checkpoint import nowhere run",
    "checkpoint export nowhere e.safetensors",
]
RIGHT = ["pretrain --profile smoke --show", "study plan table_01 --no-picture", "study status table_01"]


def seconds(words, folder):
    "Processor time of one process, user and system."
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", *words], capture_output=True, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(times=5):
    "Print what each call takes, and the slowest of those that are wrong."
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"FIMA_RUNS": folder, "FIMA_WORK": os.environ.get("FIMA_WORK", folder), "OMP_NUM_THREADS": "1"}
        calls = {IMPORT: [IMPORT]} | {call: [CALL, *call.split()] for call in HELP + WRONG + RIGHT}
        took = {call: [] for call in calls}
        for _ in range(times):  # in turns, so that a busy moment of the machine meets all of them
            for call, words in calls.items():
                took[call].append(seconds(words, folder))
    base = median(took[IMPORT])
    for call, each in took.items():
        name = call if call == IMPORT else f"fima {call}"
        print(f"{median(each) / base:5.2f} x  {median(each):6.2f} s  {name}")
    worst = max(WRONG, key=lambda call: median(took[call]))
    print(f"slowest wrong call: {median(took[worst]) / base:.2f} x import torch (fima {worst})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
