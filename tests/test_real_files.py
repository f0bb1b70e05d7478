"""Files as cameras, uploaders and broken disks leave them: whatever passes is read exactly, and the rest is named."""

import os
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest

from fima.data.sets.check import check_own
from fima.data.sets.own import own_catalog
from fima.data.video import files
from fima.data.video.files import VideoError, probe, replacing, sweep
from fima.data.video.table import VideoTable
from fima.data.video.video import FrameCache, VideoFrames, check_videos, decode
from helpers import TOP, shared_data
from test_faults_video import CASES, FRAMES, compare_windows, every_frame, moving_pattern, write

pytestmark = pytest.mark.usefixtures("own_work")


def answers(path, folder):
    "What check, reader and cache say about one file: reasons, or None where they take it."
    said = {}
    for name, thorough in (("check", False), ("thorough check", True)):
        said[name] = check_videos([path], thorough=thorough, progress=False)[1].reason.tolist()
    said["cache"] = FrameCache.build([path], folder, progress=False).left_out.reason.tolist()
    try:
        decode(path)
        said["reader"] = []
    except VideoError as error:
        said["reader"] = [error.reason]
    return said


def assert_usable(path, folder, frames):
    "Everything takes the file, every window equals a full decode."
    assert compare_windows(path, 12).frames == frames
    assert answers(path, folder) == {"check": [], "thorough check": [], "cache": [], "reader": []}


def shown_case(name):
    "One of the shared small files."
    return shared_data("").parent / "cases" / "video" / name


# -- cut without encoding anew -----------------------------------------------------------------------------------------


def cut_inside_a_gop(source, target, first):
    "Copy the packets from the start on, with times by which frame number `first` is shown first."
    with av.open(str(source)) as old, av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as new:
        stream = old.streams.video[0]
        copied = new.add_stream_from_template(stream)
        step = int(1 / (stream.average_rate * stream.time_base))
        for packet in old.demux(stream):
            if packet.dts is None:
                continue
            packet.pts, packet.dts = packet.pts - first * step, packet.dts - first * step
            packet.stream = copied
            new.mux(packet)
    return target


@pytest.mark.parametrize(
    "codec, options",
    [
        ("libx264", dict(g=250, sc_threshold=0)),
        ("libx264", dict(g=12, bf=3)),
        ("libx265", dict(preset="ultrafast", x265_params="keyint=250:pools=1:frame-threads=1:log-level=none")),
        ("libvpx-vp9", dict(g=250, deadline="realtime", cpu_used=8)),
        ("mpeg4", dict(g=250)),
    ],
)
@pytest.mark.parametrize("first", [1, 20])
def test_a_cut_inside_a_group_of_pictures(tmp_path, codec, options, first):
    whole = write(tmp_path / "whole.mp4", codec, **options)
    cut = cut_inside_a_gop(whole, tmp_path / "cut.mp4", first)
    expected = every_frame(cut)
    assert len(expected) <= FRAMES
    assert_usable(cut, tmp_path / "frames", len(expected))


def test_the_shared_cut(tmp_path):
    info = probe(shown_case("trimmed_inside_a_gop.mp4"))
    assert (info.frames, info.keyframes, info.timed) == (52, (), True)
    assert_usable(shown_case("trimmed_inside_a_gop.mp4"), tmp_path, 52)


# -- the numbering after a seek ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mjpeg.avi", "mpeg4.avi", "h264.avi", "mjpeg.mkv", "h264.mp4", "vp9.webm"])
def test_no_window_differs_from_a_full_decode_after_a_passed_check(tmp_path, name):
    "Flipped bits, fifteen files of each kind: refused, or read exactly."
    whole = write(tmp_path / name, **CASES.get(name, dict(codec="mjpeg"))).read_bytes()
    refused = 0
    for seed in range(15):
        generator, data = np.random.default_rng(seed), bytearray(whole)
        for place in generator.integers(len(data) // 5, len(data), generator.integers(1, 20)):
            data[place] ^= 1 << int(generator.integers(8))
        path = tmp_path / f"{seed}_{name}"
        path.write_bytes(data)
        usable, left_out = check_videos([path], thorough=True, progress=False)
        refused += len(left_out)
        if len(usable):
            compare_windows(path, 15, seed)
    assert refused or name.startswith("vp9")  # whose decoder conceals whatever the bits say


def test_the_shared_damaged_file():
    (reason,) = check_videos([shown_case("mjpeg_twenty_bits_flipped.avi")], thorough=True, progress=False)[1].reason
    assert reason.startswith("damaged: frame 16 cannot be decoded")


# -- which way is up ---------------------------------------------------------------------------------------------------

TURNS = {
    "as stored": ((1, 0), (0, 1), lambda frame: frame),
    "90 clockwise": ((0, 1), (-1, 0), lambda frame: np.rot90(frame, -1)),
    "180": ((-1, 0), (0, -1), lambda frame: np.rot90(frame, 2)),
    "270 clockwise": ((0, -1), (1, 0), lambda frame: np.rot90(frame)),
    "mirrored": ((-1, 0), (0, 1), lambda frame: frame[:, ::-1]),
    "upside down": ((1, 0), (0, -1), lambda frame: frame[::-1]),
    "mirrored and 270": ((0, 1), (1, 0), lambda frame: frame.transpose(1, 0, 2)),
    "mirrored and 90": ((0, -1), (-1, 0), lambda frame: np.rot90(frame, 2).transpose(1, 0, 2)),
}


def set_matrix(path, across, down):
    "Change how an mp4 file is to be shown: x' = across[0] x + down[0] y, y' = across[1] x + down[1] y."
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    for number, value in zip((0, 1, 3, 4), (*across, *down), strict=True):
        data[place + 4 * number : place + 4 * number + 4] = round(value * 65536).to_bytes(4, signed=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("name", TURNS)
def test_frames_are_read_upright(tmp_path, codec, name):
    across, down, turn = TURNS[name]
    path = set_matrix(write(tmp_path / "a.mp4", codec, g=12), across, down)
    expected = np.stack([turn(frame) for frame in every_frame(path)])
    info = probe(path)
    assert (info.height, info.width) == expected.shape[1:3]
    assert bool(info.remarks) == (name != "as stored")
    np.testing.assert_array_equal(decode(path), expected)
    np.testing.assert_array_equal(decode(path, 30, 5, info), expected[30:35])
    cache = FrameCache.build([path], tmp_path / "frames", progress=False)
    np.testing.assert_array_equal(cache.window(str(path), 30, 5), expected[30:35])


@pytest.mark.parametrize("name, turns, size", [("90", -1, (96, 128)), ("180", 2, (128, 96))])
def test_the_shared_turned_files(tmp_path, name, turns, size):
    path = shown_case(f"shown_turned_by_{name}.mp4")
    np.testing.assert_array_equal(decode(path), [np.rot90(frame, turns) for frame in every_frame(path)])
    (tmp_path / "mine").mkdir()
    shutil.copy(path, tmp_path / "mine" / "phone.mp4")
    checked = check_own(own_catalog(tmp_path / "mine"), progress=False)
    assert (checked.files.width[0], checked.files.height[0]) == size
    assert f"turned by {name} degrees clockwise (1): phone.mp4" in str(checked)


def test_a_turn_that_is_no_quarter_is_refused(tmp_path):
    "A picture turned by 30 degrees has no rectangle."
    path = set_matrix(write(tmp_path / "a.mp4", "libx264"), (0.866, 0.5), (-0.5, 0.866))
    for reasons in answers(path, tmp_path / "frames").values():
        assert len(reasons) == 1 and "turned by 30" in reasons[0] and "quarter" in reasons[0]


# -- bytes behind the end, bytes that only the container misses --------------------------------------------------------


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "h264_variable_rate.mkv", "vp9.webm", "mpeg4.avi", "mjpeg.avi"])
@pytest.mark.parametrize("tail", [b"\n", b"uploaded by somebody, with thanks", bytes(300), b"\xff" * 17])
def test_bytes_behind_the_end(tmp_path, name, tail):
    path = write(tmp_path / name, **CASES[name])
    path.write_bytes(path.read_bytes() + tail)
    assert_usable(path, tmp_path / "frames", FRAMES)


@pytest.mark.parametrize("more", [1, 8, 70_000])
@pytest.mark.parametrize("where", ["RIFF", "movi"])
def test_an_avi_that_announces_more_than_it_has(tmp_path, where, more):
    path = write(tmp_path / "a.avi", **CASES["mpeg4.avi"])
    data = bytearray(path.read_bytes())
    place = 4 if where == "RIFF" else data.index(b"movi") - 4
    data[place : place + 4] = (int.from_bytes(data[place : place + 4], "little") + more).to_bytes(4, "little")
    path.write_bytes(data)
    assert_usable(path, tmp_path / "frames", FRAMES)


def test_an_mp4_whose_last_box_announces_more(tmp_path):
    "The pictures are there; the box of tables behind them says that it is longer."
    path = write(tmp_path / "a.mp4", **CASES["h264_b_frames.mp4"])
    data = bytearray(path.read_bytes())
    place = data.index(b"moov") - 4
    data[place : place + 4] = (int.from_bytes(data[place : place + 4]) + 8).to_bytes(4)
    path.write_bytes(data)
    assert_usable(path, tmp_path / "frames", FRAMES)
    assert probe(path).remarks[0].startswith("whole, though its container announces more")


@pytest.mark.parametrize(
    "name", ["one_byte_after_the_end.mp4", "text_after_the_end.mp4", "riff_size_eight_too_large.avi"]
)
def test_the_shared_whole_files(tmp_path, name):
    assert_usable(shown_case(name), tmp_path, 50)


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "h264_variable_rate.mkv", "vp9.webm", "mpeg4.avi"])
def test_missing_pictures_still_refuse_a_file(tmp_path, name):
    "Also where text behind it hides that something is missing."
    data = write(tmp_path / name, **CASES[name]).read_bytes()
    for tail in (b"", b"text"):
        (tmp_path / name).write_bytes(data[: int(0.7 * len(data))] + tail)
        assert all(len(reasons) == 1 for reasons in answers(tmp_path / name, tmp_path / "frames").values())


def test_a_box_that_nobody_knows_hides_no_missing_pictures(tmp_path):
    "The tables in front, then a box of an unknown type, then the pictures: whole it is read, cut it is refused."
    with av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "12"})
        stream.width, stream.height = 64, 48
        for frame in moving_pattern():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"free") < data.index(b"mdat")
    data = data.replace(b"free", b"abcd", 1)
    (tmp_path / "a.mp4").write_bytes(data)
    assert_usable(tmp_path / "a.mp4", tmp_path / "frames", FRAMES)
    assert probe(tmp_path / "a.mp4").remarks == ()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) * 7 // 10])
    for reasons in answers(tmp_path / "a.mp4", tmp_path / "frames").values():
        assert len(reasons) == 1 and reasons[0].startswith("truncated")


def test_a_chunk_that_nobody_knows_hides_no_missing_pictures(tmp_path):
    data = write(tmp_path / "a.avi", **CASES["mjpeg.avi"]).read_bytes()
    place = data.index(b"movi") - 8
    data = data[:place] + b"DISP" + (8).to_bytes(4, "little") + bytes(8) + data[place:]
    (tmp_path / "a.avi").write_bytes(data)
    assert probe(tmp_path / "a.avi").frames == FRAMES
    (tmp_path / "a.avi").write_bytes(data[: len(data) // 2])
    for reasons in answers(tmp_path / "a.avi", tmp_path / "frames").values():
        assert len(reasons) == 1 and reasons[0].startswith("truncated")


def test_a_fragmented_file_cut_within_its_last_fragment_is_refused(tmp_path):
    "Such a file announces no number of frames."
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(str(tmp_path / "a.mp4"), "w", options=flags) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10", "bf": "0"})
        stream.width, stream.height = 64, 48
        for frame in moving_pattern():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    data = (tmp_path / "a.mp4").read_bytes()
    assert probe(tmp_path / "a.mp4").frames == FRAMES
    (tmp_path / "a.mp4").write_bytes(data[: data.rindex(b"mdat") + 200])
    for reasons in answers(tmp_path / "a.mp4", tmp_path / "frames").values():
        assert len(reasons) == 1


def test_a_file_of_uneven_rate_that_lacks_its_last_frame_is_refused(tmp_path):
    data = write(tmp_path / "a.mkv", **CASES["h264_variable_rate.mkv"]).read_bytes()
    with av.open(str(tmp_path / "a.mkv")) as container:
        last = max(packet.pos for packet in container.demux(video=0) if packet.size)
    for cut in (last + 15, last - 3):
        (tmp_path / "a.mkv").write_bytes(data[:cut])
        with pytest.raises(VideoError):
            probe(tmp_path / "a.mkv")


def test_one_odd_file_does_not_end_the_pass_over_the_others(tmp_path, monkeypatch):
    "A tag that is no duration; whatever else a file provokes is a reason, with its name."
    data = write(tmp_path / "odd.mkv", **CASES["h264_variable_rate.mkv"]).read_bytes()
    assert data.count(b"00:00:0") == 1
    (tmp_path / "odd.mkv").write_bytes(data.replace(b"00:00:0", b"0p:00:0"))
    good = write(tmp_path / "good.mp4", "libx264")
    usable, left_out = check_videos([tmp_path / "odd.mkv", good], progress=False)
    assert len(usable) == 2 and left_out.empty
    scan = files._scan
    monkeypatch.setattr(files, "_scan", lambda path, key: scan(path, key) if "good" in path else 1 / 0)
    usable, left_out = check_videos([tmp_path / "odd.mkv", good], progress=False)
    assert [info.path for info in usable] == [str(good)]
    assert left_out.reason.tolist() == ["cannot be read: ZeroDivisionError: division by zero"]


def test_av1_is_sought_in(tmp_path):
    "Its decoder has another name than the codec."
    encoder = next((name for name in ("libsvtav1", "libaom-av1") if name in av.codecs_available), None)
    if encoder is None:
        pytest.skip("no encoder of AV1 in this build of PyAV")
    path = write(tmp_path / "a.mp4", encoder, g=12)
    info = compare_windows(path, 8)
    assert info.codec == "av1" and len(info.keyframes) > 1


# -- a size that changes -----------------------------------------------------------------------------------------------


def two_sizes(path, codec, pixels="yuv420p", options=None):
    "Put frames of 128 x 96 and then of 64 x 48 into one stream."
    with av.open(str(path), "w") as container:
        stream, number = None, 0
        for height, width in ((96, 128), (48, 64)):
            encoder = av.CodecContext.create(codec, "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, pixels
            encoder.time_base, encoder.framerate, encoder.options = Fraction(1, 25), 25, options or {}
            encoder.thread_count = 1
            packets = []
            for picture in moving_pattern(20, height, width):
                packets += encoder.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels))
            packets += encoder.encode(None)
            if stream is None:
                stream = container.add_stream(codec, rate=25)
                stream.width, stream.height, stream.pix_fmt = width, height, pixels
            for packet in packets:
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                packet.pts = packet.dts = number
                number += 1
                container.mux(packet)
    return path


@pytest.mark.parametrize(
    "name, codec, pixels, options",
    [
        ("a.mkv", "mjpeg", "yuvj420p", {}),
        ("a.avi", "mjpeg", "yuvj420p", {}),
        ("a.mkv", "libx264", "yuv420p", {"bf": "0", "g": "10"}),
        ("a.mkv", "mpeg4", "yuv420p", {"g": "10"}),
        ("a.webm", "libvpx-vp9", "yuv420p", {"g": "10", "deadline": "realtime", "lag-in-frames": "0"}),
    ],
)
def test_a_size_that_changes_gets_one_answer(tmp_path, name, codec, pixels, options):
    path = two_sizes(tmp_path / name, codec, pixels, options)
    for who, reasons in answers(path, tmp_path / "frames").items():
        assert reasons == ["the frame size changes within the file: 128 x 96, later 64 x 48"], who
    assert VideoFrames.build([path], progress=False).usable == []


def test_the_shared_file_of_two_sizes(tmp_path):
    said = answers(shown_case("frame_size_changes.mkv"), tmp_path)
    assert set(map(tuple, said.values())) == {("the frame size changes within the file: 128 x 96, later 64 x 48",)}


# -- damage that FFmpeg notices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mjpeg.mkv", "mjpeg.mp4", "mpeg4_b_frames.mp4", "mpeg4.avi"])
def test_the_thorough_check_finds_what_ffmpeg_notices(tmp_path, name):
    path = write(tmp_path / name, **CASES.get(name, dict(codec="mjpeg")))
    data, generator = bytearray(path.read_bytes()), np.random.default_rng(0)
    middle = len(data) // 2
    data[middle : middle + 200] = generator.bytes(200)
    path.write_bytes(data)
    (reason,) = check_videos([path], thorough=True, progress=False)[1].reason
    assert "damaged: frame" in reason
    assert FrameCache.build([path], tmp_path / "frames", progress=False).usable == []


# -- caches ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["one bit", "zeroed", "cut", "empty", "doubled"])
def test_a_damaged_entry_is_noticed_rebuilt_and_said(tmp_path, how, capsys):
    path = write(tmp_path / "a.mp4", "libx264", moving_pattern(20))
    FrameCache.build([path], tmp_path / "frames", progress=False)
    check_videos([path], cache=tmp_path / "probes", progress=False)
    assert capsys.readouterr().err == ""
    entries = [*(tmp_path / "frames").iterdir(), *(tmp_path / "probes").iterdir()]
    assert len(entries) == 2
    for entry in entries:
        data = bytearray(entry.read_bytes())
        place = len(data) // 2
        if how == "one bit":
            data[place] ^= 1
        changed = {"zeroed": bytes(len(data)), "cut": data[:place], "empty": b"", "doubled": data * 2}
        entry.write_bytes(changed.get(how, data))
    cache = FrameCache.build([path], tmp_path / "frames", progress=False)
    ((info,), left_out) = check_videos([path], cache=tmp_path / "probes", progress=False)
    np.testing.assert_array_equal(cache.window(str(path), 0, 20), every_frame(path))
    assert info == probe(path) and left_out.empty
    said = capsys.readouterr().err
    assert said.count("made again") == 2 and all(entry.name in said for entry in entries)
    FrameCache.build([path], tmp_path / "frames", progress=False)
    check_videos([path], cache=tmp_path / "probes", progress=False)
    assert capsys.readouterr().err == ""


def test_leftovers_of_killed_writers_are_swept(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "probes").mkdir()
    left = [tmp_path / folder / f".a.npy.{os.getpid()}.1.partial" for folder in ("frames", "probes")]
    for file in left:
        file.write_bytes(b"half")
    path = write(tmp_path / "a.mp4", "libx264", moving_pattern(20))
    with replacing(tmp_path / "frames" / "other.npy", durable=False) as living:
        living.write_bytes(b"being written")
        FrameCache.build([path], tmp_path / "frames", progress=False)
        check_videos([path], cache=tmp_path / "probes", progress=False)
        assert not any(file.exists() for file in left) and living.exists()
    assert (tmp_path / "frames" / "other.npy").read_bytes() == b"being written"
    sweep(tmp_path / "not there")


def test_the_cases_are_those_of_the_list():
    "Whatever lies beside the shared cases is tried above."
    if not shown_case("").is_dir():
        pytest.skip("no shared cases here")
    tried = (TOP / "tests" / "test_real_files.py").read_text()
    names = {file.name for file in shown_case("").iterdir()}
    assert {name for name in names if name not in tried} <= {"shown_turned_by_90.mp4", "shown_turned_by_180.mp4"}


def test_a_jump_in_time_is_kept(tmp_path):
    "Times in nanoseconds: a gap of three seconds is more than 32 bits hold."
    info = probe(write(tmp_path / "a.mp4", "libx264"))
    jumped = info._replace(times=(*info.times[:-1], info.times[-1] + 3 * 10**9))
    assert VideoTable([info, jumped._replace(path="b.mp4")])[1].times == jumped.times
