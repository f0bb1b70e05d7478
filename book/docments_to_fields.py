"""Explain parameters and fields in Sphinx's words from the comments that stand behind them."""

import ast
import inspect
import io
import re
import tokenize
from dataclasses import is_dataclass
from textwrap import dedent

from fastcore.docments import docments


def rst(text):
    "Write a line of Markdown as one of reStructuredText: code stays code, everything else stands for itself."
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return re.sub(r"([\\*|_`])", r"\\\1", text)
    plain = (re.sub(r"([\\*|_])", r"\\\1", part) for part in parts[::2])
    code = [f"\\ ``{part}``\\ " for part in parts[1::2]] + [""]
    return "".join(words + each for words, each in zip(plain, code, strict=True)).strip()


def field_comments(kind):
    "Give the comment behind, or else above, each field that a class declares itself: name -> words."
    source = dedent(inspect.getsource(kind))
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ")
            if token.line.lstrip().startswith("#"):
                alone.add(token.start[0])
    found = {}
    for node in ast.parse(source).body[0].body:
        if isinstance(node, ast.AnnAssign):
            lines, above = [], node.lineno - 1
            while above in alone:
                lines.insert(0, comments[above])
                above -= 1
            found[node.target.id] = comments.get(node.end_lineno, " ".join(lines))
    return found


def explanations(thing):
    "Give what is said about each parameter of a function, or each field or argument of a class: name -> words."
    found = {}
    if inspect.isclass(thing):
        for kind in reversed(thing.__mro__):
            if kind.__module__.startswith("fima"):
                found |= field_comments(kind)
        if is_dataclass(thing) or "__init__" not in vars(thing):
            return found
    return found | {name: words for name, words in docments(thing).items() if words}


def explain(app, what, name, thing, options, lines):
    "Add to a docstring, in place, a line for each parameter or field that has a comment (a hook of autodoc)."
    lines[:] = [rst(line) for line in lines]
    if what not in ("function", "method", "class", "exception"):
        return
    try:
        told = explanations(thing)
    except (OSError, SyntaxError, TypeError):  # made at run time: it has no source
        return
    words = [
        f":returns: {rst(' '.join(said.split()))}"
        if each == "return"
        else f":param {each}: {rst(' '.join(said.split()))}"
        for each, said in told.items()
        if said
    ]
    lines += ["", *words, ""] if words else []
