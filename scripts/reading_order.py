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
    "4_evaluation/1_core": ("Core", "clips, features, intervals, records"),
    "4_evaluation/2_protocols": ("Protocols", "linear, retrieval, fine-tuning, probes"),
    "4_evaluation/3_bias": ("Bias", "what is left when motion or background is taken away"),
    "4_evaluation/4_inspect": ("Inspect", "maps, masks, attention, embeddings"),
    "5_study/1_plan": ("Plan", "which runs a study means, what they cost, whether they repeat"),
    "5_study/2_run": ("Run", "jobs, Snakemake, Slurm"),
    "6_report": ("Report", "tables, figures and one page, from finished runs"),
    "7_commands": ("Commands", "all of it from a terminal"),
    "8_course": ("Course", "what checks the answers to the exercises"),
    "8_course/solutions": ("Solutions", "an answer to every exercise, written from the equations"),
}

# The rooms in the order in which they are read: the method before containers and lists
PARTS = {
    "What is seen": ("1_data/3_sprites", "1_data/4_views"),
    "The method": ("2_methods/0_encoders", "2_methods"),
    "Files, lists and flow": ("0_plugins", "1_data/1_video", "1_data/2_sets", "1_data/5_flow"),
    "A run": ("3_training",),
    "What an encoder knows": tuple(f"4_evaluation/{room}" for room in ("1_core", "2_protocols", "3_bias", "4_inspect")),
    "Batches of runs, and what comes of them": ("5_study/1_plan", "5_study/2_run", "6_report", "7_commands"),
    "The course": ("8_course",),
}
SOLUTIONS = "8_course/solutions"  # outside the chain
FILED = {"play": "Play", "results": "Results", "studies": "Templates"}  # folder -> heading; in the order of their names
HOW_TO = "how_to"  # pages that export nothing; a chain of their own
FRONT = ("index", "using", "what_came_out", "reading", "how_it_fits", "glossary", "teaching")  # pages above all rooms


def inside(room):
    "List the numbered notebooks of one folder, without those of its sub-folders."
    return sorted((NBS / room).glob("[0-9][0-9]_*.ipynb"))


def notebooks(folder=NBS):
    "List the component notebooks of a folder and its sub-folders in the order in which they are read."
    rooms = [room for rooms in PARTS.values() for room in rooms if (NBS / room).is_relative_to(folder)]
    return [notebook for room in rooms for notebook in inside(room)]


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
    "Give the site's sidebar: the front pages, what to do, and the rooms in the order in which they are read."

    def section(heading, room):
        return {"section": heading, "contents": [str(each.relative_to(NBS)) for each in inside(room)]}

    def filed(folder):
        return [f"{folder}/{each.name}" for each in sorted((NBS / folder).glob("*.ipynb"))]

    parts = [
        {"section": part, "contents": [section(ROOMS[room][0], room) for room in rooms]}
        for part, rooms in PARTS.items()
    ]
    contents = [
        *(f"{page}.ipynb" for page in FRONT),
        section("How to", HOW_TO),
        *parts,
        section("Solutions", SOLUTIONS),
        *({"section": heading, "contents": filed(folder)} for folder, heading in FILED.items()),
    ]
    return yaml.safe_dump({"website": {"sidebar": {"contents": contents}}}, sort_keys=False)


def chained(order):
    "Give notebooks that are read one after the other, each with its navigation."
    neighbours = zip([None, *order[:-1]], order, [*order[1:], None], strict=True)
    return {here: with_navigation(here, navigation(here, before, after)) for before, here, after in neighbours}


def made():
    "Give every file that follows from the order, with its content."
    return chained(notebooks()) | chained(inside(HOW_TO)) | {NBS / "sidebar.yml": sidebar()}


if __name__ == "__main__":
    for file, text in made().items():
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
