"""What several test files use: places, a study, and short ways to run, read and check things."""

import importlib.util
import sys
from pathlib import Path

import matplotlib
import nbformat
import pytest
import yaml

from fima.data.sets.catalog import data_root

TOP = Path(__file__).resolve().parent.parent
FIMA = Path(sys.executable).with_name("fima")  # the installed program
NOTEBOOKS = sorted(p for p in (TOP / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
TEMPLATES = [p for p in NOTEBOOKS if p.parent.name == "studies"]

VV = {"name": "vv", "label": "VV", "overrides": {"method.pixel": False, "method.frame": False}}
RANDOM = {"name": "random", "label": "random", "overrides": {"method.name": "random"}}
STUDY = {
    "name": "trial",
    "title": "a trial",
    "base": {"profile": "smoke"},
    "rows": [VV],
    "evaluations": [{"template": "linear_probe"}],
}
PLUGIN = """
from fima.methods.encoders.encoders import build_encoder
from fima.plugins import register_encoder

@register_encoder("hum")
def hum(): return build_encoder("small3d", widths=[4, 8, 8, 8], temporal_stride=4)
"""
# table and row of Table 1 -> rows of other tables that are the same run: the default of each ablation
SAME_RUNS = {
    ("table_01", "vv_pix"): [
        ("table_02", "dc_fs_md"),
        ("table_03a", "threshold_0_7"),
        ("table_03b", "blocks_2"),
        ("table_03c", "width_512_heads_4"),
        ("table_03d", "ratio_0_5"),
        ("table_03e", "both"),
        ("table_03f", "both"),
        ("table_10", "negatives_784"),
        ("table_11", "dc_fs_md"),
    ],
    ("table_01", "fima"): [("table_07", "width_512"), ("table_08", "shared"), ("table_09", "infonce")],
    ("table_01", "vv_vd"): [("table_02", "vd"), ("table_10", "vd"), ("table_11", "vd")],
}


def name_of(path):
    "Name a file of the repository by its path inside it."
    return str(path.relative_to(TOP))


def each_path(paths):
    "Repeat a test for every path."
    return pytest.mark.parametrize("path", paths, ids=name_of)


def shared_data(name):
    "Give a folder of the real data, such as `videos/ut_interaction`; skip the test where it is not here."
    root = data_root()
    if root is None or not (root / name).is_dir():
        pytest.skip(f"real data not here: no {name} in ../shared/data or FIMA_DATA")
    return root / name


def contents(folder):
    "Read every file of a folder: relative name -> bytes."
    folder = Path(folder)
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def load_script(name):
    "Import a file of scripts/."
    spec = importlib.util.spec_from_file_location(name, TOP / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_study(folder, study):
    "Write a study file into a folder, called after the study."
    file = Path(folder) / f"{study['name']}.yaml"
    file.write_text(yaml.safe_dump(study))
    return file


def run_cells(notebook, **parameters):
    "Run the cells of a notebook below nbs/ in this process, its parameters changed; return its variables."
    variables = {"display": lambda *shown: None}
    with matplotlib.rc_context({"backend": "agg"}):
        for cell in nbformat.read(TOP / "nbs" / f"{notebook}.ipynb", 4).cells:
            if cell.cell_type != "code":
                continue
            exec(compile(cell.source, notebook, "exec"), variables)
            if "parameters" in cell.metadata.get("tags", []):
                assert not set(parameters) - set(variables), "the notebook has no such parameter"
                variables.update(parameters)
    return variables


def check_refusal(result, *words, codes=(2,)):
    "Assert that a command ended with one line on stderr that holds these words."
    said = result.stderr.strip()
    assert result.returncode in codes and "\n" not in said, result.stdout + result.stderr
    line = said.split("\r")[-1]  # what a progress bar wrote before it is wiped
    assert line.startswith("fima: "), said
    for word in words:
        assert word in line, said


def check_failed_run(folder, errors):
    "Assert that a run that failed is one line of `errors`, and keeps its notebook."
    notebook = nbformat.read(folder / "pretrain.ipynb", 4)
    assert any(o.get("ename") == "ValueError" for c in notebook.cells for o in c.get("outputs", []))
    lines = [line for line in errors.splitlines() if "failed: " in line]
    assert len(lines) == 1 and "batch_size" in lines[0] and str(folder / "pretrain.ipynb") in lines[0]
