"""The shape of the house: arrows point downward, what is exported explains itself, notebooks are clean."""

import ast
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fastcore.docments import docments

from helpers import NOTEBOOKS, TEMPLATES, TOP, each_path, load_script, name_of

MODULES = sorted(p for p in (TOP / "fima").rglob("*.py") if p.name not in ("__init__.py", "_modidx.py"))
COMPONENTS = [p for p in NOTEBOOKS if re.match(r"\d_", p.parent.name)]


# -- the rooms ---------------------------------------------------------------------------------------------------------


def lint(folder):
    "Run import-linter on the package `fima` in `folder`."
    code = (
        "import sys; from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(config_filename='pyproject.toml', no_cache=True))"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(folder)}
    )


def test_imports_run_only_downward():
    result = lint(TOP)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "module, line",
    [("data/video/video.py", "from fima.methods import pixel"), ("extra.py", "import torch")],
    ids=["upward", "new room"],
)
def test_the_linter_sees_a_breach(tmp_path, module, line):
    shutil.copytree(TOP / "fima", tmp_path / "fima", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOP / "pyproject.toml", tmp_path)
    with open(tmp_path / "fima" / module, "a") as file:
        file.write(f"\n{line}\n")
    assert lint(tmp_path).returncode != 0


# -- exported modules --------------------------------------------------------------------------------------------------


def test_every_module_has_one_notebook():
    made_by = {}
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text())["cells"]:
            found = re.search(r"^#\| default_exp (\S+)", "".join(cell["source"]), re.M)
            if found:
                made_by.setdefault(found[1], []).append(name_of(path))
    assert not {module: paths for module, paths in made_by.items() if len(paths) > 1}
    assert {str(p.relative_to(TOP / "fima").with_suffix("")).replace("/", ".") for p in MODULES} == set(made_by)


def test_the_linter_has_nothing_to_say():
    "Notebook cells and exported code: the rules stand in pyproject.toml."
    result = subprocess.run(["ruff", "check", "."], cwd=TOP, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_name_is_defined_twice():
    "A top-level name of the package means one thing; what a class defines, or is patched into one, does not count."
    homes = {}
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                patched = any("patch" in ast.unparse(each) for each in node.decorator_list)
                names = [] if patched else [node.name]
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [each.id for each in targets if isinstance(each, ast.Name) and not each.id.startswith("__")]
            else:
                names = []
            for name in names:
                homes.setdefault(name, set()).add(name_of(path))
    assert not {name: sorted(paths) for name, paths in homes.items() if len(paths) > 1}


def test_the_formatter_has_nothing_to_do():
    "What is written by hand, notebooks among it, is formatted; `fima/` is printed from them."
    written = ["nbs", "tests", "scripts", "benchmarks"]
    result = subprocess.run(["ruff", "format", "--check", *written], cwd=TOP, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@each_path(MODULES)
def test_nothing_is_imported_by_star_or_silenced(path):
    tree = ast.parse(path.read_text())
    stars = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]
    assert not stars and 'filterwarnings("ignore"' not in path.read_text()


@each_path(MODULES)
def test_exported_symbols_explain_themselves(path):
    "A docstring for each; a type and a line of explanation for every parameter of a function."
    module = importlib.import_module(".".join(path.relative_to(TOP).with_suffix("").parts))
    missing = []
    for name in module.__all__:
        symbol = getattr(module, name)
        if not (inspect.isfunction(symbol) or inspect.isclass(symbol)):
            continue
        if not (symbol.__dict__.get("__doc__") if inspect.isclass(symbol) else symbol.__doc__):
            missing.append(f"{name}: docstring")
        if not inspect.isfunction(symbol):
            continue
        explained = docments(symbol, returns=False)
        for parameter in inspect.signature(symbol).parameters.values():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            if parameter.annotation is parameter.empty:
                missing.append(f"{name}({parameter.name}): type")
            if not explained.get(parameter.name):
                missing.append(f"{name}({parameter.name}): explanation")
    assert not missing, "\n".join(missing)


# -- notebooks ---------------------------------------------------------------------------------------------------------


def cells(path, kind=None):
    return [cell for cell in json.loads(path.read_text())["cells"] if kind in (None, cell["cell_type"])]


def outputs(path):
    return [output for cell in cells(path, "code") for output in cell["outputs"]]


@each_path(NOTEBOOKS)
def test_notebook_is_clean(path):
    assert not [o for o in outputs(path) if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert all(cell["execution_count"] is None for cell in cells(path, "code")), "not cleaned: make export"
    names = [cell["id"] for cell in cells(path)]
    assert len(set(names)) == len(names)
    assert path.stat().st_size <= (300_000 if path in COMPONENTS else 1_000_000)


def test_a_notebook_saved_in_lab_differs_in_nothing(tmp_path):
    "Lab writes its kernel, its language and execution times; cleaning takes them away again."
    notebook = COMPONENTS[0]
    saved = json.loads(notebook.read_text())
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    saved["metadata"] = {"kernelspec": kernel, "language_info": {"name": "python", "version": "3.13.1"}}
    for count, cell in enumerate(saved["cells"]):
        if cell["cell_type"] == "code":
            cell |= {"execution_count": count, "metadata": {"execution": {"iopub.status.busy": "now"}}}
    copy = tmp_path / notebook.name
    copy.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n")
    subprocess.run(["nbdev_clean", "--fname", str(copy)], cwd=TOP, check=True)
    assert copy.read_text() == notebook.read_text()


@each_path(TEMPLATES)
def test_template_has_parameters_and_no_outputs(path):
    assert len([c for c in cells(path, "code") if "parameters" in c["metadata"].get("tags", [])]) == 1
    assert not outputs(path)


@each_path(COMPONENTS)
def test_component_reads_from_top_to_bottom(path):
    "It names its module, has a title and a sentence, shows and asserts something, and leads on to another notebook."
    everything = cells(path)
    sources = ["".join(cell["source"]) for cell in everything]
    code = [source for cell, source in zip(everything, sources, strict=True) if cell["cell_type"] == "code"]
    assert sources[0].startswith("#| default_exp ")
    assert re.search(r"^# \S.*\n+> \S", sources[1]), "the second cell is `# Title` and `> one sentence`"
    assert any(source.startswith("#| export") for source in code)
    assert any(
        re.search(r"\b(assert|assert_close|test_eq|test_fail|test_close)\b", source)
        for source in code
        if "#| export" not in source
    )
    assert everything[-1]["cell_type"] == "markdown" and re.search(r"\]\([^)]+\)", sources[-1]), (
        "the last cell leads to the next notebook"
    )


@each_path(COMPONENTS)
def test_the_first_text_is_short(path):
    "The idea comes first: below the title stand at most 300 words; what is folded away does not count."
    text = "".join(cells(path, "markdown")[1]["source"])
    assert len(re.sub(r"<details>.*?</details>", "", text, flags=re.S).split()) <= 300


@each_path(NOTEBOOKS)
def test_links_lead_somewhere(path):
    text = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    targets = [
        t.split("#")[0]
        for t in re.findall(r"\]\(([^)\s]+)\)", text)
        if "://" not in t and not t.startswith(("#", "attachment:"))
    ]
    assert not [t for t in targets if t and not (path.parent / t).exists()]


def following(path):
    "The notebook that the last cell of a notebook leads to; None for the last one."
    found = re.search(r"Next: \[[^]]*\]\(([^)]+)\)", "".join(cells(path)[-1]["source"]))
    return (path.parent / found[1]).resolve() if found else None


def test_the_reading_order_misses_no_notebook():
    "Walk from the first to the last; and what is made from the order is as it would be made now."
    order = load_script("reading_order")
    walked = [order.notebooks()[0]]
    while after := following(walked[-1]):
        assert after not in walked
        walked.append(after)
    assert sorted(walked) == sorted(COMPONENTS) and walked == order.notebooks()
    stale = [name_of(file) for file, text in order.made().items() if not file.exists() or file.read_text() != text]
    assert not stale, f"python scripts/reading_order.py: {stale}"


# -- every file of the repository --------------------------------------------------------------------------------------


def tracked():
    "Files that git tracks or would track."
    result = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=TOP, capture_output=True, text=True
    )
    if result.returncode:
        pytest.skip("not a git checkout")
    return [TOP / line for line in result.stdout.splitlines() if (TOP / line).is_file()]


def machine_paths(text):
    "Paths of one machine that `text` carries."
    places = {str(TOP.parent), str(Path.home())} - {"/", tempfile.gettempdir()}
    pattern = "|".join(
        [r"/(?:home|root|Users)/[A-Za-z0-9_.-]+", *(re.escape(place) + r"/[A-Za-z0-9_.-]+" for place in sorted(places))]
    )
    return re.findall(r"(?<![\w.$}~-])(?:" + pattern + ")", text)


def test_no_file_names_a_path_of_this_machine():
    assert machine_paths(f"see {TOP.parent}/data/a.mp4") and not machine_paths("see ../shared/data/a.mp4")
    found = {}
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        if hits := machine_paths(text):
            found[name_of(path)] = sorted(set(hits))[:3]
    assert not found


def test_no_output_names_a_temporary_folder():
    "Such a path differs in every execution."
    temporary = re.compile(r"/tmp/tmp[a-z0-9_]+")
    assert temporary.search("PosixPath('/tmp/tmp8a_c/tables')")
    found = {}
    for path in sorted((TOP / "nbs").rglob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        if hits := temporary.findall(json.dumps([cell.get("outputs", []) for cell in cells])):
            found[name_of(path)] = hits[0]
    assert not found


def test_no_large_or_binary_file_but_figures():
    allowed = (".png", ".svg", ".gif", ".jpg")
    for path in tracked():
        # the page holds every picture within itself
        largest = 5_000_000 if name_of(path) == "reports/index.html" else 1_000_000
        assert path.stat().st_size <= largest, f"{name_of(path)}: {path.stat().st_size} bytes"
        assert path.suffix in allowed or b"\0" not in path.read_bytes()[:8192], f"{name_of(path)} is binary"
