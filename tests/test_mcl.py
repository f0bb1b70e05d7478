"""MCL takes a step on every encoder, on one process as on two, in half precision, and goes on from a checkpoint."""

import math
import socket

import numpy as np
import pytest
import torch
from torch import multiprocessing

from fima.methods.mcl_alignment import Alignment, align, gradient_map, tapped
from fima.methods.mcl import Mcl, MclOptions
from fima.data.views.views import Batch, View
from fima.methods.encoders.encoders import build_encoder, map_size
from fima.methods.instance import pool
from fima.methods.moco import MomentumOptions
from fima.training.ddp import reduce_statistics, wrap_ddp

SHARED = dict(queue_size=16, hidden=16, dim=8, key_groups=1, momentum=0.9)
TINY = dict(widths=(4, 8, 8), temporal_stride=4)
TERMS = ["inter", "intra", "order", *(f"align_{name}" for name in Alignment._fields)]


def batch_of(videos=4, frames=8, size=24, grid=(2, 3, 3), seed=0):
    "Random views with all that MCL reads."
    generator = torch.Generator().manual_seed(seed)
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * videos)

    def view(motion=None):
        return View(torch.randn(videos, 3, frames, size, size, generator=generator), None, None, box, motion)

    return Batch(
        view(torch.rand(videos, *grid, generator=generator)),
        view(),
        torch.zeros(videos, dtype=torch.long),
        torch.arange(videos),
        (view(), view()),
        torch.arange(videos) % 2,
    )


def rows_of(batch, rows):
    "Take some videos out of a batch."
    if not isinstance(batch, tuple):
        return batch if batch is None else batch[rows]
    fields = [rows_of(field, rows) for field in batch]
    return type(batch)(*fields) if hasattr(batch, "_fields") else tuple(fields)


def tiny(seed=0, shared=None, **own):
    torch.manual_seed(seed)
    options = MomentumOptions(**SHARED | (shared or {}))
    return Mcl(build_encoder("small3d", **TINY), options, MclOptions(**own), seed).train()


def optimise(method, steps, first=0, model=None, part=None):
    "Take plain steps; return the terms of each."
    trained, log = [p for p in method.parameters() if p.requires_grad], []
    for step in range(first, first + steps):
        method.progress, batch = step / 10, batch_of(seed=step % 2)
        if part is not None:
            batch = rows_of(batch, part)
        terms = (model or method)(batch, torch.Generator().manual_seed(step))
        method.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        with torch.no_grad():
            for parameter in trained:
                if parameter.grad is not None:
                    parameter -= 0.05 * parameter.grad
        reduce_statistics(method)
        chances = {f"{name}_chance": value for name, value in method.batch_chance.items()}
        log.append({name: value.item() for name, value in terms.items()} | chances)
    return log


# -- encoders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, frames, last",
    [
        ("i3d", 16, "Mixed_5c.b3b.conv3d"),
        ("r2plus1d_18", 8, "layer4.1.conv2.0.3"),
        ("r3d_18", 8, "layer4.1.conv2.0"),
        ("factorised_50", 8, "layer4.2.conv3"),
    ],
)
def test_one_step_on_every_encoder(name, frames, last):
    torch.manual_seed(0)
    encoder = build_encoder(name)
    grid = map_size(encoder, frames, 64)
    method = Mcl(encoder, MomentumOptions(**SHARED), MclOptions(layer=last)).train()
    batch = batch_of(2, frames, 64, grid)
    terms = method(batch)
    assert list(terms) == TERMS and all(value.isfinite() for value in terms.values())
    stem = next(encoder.parameters())
    (alignment,) = torch.autograd.grad(
        sum(terms[f"align_{name}"] for name in Alignment._fields), stem, retain_graph=True
    )
    assert alignment.isfinite().all() and alignment.norm() > 0
    sum(terms.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())
    with tapped(encoder) as default, tapped(encoder, last) as named, torch.no_grad():
        encoder(batch.source.rgb)
    assert torch.equal(default[0], named[0]) and default[0].shape[2:] == grid


def test_a_tapped_layer_of_another_size_wants_a_target_of_that_size():
    method = tiny(layer="stage0.0")
    with pytest.raises(
        ValueError,
        match=r"the target must have the size of the layer's output, got \(4, 8, 12, 12\) and \(4, 2, 3, 3\)",
    ):
        method(batch_of())
    assert method(batch_of(grid=(8, 12, 12)))["align_space"].isfinite()


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("map", ["released", "fixed"])
@pytest.mark.parametrize("training", [True, False], ids=["batch statistics", "frozen statistics"])
def test_the_gradient_of_the_alignment_is_that_of_finite_differences(map, training):
    torch.manual_seed(0)
    own = MclOptions(inter=0, intra=0, order=0, map=map)
    method = Mcl(build_encoder("small3d", **TINY), MomentumOptions(**SHARED), own).double()
    first = batch_of()
    method(
        first._replace(
            source=first.source._replace(rgb=first.source.rgb.double()),
            target=first.target._replace(rgb=first.target.rgb.double()),
        )
    )
    method.train(training)
    method.follow = lambda: None
    batch = batch_of(seed=3)
    batch = batch._replace(
        source=batch.source._replace(rgb=batch.source.rgb.double(), motion=batch.source.motion.double()),
        target=batch.target._replace(rgb=batch.target.rgb.double()),
    )

    def loss():
        return sum(method(batch).values())

    for parameter in (method.encoder.stage0[0].weight, method.projectors["inter"].layers[2].weight):
        (exact,) = torch.autograd.grad(loss(), parameter)
        place, values = np.unravel_index(int(exact.abs().argmax()), exact.shape), []
        for change in (1e-6, -2e-6):
            parameter.data[place] += change
            values.append(loss().item())
        parameter.data[place] += 1e-6
        assert exact[place].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-3)


def test_a_video_without_motion_changes_nothing_for_the_others():
    with_still = batch_of()
    with_still.source.motion[2:] = 0
    method, maps = tiny().eval(), torch.rand(4, 2, 3, 3)
    assert torch.allclose(
        torch.stack(align(maps, with_still.source.motion)), torch.stack(align(maps[:2], with_still.source.motion[:2]))
    )
    terms, first = method(with_still), method(rows_of(with_still, slice(2)))
    for name in Alignment._fields:
        assert terms[f"align_{name}"].item() == pytest.approx(first[f"align_{name}"].item(), abs=1e-5)


def test_one_cell_maps_are_defined():
    "A network whose map is a single cell has nothing to say about where; its cosine is one, and nothing breaks."
    method = tiny()
    terms = method(batch_of(frames=4, size=8, grid=(1, 1, 1)))
    sum(terms.values()).backward()
    assert all(value.isfinite() for value in terms.values())
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_bfloat16_stays_near():
    exact, half = tiny(), tiny()
    wanted = exact(batch_of())
    with torch.autocast("cpu", torch.bfloat16):
        terms = half(batch_of())
    assert all(value.dtype == torch.float32 for value in terms.values())
    for name, value in wanted.items():
        assert terms[name].item() == pytest.approx(value.item(), abs=0.15)
    sum(terms.values()).backward()
    assert half.encoder.stage0[0].weight.grad.isfinite().all()


def test_query_groups_tap_every_group():
    whole, groups = tiny().eval(), tiny(shared=dict(query_groups=2)).eval()
    for name, value in whole(batch_of()).items():
        assert groups(batch_of())[name].item() == pytest.approx(value.item(), abs=1e-5)


def test_a_checkpoint_holds_the_queue_and_its_owners():
    whole = tiny()
    wanted = optimise(whole, 4)
    first, second = tiny(), tiny(seed=1)
    optimise(first, 2)
    second.load_state_dict(first.state_dict())
    assert second.owners.keys.dtype == torch.int64 and torch.equal(second.owners.keys, first.owners.keys)
    assert optimise(second, 2, first=2) == wanted[2:]


def test_own_keys_never_push():
    "With the whole queue taken by the query's own video nothing is left to push from."
    batch = rows_of(batch_of(), slice(2))
    batch = batch._replace(index=torch.tensor([5, 5]))
    fixed, released = (
        tiny(own_keys=kind, shared=dict(queue_size=6), alignment=0, intra=0, order=0) for kind in ("fixed", "released")
    )
    first = [method(batch)["inter"].item() for method in (fixed, released)]
    assert first[0] == first[1] and fixed.owners.keys.unique().tolist() == [5]
    assert fixed(batch)["inter"].item() == 0 and fixed.batch_chance["inter"] == 0
    assert released(batch)["inter"].item() > 0.5 * math.log(7)


def test_the_map_needs_a_graph():
    method = tiny()
    with torch.no_grad(), tapped(method.encoder) as taps:
        query = method.projectors["inter"](pool(method.encoder(batch_of().source.rgb)))
    with pytest.raises(ValueError, match="similarity must be differentiable"):
        gradient_map(query.sum(1), taps)


# -- two processes -----------------------------------------------------------------------------------------------------

TWO = dict(query_groups=2, key_groups=2)


def one_of_two(rank, port, folder):
    "Be one of two processes: each has half of the videos."
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    method = tiny(shared=TWO)
    log = optimise(method, 3, model=wrap_ddp(method), part=slice(2 * rank, 2 * rank + 2))
    torch.save((log, method.state_dict()), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_compute_what_one_does(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(one_of_two, (port, tmp_path), nprocs=2)
    method = tiny(shared=TWO)
    wanted, pairs = optimise(method, 3), [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for step, alone in enumerate(wanted):
        for name, value in alone.items():
            assert sum(log[step][name] for log, _ in pairs) / 2 == pytest.approx(value, abs=2e-5), name
    for name, value in method.state_dict().items():
        # each process follows its own groups; no loss reads them
        if name.endswith("num_batches_tracked") or (name.startswith("key_encoder") and ".running_" in name):
            continue
        assert torch.allclose(pairs[0][1][name].double(), value.double(), atol=2e-5), name
    for name in ("owners.ring", "queues.inter.ring"):
        assert torch.equal(pairs[0][1][name], pairs[1][1][name])
