"""Time the encoders on this machine: median milliseconds, plain against channels_last_3d memory format.

    python benchmarks/encoders.py [--repeats 7] [--threads 1] [--large]

Nothing is asserted; the numbers depend on the machine and on what else runs there.
"""

import argparse
from statistics import median
from time import perf_counter

import torch

from fima.methods.encoders.encoders import build_encoder

SMALL = (
    ("small3d", dict(temporal_stride=4), (24, 3, 8, 32, 32)),
    ("small3d", dict(temporal_stride=8), (16, 3, 16, 48, 48)),
)
LARGE = (("i3d", {}, (2, 3, 16, 112, 112)), ("r2plus1d_18", {}, (2, 3, 16, 112, 112)))
FORMATS = dict(plain=torch.contiguous_format, channels_last_3d=torch.channels_last_3d)


def milliseconds(run, repeats: int) -> float:
    "Run once to warm up, then give the median time of the repeats."
    run()
    times = []
    for _ in range(repeats):
        start = perf_counter()
        run()
        times.append(1000 * (perf_counter() - start))
    return median(times)


def measure(
    name: str, options: dict, shape: tuple[int, ...], memory_format: torch.memory_format, repeats: int
) -> tuple[float, float]:
    "Time a forward pass without gradient and a forward and backward pass."
    encoder = build_encoder(name, **options).to(memory_format=memory_format)
    clips = torch.rand(shape).contiguous(memory_format=memory_format)

    def forward():
        with torch.no_grad():
            encoder(clips)

    def forward_backward():
        encoder.zero_grad()
        encoder(clips).mean().backward()

    return milliseconds(forward, repeats), milliseconds(forward_backward, repeats)


def main() -> None:
    "Print one row per encoder, clip size and memory format."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed runs per number")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--large", action="store_true", help="also I3D and R(2+1)D-18")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"{'encoder':<13}{'clips':<18}{'memory format':<18}{'forward ms':>11}{'forward+backward ms':>21}")
    for name, options, shape in SMALL + (LARGE if arguments.large else ()):
        for label, memory_format in FORMATS.items():
            forward, both = measure(name, options, shape, memory_format, arguments.repeats)
            print(f"{name:<13}{'x'.join(map(str, shape)):<18}{label:<18}{forward:>11.1f}{both:>21.1f}")


if __name__ == "__main__":
    main()
