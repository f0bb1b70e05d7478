"""Make pages for reading from notebooks: their prose, and what their cells put out; `make readme` calls it."""

import json
import posixpath
import re
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
# notebook in nbs/ -> page
PAGES = {"index": "README.md", "what_came_out": "reports/README.md", "reading": "nbs/README.md"}
NOTICE = "<!-- made from nbs/{}.ipynb by `make readme`; edit the notebook -->"


def moved(text, page="README.md"):
    "Let relative links start from the page's folder instead of nbs/."

    def from_page(match):
        target = match[2]
        if "://" in target or target.startswith("#"):
            return match[0]
        return f"{match[1]}({posixpath.relpath(posixpath.join('nbs', target), posixpath.dirname(page) or '.')})"

    return re.sub(r"(\])\(([^)\s]+)\)", from_page, text)


def visible(cell):
    "Give what of a cell a reader of the page sees."
    if cell["cell_type"] == "markdown":
        return ["".join(cell["source"])]
    kept = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "text/markdown" in data:
            kept.append("".join(data["text/markdown"]))
        elif output["output_type"] == "stream":
            kept.append("```\n" + "".join(output["text"]).rstrip() + "\n```")
        else:
            kinds = ", ".join(data) or output["output_type"]
            raise ValueError(f"cell {cell['id']} puts out {kinds}; only Markdown and text fit a page")
    return kept


def render(notebook):
    "Turn a notebook in nbs/ into Markdown."
    name = Path(notebook).stem
    cells = json.loads(Path(notebook).read_text())["cells"]
    pieces = [moved(piece.strip(), PAGES[name]) for cell in cells for piece in visible(cell)]
    return "\n\n".join([NOTICE.format(name), *pieces]) + "\n"


if __name__ == "__main__":
    for name, page in PAGES.items():
        (TOP / page).write_text(render(TOP / "nbs" / f"{name}.ipynb"))
