"""One order of all notebooks; run it to write their last cells (previous, next) and the site's sidebar from it."""

import json
import re
from hashlib import sha1
from os.path import relpath
from pathlib import Path

import yaml

NBS = Path(__file__).resolve().parent.parent / "nbs"
ROOMS = {  # folder -> heading, what a reader finds there
    "0_plugins": ("Plugins", "how a name in a recipe leads to code, ours or yours"),
    "1_data": ("Data", "from a file to two augmented clips of known position"),
    "1_data/1_video": ("Video", "containers, checks, exact windows"),
    "1_data/2_sets": ("Sets", "lists, folders and what a data set is called"),
    "1_data/3_sprites": ("Sprites", "the embedded set, generated"),
    "1_data/4_views": ("Views", "boxes, colours, differences, batches"),
    "1_data/5_flow": ("Flow", "optical flow, motion maps, cuts that follow them"),
    "2_methods": (
        "Methods",
        "the equations of Section 3, one notebook each, in one module in which every term is a switch; MoCo, BE, FAME, "
        "IIC, DCLR and MCL on the same base",
    ),
    "2_methods/0_encoders": ("Encoders", "I3D, R(2+1)D and their like, built from parts"),
    "3_training": (
        "Training",
        "a recipe says everything that a run computes; a loop that can be stopped anywhere carries it out",
    ),
    "4_evaluation": ("Evaluation", "what an encoder knows, by named protocols, and how sure that is"),
    "4_evaluation/1_core": ("Core", "clips, features, intervals, records"),
    "4_evaluation/2_protocols": ("Protocols", "linear, retrieval, fine-tuning, probes"),
    "4_evaluation/3_bias": ("Bias", "what is left when motion or background is taken away"),
    "4_evaluation/4_inspect": ("Inspect", "maps, masks, attention, embeddings"),
    "5_study": ("Study", "batches of runs"),
    "5_study/1_plan": ("Plan", "which runs a study means, what they cost, whether they repeat"),
    "5_study/2_run": ("Run", "jobs, Snakemake, Slurm"),
    "6_report": ("Report", "tables, figures and one page, from finished runs"),
    "7_commands": ("Commands", "all of it from a terminal"),
}


def notebooks(folder=NBS):
    "List the component notebooks in the order in which they are read: of a folder, its sub-folders come first."
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and re.match(r"\d_", path.name))
    here = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    return [notebook for each in inner for notebook in notebooks(each)] + here


def title_of(notebook):
    "Give the title of a notebook and the sentence below it."
    cells = json.loads(notebook.read_text())["cells"]
    text = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.search(r"^# (.+)\n+> (.+)", text).groups()


def navigation(notebook, before, after):
    "Write the line that leads from a notebook to its neighbours."

    def link(words, target):
        return f"{words}: [{title_of(target)[0]}]({relpath(target, notebook.parent)})"

    steps = [link("Previous", before)] if before else []
    steps += [link("Next", after)] if after else []
    return " · ".join([*steps, f"[all notebooks]({relpath(NBS / 'README.md', notebook.parent)})"])


def with_navigation(notebook, line):
    "Give a notebook whose last cell is its navigation."
    whole = json.loads(notebook.read_text())
    last = whole["cells"][-1]
    if not "".join(last["source"]).startswith(("Previous: ", "Next: ")):
        name = sha1(f"navigation of {notebook.name}".encode()).hexdigest()[:8]
        whole["cells"].append({"cell_type": "markdown", "id": name, "metadata": {}, "source": []})
    whole["cells"][-1]["source"] = [line]
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def sidebar():
    "Give the site's sidebar: rooms and their notebooks."

    def contents(folder):
        inner = sorted(path for path in folder.iterdir() if path.is_dir() and re.match(r"\d_", path.name))
        sections = [{"section": ROOMS[str(each.relative_to(NBS))][0], "contents": contents(each)} for each in inner]
        return sections + [str(each.relative_to(NBS)) for each in sorted(folder.glob("[0-9][0-9]_*.ipynb"))]

    def filed(folder, heading):
        return {
            "section": heading,
            "contents": [f"{folder}/{each.name}" for each in sorted((NBS / folder).glob("*.ipynb"))],
        }

    pages = ["index.ipynb", "what_came_out.ipynb", "reading.ipynb"]
    records = [filed("results", "Results"), filed("studies", "Templates")]
    return yaml.safe_dump({"website": {"sidebar": {"contents": [*pages, *contents(NBS), *records]}}}, sort_keys=False)


def made():
    "Give every file that follows from the order, with its content."
    order = notebooks()
    neighbours = zip([None, *order[:-1]], order, [*order[1:], None], strict=True)
    files = {
        here: with_navigation(here, navigation(here, *around))
        for *around, here in ((before, after, here) for before, here, after in neighbours)
    }
    return files | {NBS / "sidebar.yml": sidebar()}


if __name__ == "__main__":
    for file, text in made().items():
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
