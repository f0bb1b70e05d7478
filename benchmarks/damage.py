"""What becomes of damaged video files and of killed runs: hundreds of files of many kinds, a kill at each write.

python benchmarks/damage.py [--files 588] [--kills 100] [--output reports]

Every file is tried in a process of its own with a time limit. What counts as right is what PyAV alone gives when it
decodes the file from its first byte. Every kill is a SIGKILL; the run is then continued by the same call and compared
with one that nothing disturbed: weights, log and metrics, and the names of its files.
"""

import argparse
import builtins
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
from tqdm import tqdm

LIMIT = 60  # seconds for one file
FRAMES = 40

# -- files -------------------------------------------------------------------------------------------------------------

VP = dict(deadline="realtime", cpu_used=8)
KINDS = {  # file name -> encoder and its options
    "h264.mp4": ("libx264", dict(g=12, sc_threshold=0)),
    "h264_b_frames.mp4": ("libx264", dict(g=15, bf=3)),
    "h264_one_keyframe.mp4": ("libx264", dict(g=250, sc_threshold=0)),
    "h264.mov": ("libx264", dict(g=12)),
    "h264.mkv": ("libx264", dict(g=12, bf=2)),
    "h264.ts": ("libx264", dict(g=12, bf=2)),
    "h264.avi": ("libx264", dict(g=12, bf=0)),
    "h264.flv": ("libx264", dict(g=12, bf=0)),
    "hevc.mp4": ("libx265", dict(preset="ultrafast", x265_params="keyint=12:pools=1:frame-threads=1:log-level=none")),
    "hevc.mkv": ("libx265", dict(preset="ultrafast", x265_params="keyint=12:pools=1:frame-threads=1:log-level=none")),
    "vp8.webm": ("libvpx", dict(g=12, auto_alt_ref=1, lag_in_frames=10, **VP)),
    "vp9.webm": ("libvpx-vp9", dict(g=12, **VP)),
    "vp9.mp4": ("libvpx-vp9", dict(g=12, **VP)),
    "mpeg4.avi": ("mpeg4", dict(g=12)),
    "mpeg4_b_frames.avi": ("mpeg4", dict(g=12, bf=2)),
    "mpeg4.mp4": ("mpeg4", dict(g=12, bf=2)),
    "mpeg4.mkv": ("mpeg4", dict(g=12)),
    "mpeg2.mpg": ("mpeg2video", dict(g=12, bf=2)),
    "mpeg2.ts": ("mpeg2video", dict(g=12)),
    "mjpeg.avi": ("mjpeg", {}),
    "mjpeg.mkv": ("mjpeg", {}),
    "mjpeg.mov": ("mjpeg", {}),
    "mpeg1.mpg": ("mpeg1video", dict(g=12, bf=2)),
    "rawvideo.avi": ("rawvideo", {}),
    "h264.3gp": ("libx264", dict(g=12, bf=0)),
    "wmv2.wmv": ("wmv2", dict(g=12)),
    "flv1.flv": ("flv", dict(g=12)),
    "ffv1.mkv": ("ffv1", {}),
}


def pattern():
    "Draw frames that all differ."
    rows, columns = np.mgrid[:48, :64]
    still = np.random.default_rng(0).integers(0, 60, (48, 64))
    frames = [
        still + 90 + 80 * np.sin((columns * np.cos(n / 9) + rows * np.sin(n / 5)) / 6 + n / 3) for n in range(FRAMES)
    ]
    return np.stack(frames).clip(0, 255).astype(np.uint8)[..., None].repeat(3, axis=3)


def write(path, codec, options):
    "Encode the pattern."
    settings = {
        name if name == "sc_threshold" else name.replace("_", "-"): str(value) for name, value in options.items()
    }
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=settings)
        stream.width, stream.height, stream.thread_count = 64, 48, 1
        stream.pix_fmt = {"mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        for number, picture in enumerate(pattern()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def flipped(data, count, generator, first=0.0, last=1.0):
    "Flip single bits."
    data = bytearray(data)
    for place in generator.integers(int(first * len(data)), int(last * len(data)), count):
        data[place] ^= 1 << int(generator.integers(8))
    return bytes(data)


def replaced(data, piece, where=0.5):
    "Overwrite a piece."
    start = int(where * len(data))
    return data[:start] + piece + data[start + len(piece) :]


DAMAGE = {  # what was done -> how; those that begin with "whole" lack nothing
    "whole": lambda data, generator: data,
    "whole, one byte behind the end": lambda data, generator: data + b"\n",
    "whole, text behind the end": lambda data, generator: data + b"uploaded with thanks, by somebody",
    "last byte missing": lambda data, generator: data[:-1],
    "last tenth missing": lambda data, generator: data[: len(data) * 9 // 10],
    "second half missing": lambda data, generator: data[: len(data) // 2],
    "200 bytes zeroed": lambda data, generator: replaced(data, bytes(200)),
    "200 bytes of noise": lambda data, generator: replaced(data, generator.bytes(200)),
    "300 bytes cut out": lambda data, generator: data[: len(data) // 2] + data[len(data) // 2 + 300 :],
    "100 bytes put in": lambda data, generator: data[: len(data) // 2] + generator.bytes(100) + data[len(data) // 2 :],
    "one bit flipped": lambda data, generator: flipped(data, 1, generator, 0.1),
    "20 bits flipped": lambda data, generator: flipped(data, 20, generator, 0.1),
    "5 bits flipped in the first twentieth": lambda data, generator: flipped(data, 5, generator, 0, 0.05),
    "5 bits flipped in the last twentieth": lambda data, generator: flipped(data, 5, generator, 0.95),
    "header zeroed": lambda data, generator: bytes(64) + data[64:],
    "nothing but the header": lambda data, generator: data[:200],
}


# whose decoders invent what is missing, from the frames that they happen to have; FFV1's, in a file without checksums,
# leaves what lay in memory
CONCEALING = ("h264", "hevc", "vp9", "ffv1")


def full_decode(path):
    "Decode from the first byte by PyAV alone; frames up to the first error."
    frames = []
    with suppress(av.FFmpegError, IndexError), av.open(str(path), metadata_errors="replace") as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
    return frames


def judge(path, whole, seed, answers):
    "Check a file thoroughly; where it passes, compare windows with a full decode. Put the answer into a queue."
    from fima.data.video.files import VideoError
    from fima.data.video.video import check_videos, decode

    usable, left_out = check_videos([path], thorough=True, progress=False)
    if len(left_out):
        return answers.put(("refused", left_out.reason[0]))
    frames, generator = full_decode(path), np.random.default_rng(seed)
    original = full_decode(whole)
    same = len(frames) == len(original) and all(map(np.array_equal, frames, original))
    if usable[0].frames != len(frames):
        return answers.put(("wrong", f"{usable[0].frames} frames said, {len(frames)} decoded"))
    for _ in range(12):
        length = int(generator.integers(1, min(33, len(frames) + 1)))
        start = int(generator.integers(0, len(frames) - length + 1))
        try:
            window = decode(path, start, length, usable[0])
        except VideoError as error:
            return answers.put(("wrong", f"passed, and then {error.reason}"))
        if not np.array_equal(window, frames[start : start + length]):
            hidden = usable[0].codec in CONCEALING and not same
            fault = f"frames {start} to {start + length - 1} differ"
            return answers.put(("concealed anew" if hidden else "wrong", fault))
    answers.put(("right" if same else "concealed", ""))


def in_a_process(path, whole, seed):
    "Judge a file in a process of its own, which may die or hang."
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=judge, args=(path, whole, seed, answers))
    child.start()
    child.join(LIMIT)
    if child.is_alive():
        child.kill()
        child.join()
        return "hung", f"no answer in {LIMIT} s"
    return answers.get() if not answers.empty() else ("crashed", f"exit code {child.exitcode}")


def try_files(folder, count):
    "Make damaged files and judge each; a line a file."
    whole = {}
    for name, (codec, options) in KINDS.items():
        write(folder / f"whole_{name}", codec, options)
        whole[name] = folder / f"whole_{name}"
    cases = [(damage, name) for damage in DAMAGE for name in KINDS]
    cases += [(damage, name) for damage in DAMAGE if "bit" in damage or "noise" in damage for name in KINDS]  # again
    lines = []
    for seed, (damage, name) in enumerate(tqdm(cases[:count], desc="files", unit="file")):
        path = folder / f"{seed:04d}_{name}"
        path.write_bytes(DAMAGE[damage](whole[name].read_bytes(), np.random.default_rng(seed)))
        found, reason = in_a_process(path, whole[name], seed)
        if damage.startswith("whole") and found == "refused":
            found, reason = "wrong", f"whole, and refused: {reason}"
        lines.append(dict(what=damage, file=name, found=found, reason=reason))
        path.unlink()
    return pd.DataFrame(lines)


# -- kills -------------------------------------------------------------------------------------------------------------

STEPS = 12


def train(folder):
    "Train a smallest run."
    from fima.training.pretrain import pretrain
    from fima.training.recipe import make_recipe

    recipe = make_recipe("smoke", overrides={"optimisation.steps": STEPS})
    return pretrain(recipe, folder, "cpu", checkpoint_interval=3, log_interval=2, progress=False)


class Killer:
    "Count what changes a file or a folder, and kill the process at the n-th."

    NAMES = ("replace", "rename", "mkdir", "unlink", "rmdir", "fsync")

    def __init__(self, at):
        self.at, self.seen = at, 0

    def count(self):
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self):
        def counting(function):
            def call(*arguments, **options):
                self.count()  # killed before it is done; the next number is after it
                return function(*arguments, **options)

            return call

        for name in self.NAMES:
            setattr(os, name, counting(getattr(os, name)))
        opening = io.open

        def opened(file, mode="r", *arguments, **options):
            if set(mode) & set("wax+"):
                self.count()
            return opening(file, mode, *arguments, **options)

        builtins.open = io.open = opened  # pathlib opens by io


def killed_at(folder, at, answers):
    "Train until the n-th change of a file; put the number of changes where the run ends before."
    killer = Killer(at)
    killer.install()
    train(folder)
    answers.put(killer.seen)


def continued(folder, whole):
    "Continue a run by the same call, in a process of its own; say how it differs from the undisturbed one."
    context = multiprocessing.get_context("fork")
    child = context.Process(target=train, args=(folder,))
    child.start()
    child.join(300)
    if child.exitcode != 0:
        return f"cannot be continued: exit code {child.exitcode}"
    from fima.training.log import Log

    mine, theirs = (json.loads((place / "metrics.json").read_text()) for place in (folder, whole))
    for name in ("weights", "first", "final", "trace", "steps"):
        if mine[name] != theirs[name]:
            return f"{name} differs"
    logs = [
        [{n: v for n, v in row.items() if not n.startswith("seconds")} for row in Log.read(place)]
        for place in (folder, whole)
    ]
    if logs[0] != logs[1]:
        return "log differs"
    names = [
        {str(file.relative_to(place)) for file in place.rglob("*") if "tensorboard" not in file.parts}
        for place in (folder, whole)
    ]
    return f"litter: {sorted(names[0] ^ names[1])[:3]}" if names[0] != names[1] else ""


def try_kills(folder, count):
    "Kill runs at random moments and at each write; a line a kill."
    context, lines = multiprocessing.get_context("fork"), []
    whole = folder / "undisturbed"
    began = time.monotonic()
    train(whole)  # it also makes what all runs read
    shutil.rmtree(whole)
    began = time.monotonic()
    train(whole)
    seconds = time.monotonic() - began
    draws = random.Random(0)
    for number in tqdm(range(count), desc="kills at random moments", unit="kill"):
        place = folder / f"random_{number}"
        child = context.Process(target=train, args=(place,))
        child.start()
        time.sleep(draws.uniform(0.02, 0.98) * seconds)
        child.kill()
        child.join()
        lines.append(dict(what="killed at a random moment", reason=continued(place, whole)))
        shutil.rmtree(place)
    at, bar = 1, tqdm(desc="kills at each write", unit="kill")
    while count:
        place, answers = folder / f"write_{at}", context.SimpleQueue()
        child = context.Process(target=killed_at, args=(place, at, answers))
        child.start()
        child.join()
        if not answers.empty():
            break
        if child.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"a run failed by itself, exit code {child.exitcode}")
        lines.append(dict(what="killed at a write", reason=continued(place, whole)))
        shutil.rmtree(place, ignore_errors=True)
        at += 1
        bar.update()
    bar.close()
    table = pd.DataFrame(lines, columns=["what", "reason"])
    return table.assign(found=["right" if not reason else "wrong" for reason in table.reason])


# -- the table ---------------------------------------------------------------------------------------------------------

OUTCOMES = ("right", "refused", "concealed", "concealed anew", "wrong", "hung", "crashed")


def counted(table):
    "Count outcomes, a line for each thing that was done."
    counts = table.groupby("what", sort=False).found.value_counts().unstack(fill_value=0)
    counts = counts.reindex(columns=OUTCOMES, fill_value=0)
    counts.insert(0, "tried", counts.sum(axis=1))
    counts.loc["all"] = counts.sum()
    return counts.rename_axis(index="what was done", columns=None).reset_index()


def main():
    "Try, print, and write the table."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000, help="at most so many files")
    parser.add_argument("--kills", type=int, default=100, help="kills at random moments; 0: none at writes either")
    parser.add_argument("--output", type=Path, help="reports folder to write the table to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FIMA_WORK"] = str(Path(scratch) / "work")
        files = try_files(Path(scratch), arguments.files)
        print(counted(files).to_string(index=False), flush=True)
        kills = try_kills(Path(scratch) / "runs", arguments.kills)
    parts = {"Damaged files": counted(files), "Killed runs": counted(kills)}
    reasons = files[files.found == "refused"].reason.str.replace(r"[\d,]+", "N", regex=True).value_counts()
    parts["Reasons of refusals"] = reasons.rename_axis("reason").reset_index(name="files")
    for heading, part in parts.items():
        print(f"\n{heading}\n{part.to_string(index=False)}")
    for line in [*files.itertuples(), *kills.itertuples()]:
        if line.found in ("wrong", "hung", "crashed"):
            print(f"{line.found}: {line.what}, {getattr(line, 'file', 'run')}: {line.reason}")
    if arguments.output:
        from fima.report.sheets import write_tables

        av_version = f"PyAV {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
        notes = [
            "`right`: every window equals what PyAV alone gives from the first byte, and that is what was written; of "
            "a killed run: weights, log, metrics and names of files are those of an undisturbed one. `refused`: left "
            "out, with a reason. `concealed`: every window equals a full decode, and the decoder invented part of it "
            "without a word; no check can see that. `concealed anew`: of H.264, HEVC, VP9 and FFV1 alone, the "
            "decoder invented something else at the second time. `wrong`: anything else.",
            f"{len(KINDS)} kinds of files of {FRAMES} frames, made by FFmpeg ({av_version}); damage drawn by seeds. "
            f"Runs of {STEPS} steps at profile smoke, SIGKILL.",
        ]
        numbers = pd.concat([files, kills], ignore_index=True)[["what", "file", "found", "reason"]].fillna("")
        write_tables("damage", "Damaged files and killed runs", parts, numbers, notes, arguments.output)
    return int(
        sum(part[name].iloc[-1] for part in (parts["Damaged files"], parts["Killed runs"]) for name in OUTCOMES[4:])
    )


if __name__ == "__main__":
    sys.exit(min(1, main()))
