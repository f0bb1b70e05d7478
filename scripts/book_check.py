"""Check the finished book: every link leads somewhere, nothing is asked of another host, a browser has no complaint.

`make book-check` calls it. Without Chromium or playwright it says so and checks the links alone.
"""

import re
import shutil
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

HTML = Path(__file__).resolve().parent.parent / "_book" / "html"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1200, "height": 900}
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SEARCHED = "foreground"
LOOKED_AT = """() => [
    ...[...document.images].filter(each => !each.naturalWidth).map(each => 'picture without content: ' + each.src),
    ...(document.documentElement.scrollWidth > innerWidth
        ? ['the page is ' + document.documentElement.scrollWidth + ' wide'] : []),
    ...[...document.querySelectorAll('.katex-error')].map(each => 'a wrong formula: ' + each.textContent),
]"""


class Page(HTMLParser):
    "Collect what a page names itself (anchors), leads to (links) and needs (assets)."

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.assets = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        told = {name: value or "" for name, value in attributes}
        self.anchors |= {told[name] for name in ("id", "name") if name in told}
        if tag == "a" and "href" in told:
            self.links.append(told["href"])
        elif tag == "link" and told.get("rel") in ("stylesheet", "icon", "preload"):
            self.assets.append(told["href"])
        elif "src" in told:
            self.assets.append(told["src"])


def faults_of_links(folder):
    "List links and assets that lead nowhere, and assets of other hosts: (page, what is wrong)."
    pages = {file.resolve(): Page(file.read_text()) for file in sorted(folder.rglob("*.html"))}
    faults = []
    for file, page in pages.items():
        for target in dict.fromkeys([*page.links, *page.assets]):
            if re.match(r"(data|mailto|javascript):", target):
                continue
            if re.match(r"(\w+:)?//", target):
                if target in page.assets:
                    faults.append((file, f"needs another host: {target[:100]}"))
                continue
            path, _, anchor = target.partition("#")
            path = unquote(path.split("?")[0])
            where = (file.parent / path).resolve() if path else file
            where = where / "index.html" if where.is_dir() else where
            if not where.exists():
                faults.append((file, f"leads nowhere: {target[:100]}"))
            elif anchor and where in pages and unquote(anchor) not in pages[where].anchors:
                faults.append((file, f"no such place: {target[:100]}"))
    for file in folder.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)", file.read_text())
        faults += [(file.resolve(), f"needs another host: {target[:100]}") for target in found]
    return faults


def visit(context, file, size=PHONE, scheme="light"):
    "Open a page in a browser, wait for its formulas, and list what went wrong."
    tab, faults = context.new_page(), []
    tab.set_viewport_size(size)
    tab.emulate_media(color_scheme=scheme)
    tab.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("requestfailed", lambda request: faults.append(f"failed: {request.url[:100]}"))
    tab.on(
        "request", lambda each: None if re.match("file:|data:|blob:", each.url) else faults.append(f"asked: {each.url}")
    )
    tab.goto(file.as_uri(), wait_until="load")
    if tab.query_selector(".math"):
        tab.wait_for_function("document.documentElement.dataset.formulas === 'set'")
    tab.evaluate("document.querySelectorAll('img').forEach(each => each.loading = 'eager')")
    return tab, faults + tab.evaluate(LOOKED_AT)


def searched(context, folder, words):
    "Search the book and give the titles found."
    tab, faults = visit(context, folder / "index.html", DESKTOP)
    tab.fill("input[name=q]", words)
    tab.press("input[name=q]", "Enter")
    tab.wait_for_selector("#search-results li", timeout=60_000)
    tab.wait_for_function("!document.querySelector('#search-progress')?.textContent.includes('...')")
    titles = [each.inner_text() for each in tab.query_selector_all("#search-results li > a")]
    tab.close()
    return titles, faults


def faults_in_browser(folder):
    "Open every page as on a phone, the first ones also wide and in the dark, and search; None without a browser."
    program = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if not program:
        return None
    faults = []
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as profile:
        context = driver.chromium.launch_persistent_context(profile, executable_path=program, args=FLAGS)
        files = sorted(folder.rglob("*.html"))
        first = [file for file in files if file.parent == folder]
        visits = [(file, PHONE, "light") for file in files] + [(file, DESKTOP, "dark") for file in first]
        for file, size, scheme in visits:
            if file.relative_to(folder).parts[0] == "reports" and file.name == "index.html":
                continue  # the page of results has tests of its own
            tab, wrong = visit(context, file, size, scheme)
            tab.close()
            faults += [(file, f"at {size['width']}: {each}") for each in wrong]
        titles, wrong = searched(context, folder, SEARCHED)
        faults += [(folder / "index.html", each) for each in wrong]
        if not any(SEARCHED in title.lower() for title in titles):
            faults.append((folder / "search.html", f"finds no page called {SEARCHED}"))
        print(f"book-check: {len(visits)} visits in Chromium; {len(titles)} pages found for {SEARCHED!r}")
        context.close()
    return faults


def main(folder=HTML):
    "Check the book in a folder; stop with the faults, if there are any."
    if not (folder / "index.html").exists():
        sys.exit("book-check: there is no book: make book")
    count = len(list(folder.rglob("*.html")))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    faults = faults_of_links(folder)
    print(f"book-check: {count} pages, {size / 1e6:.0f} MB; links of all pages walked")
    seen = faults_in_browser(folder)
    if seen is None:
        print("book-check: no Chromium or no playwright on this machine: no page was opened in a browser")
    for file, wrong in faults + (seen or []):
        print(f"  {file.relative_to(folder.resolve())}: {wrong}")
    if faults or seen:
        sys.exit(f"book-check: {len(faults) + len(seen or [])} faults")
    print("book-check: no fault")


if __name__ == "__main__":
    main()
