"""Measure what each variant of the losses costs (Table 11): parameters, seconds per optimisation step, peak memory.

    python benchmarks/cost.py [--backbones i3d r2plus1d_18 small3d] [--device cpu] [--repetitions 3] [--output reports]

A step is the real one (colour changes, differences, both encoders, losses, backward, optimiser) on random frames of the
published shape; reading videos is left out. Every measurement has a process of its own, because peak memory is a
property of a process; repetitions are interleaved, so that a change in the machine's load meets all variants.
Writes <output>/tables/cost.{json,md,csv,tex}; lines of an earlier call about another encoder, device or precision stay.
Nothing is asserted; the numbers depend on the machine.
"""

import argparse
import csv
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time

import torch

from fima.data.views.views import Modalities, RawBatch, RawView
from fima.training.checkpoint import provenance
from fima.training.pretrain import build_method, build_optimiser, pick_device, step_seed, take_step
from fima.training.recipe import Recipe, make_recipe

# name: (as the paper calls it, switches over the full method); the rows of Table 11 between MoCo and the full method
VARIANTS = {
    "vv": ("VV", {"method.pixel": False, "method.frame": False}),
    "vd": ("VV + VD", {"method.instance_motion": True, "method.pixel": False, "method.frame": False}),
    "dc": (
        "VV + Pix: DC",
        {"method.motion_decoder": False, "method.foreground_position": "none", "method.frame": False},
    ),
    "dc_fs": ("VV + Pix: DC, FS", {"method.motion_decoder": False, "method.frame": False}),
    "dc_fs_md": ("VV + Pix: DC, FS, MD", {"method.frame": False}),
    "fima": ("VV + Pix + Fra (FIMA)", {}),
}
BACKBONES = {  # name: (profile, settings over it, videos a step and steps timed in a process, both on a CPU)
    "i3d": ("paper", {"encoder.name": "i3d"}, 2, 1),
    "r2plus1d_18": ("paper", {"encoder.name": "r2plus1d_18", "views.crop_size": 112}, 2, 1),
    "small3d": ("demo", {}, 24, 10),
}
GPU_BATCH, GPU_STEPS, GPU_WARM_UP = 8, 10, 5  # 8: the published batch of one GPU
WARM_UP_CROP = 64  # on a CPU a full step takes long, and small frames load what a first step loads
COLUMNS = (
    "variant",
    "row",
    "backbone",
    "batch",
    "crop",
    "frames",
    "parameters_encoder",
    "parameters_trained",
    "seconds_per_step",
    "seconds_low",
    "seconds_high",
    "peak_mebibytes",
    "device",
    "precision",
    "threads",
    "repetitions",
    "commit",
)


def build_recipe(variant: str, backbone: str, on_gpu: bool, precision: str) -> Recipe:
    "Take the published settings of a backbone and the switches of a variant; a batch is one group of BatchNorm."
    profile, settings, batch, _ = BACKBONES[backbone]
    published = {
        "optimisation.batch_size": GPU_BATCH if on_gpu and profile == "paper" else batch,
        "optimisation.precision": precision,
    }
    groups = {"method.key_groups": 1, "optimisation.epochs": 200} if profile == "paper" else {}
    return make_recipe(profile, "paper", settings | published | groups | VARIANTS[variant][1])


def random_batch(recipe: Recipe, needs: frozenset, crop: int) -> RawBatch:
    "Draw noise in the shape that the workers hand over, cut from overlapping boxes."
    generator, v, size = torch.Generator().manual_seed(0), recipe.views, recipe.optimisation.batch_size

    def frames(*sizes):
        return torch.randint(256, (size, *sizes, crop, crop, 3), dtype=torch.uint8, generator=generator)

    def box(*edges):
        return torch.tensor(edges).expand(size, 4)

    def sub_clips():
        return frames(v.sub_clips, v.frames_per_clip) if "sub_clips" in needs else None

    views = [
        RawView(frames(v.frames_per_clip), edges, sub_clips(), None)
        for edges in (box(0.0, 0.0, 0.8, 0.8), box(0.2, 0.2, 1.0, 1.0))
    ]
    return RawBatch(*views, torch.zeros(size, dtype=torch.long), torch.arange(size))


def pick_clock(on_gpu: bool, threads: int) -> Callable[[], float]:
    "Choose processor time for one thread on a CPU, which other processes disturb little, and wall time elsewhere."
    return perf_counter if on_gpu or threads > 1 else process_time


def measure(variant: str, backbone: str, device: str, precision: str, threads: int, repetition: int) -> dict:
    "Time steps in this process, after some that warm it up; every variant meets the same seeds in the same repetition."
    torch.set_num_threads(threads)
    target = pick_device(device)
    on_gpu = target.type == "cuda"
    recipe = build_recipe(variant, backbone, on_gpu, precision)
    method, crop = build_method(recipe).to(target).train(), recipe.views.crop_size
    optimiser = build_optimiser(method, recipe.optimisation)
    modalities = Modalities(recipe.views.photometric, recipe.views.difference)
    clock = pick_clock(on_gpu, threads)

    def step(number: int, batch: RawBatch) -> float:
        "Take a step and give its seconds."
        start = clock()
        take_step(method, optimiser, batch, modalities, step_seed(repetition, number), precision)
        if on_gpu:
            torch.cuda.synchronize()
        return clock() - start

    if on_gpu:
        warm_up, steps, warm_up_crop = GPU_WARM_UP, GPU_STEPS, crop
    else:
        warm_up, steps, warm_up_crop = 1, BACKBONES[backbone][3], min(crop, WARM_UP_CROP)
    small, raw = (random_batch(recipe, method.needs, side) for side in (warm_up_crop, crop))
    for number in range(warm_up):
        step(number, small)
    seconds = [step(number, raw) for number in range(steps)]

    def count(parameters):
        return sum(p.numel() for p in parameters)

    machine = provenance(target)
    return dict(
        seconds=seconds,
        parameters_encoder=count(method.encoder.parameters()),
        parameters_trained=count(p for p in method.parameters() if p.requires_grad),
        batch=recipe.optimisation.batch_size,
        crop=crop,
        frames=recipe.views.frames_per_clip,
        peak_mebibytes=machine["peak_memory_mb"],
        device=machine["device"],
        commit=machine["commit"],
    )


def alone(*arguments) -> dict:
    "Measure in a process of its own."
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def line(variant: str, backbone: str, precision: str, threads: int, repetitions: list[dict]) -> dict:
    "Put the repetitions of a variant together: median and quartiles of all timed steps, median of the peaks."
    seconds = [value for measured in repetitions for value in measured["seconds"]]
    low, middle, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    filled = repetitions[0] | dict(
        variant=variant,
        row=VARIANTS[variant][0],
        backbone=backbone,
        precision=precision,
        threads=threads,
        repetitions=len(repetitions),
        seconds_per_step=round(middle, 4),
        seconds_low=round(low, 4),
        seconds_high=round(high, 4),
        peak_mebibytes=round(median(measured["peak_mebibytes"] for measured in repetitions)),
    )
    return {name: filled[name] for name in COLUMNS}


def measure_backbone(backbone: str, device: str, precision: str, threads: int, repetitions: int) -> list[dict]:
    "Measure all variants in turn, again and again; one that fails is reported and left out."
    measured = {variant: [] for variant in VARIANTS}
    for repetition in range(repetitions):
        for variant in [name for name, done in measured.items() if len(done) == repetition]:
            try:
                measured[variant].append(alone(variant, backbone, device, precision, threads, repetition))
            except Exception as error:
                print(
                    f"{backbone} {variant} {precision}: failed: {type(error).__name__}: "
                    f"{' '.join(str(error).split())[:200]}",
                    file=sys.stderr,
                )
                continue
            one = measured[variant][-1]
            print(
                f"{backbone:<12} {variant:<9} {precision:<8} repetition {repetition}: {median(one['seconds']):8.3f} s "
                f"a step, peak {one['peak_mebibytes']:6d} MiB",
                flush=True,
            )
    return [line(variant, backbone, precision, threads, done) for variant, done in measured.items() if done]


def merge(file: Path, fresh: list[dict]) -> list[dict]:
    "Keep the lines of an earlier call that this one does not measure anew; encoders, then variants, in one order."

    def key(row):
        return tuple(str(row[name]) for name in ("variant", "backbone", "batch", "device", "precision", "threads"))

    earlier = list(csv.DictReader(file.open())) if file.exists() else []
    rows = {key(row): row for row in [*earlier, *fresh]}.values()
    return sorted(
        rows,
        key=lambda row: (
            list(BACKBONES).index(row["backbone"]),
            row["device"],
            row["precision"],
            int(row["batch"]),
            list(VARIANTS).index(row["variant"]),
        ),
    )


def write(rows: list[dict], reports: Path | None, notes: list[str]) -> list[Path]:
    "Write the table as Markdown, CSV and LaTeX."
    # imported late, so that a measuring process does not carry what draws and prints
    import pandas as pd

    from fima.report.sheets import write_tables

    table = pd.DataFrame(rows).astype(
        {name: float for name in ("seconds_per_step", "seconds_low", "seconds_high")}
        | {name: int for name in ("peak_mebibytes", "parameters_encoder", "parameters_trained")}
    )
    sections = {}
    for (backbone, batch, crop, frames, device, precision), same in table.groupby(
        ["backbone", "batch", "crop", "frames", "device", "precision"], sort=False
    ):
        base = same.loc[same.variant == "vd", "seconds_per_step"]
        sections[f"{backbone}: batch {batch}, {frames} x {crop} x {crop}, {device}, {precision}"] = pd.DataFrame(
            {
                "losses": same.row,
                "encoder": [f"{n / 1e6:.2f} M" for n in same.parameters_encoder],
                "trained": [f"{n / 1e6:.2f} M" for n in same.parameters_trained],
                "seconds a step [quartiles]": [
                    f"{r.seconds_per_step:.3g} [{r.seconds_low:.3g}, {r.seconds_high:.3g}]" for r in same.itertuples()
                ],
                "over VV + VD": [f"{s / base.iloc[0]:.2f}" if len(base) else "-" for s in same.seconds_per_step],
                "peak memory, MiB": [f"{n}" for n in same.peak_mebibytes],
                "repetitions": [str(n) for n in same.repetitions],
                "commit": same.commit,
            }
        )
    return write_tables("cost", "Cost of a pre-training step, measured here", sections, table, notes, reports)


def describe(rows: list[dict], load: str) -> list[str]:
    "Say how it was measured and what the decoder holds."
    trained = {(row["backbone"], row["variant"]): int(row["parameters_trained"]) for row in rows}
    sizes = {
        name: trained[name, "dc_fs_md"] - trained[name, "dc_fs"]
        for name in BACKBONES
        if {(name, "dc_fs_md"), (name, "dc_fs")} <= set(trained)
    }
    decoder = "; ".join(f"{name} {size:,}" for name, size in sizes.items())
    if all(row["device"].startswith("cpu") for row in rows):
        load += " The GPU path (batch 8, float32 and bf16) is written and has not been tried."
    return [
        "A step is one call of the training loop's own function on random frames: colour changes and differences, "
        "query and key encoders, losses, backward pass, optimiser; reading videos is left out. "
        "DC: dense contrast, FS: foreground sampling, MD: motion decoder. Published settings apart from the batch: on "
        "a CPU 2 videos (24 for small3d, the demo profile), on a GPU 8, the published batch of one GPU.",
        "Each measurement has its own process: after a warm-up (a step on small frames; five full ones on a GPU) 1 "
        "step is timed (10 for small3d and on a GPU); repetitions are interleaved over the variants. "
        "Seconds are processor time of the one thread on a CPU, so that other work on the machine disturbs them "
        "little, and wall time elsewhere. "
        "Peak memory on a CPU is the largest resident set of that process, libraries included; on a GPU it is what "
        "PyTorch allocated at most.",
        "Trained parameters hold the projection head and the decoder, not the momentum copies. Parameters of the "
        f"motion decoder: {decoder}. "
        "The paper counts 14.4 M - 12.3 M = 2.1 M for I3D's, its released code has 4,206,592; the released size is "
        "reproduced here.",
        load,
    ]


def main() -> None:
    "Measure, print as it goes, write after each encoder."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--backbones", nargs="+", choices=list(BACKBONES), default=list(BACKBONES), help="encoders to measure"
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, cuda:1, ..."
    )
    parser.add_argument("--repetitions", type=int, default=3, help="processes for each variant")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument(
        "--output", type=Path, help="reports folder; its tables/cost.* are written (default: the repository's)"
    )
    arguments = parser.parse_args()
    if arguments.repetitions < 1:
        parser.error(f"--repetitions must be at least 1, got {arguments.repetitions}")
    reports = arguments.output or Path(__file__).resolve().parent.parent / "reports"
    on_gpu, file = torch.device(arguments.device).type == "cuda", reports / "tables" / "cost.csv"
    if on_gpu and not torch.cuda.is_available():
        parser.error(f"--device must be cpu, or cuda on a machine with a GPU, got {arguments.device}")
    for backbone in arguments.backbones:
        for precision in ("float32", "bf16") if on_gpu else ("float32",):
            before = os.getloadavg()[0]
            fresh = measure_backbone(backbone, arguments.device, precision, arguments.threads, arguments.repetitions)
            rows = merge(file, fresh)
            load = (
                f"Last measured: {backbone} with {arguments.threads} thread(s) of {os.cpu_count()} cores; the "
                f"machine's load average was {before:.1f} before and {os.getloadavg()[0]:.1f} after (1.0 is one busy "
                "thread)."
            )
            print(f"wrote {', '.join(map(str, write(rows, reports, describe(rows, load))))}", flush=True)


if __name__ == "__main__":
    main()
