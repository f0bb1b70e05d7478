"""Store in nbs/results, where they are read, what the published results notebooks show.

    python scripts/results_outputs.py           every notebook that was executed
    python scripts/results_outputs.py table_01  one of them

To be called after `fima study report NAMES --publish`, which executes copies in reports/notebooks with the published
folder as parameter. A copy whose code is not that of the notebook is refused: it is to be executed again.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
EXECUTED, ROOM = TOP / "reports" / "notebooks", TOP / "nbs" / "results"


def code_by_id(notebook):
    "Give the code cells of a notebook by their ids."
    return {cell["id"]: cell for cell in notebook["cells"] if cell["cell_type"] == "code"}


def store(executed, target):
    "Put the outputs of an executed copy into the cells of the notebook, without what went to stderr."
    notebook = json.loads(target.read_text())
    made = code_by_id(json.loads(executed.read_text()))
    for name, cell in code_by_id(notebook).items():
        if name not in made or "".join(made[name]["source"]) != "".join(cell["source"]):
            raise SystemExit(f"{executed} must be of {target.name} as it is now, got other code in cell {name}")
        cell["outputs"] = [output for output in made[name]["outputs"] if output.get("name") != "stderr"]
    target.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    subprocess.run([Path(sys.executable).with_name("nbdev_clean"), "--fname", target], check=True)


def executed_copy(target):
    "Find the copy that was executed for the study that a notebook is of by itself; None where there is none."
    cells = code_by_id(json.loads(target.read_text())).values()
    study = re.search(r'^study: str = "(\w+)"', "\n".join("".join(cell["source"]) for cell in cells), re.M)
    files = [
        EXECUTED / f"{name}.ipynb" for name in (target.stem, f"{study[1]}-{target.stem}" if study else target.stem)
    ]
    return next((file for file in files if file.exists()), None)


def main():
    for target in sorted(ROOM.glob("*.ipynb")):
        executed = executed_copy(target)
        if executed and (target.stem in sys.argv[1:] or not sys.argv[1:]):
            store(executed, target)
            print(target.stem)


if __name__ == "__main__":
    main()
