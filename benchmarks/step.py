"""Time a pre-training step in this state of the code and in an earlier one: processor seconds, peak memory, in turns.

    git worktree add ../before 3bfd698
    python benchmarks/step.py [--before ../before] [--cases i3d r2plus1d_18 demo] [--repetitions 5] [--output reports]

A step is the real one (colours, differences, both encoders, losses, backward, optimiser) on random frames of fixed
boxes; reading videos is left out. One thread. Every measurement has a process of its own, because peak memory is a
property of a process; both states take turns, so that a change in the machine's load meets both.
Writes <output>/tables/step.{json,md,csv,tex}. Nothing is asserted; the numbers depend on the machine.
"""

import json
import resource
from pathlib import Path
from statistics import median
from time import process_time

from turns import HERE, alone, parser_of

I3D = {
    "encoder.name": "i3d",
    "views.crop_size": 112,
    "optimisation.batch_size": 4,
    "method.key_groups": 1,
    "method.query_groups": 1,
}
CASES = {  # name: (profile, settings over it, data set, method, steps to warm up, steps timed)
    "i3d": ("paper", I3D | {"method.negatives": 4}, None, None, 1, 1),
    "r2plus1d_18": (
        "paper",
        I3D | {"encoder.name": "r2plus1d_18", "optimisation.batch_size": 2, "method.negatives": 2},
        None,
        None,
        1,
        1,
    ),
}
for base, videos in ((None, "sprites"), ("ut_interaction", "ut")):
    for method, row in (("moco", "vv"), (None, "fima"), ("iic", "iic"), ("mcl", "mcl")):
        CASES[f"demo_{videos}_{row}"] = ("demo", {}, base, method, 3, 12)


def random_batch(recipe, method, grid):
    "Draw noise in the shape that the workers hand over, cut from overlapping boxes."
    import torch

    try:
        from fima.data.views.views import RawBatch, RawView
    except ImportError:  # the state of November 2026 and before
        from fima.data.views import RawBatch, RawView
    generator, v, size = torch.Generator().manual_seed(0), recipe.views, recipe.optimisation.batch_size

    def frames(*sizes):
        shape = (size, *sizes, v.crop_size, v.crop_size, 3)
        return torch.randint(256, shape, dtype=torch.uint8, generator=generator)

    def view(edges):
        sub_clips = frames(v.sub_clips, v.frames_per_clip) if "sub_clips" in method.needs else None
        motion = torch.rand(size, *grid, generator=generator) if "motion" in method.needs else None
        return RawView(frames(v.frames_per_clip), torch.tensor(edges).expand(size, 4), sub_clips, None, motion)

    places = [(0.0, 0.0, 0.8, 0.8), (0.2, 0.2, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0), (0.1, 0.1, 0.9, 0.9)]
    views = [view(edges) for edges in places[: 4 if hasattr(method, "owners") else 2]]
    order = torch.arange(size) % 2 if len(views) > 2 else None
    return RawBatch(*views[:2], torch.zeros(size, dtype=torch.long), torch.arange(size), tuple(views[2:]), order)


def measure(case: str, precision: str) -> None:
    "Time steps in this process, after some that warm it up; print seconds, peak memory and the first loss as JSON."
    import torch

    try:
        from fima.data.views.views import Modalities
        from fima.methods.encoders.encoders import map_size
    except ImportError:
        from fima.data.views import Modalities
        from fima.method.encoders import map_size
    from fima.training.pretrain import build_method, build_optimiser, step_seed, take_step
    from fima.training import pretrain
    from fima.training.recipe import make_recipe

    getattr(pretrain, "keep_freed_memory", lambda: None)()  # as a run does, in states that have it
    torch.set_num_threads(1)
    profile, settings, base, name, warm_up, steps = CASES[case]
    recipe = make_recipe(profile, "paper", settings, base, name)
    method = build_method(recipe).train()
    grid = map_size(method.encoder, recipe.views.frames_per_clip, recipe.views.crop_size)
    optimiser = build_optimiser(method, recipe.optimisation)
    modalities = Modalities(recipe.views.photometric, recipe.views.difference)
    raw = random_batch(recipe, method, grid)
    seconds, losses = [], []
    for number in range(warm_up + steps):
        begun = process_time()
        losses.append(take_step(method, optimiser, raw, modalities, step_seed(0, number), precision)["loss"])
        seconds.append(process_time() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(dict(seconds=median(seconds[warm_up:]), peak=peak, loss=losses[0], torch=torch.__version__)))


def compare(case: str, states: dict[str, Path], repetitions: int, precision: str) -> dict:
    "Measure a case in all states, in turns; give the medians and their ratio."
    measured = {name: [] for name in states}
    for _ in range(repetitions):
        for name, state in states.items():
            measured[name].append(alone(__file__, [case, "float32" if name == "before" else precision], state))
    row = dict(case=case, repetitions=repetitions, precision=precision)
    for name, runs in measured.items():
        seconds = [run["seconds"] for run in runs]
        row |= {f"seconds_{name}": median(seconds), f"lowest_{name}": min(seconds), f"highest_{name}": max(seconds)}
        row |= {f"peak_mebibytes_{name}": round(median(run["peak"] for run in runs)), f"loss_{name}": runs[0]["loss"]}
    if "before" in measured:
        row["time_ratio"] = row["seconds_now"] / row["seconds_before"]
        row["memory_ratio"] = row["peak_mebibytes_now"] / row["peak_mebibytes_before"]
    print(json.dumps(row), flush=True)
    return row


def write(rows: list[dict], reports: Path) -> list[Path]:
    "Write the table."
    # imported late, so that a measuring process does not carry what draws and prints
    import pandas as pd
    import torch

    from fima.report.sheets import write_tables
    from fima.training.checkpoint import device_name

    def of(row, state):
        low, high = row[f"lowest_{state}"], row[f"highest_{state}"]
        return f"{row[f'seconds_{state}']:.3g} [{low:.3g}, {high:.3g}]"

    shown = [
        {
            "step": row["case"],
            "before, s": of(row, "before") if "time_ratio" in row else "-",
            "now, s": of(row, "now"),
            "time": f"{row['time_ratio']:.2f}" if "time_ratio" in row else "-",
            "before, MiB": str(row.get("peak_mebibytes_before", "-")),
            "now, MiB": str(row["peak_mebibytes_now"]),
            "memory": f"{row['memory_ratio']:.2f}" if "time_ratio" in row else "-",
        }
        for row in rows
    ]
    notes = [
        "Processor seconds of one thread, medians over processes of the median step, [lowest, highest]; peak resident "
        f"memory. {rows[0]['repetitions']} processes a state and step, in turns; {device_name()}, PyTorch "
        f"{torch.__version__}, {rows[0]['precision']}.",
        "Random frames, fixed boxes, FIMA unless the name says otherwise (vv: L_VV alone); `i3d`: batch 4, "
        "`r2plus1d_18`: batch 2, both 16 x 112 x 112; `demo`: small3d at the settings of motion sprites and "
        "UT-Interaction. *Before* is commit 3bfd698 of 21 November 2026.",
    ]
    name = "step" if rows[0]["precision"] == "float32" else f"step_{rows[0]['precision']}"
    return write_tables(
        name, "Time and memory of a pre-training step", {"": pd.DataFrame(shown)}, pd.DataFrame(rows), notes, reports
    )


def main() -> None:
    "Measure the cases asked for."
    parser = parser_of(__doc__, 5)
    parser.add_argument("--cases", nargs="+", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--precision", default="float32", help="of this state: float32 or bf16")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    states = (dict(before=arguments.before.resolve()) if arguments.before else {}) | dict(now=HERE)
    rows = [compare(case, states, arguments.repetitions, arguments.precision) for case in arguments.cases]
    if arguments.output:
        print(*write(rows, arguments.output), sep="\n")


if __name__ == "__main__":
    main()
