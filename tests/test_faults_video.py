"""Video files as they come: windows exact whatever the codec, and every unusable file named with its reason."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from fima.data.video import files, video
from fima.data.video.files import VideoError, fingerprint, fingerprints, probe, write_video
from fima.data.video.video import FrameCache, VideoFrames, check_videos, decode
from helpers import shared_data

FRAMES = 70


def moving_pattern(count=FRAMES, height=48, width=64):
    "Every frame differs from every other one, so that a wrong frame is seen."
    rows, columns = np.mgrid[:height, :width]
    generator = np.random.default_rng(0)
    still = generator.integers(0, 60, (height, width))
    pictures = [
        still + 90 + 80 * np.sin((columns * np.cos(n / 9) + rows * np.sin(n / 5)) / 6 + n / 3) for n in range(count)
    ]
    return np.stack(pictures).clip(0, 255).astype(np.uint8)[..., None].repeat(3, axis=3)


def write(path, codec, frames=None, step=lambda number: 40, first=0, **options):
    "Write frames with any codec; `step` gives each frame's duration in milliseconds, `first` the first frame's time."
    muxing = {"avoid_negative_ts": "disabled"} if first < 0 else {}
    uneven = len({step(number) for number in range(FRAMES)}) > 1 or first
    settings = {
        name if name == "sc_threshold" else name.replace("_", "-"): str(value) for name, value in options.items()
    }
    with av.open(str(path), "w", options=muxing) as container:
        stream = container.add_stream(codec, rate=1000 if uneven else 25, options=settings)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.thread_count = 1
        time = first
        for number, picture in enumerate(moving_pattern() if frames is None else frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (time, Fraction(1, 1000)) if uneven else (number, Fraction(1, 25))
            time += step(number)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def every_frame(path):
    "The definition: what decoding from the first byte gives."
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def compare_windows(path, windows=60, seed=0):
    reference, info, generator = every_frame(path), probe(path), np.random.default_rng(seed)
    assert info.frames == len(info.times) == len(reference)
    np.testing.assert_array_equal(decode(path), reference)
    for _ in range(windows):
        length = int(generator.integers(1, min(33, info.frames)))
        start = int(generator.integers(0, info.frames - length + 1))
        np.testing.assert_array_equal(
            decode(path, start, length, info), reference[start : start + length], err_msg=f"{path} {start} {length}"
        )
    return info


def uneven(number):
    return (33, 40, 120, 17)[number % 4]


CASES = {
    "h264.mp4": dict(codec="libx264", g=12, sc_threshold=0),
    "h264_b_frames.mp4": dict(codec="libx264", g=15, bf=3, preset="slow"),
    "h264_one_keyframe.mp4": dict(codec="libx264", g=250, sc_threshold=0),
    "h264_open_gop.mp4": dict(
        codec="libx264", x264_params="open-gop=1:keyint=12:min-keyint=6:scenecut=0:bframes=3:b-adapt=0"
    ),
    "h264_open_gop.mkv": dict(
        codec="libx264", x264_params="open-gop=1:keyint=12:min-keyint=6:bframes=3:b-pyramid=strict"
    ),
    "h264_intra_refresh.mp4": dict(codec="libx264", x264_params="intra-refresh=1:keyint=12:scenecut=0:bframes=0"),
    "h264_variable_rate.mkv": dict(codec="libx264", g=10, step=uneven),
    "h264_variable_rate.mp4": dict(codec="libx264", g=10, bf=2, step=uneven),
    "h264_edit_list.mp4": dict(codec="libx264", g=12, first=-400, step=uneven),
    "h264_late_start.mp4": dict(codec="libx264", g=12, first=700),
    "h264.avi": dict(codec="libx264", g=12, bf=2),
    "mpeg4.avi": dict(codec="mpeg4", g=12),
    "mpeg4_b_frames.avi": dict(codec="mpeg4", g=12, bf=2),
    "mpeg4_b_frames.mp4": dict(codec="mpeg4", g=12, bf=2),
    "mpeg4_b_frames.mkv": dict(codec="mpeg4", g=12, bf=2),
    "mjpeg.avi": dict(codec="mjpeg"),
    "vp8_hidden_frames.webm": dict(
        codec="libvpx", g=12, auto_alt_ref=1, lag_in_frames=10, deadline="realtime", cpu_used=8
    ),
    "vp9.webm": dict(codec="libvpx-vp9", g=12, deadline="realtime", cpu_used=8, lag_in_frames=10, auto_alt_ref=1),
    "vp9_variable_rate.webm": dict(codec="libvpx-vp9", g=12, deadline="realtime", cpu_used=8, step=uneven),
    "hevc_open_gop.mkv": dict(
        codec="libx265",
        preset="ultrafast",
        x265_params="keyint=12:min-keyint=6:open-gop=1:bframes=3:pools=1:frame-threads=1:log-level=none",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_windows_equal_full_decode(tmp_path, name):
    info = compare_windows(write(tmp_path / name, **CASES[name]))
    if name.endswith("avi"):
        assert info.keyframes == () and not info.timed, "the numbering after a seek in AVI may be another"
    elif name.startswith(("mpeg4", "vp8")):
        assert info.keyframes == (), "what such a decoder repairs depends on where it began"
    elif "one_keyframe" not in name:
        assert len(info.keyframes) > 1 or name.startswith("h264_intra"), "the short cut is not tested"


def test_frame_count_is_what_was_written(tmp_path):
    for name in (
        "h264_b_frames.mp4",
        "h264_variable_rate.mkv",
        "mpeg4_b_frames.avi",
        "vp9.webm",
        "vp8_hidden_frames.webm",
    ):
        assert probe(write(tmp_path / name, **CASES[name])).frames == FRAMES


def test_edit_list_hides_the_frames_before_it(tmp_path):
    assert 0 < probe(write(tmp_path / "a.mp4", **CASES["h264_edit_list.mp4"])).frames < FRAMES


def test_variable_rate_keeps_its_times(tmp_path):
    info = probe(write(tmp_path / "a.mkv", **CASES["h264_variable_rate.mkv"]))
    assert np.diff(info.times).tolist() == [uneven(number) for number in range(FRAMES - 1)]


def refusal(path, *arguments):
    with pytest.raises(VideoError) as caught:
        probe(path)
        decode(path, *arguments)
        decode(path)
    assert caught.value.path == str(path) and str(path) in str(caught.value) and caught.value.reason
    return caught.value.reason


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_missing_empty_text_folder_audio(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    (tmp_path / "zeros.avi").write_bytes(bytes(5000))
    (tmp_path / "folder.mp4").mkdir()
    assert refusal(tmp_path / "missing.mp4") == "no such file"
    assert refusal(tmp_path / "empty.mp4") == "empty file"
    assert "not a readable video" in refusal(tmp_path / "text.mp4")
    assert "not a readable video" in refusal(tmp_path / "zeros.avi")
    assert "cannot be read" in refusal(tmp_path / "folder.mp4")
    assert refusal(audio_only(tmp_path / "audio.mp4")) == "no video stream"


@pytest.mark.parametrize(
    "name",
    [
        "h264_b_frames.mp4",
        "mpeg4.avi",
        "mpeg4_b_frames.avi",
        "vp9.webm",
        "vp8_hidden_frames.webm",
        "h264_variable_rate.mkv",
        "mpeg4_b_frames.mkv",
    ],
)
@pytest.mark.parametrize("fraction", [0.001, 0.02, 0.3, 0.5, 0.9, 0.99, 1])
def test_truncated_anywhere(tmp_path, name, fraction):
    "A file that lacks pictures is refused; one that lacks bytes behind its last picture alone may give every frame."
    whole = write(tmp_path / name, **CASES[name])
    data = whole.read_bytes()
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(data[: min(max(int(fraction * len(data)), 1), len(data) - 1)])
    if fraction > 0.95:
        try:
            info = probe(cut)
        except VideoError:
            return
        np.testing.assert_array_equal(decode(cut, info=info), every_frame(whole))
    else:
        assert refusal(cut)


def mux(path, muxing, encoding=None):
    "Write the pattern by x264 with options of the container and of the encoder."
    with av.open(str(path), "w", options=muxing) as container:
        stream = container.add_stream("libx264", rate=25, options=encoding)
        stream.width, stream.height = 64, 48
        for picture in moving_pattern():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_truncated_with_the_index_in_front(tmp_path):
    "All frames are announced at the start of such a file, and most can still be decoded."
    whole = mux(tmp_path / "fast.mp4", {"movflags": "faststart"}).read_bytes()
    for fraction in (0.2, 0.5, 0.8, 0.99):
        cut = tmp_path / "cut.mp4"
        cut.write_bytes(whole[: int(fraction * len(whole))])
        assert "truncated" in refusal(cut)


def test_live_matroska_of_unknown_length(tmp_path):
    "Such a file claims no length: whole it is read, cut within a frame it is refused."
    live = mux(tmp_path / "live.mkv", {"live": "1"}, {"g": "12"})
    assert compare_windows(live, 10).frames == FRAMES
    live.write_bytes(live.read_bytes()[:-300])
    refusal(live)


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "h264_variable_rate.mkv", "mpeg4.avi", "mpeg4_b_frames.avi"])
def test_damage_in_the_middle_keeps_a_file_out_of_the_cache(tmp_path, name):
    path = write(tmp_path / name, **CASES[name])
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 900] = bytes(900)
    path.write_bytes(data)
    cache = FrameCache.build([path], tmp_path / "cache", progress=False)
    assert cache.usable == [] and cache.left_out.path.tolist() == [str(path)] and cache.left_out.reason[0]
    assert check_videos([path], thorough=True, progress=False)[1].path.tolist() == [str(path)]


def test_a_window_never_leans_on_a_damaged_frame(tmp_path):
    "Frames after the damage are read from the next keyframe, or refused."
    # x264 gives the same bytes each time without its macroblock tree alone
    path = write(tmp_path / "a.mp4", **CASES["h264.mp4"], mbtree=0)
    reference, data = every_frame(path), bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    refused = 0
    for start in range(0, FRAMES - 4):
        try:
            np.testing.assert_array_equal(decode(path, start, 4), reference[start : start + 4])
        except VideoError:
            refused += 1
    assert 0 < refused < FRAMES // 2


def test_shorter_than_the_window(tmp_path):
    path = write(tmp_path / "short.mp4", "libx264", moving_pattern(20))
    assert "20 frames there" in refusal(path, 0, 32)
    assert "20 frames there" in refusal(path, 5, 16)
    assert decode(path, 4, 16).shape == (16, 48, 64, 3)
    for build in (
        lambda: VideoFrames.build([path], minimum_frames=32, progress=False),
        lambda: FrameCache.build([path], tmp_path / "c", minimum_frames=32, progress=False),
    ):
        assert build().left_out.reason.tolist() == ["shorter than the window: 20 frames, 32 needed"]


def test_frame_size_that_changes_is_refused(tmp_path):
    "Two pictures of different size, one after the other, in a motion JPEG stream."
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number, size in enumerate(((48, 64), (96, 128))):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = *size, "yuvj420p", Fraction(1, 25)
            picture = av.VideoFrame.from_ndarray(np.full((*size, 3), 90, np.uint8), format="rgb24")
            for packet in encoder.encode(picture.reformat(format="yuvj420p")):
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
                container.mux(packet)
    assert "frame size changes" in refusal(tmp_path / "two.mkv", 0, 2)


def test_a_data_set_pass_loses_nothing(tmp_path):
    good = [write(tmp_path / f"good_{n}.mp4", "libx264", moving_pattern(40)) for n in range(3)]
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.avi").write_text("text" * 100)
    (tmp_path / "cut.mp4").write_bytes(good[0].read_bytes()[:-700])
    short = write(tmp_path / "short.mkv", "libx264", moving_pattern(5))
    paths = [
        good[0],
        tmp_path / "empty.mp4",
        good[1],
        tmp_path / "cut.mp4",
        short,
        tmp_path / "absent.mp4",
        tmp_path / "text.avi",
        good[2],
        good[0],
    ]
    for workers in (1, 3):
        usable, left_out = check_videos(
            paths, minimum_frames=32, workers=workers, cache=tmp_path / "probes", progress=False
        )
        cache = FrameCache.build(
            paths, tmp_path / "frames", size=(24, 24), minimum_frames=32, workers=workers, progress=False
        )
        assert [info.path for info in usable] == cache.usable == [str(path) for path in good]
        assert left_out.path.tolist() == cache.left_out.path.tolist() == [str(paths[n]) for n in (1, 3, 4, 5, 6)]
        assert left_out.reason.str.len().min() > 5


def test_a_stopped_build_goes_on(tmp_path, monkeypatch):
    paths = [write(tmp_path / f"{n}.mp4", "libx264", moving_pattern(20 + n)) for n in range(4)]
    squash, calls = video._squash, []

    def stopping(path, *arguments):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return squash(path, *arguments)

    monkeypatch.setattr(video, "_squash", stopping)
    with pytest.raises(KeyboardInterrupt):
        FrameCache.build(paths, tmp_path / "frames", workers=1, progress=False)
    done = {entry: entry.stat().st_mtime_ns for entry in (tmp_path / "frames").iterdir()}
    assert 2 <= len(done) <= 3 and all(entry.suffix == ".npy" for entry in done)
    monkeypatch.setattr(video, "_squash", squash)
    cache = FrameCache.build(paths, tmp_path / "frames", progress=False)
    assert [cache.count(str(path)) for path in paths] == [20, 21, 22, 23]
    assert all(entry.stat().st_mtime_ns == stamp for entry, stamp in done.items())


def test_a_broken_cache_entry_is_made_again_and_a_replaced_video_noticed(tmp_path):
    path = write(tmp_path / "a.mp4", "libx264", moving_pattern(20))
    FrameCache.build([path], tmp_path / "frames", progress=False)
    (entry,) = (tmp_path / "frames").iterdir()
    entry.write_bytes(entry.read_bytes()[:1000])
    cache = FrameCache.build([path], tmp_path / "frames", progress=False)
    np.testing.assert_array_equal(cache.window(str(path), 0, 20), decode(path))
    write(path, "libx264", moving_pattern(30))
    assert FrameCache.build([path], tmp_path / "frames", progress=False).count(str(path)) == 30


# -- which file is it --------------------------------------------------------------------------------------------------


@pytest.fixture
def work(own_work, monkeypatch):
    "A work folder of its own, in which every digest is remembered at once."
    monkeypatch.setattr(files, "SETTLED", -1)
    return own_work


@pytest.fixture
def reads(monkeypatch):
    "The files that are really read."
    read, hashing = [], files._hash

    def noting(path):
        read.append(str(path))
        return hashing(path)

    monkeypatch.setattr(files, "_hash", noting)
    return read


def digest_of(content):
    "The fingerprint of a file that holds these bytes."
    return hashlib.sha256(content).hexdigest()[:32]


def repaired_in_the_middle(path):
    "Change one byte in the middle of a file of 5 MiB, and set its old time back."
    times, middle = os.stat(path), path.stat().st_size // 2
    with open(path, "r+b") as file:
        file.seek(middle)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_fingerprint_is_of_the_whole_file(tmp_path, work):
    path = tmp_path / "long.avi"
    path.write_bytes(os.urandom(5 * 2**20))
    before = fingerprint(path)
    assert before == digest_of(path.read_bytes())
    repaired_in_the_middle(path)
    assert fingerprint(path) == digest_of(path.read_bytes()) != before


def test_a_repaired_file_gets_new_frames_and_a_new_probe(tmp_path, work):
    path = write(tmp_path / "long.avi", "rawvideo", moving_pattern(800))

    def read():
        return FrameCache.build([path], tmp_path / "frames", progress=False).window(str(path), 0, 800)

    first, key, data = read(), probe(path, cache=tmp_path / "probes").fingerprint, bytearray(path.read_bytes())
    assert len(data) > 3 * 2**20  # its middle lies in neither its first nor its last MiB
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
    path.write_bytes(data)
    differs = np.flatnonzero((read() != first).any(axis=(1, 2, 3)))
    assert 1 <= len(differs) <= 2 and 300 < differs[0] < 500
    assert probe(path, cache=tmp_path / "probes").fingerprint == fingerprint(path) != key


def test_a_second_pass_reads_nothing(tmp_path, work, reads):
    paths = [tmp_path / f"{number}.avi" for number in range(150)]
    for number, path in enumerate(paths):
        path.write_bytes(b"v" * (number + 1))
    first = fingerprints(paths)
    assert len(reads) == 150 and list(first) == [str(path) for path in paths]
    reads.clear()
    files._memories.clear()  # as in another process
    assert fingerprints(paths) == first and fingerprint(paths[7]) == first[str(paths[7])] and reads == []
    os.replace(paths[3], paths[4])  # another file under a known name
    assert fingerprints(paths[4:6])[str(paths[4])] == first[str(paths[3])] and reads == [str(paths[4])]


def test_a_young_file_is_not_remembered(tmp_path, own_work, reads):
    path = tmp_path / "young.avi"
    path.write_bytes(b"one")
    for text in (b"one", b"two"):  # within one step of the clock nothing but the bytes may change
        path.write_bytes(text)
        assert fingerprint(path) == digest_of(text)
    assert len(reads) == 2 and not own_work.exists()


@pytest.mark.parametrize(
    "line", [b'["/cut/sh', b"\xff\xfe\x00", b"17", b'{"a": 1}', b'["/a", 1, 2]', b"null", b'[1, 2, 3, 4, 5, "d"]']
)
def test_a_spoilt_memory_is_passed_over(tmp_path, work, reads, line):
    paths = [tmp_path / "a.avi", tmp_path / "b.avi"]
    for path in paths:
        path.write_bytes(path.name.encode())
    fingerprint(paths[0])
    with open(work / "fingerprints.jsonl", "ab") as file:
        file.write(line)
    fingerprint(paths[1])
    files._memories.clear()
    reads.clear()
    assert fingerprints(paths) == {str(path): digest_of(path.name.encode()) for path in paths}
    assert reads == []


@pytest.mark.parametrize("how", ["a file in place of the folder", "a folder in place of the file"])
def test_a_memory_that_cannot_be_kept_stops_nothing(tmp_path, work, how):
    if how.startswith("a file"):
        work.write_text("")
    else:
        (work / "fingerprints.jsonl").mkdir(parents=True)
    path = tmp_path / "a.avi"
    path.write_bytes(b"bytes")
    for _ in range(2):
        assert fingerprint(path) == fingerprints([path])[str(path)] == digest_of(b"bytes")


HASHING = """
import sys
from fima.data.video import files
files.SETTLED = -1
for _ in range(3):
    files._memories.clear()
    for path in sys.argv[1:]: files.fingerprint(path)
"""


def test_many_processes_share_one_memory(tmp_path, work):
    paths = [tmp_path / f"{number}.avi" for number in range(60)]
    for path in paths:
        path.write_bytes(path.name.encode())
    running = [subprocess.Popen([sys.executable, "-c", HASHING, *map(str, paths)]) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    lines = [json.loads(line) for line in (work / "fingerprints.jsonl").read_text().splitlines() if line]
    assert {line[0]: line[-1] for line in lines} == {str(path): digest_of(path.name.encode()) for path in paths}


def test_what_is_no_file_is_never_opened(tmp_path, work):
    os.mkfifo(tmp_path / "pipe.avi")
    (tmp_path / "folder.avi").mkdir()
    (tmp_path / "loop.avi").symlink_to(tmp_path / "loop.avi")
    for name, reason in (
        ("pipe", "not a regular file"),
        ("folder", "not a regular file"),
        ("loop", "cannot be read"),
        ("none", "no such file"),
    ):
        with pytest.raises(VideoError, match=reason):
            fingerprint(tmp_path / f"{name}.avi")
    assert fingerprints(tmp_path / f"{name}.avi" for name in ("pipe", "folder", "loop", "none")) == {}


def test_encode_gives_the_same_bytes_and_leaves_nothing_behind_on_failure(tmp_path):
    for name in "ab":
        write_video(moving_pattern(), tmp_path / f"{name}.mp4", fps=29.97)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    info = probe(tmp_path / "a.mp4")
    assert info.fps == pytest.approx(29.97) and info.keyframes == (0, 12, 24, 36, 48, 60)
    with pytest.raises(ValueError, match="even height"):
        write_video(moving_pattern()[:, :47], tmp_path / "c.mp4")
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4"]


def real_videos(name):
    "List the videos of a real set with their rows."
    folder = shared_data(f"videos/{name}")
    with open(folder / "videos.csv") as file:
        return [(folder / row["file"], row) for row in csv.DictReader(file)]


def test_single_clips_open_with_the_right_count():
    for path, row in real_videos("single_clips"):
        info = compare_windows(path, windows=4)
        assert (info.frames, info.width, info.height, info.codec) == (
            int(row["frames"]),
            int(row["width"]),
            int(row["height"]),
            row["codec"],
        )
        assert info.fps == pytest.approx(float(row["fps"]), abs=0.01)


def test_ut_interaction_damaged_files_are_listed(tmp_path):
    "All 120 videos into the cache, three of them replaced by damaged copies and one by nothing."
    paths = [path for path, _ in real_videos("ut_interaction")]
    frames = {str(path): int(row["frames"]) for path, row in real_videos("ut_interaction")}
    for number, fraction in ((5, 0.4), (50, 0.98)):  # the last half KiB of these files may be padding
        damaged = tmp_path / f"cut_{number}.avi"
        damaged.write_bytes(paths[number].read_bytes()[: int(fraction * paths[number].stat().st_size)])
        paths[number] = damaged
    data = bytearray(paths[77].read_bytes())
    data[len(data) // 2 : len(data) // 2 + 600] = bytes(600)
    (tmp_path / "damaged_77.avi").write_bytes(data)
    paths[77], paths[110] = tmp_path / "damaged_77.avi", tmp_path / "absent.avi"
    cache = FrameCache.build(paths, tmp_path / "frames", size=(24, 24), minimum_frames=32, progress=False)
    assert cache.left_out.path.tolist() == [str(paths[number]) for number in (5, 50, 77, 110)]
    assert cache.usable == [str(path) for number, path in enumerate(paths) if number not in (5, 50, 77, 110)]
    assert all(cache.count(path) == frames[path] for path in cache.usable)


def test_weizmann_windows(tmp_path):
    for path, row in real_videos("weizmann4")[::7]:
        assert compare_windows(path, windows=10).frames == int(row["frames"])
