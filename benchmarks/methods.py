"""Measure what a step of each method costs: seconds, operations and peak memory, for the rows of a study.

    python benchmarks/methods.py [--study methods] [--repetitions 3] [--steps 8] [--output reports]

A step is the real one: reading and cutting clips (with flow already computed), view changes, colours and differences,
both encoders, losses, backward pass, optimiser.
Every measurement has a process of its own, because peak memory is a property of a process; repetitions are interleaved,
so that a change in the machine's load meets all rows.
Operations are counted by PyTorch (convolutions and matrix products, forward and backward) and do not depend on the
machine: the study `methods_compute` takes its numbers of steps from them.
Writes <output>/tables/<study>_cost.{json,md,csv,tex}. Nothing is asserted.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time

import torch
from torch.utils.flop_counter import FlopCounterMode

from fima.data.views.clips import batches
from fima.methods.encoders.encoders import map_size
from fima.training.checkpoint import provenance
from fima.training.pretrain import build_method, build_optimiser, step_seed, take_step
from fima.training.recipe import Recipe
from fima.training.videos import open_data
from fima.training.views import open_clips, open_modalities, with_flow


def opened_run(recipe: Recipe):
    "Build what a run builds before its first step."
    opened, v = open_data(recipe.data, recipe.views.frames_per_clip * recipe.views.stride), recipe.views
    method = build_method(recipe, opened.catalog.label.nunique()).train()
    opened, flows = with_flow(recipe, opened, method.needs)
    clips = open_clips(recipe, opened, method, map_size(method.encoder, v.frames_per_clip, v.crop_size), flows)
    return method, clips, open_modalities(recipe)


def measure(recipe: Recipe, steps: int, repetition: int) -> dict:
    "Take two steps to warm up, then time some, then count the operations of one more."
    torch.set_num_threads(1)
    method, clips, modalities = opened_run(recipe)
    optimiser, seconds, wall = build_optimiser(method, recipe.optimisation), [], []
    loader = iter(batches(clips, recipe.optimisation.batch_size, 3 + steps))
    for number in range(2 + steps):
        begun, started = process_time(), perf_counter()
        take_step(method, optimiser, next(loader), modalities, step_seed(repetition, number))
        if number > 1:
            seconds.append(process_time() - begun)
            wall.append(perf_counter() - started)
    machine, raw = provenance(torch.device("cpu")), next(loader)
    with FlopCounterMode(display=False) as counted:
        take_step(method, optimiser, raw, modalities, step_seed(repetition, 0))
    return dict(
        seconds=seconds,
        wall=wall,
        operations=counted.get_total_flops(),
        peak=machine["peak_memory_mb"],
        device=machine["device"],
        commit=machine["commit"],
        trained=sum(p.numel() for p in method.parameters() if p.requires_grad),
    )


def alone(*arguments) -> dict:
    "Measure in a process of its own."
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def measure_all(runs: dict, steps: int, repetitions: int) -> dict[str, list[dict]]:
    "Measure all rows in turn, again and again."
    measured = {name: [] for name in runs}
    for repetition in range(repetitions):
        for name, run in runs.items():
            found = alone(run.recipe, steps, repetition)
            measured[name].append(found)
            print(
                f"{name:<16} repetition {repetition}: {median(found['seconds']):.3f} s a step, "
                f"{found['operations'] / 1e9:.2f} G operations, peak {found['peak']} MiB",
                flush=True,
            )
    return measured


def line(name: str, label: str, steps: int, repetitions: list[dict]) -> dict:
    "Put the repetitions of a row together: median and quartiles of all timed steps, median of the peaks."
    seconds = [value for measured in repetitions for value in measured["seconds"]]
    low, middle, high = quantiles(seconds, n=4, method="inclusive")
    first = repetitions[0]
    return dict(
        row=name,
        label=label,
        seconds_per_step=round(middle, 4),
        seconds_low=round(low, 4),
        seconds_high=round(high, 4),
        wall_per_step=round(median(value for measured in repetitions for value in measured["wall"]), 4),
        operations=first["operations"],
        peak_mebibytes=round(median(measured["peak"] for measured in repetitions)),
        trained=first["trained"],
        steps=len(repetitions) * steps,
        device=first["device"],
        commit=first["commit"],
    )


def readable(table):
    "Make a table for reading of the measured one."
    import pandas as pd

    base = table.set_index("row").operations.get("moco", table.operations.iloc[0])
    return pd.DataFrame(
        {
            "method": table.label,
            "seconds a step [quartiles]": [
                f"{r.seconds_per_step:.3f} [{r.seconds_low:.3f}, {r.seconds_high:.3f}]" for r in table.itertuples()
            ],
            "operations, G": [f"{n / 1e9:.2f}" for n in table.operations],
            "over MoCo": [f"{n / base:.2f}" for n in table.operations],
            "peak memory, MiB": table.peak_mebibytes.astype(str),
            "trained parameters": [f"{n:,}" for n in table.trained],
        }
    )


def main() -> None:
    "Measure all rows of a study and write one table."
    # imported late, so that a measuring process does not carry what draws and prints
    import pandas as pd

    from fima.study.plan.schema import load_study
    from fima.study.plan.plan import expand
    from fima.report.sheets import write_tables

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="methods", help="whose rows, with the first seed and factors")
    parser.add_argument("--repetitions", type=int, default=3, help="processes for each row")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a process")
    parser.add_argument("--output", type=Path, help="reports folder (default: the repository's)")
    arguments = parser.parse_args()
    if min(arguments.repetitions, arguments.steps) < 1:
        parser.error(f"--repetitions and --steps must be at least 1, got {arguments.repetitions} and {arguments.steps}")
    study, load = load_study(arguments.study), os.getloadavg()[0]
    runs = {run.row.name: run for run in reversed(expand(study)) if run.recipe.method.name != "random"}
    runs = {row.name: runs[row.name] for row in study.rows if row.name in runs}
    measured = measure_all(runs, arguments.steps, arguments.repetitions)
    table = pd.DataFrame(
        [line(name, runs[name].row.label, arguments.steps, repetitions) for name, repetitions in measured.items()]
    )
    batch = next(iter(runs.values())).recipe.optimisation.batch_size
    notes = [
        f"Study {study.name}, profile {study.base.profile}: batch {batch}, {table.device.iloc[0]}, one thread, "
        f"{table.steps.iloc[0]} steps in {arguments.repetitions} processes each, interleaved over the rows; commit "
        f"{table.commit.iloc[0]}. "
        "Seconds are processor time of a step with reading and cutting its clips; flow is computed before the first "
        f"step. The machine's load average was {load:.1f} before and {os.getloadavg()[0]:.1f} after.",
        "Operations: convolutions and matrix products of a step, forward and backward, as PyTorch counts them; they do "
        "not depend on the machine. Peak memory is the largest resident set of the process, libraries included.",
    ]
    title, sections = "Cost of a step of each method", {"Methods": readable(table)}
    for file in write_tables(f"{study.name}_cost", title, sections, table, notes, arguments.output):
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
