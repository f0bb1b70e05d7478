"""Every comparator takes a step as it should, is MoCo where nothing is added, and composes by recipe alone."""

import pytest
import torch

from fima.methods.be import Be, BeOptions
from fima.methods.dclr import Dclr, DclrOptions
from fima.methods.fame import Fame
from fima.methods.registry import PUBLISHED, RELEASED, STRUCTURE
from fima.data.views.views import Batch, Modalities, RawBatch, RawView, View
from fima.methods.base import check_method
from fima.methods.encoders.encoders import build_encoder
from fima.methods.fima import Fima, FimaOptions
from fima.methods.moco import MomentumOptions
from fima.plugins import METHODS, VIEW_CHANGES
from fima.training.recipe import make_recipe

COMPARATORS = [name for name, entry in METHODS.items() if entry.options]

VIDEOS, FRAMES, SIZE, MAP = 6, 8, 32, (2, 4, 4)
SHARED = dict(queue_size=12, hidden=16, dim=8, key_groups=2, momentum=0.9)


def batch_of(needs, windows, seed=0):
    "Random views that hold what a method reads and nothing else."
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(VIDEOS, *shape, generator=generator)

    def view(kinds):
        clips = {kind: draw(3, FRAMES, SIZE, SIZE) for kind in ("rgb", "difference")}
        return View(
            *(clips[kind] if kind in kinds else None for kind in ("rgb", "difference")),
            None,
            torch.tensor([[0.0, 0.0, 1.0, 1.0]] * VIDEOS),
            draw(*MAP) if "motion" in kinds else None,
        )

    return Batch(
        view(needs),
        view(needs - {"motion"}),
        torch.zeros(VIDEOS, dtype=torch.long),
        torch.arange(VIDEOS),
        tuple(view({"rgb"}) for _ in range(windows - 2)),
        torch.arange(VIDEOS) % 2 if windows > 3 else None,
    )


def build(name):
    torch.manual_seed(0)
    method, own = METHODS[name].load(), METHODS[name].load_options()
    encoder = build_encoder("small3d", widths=(4, 8, 8, 16))
    return check_method(method.build(encoder, MomentumOptions(**SHARED), own(), 0))


def step(method, seed=0):
    losses = method(batch_of(method.needs, method.windows, seed), torch.Generator().manual_seed(seed))
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize("name", COMPARATORS)
def test_one_step(name):
    method = build(name)
    before = {queue: held.keys for queue, held in method.queues.items()}
    losses = step(method)
    assert losses and all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    stem = next(method.encoder.parameters())
    assert stem.grad.isfinite().all() and stem.grad.abs().sum() > 0
    assert all(
        p.grad is None and not p.requires_grad
        for part in (method.key_encoder, method.key_projectors)
        for p in part.parameters()
    )
    assert all(p.grad is not None for part in (method.encoder, method.projectors) for p in part.parameters())
    assert all(not torch.equal(held.keys, before[queue]) for queue, held in method.queues.items())
    assert set(method.chance(VIDEOS, MAP)) <= set(losses)


@pytest.mark.parametrize("name", COMPARATORS)
def test_same_seed_same_bits(name):
    one, other = build(name), build(name)
    for seed in range(2):
        first, second = step(one, seed), step(other, seed)
        assert all(torch.equal(first[term], second[term]) for term in first)
    for mine, theirs in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert all(
        torch.equal(mine.grad, theirs.grad)
        for mine, theirs in zip(one.encoder.parameters(), other.encoder.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", COMPARATORS)
def test_evaluation_changes_nothing(name):
    method = build(name).eval()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    step(method)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize(
    "kind, own, term",
    [
        (Be, BeOptions(intra_negative=False), "instance"),
        (Dclr, DclrOptions(static=False, dynamic=False), "whole"),
    ],
    ids=["BE", "DCLR"],
)
def test_without_its_parts_it_is_moco(kind, own, term):
    shared, losses = FimaOptions(pixel=False, frame=False, **SHARED), []
    for make in (lambda encoder: kind(encoder, shared, own), lambda encoder: Fima(encoder, shared)):
        torch.manual_seed(0)
        method = make(build_encoder("small3d", widths=(4, 8, 8, 16)))
        optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
        losses.append([])
        for number in range(3):
            found = method(batch_of(frozenset({"rgb"}), 2, number), torch.Generator().manual_seed(number))
            optimiser.zero_grad()
            sum(found.values()).backward()
            optimiser.step()
            losses[-1].append(found[term if term in found else "instance"].item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", VIEW_CHANGES)
def test_a_change_reaches_the_source_alone(name):
    def raw_clip(seed):
        return torch.randint(
            0, 256, (VIDEOS, FRAMES, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
        )

    raw = RawBatch(
        *(RawView(raw_clip(seed), torch.zeros(VIDEOS, 4)) for seed in (0, 1)),
        torch.zeros(VIDEOS),
        torch.arange(VIDEOS),
        (RawView(raw_clip(2), torch.zeros(VIDEOS, 4)),),
    )
    plain, changed = (
        Modalities(change=change)(raw, torch.Generator().manual_seed(0), frozenset({"rgb"}))
        for change in (None, VIEW_CHANGES[name].load()())
    )
    assert not torch.equal(plain.source.rgb, changed.source.rgb)
    assert torch.equal(plain.target.rgb, changed.target.rgb) and torch.equal(plain.others[0].rgb, changed.others[0].rgb)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fame_of_blank_and_still_clips(dtype):
    blank = torch.zeros(2, 3, FRAMES, SIZE, SIZE, dtype=dtype)
    still = torch.rand(2, 3, 1, SIZE, SIZE, dtype=dtype).expand(-1, -1, FRAMES, -1, -1)
    for clips in (blank, blank + 1, still):
        merged = Fame()(clips, torch.Generator().manual_seed(0))
        assert merged.shape == clips.shape and merged.dtype == dtype and merged.isfinite().all()


@pytest.mark.parametrize(
    "profile, preset",
    [(profile, preset) for profile in ("smoke", "demo", "small", "paper") for preset in ("paper", "released")],
)
def test_every_method_has_a_recipe_at_every_scale(profile, preset):
    recipes = {name: make_recipe(profile, preset, method=name) for name in STRUCTURE}
    assert len({recipe.run_id for recipe in recipes.values()}) == len(STRUCTURE)
    for name, recipe in recipes.items():
        settings = dict(STRUCTURE[name])
        if profile == "paper":
            settings |= PUBLISHED[name]
        if preset == "released":
            settings |= RELEASED.get(name, {})
        for key, value in settings.items():
            found = recipe
            for part in key.split("."):
                found = found[part] if isinstance(found, dict) else getattr(found, part)
            if not isinstance(value, dict):
                assert found == value, (name, key)


@pytest.mark.parametrize("name", STRUCTURE)
def test_what_is_published_stays_at_its_scale(name):
    "Below the published scale the harness decides, and what makes the method does not change it."
    harness, recipe = make_recipe("demo"), make_recipe("demo", method=name)
    assert recipe.optimisation == harness.optimisation
    assert recipe.encoder == harness.encoder
    assert recipe.data == harness.data
    for field in ("temperature", "momentum", "queue_size", "hidden", "dim", "key_groups", "query_groups"):
        assert getattr(recipe.method, field) == getattr(harness.method, field)
    for field in ("frames_per_clip", "stride", "crop_size", "scale", "difference", "photometric"):
        assert getattr(recipe.views, field) == getattr(harness.views, field)
