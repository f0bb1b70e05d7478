"""How long a call takes to be answered, as a multiple of `import torch`: processor time, medians of several processes.

    python benchmarks/start.py [--repetitions 5] [--output reports]

Calls that are wrong should be answered in about the time of `import torch`; the last one plans 1,001 runs.
Writes <output>/tables/start.{json,md,csv,tex}. Nothing is asserted; the numbers depend on the machine.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
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
THOUSAND = f"study plan table_01 --no-picture --seeds {','.join(map(str, range(143)))}"  # seven rows
RIGHT = ["pretrain --profile smoke --show", "study plan table_01 --no-picture", "study status table_01", THOUSAND]


def seconds(words, folder):
    "Processor time of one process, user and system."
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", *words], capture_output=True, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write(took, base, reports):
    "Write the table."
    import pandas as pd

    from fima.report.sheets import write_tables
    from fima.training.checkpoint import device_name

    kinds = {IMPORT: ""} | dict.fromkeys(HELP, "help") | dict.fromkeys(WRONG, "wrong") | dict.fromkeys(RIGHT, "right")
    rows = [
        dict(call=call.replace(THOUSAND, "study plan table_01 --seeds 0,1, ..., 142"), kind=kinds[call], each=each)
        for call, each in took.items()
    ]
    shown = pd.DataFrame(
        {
            "call": [f"`{'' if row['call'] == IMPORT else 'fima '}{row['call']}`" for row in rows],
            "": [row["kind"] for row in rows],
            "s": [f"{median(row['each']):.2f}" for row in rows],
            "times import torch": [f"{median(row['each']) / base:.2f}" for row in rows],
        }
    )
    notes = [
        f"Processor seconds of a whole process, medians of {len(rows[0]['each'])} in turns; {device_name()}. The last "
        "call plans 1,001 runs.",
    ]
    numbers = pd.DataFrame([dict(call=row["call"], seconds=value) for row in rows for value in row["each"]])
    return write_tables("start", "How long a call takes to be answered", {"": shown}, numbers, notes, reports)


def main():
    "Print what each call takes, and the slowest of those that are wrong."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5, help="processes a call")
    parser.add_argument("--output", type=Path, help="the folder that holds tables/; default: print alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"FIMA_RUNS": folder, "FIMA_WORK": os.environ.get("FIMA_WORK", folder), "OMP_NUM_THREADS": "1"}
        calls = {IMPORT: [IMPORT]} | {call: [CALL, *call.split()] for call in HELP + WRONG + RIGHT}
        took = {call: [] for call in calls}
        for _ in range(arguments.repetitions):  # in turns, so that a busy moment of the machine meets all of them
            for call, words in calls.items():
                took[call].append(seconds(words, folder))
    base = median(took[IMPORT])
    for call, each in took.items():
        name = call if call == IMPORT else f"fima {call}"
        print(f"{median(each) / base:5.2f} x  {median(each):6.2f} s  {name[:80]}")
    worst = max(WRONG, key=lambda call: median(took[call]))
    print(f"slowest wrong call: {median(took[worst]) / base:.2f} x import torch (fima {worst})")
    if arguments.output:
        print(*write(took, base, arguments.output), sep="\n")


if __name__ == "__main__":
    main()
