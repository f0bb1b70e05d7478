"""Make the sources of the book from the notebooks, and the book from them; `make book` calls it.

The order of its pages is that of nbs/sidebar.yml, which scripts/reading_order.py makes. Into the book come the
notebooks with the outputs that are stored in them, a page of the API for each module, and whatever these link to.
"""

import html
import json
import posixpath
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import yaml

TOP = Path(__file__).resolve().parent.parent
BOOK = TOP / "_book"  # sources, files and the finished pages; git ignores it
sys.path.insert(0, str(TOP / "scripts"))
from readme import PAGES, visible  # noqa: E402

# page for reading -> the notebook it was made from
MADE_FROM = {page: f"nbs/{name}.ipynb" for name, page in PAGES.items()}
LINK = re.compile(
    r"^(?:```|~~~~).*?^(?:```|~~~~)|(!?)\[((?:[^\[\]]|\[[^\[\]]*\](?:\([^)\s]+\))?)*)\]\(([^)\s]+)\)|`[^`\n]+`",
    re.M | re.S,
)  # code, in which nothing is a link, is matched too
TITLE = re.compile(r"^# (.+)\n+(?:> (.+))?", re.M)


# -- the order ---------------------------------------------------------------------------------------------------------


def contents(sidebar=TOP / "nbs" / "sidebar.yml"):
    "Read the reading order: paths of notebooks, and sections of them."
    return yaml.safe_load(Path(sidebar).read_text())["website"]["sidebar"]["contents"]


def notebooks(entries):
    "List the notebooks of a reading order, those in its sections too."
    return [path for each in entries for path in ([each] if isinstance(each, str) else notebooks(each["contents"]))]


def chapter_page(section):
    "Name the page of a section: it lies in the folder that its notebooks share."
    name = re.sub(r"\W+", "_", section["section"].lower())
    return posixpath.join(posixpath.commonpath([posixpath.dirname(path) for path in notebooks([section])]), name)


def page_of(entry):
    "Give the page of an entry of the reading order, without its suffix."
    return entry.removesuffix(".ipynb") if isinstance(entry, str) else chapter_page(entry)


def toctree(pages, caption="", words="hidden"):
    "Write Sphinx's list of what follows; every page but the first stands in exactly one."
    head = [":hidden:"] if words == "hidden" else []
    head += [f":caption: {caption}"] if caption else []
    return "\n".join(["```{toctree}", *head, "", *(f"/{page}" for page in pages), "```"])


# -- one notebook ------------------------------------------------------------------------------------------------------


def joined(source):
    "Give the text of a notebook's field, which may be a list of lines."
    return source if isinstance(source, str) else "".join(source)


def read(path):
    "Read a notebook of nbs/."
    return json.loads((TOP / "nbs" / path).read_text())


def title_of(cells):
    "Give the title of a notebook and the sentence below it, if there is one."
    found = next(
        (
            match
            for cell in cells
            if cell["cell_type"] == "markdown" and (match := TITLE.search(joined(cell["source"])))
        ),
        None,
    )
    if not found:
        raise ValueError("a notebook of the book needs a cell that starts with `# Title`")
    return found[1], found[2] or ""


def module_of(cells):
    "Give the module that a notebook makes, or None."
    found = (re.search(r"^#\| default_exp (\S+)", joined(cell["source"]), re.M) for cell in cells)
    return next((f"fima.{match[1]}" for match in found if match), None)


def markdown_cell(name, text):
    "Make a Markdown cell."
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def shown(cell):
    "Give what the book shows of a cell: none of nbdev's directives; Markdown that a cell put out is Markdown."
    source = joined(cell["source"])
    if cell["cell_type"] != "code":
        return [] if source.startswith(("Previous: ", "Next: ")) else [{**cell, "source": source}]
    if re.search(r"^#\| *hide *$", source, re.M):
        return []
    code = re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip()
    put_out = [
        joined(each["data"]["text/markdown"]) for each in cell["outputs"] if "text/markdown" in each.get("data", {})
    ]
    outputs = [each for each in cell["outputs"] if "text/markdown" not in each.get("data", {})]
    kept = [{**cell, "source": code, "outputs": outputs}] if code or outputs else []
    return kept + [markdown_cell(f"{cell['id']}-{count}", text) for count, text in enumerate(put_out)]


# -- links -------------------------------------------------------------------------------------------------------------


class Book:
    "Collect pages and files under a folder; whatever a page links to comes along."

    def __init__(self, folder):
        self.source, self.files = folder / "source", folder / "files"
        self.others, self.written = [], {}

    def write(self, page, text):
        "Take a page in."
        file = self.source / page
        if file in self.written:
            raise ValueError(f"two pages of the book have one name: {page}")
        self.written[file] = text.encode()

    def copy(self, path, folder):
        "Take a file of the repository in under its own path."
        if folder / path not in self.written:
            self.written[folder / path] = None  # it may link to itself
            by_hand = path.endswith(".html")
            self.written[folder / path] = self.page_by_hand(path).encode() if by_hand else (TOP / path).read_bytes()

    def save(self):
        "Write what was taken in, touching nothing that is there already, and remove everything else."
        for file, content in self.written.items():
            if not (file.is_file() and file.read_bytes() == content):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        for folder in (self.source, self.files):
            for file in folder.rglob("*"):
                if file.is_file() and file not in self.written:
                    file.unlink()

    def place(self, path):
        "Give where a path of the repository is found in the book, and whether that is a page; None if nowhere."
        path = MADE_FROM.get(path, path)
        if path in MADE_FROM.values():
            return path.removeprefix("nbs/").replace(".ipynb", ".md"), True
        if (TOP / path).is_dir():
            return self.folder_page(path), True
        if not (TOP / path).is_file():
            return None
        if path.startswith("nbs/") and path.endswith(".ipynb"):
            return path.removeprefix("nbs/"), True
        if path.endswith(".md"):
            self.other_page(path)
            return path, True
        self.copy(path, self.files)
        return path, False

    def link(self, target, home):
        "Turn a link of a file of the repository into one of its page in the book."
        path, _, anchor = target.partition("#")
        if target == f"#{anchor}":  # a heading of the same page: Jupyter keeps its capitals, Sphinx does not
            return target.lower()
        if "://" in target or target.startswith(("mailto:", "attachment:", "data:")):
            return target
        place = self.place(posixpath.normpath(posixpath.join(posixpath.dirname(home), path)))
        if not place:
            return target
        where = posixpath.relpath(place[0], posixpath.dirname(home.removeprefix("nbs/")) or ".")
        if place[1]:
            return where + (f"#{anchor.lower()}" if anchor else "")
        return f"site:{where}" + (f"#{anchor}" if anchor else "")

    def linked(self, text, home):
        "Turn all links of a text; a picture lies beside the pages."

        def turned(match):
            bang, words, target = match.groups()
            if target is None:
                return match[0]
            if not bang:
                return f"[{LINK.sub(turned, words)}]({self.link(target, home)})"
            path = posixpath.normpath(posixpath.join(posixpath.dirname(home), target))
            if "://" in target or not (TOP / path).is_file():
                return match[0]
            self.copy(path, self.source)
            return f"![{words}]({posixpath.relpath(path, posixpath.dirname(home.removeprefix('nbs/')) or '.')})"

        return LINK.sub(turned, text)

    def page_by_hand(self, path):
        "Turn the links of a page that is HTML already."

        def turned(match):
            target = self.link(html.unescape(match[1]), path)
            page = re.sub(r"\.(ipynb|md)(#|$)", r".html\2", target) if not target.startswith("site:") else target[5:]
            return f'href="{html.escape(page)}"'

        return re.sub(r'(?<=\s)href="([^"#][^"]*)"', turned, (TOP / path).read_text())

    def other_page(self, path):
        "Take a Markdown file of the repository in."
        if path in self.others:
            return
        self.others.append(path)
        self.write(path, self.linked((TOP / path).read_text(), path))

    def folder_page(self, path):
        "Make a page that lists the Markdown files of a folder."
        page = f"{path}/contents.md"
        if page not in self.others:
            self.others.append(page)
            files = sorted(file.name for file in (TOP / path).glob("*.md"))
            self.write(page, "\n".join([f"# {path}", "", *(f"- [{Path(f).stem}]({f})" for f in files)]) + "\n")
            for file in files:
                self.other_page(f"{path}/{file}")
        return page

    # -- pages of the reading order

    def notebook(self, path):
        "Take a notebook in; one that is only made into a page is Markdown, without its code."
        cells, home = read(path)["cells"], f"nbs/{path}"
        if home in MADE_FROM.values():
            text = "\n\n".join(self.linked(piece, home) for cell in cells for piece in visible(cell))
            return self.write(path.removesuffix(".ipynb") + ".md", text + "\n")
        kept = [part for cell in cells for part in shown(cell)]
        for cell in kept:
            if cell["cell_type"] == "markdown":
                cell["source"] = self.linked(cell["source"], home)
        module = module_of(cells)
        if module:
            up = posixpath.relpath(f"api/{module}.md", posixpath.dirname(path) or ".")
            kept.append(markdown_cell("api", f"In the package: [`{module}`]({up})"))
        language = {"language_info": {"name": "python"}, "kernelspec": {"name": "python3", "display_name": "Python"}}
        self.write(path, json.dumps({"cells": kept, "metadata": language, "nbformat": 4, "nbformat_minor": 5}))

    def chapter(self, section):
        "Write the page of a section: what it holds, a sentence each."
        page = chapter_page(section)
        lines = [f"# {section['section']}", ""]
        for each in section["contents"]:
            where = posixpath.relpath(page_of(each), posixpath.dirname(page) or ".")
            if isinstance(each, str):
                title, sentence = title_of(read(each)["cells"])
                sentence = f": {self.linked(sentence, f'nbs/{each}')}" if sentence else ""
                lines.append(f"- [{title}]({where}.ipynb){sentence}")
            else:
                titles = ", ".join(title_of(read(path)["cells"])[0] for path in notebooks([each]))
                lines.append(f"- [{each['section']}]({where}.md): {titles}")
        self.write(f"{page}.md", "\n".join([*lines, "", toctree(map(page_of, section["contents"])), ""]))

    def sections(self, entries):
        "Write pages for all entries of the reading order."
        for each in entries:
            if isinstance(each, str):
                self.notebook(each)
            else:
                self.chapter(each)
                self.sections(each["contents"])

    def api(self, entries):
        "Write a page for each module in the order of their notebooks, and one for each room; list these."
        rooms = {}
        for path in notebooks(entries):
            cells = read(path)["cells"]
            module = module_of(cells)
            if module:
                rooms.setdefault(module.split(".")[1], []).append(module)
                made = f"From the notebook [{title_of(cells)[0]}](../{path})."
                members = f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n   :show-inheritance:\n```"
                self.write(f"api/{module}.md", f"# {module.removeprefix('fima.')}\n\n{made}\n\n{members}\n")
        for room, modules in rooms.items():
            if modules != [f"fima.{room}"]:
                listed = toctree([f"api/{module}" for module in modules], words="shown")
                self.write(f"api/{room}.md", f"# {room}\n\n{listed}\n")
        pages = [
            f"api/fima.{room}" if modules == [f"fima.{room}"] else f"api/{room}" for room, modules in rooms.items()
        ]
        self.write("api/api.md", f"# API\n\n{toctree(pages, words='shown')}\n")

    def make(self, entries):
        "Write all sources; the first entry is the first page and carries the table of contents."
        self.sections(entries)
        self.api(entries)
        tables = [path for path in self.others if path.startswith("reports/")]
        rest = [path for path in self.others if path not in tables]
        more = ["api/api"]
        for page, title, paths in (("tables", "Tables in full", tables), ("repository", "The repository", rest)):
            if paths:
                listed = toctree([path.removesuffix(".md") for path in sorted(paths)], words="shown")
                self.write(f"{page}.md", f"# {title}\n\n{listed}\n")
                more.append(page)
        chapters = [toctree(map(page_of, entries[1:]), "Chapters")] if entries[1:] else []
        trees = "\n\n".join([*chapters, toctree(more, "To look things up")])
        self.written[self.source / f"{page_of(entries[0])}.md"] += f"\n\n{trees}\n".encode()
        self.save()


def stage(folder, entries):
    "Make the sources of the book in a folder; what has not changed stays, so that Sphinx does not read it again."
    for name in ("source", "files", "static"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Book(folder).make(entries)


def build(folder, *options):
    "Make the pages from the sources in a folder; the exit code is Sphinx's."
    fonts = find_spec("djangocms_katex").submodule_search_locations[0]  # KaTeX as its makers publish it, in a package
    katex = Path(fonts) / "static" / "djangocms_katex" / "vendor" / "katex"
    for name in (
        "katex.min.js",
        "katex.min.css",
        "LICENSE",
        *(f"fonts/{file.name}" for file in katex.glob("fonts/*.woff2")),
    ):
        target = folder / "static" / "katex" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(katex / name, target)
    places = ["-c", TOP / "book", "-d", folder / "read", "-D", f"html_extra_path={folder / 'files'}"]
    places += ["-D", f"html_static_path={TOP / 'book' / '_static'},{folder / 'static'}"]
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", *places, *options]
    return subprocess.run([*map(str, command), folder / "source", folder / "html"]).returncode


if __name__ == "__main__":
    stage(BOOK, contents())
    if build(BOOK):
        sys.exit("book: Sphinx could not make it")
    print(f"book: {BOOK / 'html' / 'index.html'}")
