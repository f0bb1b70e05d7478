"""Somebody else's method, encoder and view change: trained, evaluated, tabled, and part of a run's name."""

import json
import os
import re
import subprocess
import sys

import pytest

from fima.methods.registry import method_names
from fima.training.pretrain import pretrain
from fima.training.recipe import make_recipe
from helpers import FIMA, check_refusal, write_study

METHOD = """
"A method of somebody else: embeddings of two views agree, and no channel of them is constant."
from dataclasses import dataclass

import torch.nn.functional as F

from fima.methods.base import Method
from fima.methods.instance import ProjectionHead, pool
from fima.plugins import register_method, register_view_change

@dataclass(frozen=True)
class VicregOptions:
    variance: float = 1. # weight of the second term

    def __post_init__(self):
        if self.variance < 0: raise ValueError(f"variance must be >= 0, got {self.variance}")

@register_method("vicreg", options=VicregOptions, recipe={"views.target": "same"})
class Vicreg(Method):
    "Let embeddings agree and vary."
    def __init__(self, encoder, options, own, seed):
        super().__init__(encoder, options, own, seed)
        self.projector = ProjectionHead(encoder.channels, options.hidden, options.dim)

    def forward(self, batch, generator=None):
        one, other = (self.projector(pool(self.encoder(view.rgb))) for view in (batch.source, batch.target))
        variance = sum(F.relu(.1 - z.std(0)).mean() for z in (one, other))
        return {"invariance": F.mse_loss(one, other), "variance": self.own.variance * variance}

@register_view_change("dim")
@dataclass(frozen=True)
class Dim:
    "Darken the source clip."
    share: float = .5

    def __call__(self, clips, generator, part=(0, 1)): return clips * self.share
"""
ENCODER = """
"An encoder of somebody else."
from torch import nn
from fima.plugins import register_encoder

@register_encoder("tiny")
class Tiny(nn.Sequential):
    "Two convolutions."
    def __init__(self, width: int = 4):
        first, second = nn.Conv3d(3, width, 3, (2, 4, 4), 1), nn.Conv3d(width, 2 * width, 3, (2, 2, 2), 1)
        super().__init__(first, nn.BatchNorm3d(width), nn.ReLU(), second, nn.ReLU())
        self.channels = 2 * width
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    "Two plugin files; the environment names them."
    files = tmp_path / "their_method.py", tmp_path / "their_encoder.py"
    for file, text in zip(files, (METHOD, ENCODER), strict=True):
        file.write_text(text)
    monkeypatch.setenv("FIMA_PLUGINS", ",".join(map(str, files)))
    return files


def python(code, **environment):
    "Run code in a process of its own, as a user's next call is."
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fima(*words, **environment):
    "Type a command."
    return subprocess.run([FIMA, *map(str, words)], capture_output=True, text=True, env=os.environ | environment)


STUDY = {
    "name": "theirs",
    "title": "their method",
    "base": {"profile": "smoke", "overrides": {"encoder.name": "tiny", "encoder.options": {"width": 4}}},
    "rows": [
        {"name": "vv", "label": "VV", "method": "moco"},
        {"name": "vicreg", "label": "VICReg", "method": "vicreg"},
        {
            "name": "dimmed",
            "label": "VICReg, dimmed",
            "method": "vicreg",
            "overrides": {"views.change": "dim", "views.change_options": {"share": 0.25}},
        },
    ],
    "evaluations": [{"template": "linear_probe"}],
    "claims": [{"better": "vicreg", "worse": "vv", "words": "agreement alone is enough"}],
}


def test_a_method_and_an_encoder_from_outside_become_a_row_of_a_table(plugins, tmp_path):
    "Trained in kernels of a study and tabled; the run records the plugins, and its encoder outlives its method."
    call = f"run_studies({str(write_study(tmp_path, STUDY))!r}, reports={str(tmp_path)!r}, progress=False)"
    said = python(
        f"from fima.report.make import run_studies; print({call}[['row', 'state', 'run_id']].to_json(orient='records'))"
    )
    rows = {line["row"]: line for line in json.loads(said.splitlines()[-1])}
    assert {line["state"] for line in rows.values()} == {"done"}, rows
    text = (tmp_path / "tables" / "theirs.md").read_text()
    assert "| VICReg " in text
    assert "not run" not in text.split("##")[1]
    assert "the paper claims" not in text
    assert "this study of yours states" in text
    page = (tmp_path / "index.html").read_text()
    summary = re.sub(r"<[^>]*>", "", page[page.index('id="summary"') : page.index("<nav")])
    assert "their method: 3 of 3 runs and 3 of 3 evaluations are there; of what it states: 1 open." in summary
    assert summary.index("their method") < summary.index("The studies that come with the package")
    assert "Nothing has been run" not in summary
    assert 'href="tables/theirs.md"' in page and page.index('id="theirs"') < page.index('id="table_01"')
    file = tmp_path / "theirs.yaml"
    again = fima("study", "run", file, "--reports", tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines() == [
        f"table of theirs: {tmp_path / 'tables' / 'theirs.md'}",
        f"tables and figures: {tmp_path / 'index.html'}",
    ]
    folder = tmp_path / "runs" / rows["vicreg"]["run_id"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["plugins"]) == {"fima_plugin_their_method", "fima_plugin_their_encoder"}
    assert set(metrics["trace"][0]) >= {"invariance", "variance", "loss"}
    assert rows["vicreg"]["run_id"].startswith("vicreg-")
    without = str(plugins[1])  # the method's file is gone; the encoder's is there
    code = (
        f"from fima.training.weights import load_encoder; encoder, recipe = load_encoder({str(folder)!r}); "
        "print(type(encoder).__name__, recipe.method.name, recipe.run_id)"
    )
    assert python(code, FIMA_PLUGINS=without) == f"Tiny vicreg {rows['vicreg']['run_id']}"
    refused = fima("pretrain", "--profile", "smoke", "--method", "vicreg", FIMA_PLUGINS=without)
    check_refusal(refused, "method must be one of fima, moco")


def test_edited_code_is_another_run_and_edited_prose_is_not(plugins):
    name = "from fima.training.recipe import make_recipe; print(make_recipe('smoke', method='vicreg').run_id)"
    first = python(name)
    plugins[0].write_text(
        METHOD.replace("Let embeddings agree and vary.", "Another sentence.")
        .replace("variance must be >= 0", "variance must not be negative")
        .replace("# weight of the second term", "# another remark")
    )
    assert python(name) == first
    plugins[0].write_text(METHOD.replace(".1 - z.std(0)", ".2 - z.std(0)"))
    assert python(name) != first
    own = "from fima.training.recipe import make_recipe; print(make_recipe('smoke').run_id)"
    assert python(own) == python(own, FIMA_PLUGINS="")  # what rests on no plugin has its old name


def test_a_module_that_a_plugin_imports_from_beside_it_is_part_of_it(tmp_path):
    (tmp_path / "weights_of_mine.py").write_text("SHARE = .5\n")
    (tmp_path / "changes.py").write_text(
        "from dataclasses import dataclass\n"
        "from fima.plugins import register_view_change\n"
        "from weights_of_mine import SHARE\n"
        "@register_view_change('half')\n"
        "@dataclass(frozen=True)\n"
        "class Half:\n"
        "    share: float = SHARE\n"
        "    def __call__(self, clips, generator, part=(0, 1)): return clips * self.share\n"
    )
    name = (
        "from fima.training.recipe import make_recipe; "
        "print(make_recipe('smoke', overrides={'views.change': 'half'}).plugins)"
    )
    first = python(name, FIMA_PLUGINS=str(tmp_path / "changes.py"))
    (tmp_path / "weights_of_mine.py").write_text("SHARE = .25\n")
    assert python(name, FIMA_PLUGINS=str(tmp_path / "changes.py")) != first


@pytest.mark.parametrize(
    "text, said",
    [
        (
            "import nothing_of_this_name\n",
            "their_method.py cannot be loaded: ModuleNotFoundError: No module named 'nothing_of_this_name'",
        ),
        (
            "from fima.plugins import register_method\n@register_method('iic')\nclass Mine: pass\n",
            "method iic is registered already",
        ),
        (
            "from fima.plugins import register_method\n@register_method('moco_vd')\nclass Mine: pass\n",
            "the name moco_vd is taken by the recipe moco_vd of this package",
        ),
        (
            "from fima.plugins import register_method\n@register_method('my method')\nclass Mine: pass\n",
            "the name of a method must be letters, digits and _, got 'my method'",
        ),
        (
            "from fima.plugins import register_method\n@register_method('mine')\nclass Mine: pass\n",
            "method mine must be a class that inherits fima.methods.base.Method",
        ),
        (
            "from fima.plugins import register_encoder\n@register_encoder('mine')\nclass Mine: pass\n",
            "encoder mine must be a torch module with `channels`",
        ),
    ],
    ids=["no such import", "taken", "a recipe's", "no name", "no method", "no encoder"],
)
def test_a_plugin_that_cannot_be_used_is_refused_in_one_line(plugins, text, said):
    plugins[0].write_text(text)
    what = ["--method", "mine"]
    if "encoder" in said:
        what = ["--change", "encoder.name=mine", "--change", "encoder.options={}"]
    check_refusal(fima("pretrain", "--profile", "smoke", *what, "--folder", plugins[0].parent / "run"), said)
    assert not (plugins[0].parent / "run").exists()


def test_a_file_named_relative_reaches_processes_that_work_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "their_encoder.py").write_text(ENCODER)
    monkeypatch.chdir(tmp_path)
    code = (
        "import os; from fima.plugins import ENCODERS; "
        "print('tiny' in ENCODERS, os.path.isabs(os.environ['FIMA_PLUGINS']))"
    )
    assert python(code, FIMA_PLUGINS="their_encoder.py") == "True True"
    done = subprocess.run(
        [sys.executable, "-c", "from fima.plugins import load_plugins\nload_plugins()"],
        capture_output=True,
        text=True,
        env=os.environ | {"FIMA_PLUGINS": "absent.py"},
    )
    assert "absent.py cannot be loaded: ValueError: there is no such file" in done.stderr


@pytest.mark.parametrize("name", [*method_names(), "supervised", "random", "imported"])
def test_no_name_of_this_package_is_shadowed(name):
    "In a process that has imported nothing else: what is refused does not hang on what was imported before."
    code = (
        "from fima.plugins import METHODS, register_method\n"
        "for register in (lambda mine: METHODS.add(NAME, mine), lambda mine: register_method(NAME)(mine)):\n"
        "    try: register(type('Mine', (), {}))\n"
        "    except ValueError as error: print(error)"
    )
    said = python(code.replace("NAME", repr(name))).splitlines()
    assert len(said) == 2 and all(name in line and "Mine" in line for line in said), said


def test_the_name_of_a_folder_of_ones_own_is_no_data_set():
    code = (
        "from fima.plugins import register_data_set\n"
        "try: register_data_set('own', label='mine')(lambda: None)\n"
        "except ValueError as error: print(error)"
    )
    assert python(code).startswith("the name own is taken by folders of one's own (fima --videos): give the data set")


def test_a_cell_that_registers_a_method_may_be_run_again():
    code = (
        "from fima.plugins import METHODS, register_method\n"
        "for width in (1, 2):\n"
        "    @register_method('mine', recipe={'method.dim': width})\n"
        "    class Mine: size = width\n"
        "print(METHODS['mine'].load().size, METHODS['mine'].facts['recipe'])"
    )
    assert python(code) == "2 {'method.dim': 2}"


@pytest.mark.parametrize("asked_first", ["METHODS", "VIEW_CHANGES", "ENCODERS", "DATA_SETS"])
def test_a_plugin_owns_what_it_registers_and_nothing_else(tmp_path, asked_first):
    "Whichever names are looked up first, and though a plugin that fails is forgotten."
    for name, last in (("good", ""), ("bad", "raise KeyError('no such key')")):
        register = f"from fima.plugins import register_method\n@register_method('{name}')\nclass Mine: pass\n{last}"
        (tmp_path / f"{name}.py").write_text(register)
    code = (
        "import os; from pathlib import Path; import fima.plugins as p\n"
        "names = ('METHODS', 'VIEW_CHANGES', 'ENCODERS', 'DATA_SETS')\n"
        "try: list(getattr(p, ASKED))\n"
        "except ValueError as error: print(str(error).split(': ')[-1])\n"
        "os.environ['FIMA_PLUGINS'] = os.environ['FIMA_PLUGINS'].partition(',')[0]\n"
        "print({e.name for name in names for e in getattr(p, name).values() if e.plugin})\n"
        "print('bad' in p.METHODS, 'fima' in p.METHODS, 'small3d' in p.ENCODERS, 'ucf101' in p.DATA_SETS)"
    )
    plugins = f"{tmp_path / 'good.py'},{tmp_path / 'bad.py'}"
    said = python(code.replace("ASKED", repr(asked_first)), FIMA_PLUGINS=plugins).splitlines()
    assert said == ["'no such key'", "{'good'}", "False True True True"]


KEYED = """
from fima.methods.instance import info_nce, pool
from fima.methods.moco import Momentum
from fima.plugins import register_method

@register_method("keyed")
class Keyed(Momentum):
    "Find the key of the target view."

    def forward(self, batch, generator=None):
        self.follow()
        query = self.projectors["instance"](pool(self.query_map(batch.source.rgb)))
        key = self.key_projectors["instance"](pool(self.key_map(batch.target.rgb, generator)))
        loss = info_nce(query, key, self.queues["instance"].keys, self.options.temperature)
        self.remember("instance", key)
        return {"keyed": loss}
"""
STILL = "did not move in the first two steps"


@pytest.mark.parametrize(
    "change, overrides, still",
    [
        (("", ""), [], ""),
        (("self.follow()", "pass"), [], "key_encoder, key_projectors of Keyed"),
        (
            ("self.follow()", "update_key(self.key_encoder, self.encoder, 0.9)"),
            [],
            "warning: key_projectors of Keyed",
        ),
        (("self.follow()", "pass"), ["--change", "method.momentum=1"], ""),
        (("", ""), ["--change", "method.momentum=1"], ""),
    ],
    ids=["follows", "forgets", "forgets the heads", "stands on purpose", "follows by nothing"],
)
def test_a_key_encoder_that_nobody_moves_is_told_once(tmp_path, change, overrides, still):
    file = tmp_path / "keyed.py"
    file.write_text("from fima.methods.momentum import update_key\n" + KEYED.replace(*change))
    words = ["--profile", "smoke", "--method", "keyed", *overrides, "--folder", tmp_path / "run"]
    done = fima("pretrain", *words, FIMA_PLUGINS=str(file))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(STILL) == bool(still)
    assert still in done.stderr


@pytest.mark.parametrize("method", [*method_names(), "supervised"])
def test_no_method_of_this_package_is_said_to_stand_still(tmp_path, method, capfd):
    recipe = make_recipe(
        "smoke", **({"overrides": {"method.name": method}} if method == "supervised" else {"method": method})
    )
    pretrain(recipe, tmp_path / "run", device="cpu", progress=False)
    assert STILL not in capfd.readouterr().err


@pytest.mark.parametrize(
    "read, need",
    [
        ("source.difference", "'difference', 'rgb'"),
        ("target.sub_differences", "'rgb', 'sub_clips'"),
        ("source.motion", "'motion', 'rgb'"),
    ],
)
def test_a_field_that_needs_do_not_name_is_refused_in_one_line(tmp_path, read, need):
    file = tmp_path / "keyed.py"
    file.write_text(KEYED.replace("batch.source.rgb", f"batch.{read}"))
    words = ["--profile", "smoke", "--method", "keyed", "--folder", tmp_path / "run"]
    name = read.split(".")[1]
    added = {"sub_differences": "sub_clips"}.get(name, name)
    said = f"view.{name} was not computed: add {added!r} to needs of the method's class, e.g. needs = "
    said += f"frozenset({{{need}}})"
    done = fima("pretrain", *words, FIMA_PLUGINS=str(file))
    last = done.stderr.splitlines()[-1]  # progress bars come before it
    assert done.returncode == 2 and last.startswith(f"fima: {said}") and "Traceback" not in done.stderr
