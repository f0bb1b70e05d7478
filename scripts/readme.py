"""Make README.md from nbs/index.ipynb: its prose, and what its cells put out; `make readme` calls it."""
import json
import posixpath
import re
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
NOTICE = "<!-- made from nbs/index.ipynb by `make readme`; edit the notebook -->"


def moved(text):
    "Let relative links start from the repository's root instead of nbs/."
    def at_root(match):
        target = match[2]
        return match[0] if "://" in target or target.startswith("#") else f"{match[1]}({posixpath.normpath(posixpath.join('nbs', target))})"
    return re.sub(r"(\])\(([^)\s]+)\)", at_root, text)


def parts(cell):
    "Give what of a cell a reader of the README sees."
    if cell["cell_type"] == "markdown": return ["".join(cell["source"])]
    kept = []
    for output in cell.get("outputs", []):
        told = output.get("data", {})
        if "text/markdown" in told: kept.append("".join(told["text/markdown"]))
        elif output["output_type"] == "stream": kept.append("```\n" + "".join(output["text"]).rstrip() + "\n```")
        else: raise ValueError(f"index.ipynb: cell {cell['id']} puts out {', '.join(told) or output['output_type']}; only Markdown and text fit a README")
    return kept


def render(notebook):
    "Turn the notebook into Markdown."
    cells = json.loads(Path(notebook).read_text())["cells"]
    return "\n\n".join([NOTICE, *(moved(part.strip()) for cell in cells for part in parts(cell))]) + "\n"


if __name__ == "__main__":
    (TOP / "README.md").write_text(render(TOP / "nbs" / "index.ipynb"))
