"""Draw the pictures of the front door and of the method's notebooks anew, into nbs/images; `make readme` calls it."""

from pathlib import Path

from fima.report.drawings import save_drawing, save_drawings
from fima.report.findings import draw_findings

TOP = Path(__file__).resolve().parent.parent
IMAGES = TOP / "nbs" / "images"


def draw_all():
    "Write every picture; one that says what it said before is left as it is."
    title = "Accuracy of every method by the linear probe, with 95% intervals, a panel for each data set"
    return [*save_drawings(IMAGES), save_drawing(draw_findings(TOP / "reports"), IMAGES / "findings.svg", title)]


if __name__ == "__main__":
    draw_all()
