"""Put the measured tables into benchmarks/README.md, between the lines that name them: python benchmarks/readme.py"""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
TABLES = HERE.parent / "reports" / "tables"


def body(name: str) -> str:
    "Give a table's Markdown without its title, headings two levels deeper."
    text = (TABLES / f"{name}.md").read_text().split("\n", 1)[1].strip()
    return re.sub(r"^## ", "#### ", re.sub(r"^## *\n\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)


def main() -> None:
    "Write the page anew; what stands outside the marks stays, and so does what was not measured."
    page = HERE / "README.md"

    def filled(found):
        name = found[1]
        if not (TABLES / f"{name}.md").exists():
            return found[0]
        return f"<!-- {name} -->\n\n{body(name)}\n\n<!-- end -->"

    page.write_text(re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", filled, page.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    main()
