"""The exercises can be done: blocks run, checks fail on the mistakes one makes, solutions solve them by themselves."""

import ast
import json
import re
from itertools import combinations
from math import comb, log, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fima.course import checks
from fima.course.compare import CheckFailed
from fima.evaluation.core.statistics import cluster_bootstrap
from fima.methods.fame import colour_ratio
from fima.methods.instance import info_nce
from fima.methods.pixel import pixel_loss
from helpers import TOP, each_path

CHECKS = sorted(name for name in checks.__all__ if name.startswith("check_"))
SOLUTIONS = sorted((TOP / "nbs/8_course/solutions").glob("*.ipynb"))
# every method from Eq. 1 on, and five chapters of data and evaluation
CHAPTERS = [
    *(path for path in sorted((TOP / "nbs/2_methods").glob("*.ipynb")) if 4 <= int(path.name[:2]) <= 17),
    *(TOP / "nbs" / name for name in ("1_data/4_views/01_colours.ipynb", "1_data/4_views/02_views.ipynb")),
    TOP / "nbs/4_evaluation/1_core/03_statistics.ipynb",
    TOP / "nbs/4_evaluation/2_protocols/03_retrieval.ipynb",
    TOP / "nbs/4_evaluation/3_bias/01_perturb.ipynb",
]


def cells(path, kind):
    return ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def exercises(path):
    "The exercises of a chapter, each a piece of Markdown; they stand before the last cell."
    *_, text, last = cells(path, "markdown")
    assert text.startswith("## Exercises\n") and last.startswith(("Previous: ", "Next: "))
    return re.split(r"^(?=\*\*\d\.)", text, flags=re.M)[1:]


def block(exercise):
    (code,) = re.findall(r"```python\n(.*?)```", exercise, re.S)
    return code


# -- the exercises -----------------------------------------------------------------------------------------------------


@each_path(CHAPTERS)
def test_a_chapter_ends_in_two_to_four_exercises(path):
    "First a prediction, then functions; each has a hint that unfolds."
    found = exercises(path)
    assert 2 <= len(found) <= 4 and "Predict, then run." in found[0]
    for number, text in enumerate(found, 1):
        assert text.startswith(f"**{number}.")
        assert re.search(r"<details><summary>Hint</summary>\n\n.+\n\n</details>", text, re.S)
        assert text.count("<details>") == text.count("</details>") == 1
    assert "check_" in found[-1]


@each_path(CHAPTERS)
def test_what_is_pasted_runs(path, capsys):
    "A prediction prints; a function that is still empty is told so by its check."
    for text in exercises(path):
        code = block(text)
        if "check_" not in code:
            exec(compile(code, path.name, "exec"), {})
            assert capsys.readouterr().out.strip()
            continue
        with pytest.raises(CheckFailed, match="gives nothing: is its `return` missing"):
            exec(compile(code, path.name, "exec"), {})


def test_every_check_is_an_exercise_and_is_solved():
    asked = [name for path in CHAPTERS for name in re.findall(r"^(check_\w+)\(", "\n".join(exercises(path)), re.M)]
    solved = [
        name for path in SOLUTIONS for name in re.findall(r"^(check_\w+)\(", "\n".join(cells(path, "code")), re.M)
    ]
    assert sorted(asked) == sorted(solved) == CHECKS


@each_path(CHAPTERS)
def test_the_solutions_answer_every_exercise_of_a_chapter(path):
    linked = re.search(r"\[Solutions\]\(([^)]+)\)", cells(path, "markdown")[-2])[1]
    text = "\n\n".join(cells((path.parent / linked).resolve(), "markdown"))
    (section,) = [part for part in re.split(r"^(?=## )", text, flags=re.M) if f"/{path.name})" in part.splitlines()[0]]
    answered = re.findall(r"^\*\*(\d)\.\*\*", section, re.M)
    assert answered == [str(number) for number in range(1, len(exercises(path)) + 1)]


@each_path(SOLUTIONS)
def test_solutions_do_not_call_what_they_solve(path):
    "Functions of the package are for the predictions alone; `colour_ratio` is handed out by its exercise."
    tree = ast.parse("\n".join(cells(path, "code")))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("fima")
        for alias in node.names
    }
    assert {name for name in imported if name.startswith("check_")}
    calls = [node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    solving = {call.args[0].id for call in calls if getattr(call.func, "id", "").startswith("check_")}
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    todo, used = list(solving), set()
    while todo:  # what a solution calls, and what that calls
        names = {node.id for node in ast.walk(functions[todo.pop()]) if isinstance(node, ast.Name)}
        todo += [name for name in names & functions.keys() if name not in used]
        used |= names
    assert used & imported <= {"colour_ratio"}


# -- the checks --------------------------------------------------------------------------------------------------------


def softmax_loss(found, others):
    "Eq. 1 from similarities over temperature, (B,) and (B, K)."
    return (torch.cat([found[:, None], others], 1).logsumexp(1) - found).mean()


def naive(q, p, n, t):
    "Eq. 1 as it is written."
    above, below = ((q * p).sum(1) / t).exp(), (q @ n.T / t).exp().sum(1)
    return -(above / (above + below)).log().mean()


def centres_of(box, H, W, half=0.5):
    x = box[:, :1] + (torch.arange(W) + half) / W * (box[:, 2:3] - box[:, :1])
    y = box[:, 1:2] + (torch.arange(H) + half) / H * (box[:, 3:] - box[:, 1:2])
    return torch.stack([x[:, None].expand(-1, H, -1), y[:, :, None].expand(-1, -1, W)], -1).flatten(1, 2)


def pairs_of(source, target, size, threshold, unit=torch.maximum, order=lambda box: box):
    H, W = size
    gap = (centres_of(order(source), H, W)[:, :, None] - centres_of(order(target), H, W)[:, None]).norm(dim=-1)
    diagonals = [((box[:, 2:] - box[:, :2]) / torch.tensor([W, H])).norm(dim=-1) for box in (source, target)]
    return gap / unit(*diagonals)[:, None, None] < threshold


def pixels(predictions, keys, positives, temperature, **wrong):
    "Eq. 8 with one thing wrong: what is averaged, where positives lie, which keys are met, the sum in the logarithm."
    T = predictions.shape[1]
    losses = []
    for video, own in enumerate(positives):
        matched = own.any(1)
        if not (matched.any() or wrong.get("counts_empty")):
            continue
        asked = predictions[video] / temperature
        all_keys = keys[[video]] if wrong.get("own_video") else keys
        every = torch.einsum("trd,csnd->trcsn", asked, all_keys).flatten(2).logsumexp(-1)
        here = asked @ keys[video].mT
        if wrong.get("every_frame"):
            here = torch.cat([asked @ keys[video, frame].T for frame in range(T)], -1)
            own = own.repeat(1, T)
        if wrong.get("mean_outside"):
            each = (every - (here * own).sum(-1) / own.sum(-1).clamp(min=1)) * matched
        else:
            each = every - here.masked_fill(~own, -1e9).logsumexp(-1)
        each = each[:, matched] if not wrong.get("counts_empty") else each.where(matched, 0)
        losses.append(each.flatten())
    if not losses:
        return torch.tensor(float("nan")) if wrong.get("nan") else 0 * predictions.sum()
    return torch.cat(losses).mean() if wrong.get("pixels") else torch.stack([one.mean() for one in losses]).mean()


def where_afterwards(predictions, keys, positives, temperature):
    "Eq. 8 with the pixels without a positive taken out after the logarithm: the value is right, the gradient is not."
    own = torch.einsum("btnd,btmd->btnm", predictions, keys) / temperature
    every = torch.einsum("btnd,csmd->btncsm", predictions, keys).flatten(3) / temperature
    each = every.logsumexp(-1) - (own.exp() * positives[:, None]).sum(-1).log()
    found = positives.any(-1)
    each = torch.where(found[:, None], each, 0.0).mean(1)
    videos = each.sum(1) / found.sum(1).clamp(min=1)
    return videos.sum() / found.any(1).sum().clamp(min=1)


def frames(y, target, source, queue, tau, **wrong):
    own = [target] if wrong.get("no_source") else [target, source]
    logits = torch.cat([y @ torch.cat(own, 1).mT, y @ queue.T], -1) / tau
    place = torch.zeros(y.shape[1], dtype=torch.long) if wrong.get("first") else torch.arange(y.shape[1])
    positive = logits.gather(2, place.expand(len(y), -1)[..., None])[..., 0]
    if wrong.get("without_positive"):
        hidden = torch.zeros_like(logits, dtype=torch.bool).scatter(2, place.expand(len(y), -1)[..., None], True)
        logits = logits.masked_fill(hidden, -torch.inf)
    return (logits.logsumexp(-1) - positive).mean()


def attend(q, k, v, heads, scale=None, softmax=-1, split=None):
    def default(x):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    split = split or default
    weights = (split(q) @ split(k).mT / (scale or sqrt(q.shape[-1] // heads))).softmax(softmax)
    return (weights @ split(v)).transpose(1, 2).flatten(-2), weights


def levels(options, batch, size, sub_clips=0, groups=min, triplet=False):
    T, H, W = size
    videos = {"batch": batch, "video": 1}.get(options.negatives, options.negatives)
    terms = {name: log(1 + options.queue_size) for name in ("instance", "instance_motion") if getattr(options, name)}
    if options.frame and (triplet or options.frame_kind == "infonce"):
        terms["frame"] = log(2 * T + sub_clips + options.queue_size)
    if options.pixel:
        terms["pixel"] = log(T * H * W * groups(videos, batch) + options.dense_queue_size)
    return terms


def sums_of(values, groups):
    return np.array([values[groups == name].sum() for name in np.unique(groups)])


def flips(a, b, groups, absolute=np.abs):
    sums = sums_of(a - b, groups)
    signs = np.array(np.meshgrid(*[[1, -1]] * len(sums))).reshape(len(sums), -1).T
    return np.mean(absolute(signs @ sums) >= absolute(sums.sum()) - 1e-9)


def hits(query, gallery, labels, shelf, k, unit=lambda x: x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)):
    near = np.argsort(-unit(query) @ unit(gallery).T, axis=1, kind="stable")[:, :k]
    return shelf[near] == labels[:, None]


def cos(one, other, floor=1e-12):
    with np.errstate(invalid="ignore"):
        return (one * other).sum(-1) / (np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)).clip(floor)


def terms(P, M, safe=True, weigh=True, leave_out=True):
    "MCL's alignment with one thing wrong."

    def cosine(one, other):
        lengths = one.norm(dim=-1) * other.norm(dim=-1)
        return (one * other).sum(-1) / (lengths.masked_fill(lengths == 0, 1) if safe else lengths)

    sums = M.sum((2, 3))
    a = sums / sums.sum(1, keepdim=True).clamp(min=1e-9) if weigh else torch.full_like(sums, 1 / sums.shape[1])
    alike = (
        (a * cosine(P.flatten(2), M.flatten(2))).sum(1),
        cosine(P.sum((2, 3)), sums),
        cosine(P.mean(1).flatten(1), M.mean(1).flatten(1)),
    )
    moves = M.flatten(1).any(1) if leave_out else torch.ones(len(M), dtype=torch.bool)
    return tuple(((1 - term) * moves).sum() / moves.sum().clamp(min=1) for term in alike)


def chunks_of(T, uneven=True):
    return list(torch.arange(T).tensor_split(4)) if uneven else list(torch.arange(T // 4 * 4).split(max(1, T // 4)))


def swapped(T, pairs, uneven=True):
    orders = []
    for one, other in pairs:
        chunks = chunks_of(T, uneven)
        chunks[one], chunks[other] = chunks[other], chunks[one]
        orders.append(torch.cat(chunks))
    return torch.stack(orders)


def with_share(ratio, chosen):
    return torch.zeros_like(ratio, dtype=torch.bool).scatter_(1, chosen, True)


LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1, 1)
# check -> mistake -> (the function, words of the line that tells it)
MISTAKES = {
    "check_frame_difference": {
        "wraps around": (lambda c: (c - c.roll(1, 2) + 1) / 2, "two random clips"),
        "starts with stillness": (
            lambda c: (torch.cat([0 * c[:, :, :1], c.diff(dim=2)], 2) + 1) / 2,
            "two random clips",
        ),
        "is not mapped": (lambda c: torch.cat([c.diff(dim=2)[:, :, :1], c.diff(dim=2)], 2), "two random clips"),
        "is too short": (lambda c: (c.diff(dim=2) + 1) / 2, "gives shape"),
    },
    "check_contrast": {
        "mean of each frame": (
            lambda c, f: (
                (m := (c * LUMA).sum(1, keepdim=True).mean((3, 4), keepdim=True)) + f.view(-1, 1, 1, 1, 1) * (c - m)
            ).clamp(0, 1),
            "two random clips",
        ),
        "plain mean of the channels": (
            lambda c, f: ((m := c.mean((1, 2, 3, 4), keepdim=True)) + f.view(-1, 1, 1, 1, 1) * (c - m)).clamp(0, 1),
            "two random clips",
        ),
        "leaves the range": (
            lambda c, f: (
                (m := (c * LUMA).sum(1, keepdim=True).mean((1, 2, 3, 4), keepdim=True))
                + f.view(-1, 1, 1, 1, 1) * (c - m)
            ),
            "instead of",
        ),
    },
    "check_box": {
        "by width, not width - 1": (
            lambda r, h, w, f: [r[0] / w, r[1] / h, (r[0] + r[2]) / w, (r[1] + r[3]) / h],
            "wide",
        ),
        "no flip": (
            lambda r, h, w, f: [
                r[0] / (w - 1),
                r[1] / (h - 1),
                (r[0] + r[2] - 1) / (w - 1),
                (r[1] + r[3] - 1) / (h - 1),
            ],
            "a mirrored crop",
        ),
    },
    "check_unwarp": {
        "no negative width": (
            lambda p, b: (p - b[..., None, :2]) / (b[..., None, 2:] - b[..., None, :2]).abs(),
            "a mirrored box",
        ),
        "the other way": (
            lambda p, b: b[..., None, :2] + p * (b[..., None, 2:] - b[..., None, :2]),
            "one box",
        ),
        "x sorted": (
            lambda p, b: (
                (p - (low := torch.minimum(b[..., None, :2], b[..., None, 2:])))
                / (torch.maximum(b[..., None, :2], b[..., None, 2:]) - low)
            ),
            "a mirrored box",
        ),
    },
    "check_info_nce": {
        "exponentials as written": (naive, "temperature 0.01"),
        "positive not in the sum": (
            lambda q, p, n, t: ((q @ n.T / t).logsumexp(1) - (q * p).sum(1) / t).mean(),
            "three random queries",
        ),
        "no temperature": (lambda q, p, n, t: softmax_loss((q * p).sum(1), q @ n.T), "three random queries"),
        "sum over the queries": (
            lambda q, p, n, t: len(q) * softmax_loss((q * p).sum(1) / t, q @ n.T / t),
            "three random queries",
        ),
        "detached": (
            lambda q, p, n, t: softmax_loss((q.detach() * p).sum(1) / t, q.detach() @ n.T / t),
            "no gradient reaches `query`",
        ),
    },
    "check_negative_push": {
        "no temperature in front": (
            lambda q, p, n, t: (torch.cat([(q * p).sum(1, keepdim=True), q @ n.T], 1) / t).softmax(1)[:, 1:],
            "three random queries",
        ),
        "softmax over negatives alone": (lambda q, p, n, t: (q @ n.T / t).softmax(1) / t, "three random queries"),
    },
    "check_momentum_update": {
        "weights swapped": (lambda k, q, m: (1 - m) * k + m * q, "momentum 0.75"),
        "in place": (lambda k, q, m: k.mul_(m).add_((1 - m) * q), "changes its argument `key` in place"),
        "adds": (lambda k, q, m: k + (1 - m) * q, "momentum 0.75"),
    },
    "check_enqueue": {
        "newest thrown away": (lambda queue, keys: torch.cat([queue, keys])[: len(queue)], "two keys"),
        "grows": (lambda queue, keys: torch.cat([queue, keys]), "gives shape (7, 3) instead of (5, 3)"),
        "assumes few keys": (lambda queue, keys: torch.cat([queue[len(keys) :], keys]), "more keys than places"),
        "first of many keys stay": (
            lambda queue, keys: torch.cat([queue[len(keys) :], keys])[: len(queue)],
            "more keys than places",
        ),
    },
    "check_cell_centres": {
        "corners of the cells": (lambda b, h, w: centres_of(b, h, w, half=0), "two views"),
        "y before x": (lambda b, h, w: centres_of(b, h, w).flip(-1), "two views"),
        "sorted": (
            lambda b, h, w: centres_of(torch.cat([b.view(-1, 2, 2).amin(1), b.view(-1, 2, 2).amax(1)], 1), h, w),
            "mirrored views",
        ),
        "columns first": (
            lambda b, h, w: centres_of(b, h, w).unflatten(1, (h, w)).transpose(1, 2).flatten(1, 2),
            "two views",
        ),
    },
    "check_positive_pairs": {
        "source's diagonal": (lambda *given: pairs_of(*given, unit=lambda s, t: s), "much larger"),
        "target's diagonal": (lambda *given: pairs_of(*given, unit=lambda s, t: t), "much smaller"),
        "no flip": (
            lambda *given: pairs_of(
                *given, order=lambda b: torch.cat([b.view(-1, 2, 2).amin(1), b.view(-1, 2, 2).amax(1)], 1)
            ),
            "a mirrored target",
        ),
        "in fractions of the frame": (
            lambda *given: pairs_of(*given, unit=lambda s, t: 0 * s + 1),
            "two pairs of views",
        ),
        "transposed": (lambda s, t, *given: pairs_of(t, s, *given), "a mask that differs in"),
    },
    "check_pixel_loss": {
        "one mean over all pixels": (
            lambda *given: pixels(*given, pixels=True),
            "pixels with several positives or none",
        ),
        "mean of the positives outside": (
            lambda *given: pixels(*given, mean_outside=True),
            "pixels with several positives or none",
        ),
        "positives in both frames": (lambda *given: pixels(*given, every_frame=True), "each pixel with one positive"),
        "keys of the own video": (lambda *given: pixels(*given, own_video=True), "each pixel with one positive"),
        "empty pixels count": (lambda *given: pixels(*given, counts_empty=True), "several positives or none"),
        "nan where nothing matches": (lambda *given: pixels(*given, nan=True), "a batch without any positive"),
        "taken out after the logarithm": (where_afterwards, "gradient by `predictions` is nan"),
    },
    "check_foreground_mask": {
        "at least the quantile": (
            lambda r, d, b: (a := r.mean((1, 2)) + d.mean((1, 2))) >= a.flatten(1).quantile(b, dim=1)[:, None, None],
            "a random clip",
        ),
        "beta as the share that stays": (
            lambda r, d, b: (a := r.mean((1, 2)) + d.mean((1, 2))) > a.flatten(1).quantile(1 - b, dim=1)[:, None, None],
            "beta 0.7",
        ),
        "one quantile for the batch": (
            lambda r, d, b: (a := r.mean((1, 2)) + d.mean((1, 2))) > a.quantile(b),
            "instead of",
        ),
        "colour alone": (
            lambda r, d, b: (a := r.mean((1, 2))) > a.flatten(1).quantile(b, dim=1)[:, None, None],
            "a random clip",
        ),
    },
    "check_attention": {
        "scale of the whole width": (
            lambda q, k, v, h: attend(q, k, v, h, scale=sqrt(q.shape[-1])),
            "four heads",
        ),
        "softmax over queries": (lambda q, k, v, h: attend(q, k, v, h, softmax=-2), "one head"),
        "no scale": (lambda q, k, v, h: attend(q, k, v, h, scale=1.0), "one head"),
        "heads interleaved": (
            lambda q, k, v, h: attend(q, k, v, h, split=lambda x: x.unflatten(-1, (-1, h)).movedim(-1, 1)),
            "four heads",
        ),
    },
    "check_positions": {
        "sines, then cosines": (
            lambda n, w: torch.cat(
                [f(torch.arange(n)[:, None] * 10000 ** (-torch.arange(0, w, 2) / w)) for f in (torch.sin, torch.cos)], 1
            ),
            "49 tokens",
        ),
        "a frequency for each column": (
            lambda n, w: torch.stack(
                [f(torch.arange(n) / 10000 ** (c / w)) for c in range(w) for f in [(torch.sin, torch.cos)[c % 2]]], 1
            ),
            "3 tokens of width 2",
        ),
    },
    "check_frame_loss": {
        "no sub-clips of the source": (lambda *given: frames(*given, no_source=True), "three random videos"),
        "always the first sub-clip": (lambda *given: frames(*given, first=True), "three random videos"),
        "positive not in the sum": (lambda *given: frames(*given, without_positive=True), "three random videos"),
        "one row a video": (
            lambda y, t, s, q, tau: F.cross_entropy(
                torch.cat([y.flatten(0, 1) @ t.flatten(0, 1).T, y.flatten(0, 1) @ q.T], 1) / tau,
                torch.arange(y.shape[0] * y.shape[1]),
            ),
            "three random videos",
        ),
    },
    "check_chance": {
        "the positive among the negatives": (lambda *given: levels(*given, sub_clips=1), "for 'frame'"),
        "groups larger than the batch": (lambda *given: levels(*given, groups=lambda v, b: v), "fewer videos"),
        "a level for the triplet": (lambda *given: levels(*given, triplet=True), "the triplet form"),
    },
    "check_cross_entropy": {
        "softmax twice": (lambda s, y: F.cross_entropy(s.softmax(1), y), "four random clips"),
        "sum": (lambda s, y: F.cross_entropy(s, y, reduction="sum"), "four random clips"),
        "exponentials as written": (
            lambda s, y: -(s.exp() / s.exp().sum(1, keepdim=True))[torch.arange(len(s)), y].log().mean(),
            "scores of a thousand",
        ),
    },
    "check_erase": {
        "one frame for all clips": (
            lambda c, s, f: (1 - s) * c + s * c[:, :, f[:1]],
            "three random clips",
        ),
        "added, not mixed": (
            lambda c, s, f: c + s * c[torch.arange(len(c)), :, f][:, :, None],
            "three random clips",
        ),
        "in place": (
            lambda c, s, f: c.mul_(1 - s).add_(s * c[torch.arange(len(c)), :, f][:, :, None]),
            "changes its argument `clips`",
        ),
    },
    "check_be_loss": {
        "moments of all videos": (
            lambda q, p, m, n, t: softmax_loss((q * p).sum(1) / t, torch.cat([q @ m.T, q @ n.T], 1) / t),
            "three random videos",
        ),
        "no moment": (lambda q, p, m, n, t: softmax_loss((q * p).sum(1) / t, q @ n.T / t), "three random videos"),
        "moment as a positive": (
            lambda q, p, m, n, t: (
                (softmax_loss((q * p).sum(1) / t, q @ n.T / t) + softmax_loss((q * m).sum(1) / t, q @ n.T / t)) / 2
            ),
            "three random videos",
        ),
    },
    "check_fame_mask": {
        "quantile": (
            lambda c, b: (r := colour_ratio(c)) > r.flatten(1).quantile(1 - b, dim=1)[:, None, None],
            "instead of",
        ),
        "lowest ratios": (
            lambda c, b: with_share(
                r := colour_ratio(c).flatten(1), r.argsort(dim=1, stable=True)[:, : max(1, round(b * r.shape[1]))]
            ).view(len(c), *c.shape[-2:]),
            "two random clips",
        ),
        "ties from the end": (
            lambda c, b: with_share(
                r := colour_ratio(c).flatten(1),
                r.argsort(dim=1, stable=True).flip(1)[:, : max(1, round(b * r.shape[1]))],
            ).view(len(c), *c.shape[-2:]),
            "instead of",
        ),
    },
    "check_fame_merge": {
        "mask inside out": (lambda c, m, p: torch.where(m[:, None, None], c[p], c), "four random clips"),
        "partners the other way": (
            lambda c, m, p: torch.where(m[:, None, None], c, c[p.argsort()]),
            "four random clips",
        ),
        "mask of the partner": (lambda c, m, p: torch.where(m[p][:, None, None], c, c[p]), "four random clips"),
    },
    "check_broken_orders": {
        "neighbours alone": (lambda T: swapped(T, [(0, 1), (1, 2), (2, 3)]), "gives shape (3, 8)"),
        "with the true order": (lambda T: swapped(T, [(0, 0), *list(combinations(range(4), 2))[1:]]), "8 frames"),
        "drops the rest": (lambda T: swapped(T, combinations(range(4), 2), uneven=False), "7 frames"),
    },
    "check_iic_loss": {
        "broken clips of all videos": (
            lambda c, r, b, rq, bq, t: softmax_loss((c * r).sum(1) / t, c @ torch.cat([b, rq, bq]).T / t),
            "three random clips",
        ),
        "no queue of broken clips": (
            lambda c, r, b, rq, bq, t: softmax_loss(
                (c * r).sum(1) / t, torch.cat([(c * b).sum(1, keepdim=True), c @ rq.T], 1) / t
            ),
            "three random clips",
        ),
    },
    "check_relative_activation": {
        "mean of the batch": (
            lambda m: (s := m.sum(1, keepdim=True)) / s.mean(),
            "a quiet and a loud clip",
        ),
        "mean over channels": (lambda m: (s := m.mean(1, keepdim=True)) / s.amax((2, 3, 4), keepdim=True), "random"),
        "dead map divided": (
            lambda m: (s := m.sum(1, keepdim=True)) / s.mean((2, 3, 4), keepdim=True),
            "zero everywhere your function gives nan instead of 1",
        ),
        "nan behind where": (
            lambda m: torch.where(
                (s := m.sum(1, keepdim=True)).mean((2, 3, 4), keepdim=True) > 0,
                s / s.mean((2, 3, 4), keepdim=True),
                1.0,
            ),
            "gradient by `maps` is nan",
        ),
    },
    "check_dclr_parts": {
        "maps of the companions": (
            lambda m, s, d: tuple(each.mean((2, 3, 4)) for each in (m, s, d)),
            "for value 2",
        ),
        "weighted by its own map": (
            lambda m, s, d: (
                m.mean((2, 3, 4)),
                *[(m * m.sum(1, keepdim=True) / m.sum(1, keepdim=True).mean()).mean((2, 3, 4))] * 2,
            ),
            "for value 2",
        ),
        "two of three": (lambda m, s, d: (m.mean((2, 3, 4)), s.mean((2, 3, 4))), "2 values instead of 3"),
    },
    "check_frame_weights": {
        "softmax": (lambda m: m.sum((2, 3)).softmax(1), "two random clips"),
        "still clip divided": (lambda m: m.sum((2, 3)) / m.sum((1, 2, 3))[:, None], "nothing moves"),
        "floor that is too high": (
            lambda m: m.sum((2, 3)) / m.sum((1, 2, 3))[:, None].clamp(min=1),
            "a hundred thousand times as large",
        ),
    },
    "check_alignment": {
        "frames weighed alike": (lambda p, m: terms(p, m, weigh=False), "for 'space_time'"),
        "still videos count": (lambda p, m: terms(p, m, leave_out=False), "a clip in which nothing moves"),
        "divided by zero": (lambda p, m: terms(p, m, safe=False), "second frame does not move"),
    },
    "check_intra_loss": {
        "one softmax": (
            lambda q, s, others, t: softmax_loss(
                (q * s).sum(1) / t, torch.stack([(q * o).sum(1) for o in others], 1) / t
            ),
            "two other windows",
        ),
        "windows of all videos": (
            lambda q, s, others, t: sum(softmax_loss((q * s).sum(1) / t, q @ o.T / t) for o in others) / len(others),
            "two other windows",
        ),
        "sum over windows": (
            lambda q, s, others, t: sum(
                softmax_loss((q * s).sum(1) / t, (q * o).sum(1, keepdim=True) / t) for o in others
            ),
            "two other windows",
        ),
    },
    "check_own_keys": {
        "all keys count": (
            lambda q, p, n, o, r, t: softmax_loss((q * p).sum(1) / t, q @ n.T / t),
            "two keys of one video",
        ),
        "similarity 0": (
            lambda q, p, n, o, r, t: softmax_loss(
                (q * p).sum(1) / t, (q @ n.T / t).masked_fill(o[None] == r[:, None], 0)
            ),
            "two keys of one video",
        ),
        "videos of the whole batch left out": (
            lambda q, p, n, o, r, t: softmax_loss((q * p).sum(1) / t, q @ n[~torch.isin(o, r)].T / t),
            "two keys of one video",
        ),
    },
    "check_cluster_bootstrap": {
        "draws videos": (
            lambda c, g: cluster_bootstrap(c, np.arange(len(c)))[1:3],
            "20 groups of six videos that agree",
        ),
        "mean of the groups' means": (
            lambda c, g: np.quantile(
                (sums_of(c, g) / sums_of(np.ones_like(c), g))[
                    np.random.default_rng(0).integers(0, (n := len(np.unique(g))), (4000, n))
                ].mean(1),
                [0.025, 0.975],
            ).tolist(),
            "eight times as large",
        ),
        "90% of the draws": (lambda c, g: cluster_bootstrap(c, g, level=0.9)[1:3], "instead of"),
    },
    "check_paired_p": {
        "one side": (lambda a, b, g: flips(a, b, g, absolute=lambda x: x), "eight groups"),
        "signs alone": (
            lambda a, b, g: flips(np.sign(sums_of(a - b, g)), 0, np.unique(g)),
            "eight groups",
        ),
        "strictly more extreme": (
            lambda a, b, g: flips(a, b, g, absolute=lambda x: np.abs(x) + (1e-6 if np.ndim(x) == 0 else 0)),
            "eight groups",
        ),
    },
    "check_hit_rate": {
        "product without length": (
            lambda *given: hits(*given, unit=lambda x: x).any(1).mean(),
            "features of any length",
        ),
        "share of the neighbours": (lambda *given: hits(*given).mean(), "R@5"),
        "the k-th alone": (lambda *given: hits(*given)[:, -1].mean(), "R@5"),
        "nan for a zero feature": (
            lambda q, g, a, b, k: hits(q, g, a, b, k).any(1).mean() if q.any() else float("nan"),
            "a query whose feature is zero",
        ),
    },
    "check_chance_hit": {
        "with replacement": (
            lambda q, g, k: np.mean([1 - (1 - (g == label).mean()) ** k for label in q]),
            "12 balanced classes",
        ),
        "balanced classes assumed": (
            lambda q, g, k: 1 - comb(len(g) - len(g) // len(set(g)), k) / comb(len(g), k),
            "classes of unequal size",
        ),
        "k times R@1": (lambda q, g, k: min(1.0, k * np.mean([(g == label).mean() for label in q])), "12 balanced"),
    },
    "check_cosines": {
        "mean of the clips first": (lambda a, b: cos(a.mean(1), b.mean(1)), "three random videos"),
        "all clips in one vector": (
            lambda a, b: cos(a.reshape(len(a), -1), b.reshape(len(b), -1)),
            "three random videos",
        ),
        "zero divided": (lambda a, b: cos(a, b, floor=0).mean(1), "features are zero your function gives nan"),
    },
    "check_perturb": {
        "rows for time": (
            lambda c, kind: c[:, :, ::-1] if kind == "reverse" else c[:, [c.shape[1] // 2]].repeat(c.shape[1], 1),
            "reverse of 8 frames",
        ),
        "first frame frozen": (
            lambda c, kind: c[:, ::-1] if kind == "reverse" else c[:, :1].repeat(c.shape[1], 1),
            "freeze of 8 frames",
        ),
        "frame before the middle": (
            lambda c, kind: c[:, ::-1] if kind == "reverse" else c[:, [(c.shape[1] - 1) // 2]].repeat(c.shape[1], 1),
            "freeze of 8 frames",
        ),
    },
}


def test_every_check_knows_mistakes():
    assert sorted(MISTAKES) == CHECKS and all(len(mistakes) >= 2 for mistakes in MISTAKES.values())


@pytest.mark.parametrize(
    "check, mistake",
    [(check, mistake) for check in MISTAKES for mistake in MISTAKES[check]],
    ids=lambda name: name.removeprefix("check_").replace(" ", "_"),
)
def test_a_mistake_fails_in_one_line(check, mistake):
    "It says which check, on which input, and what differs."
    answer, words = MISTAKES[check][mistake]
    with pytest.raises(CheckFailed) as failure:
        getattr(checks, check)(answer)
    line = str(failure.value)
    assert line.startswith(f"{check}: on ") and words in line and "\n" not in line and len(line) < 300, line
    assert "stops with" not in line, line


# -- the teacher's page ------------------------------------------------------------------------------------------------


def test_the_lab_says_what_a_check_says(capsys):
    "Its goals are the first words of checks that passed."
    text = "\n".join(cells(TOP / "nbs/teaching.ipynb", "markdown"))
    goals = re.findall(r"`((check_\w+): right on \d+ inputs)`", text)
    assert len(goals) == 2
    checks.check_info_nce(info_nce), checks.check_pixel_loss(pixel_loss)
    said = capsys.readouterr().out
    assert all(f"{goal} (" in said for goal, _ in goals)


def test_the_minutes_add_up():
    "Two lectures and a lab of 90 minutes each; points of the exam."
    text = "\n\n".join(cells(TOP / "nbs/teaching.ipynb", "markdown"))
    parts = [part for part in re.split(r"^(?=## )", text, flags=re.M) if part.startswith(("## Lecture", "## Lab"))]
    assert [sum(map(int, re.findall(r"^\| (\d+) \|", part, re.M))) for part in parts] == [90, 90, 90]
    exam = text.split("## Questions for an exam")[1]
    points = [int(each) for each in re.findall(r"\((\d)\)\n\n</details>", exam)]
    assert len(points) == exam.count("<details>") == 14 and f"{sum(points)} in all" in exam
