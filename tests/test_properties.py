"""What holds for any input: boxes, windows, lists, recipes."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fima.data.sets.catalog import CatalogError
from fima.data.sets.lists import read_ucf_lists
from fima.data.views.clips import ordered_starts, two_starts
from fima.data.views.views import crop, random_box, unwarp_points, warp_points
from fima.methods.registry import method_names
from fima.training.recipe import Recipe, make_recipe

# the same examples every time, and no limit on how long one takes
quiet = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32 - 1)
sides = st.integers(8, 400)
shares = st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted).map(tuple)
aspects = st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)).map(sorted).map(tuple)


@quiet
@given(sides, sides, shares, aspects, seeds)
def test_a_random_box_lies_in_its_frame(height, width, scale, aspect, seed):
    x, y, w, h = random_box(height, width, scale, aspect, np.random.default_rng(seed))
    assert 0 <= x <= x + w <= width and 0 <= y <= y + h <= height and min(w, h) >= 1
    assert random_box(height, width, scale, aspect, np.random.default_rng(seed)) == (x, y, w, h)


@quiet
@given(sides, sides, seeds, st.booleans())
def test_a_box_carries_points_there_and_back(height, width, seed, flip):
    generator = np.random.default_rng(seed)
    frames = np.zeros((1, height, width, 3), np.uint8)
    rectangle = random_box(height, width, (0.3, 1.0), (0.75, 4 / 3), generator)
    clip, box = crop(frames, rectangle, 16, flip)
    assert clip.shape == (1, 16, 16, 3) and (box[0] > box[2]) == flip
    points = torch.from_numpy(generator.random((5, 2)))
    there = warp_points(points, torch.from_numpy(box).double())
    torch.testing.assert_close(unwarp_points(there, torch.from_numpy(box).double()), points)
    corners = warp_points(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.from_numpy(box))
    assert corners.min() >= 0 and corners.max() <= 1


@quiet
@given(st.integers(1, 300), st.integers(1, 300), seeds, st.integers(2, 5))
def test_windows_fit_and_differ_where_they_can(count, window, seed, number):
    generator = np.random.default_rng(seed)
    if count < window:
        with pytest.raises(ValueError, match="count must be at least window"):
            two_starts(count, window, generator)
        return
    first, second = two_starts(count, window, generator)
    assert 0 <= min(first, second) and max(first, second) + window <= count
    assert (first != second) == (count > window)
    starts, after = ordered_starts(count, window, number, generator)
    assert len(starts) == number and all(0 <= start <= count - window for start in starts)
    assert all(starts[0] <= other for other in starts[1:]) if after else all(starts[0] >= other for other in starts[1:])


names = st.lists(
    st.from_regex(r"[A-Z][a-z]{2,8}", fullmatch=True), min_size=2, max_size=5, unique_by=lambda name: name.casefold()
)


@settings(quiet, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names, st.integers(1, 4), st.booleans())
def test_lists_are_read_as_they_are_written(tmp_path, classes, videos, numbered):
    (tmp_path / "classInd.txt").write_text("".join(f"{place} {name}\n" for place, name in enumerate(classes, 1)))
    for kind, group in (("train", 1), ("test", 2)):
        lines = [
            f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi" + (f" {place}" if numbered else "")
            for place, name in enumerate(classes, 1)
            for clip in range(videos)
        ]
        (tmp_path / f"{kind}list01.txt").write_text("\n".join(lines) + "\n")
    listing = read_ucf_lists(tmp_path, 1, r"_g(\d+)_")
    rows = listing.rows
    assert not any(listing.problems.values())
    assert rows.groupby("split").size().to_dict() == dict.fromkeys(("train", "test"), len(classes) * videos)
    assert dict(zip(rows["class"], rows.label, strict=True)) == {name: place for place, name in enumerate(classes)}
    assert set(rows.group) == {"01", "02"}


@settings(quiet, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("ab/. \t", max_size=12))
def test_a_list_of_anything_is_read_or_refused_in_one_line(tmp_path, text):
    (tmp_path / "classInd.txt").write_text("1 Ab\n2 Ba\n")
    for kind in ("train", "test"):
        (tmp_path / f"{kind}list01.txt").write_text(text)
    try:
        assert len(read_ucf_lists(tmp_path, 1, r"(.)").rows) >= 1
    except (CatalogError, ValueError) as error:
        assert str(error)


changes = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**63 - 1),
        "method.temperature": st.floats(0.01, 10),
        "method.queue_size": st.integers(8, 4096),
        "optimisation.learning_rate": st.floats(1e-6, 1),
        "views.flip": st.floats(0, 1),
        "evaluation.clips": st.integers(1, 20),
    },
)


@quiet
@given(st.sampled_from(["smoke", "demo"]), st.sampled_from(sorted(method_names())), changes)
def test_a_recipe_survives_its_own_file(profile, method, overrides):
    recipe = make_recipe(profile, method=method, overrides=overrides)
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe and again.run_id == recipe.run_id
    other = make_recipe(profile, method=method, overrides=overrides | {"seed": (recipe.seed + 1) % 2**63})
    assert other.run_id != recipe.run_id
    read_out = make_recipe(profile, method=method, overrides=overrides | {"evaluation.clips": 21})
    assert read_out.run_id == recipe.run_id  # how features are read is no part of a run's name
