"""Moving pictures: what PyAV and Pillow read back is what was written, and a failure leaves what was there before."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gan.runtime import InputError, StorageError, video

Pixels = NDArray[np.uint8]
COLOURS = [(230, 40, 40), (40, 200, 60), (50, 60, 220), (250, 250, 250), (0, 0, 0), (128, 128, 128)]


def flat(colour: tuple[int, ...], height: int = 32, width: int = 48) -> Pixels:
    """A frame of one colour."""
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, len(colour))).copy()


def film(count: int, height: int = 32, width: int = 48) -> list[Pixels]:
    """Frames of which each is another: the colours in turn, with a bar that moves."""
    frames = []
    for i in range(count):
        frame = flat(COLOURS[i % len(COLOURS)], height, width)
        frame[:, i % width] = 255 - frame[:, i % width]
        frames.append(frame)
    return frames


def decoded(path: Path) -> tuple[list[NDArray[Any]], Fraction, list[float]]:
    """The RGB frames of an .mp4, its speed, and when each frame is shown."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
        assert "mp4" in container.format.name
        times = [float(frame.time) for frame in frames if frame.time is not None]
        assert stream.average_rate is not None
        return [frame.to_ndarray(format="rgb24") for frame in frames], stream.average_rate, times


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# .mp4


@pytest.mark.parametrize("fps", [1, 12.5, 24, 30.0, 30000 / 1001, 60, 240])
def test_an_mp4_has_every_frame_at_its_time(tmp_path: Path, fps: float) -> None:
    path = tmp_path / "walk.mp4"
    assert video.save(iter(film(9)), path, fps=fps) == 9
    frames, rate, times = decoded(path)
    assert len(frames) == 9 and {frame.shape for frame in frames} == {(32, 48, 3)}
    assert float(rate) == pytest.approx(fps, rel=1e-5)
    assert times == pytest.approx([i / fps for i in range(9)], abs=0.1 / fps)
    assert names(tmp_path) == ["walk.mp4"]


def test_a_speed_below_one_frame_a_second_is_kept(tmp_path: Path) -> None:
    video.save(film(3), tmp_path / "slow.mp4", fps=0.1)
    assert decoded(tmp_path / "slow.mp4")[2] == pytest.approx([0, 10, 20])


def test_the_colours_of_rgb_come_back_in_order(tmp_path: Path) -> None:
    video.save([flat(colour) for colour in COLOURS], tmp_path / "a.mp4")
    frames, _, _ = decoded(tmp_path / "a.mp4")
    for frame, colour in zip(frames, COLOURS, strict=True):
        assert np.abs(frame.astype(int) - colour).max() <= 8  # of 255, by H.264


def test_left_and_right_top_and_bottom_stay_where_they_are(tmp_path: Path) -> None:
    frame = flat((0, 0, 0), 32, 48)
    frame[:16, :24], frame[:16, 24:], frame[16:, :24] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    video.save([frame] * 3, tmp_path / "a.mp4")
    for seen in decoded(tmp_path / "a.mp4")[0]:
        for place in (slice(4, 12), slice(20, 28)):
            for side in (slice(4, 20), slice(28, 44)):
                assert np.abs(seen[place, side].astype(int) - frame[place, side]).mean() <= 8


@pytest.mark.parametrize("grey", [0, 100, 255])
def test_grey_becomes_grey(tmp_path: Path, grey: int) -> None:
    video.save([flat((grey,))] * 2, tmp_path / "a.mp4")
    for frame in decoded(tmp_path / "a.mp4")[0]:
        assert frame.shape == (32, 48, 3) and np.abs(frame.astype(int) - grey).max() <= 6


@pytest.mark.parametrize(
    ("rgba", "rgb"),
    [
        ((200, 40, 60, 255), (200, 40, 60)),
        ((200, 40, 60, 0), (255, 255, 255)),
        ((0, 100, 255, 51), (204, 224, 255)),  # a fifth of the colour, four fifths of white
    ],
)
def test_alpha_stands_on_white(tmp_path: Path, rgba: tuple[int, ...], rgb: tuple[int, ...]) -> None:
    assert (video.even(flat(rgba)) == rgb).all()
    video.save([flat(rgba)] * 2, tmp_path / "a.mp4")
    for frame in decoded(tmp_path / "a.mp4")[0]:
        assert np.abs(frame.astype(int) - rgb).max() <= 8


@pytest.mark.parametrize(
    ("height", "width"), [(33, 48), (32, 47), (31, 45), (17, 16), (2, 2), (1, 1)]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_odd_size_becomes_even_by_its_last_line_twice(
    tmp_path: Path, height: int, width: int, channels: int
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    if channels == 4:
        frame[:, :, 3] = 255
    wider = video.even(frame)
    assert wider.shape == (height + height % 2, width + width % 2, 3)
    assert (wider[:height, :width] == frame[:, :, :3]).all()
    assert (wider[height:, :width] == frame[-1, :, :3]).all()
    assert (wider[:height, width:] == frame[:, -1:, :3]).all()
    assert wider.flags.c_contiguous
    if min(height, width) > 1:
        assert video.save([frame] * 3, tmp_path / "a.mp4") == 3
        assert [one.shape for one in decoded(tmp_path / "a.mp4")[0]] == [wider.shape] * 3


def test_frames_are_taken_one_by_one(tmp_path: Path) -> None:
    """Memory is that of some frames, not of the film."""
    alive: set[int] = set()
    most = 0

    class Frame(np.ndarray):
        def __del__(self) -> None:
            alive.discard(id(self))

    def frames() -> Iterator[Pixels]:
        nonlocal most
        for frame in film(40):
            one = frame.view(Frame)
            alive.add(id(one))
            most = max(most, len(alive))
            yield one
            del one

    assert video.save(frames(), tmp_path / "a.mp4") == 40
    assert most <= 4


# .webp


def shown(path: Path) -> tuple[list[Pixels], list[int], int]:
    """The frames of a .webp, how many milliseconds each is shown, and how often the film is (0: for ever)."""
    frames, durations = [], []
    with Image.open(path) as image:
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGBA")))
            durations.append(image.info["duration"])
        return frames, durations, image.info["loop"]


@pytest.mark.parametrize(
    ("fps", "duration"), [(0.1, 10_000), (1, 1000), (25.0, 40), (30, 33), (240, 4)]
)
def test_a_webp_has_every_frame_for_its_time_and_repeats_for_ever(
    tmp_path: Path, fps: float, duration: int
) -> None:
    path = tmp_path / "walk.webp"
    assert video.save(iter(film(6)), path, fps=fps) == 6
    frames, durations, loop = shown(path)
    assert [frame.shape[:2] for frame in frames] == [(32, 48)] * 6
    assert durations == [duration] * 6 and loop == 0
    assert names(tmp_path) == ["walk.webp"]


@pytest.mark.parametrize("size", [(32, 48), (31, 45), (1, 1)])
def test_the_colours_of_a_webp_come_back_in_order(tmp_path: Path, size: tuple[int, int]) -> None:
    video.save([flat(colour, *size) for colour in COLOURS], tmp_path / "a.WEBP")
    for frame, colour in zip(shown(tmp_path / "a.WEBP")[0], COLOURS, strict=True):
        assert frame.shape[:2] == size
        assert np.abs(frame[:, :, :3].astype(int) - colour).max() <= 8


def test_grey_and_alpha_come_back_from_a_webp(tmp_path: Path) -> None:
    video.save([flat((grey,)) for grey in (10, 128, 240)], tmp_path / "grey.webp")
    for frame, grey in zip(shown(tmp_path / "grey.webp")[0], (10, 128, 240), strict=True):
        assert np.abs(frame[:, :, :3].astype(int) - grey).max() <= 6
    video.save([flat((200, 40, 60, alpha)) for alpha in (255, 128)], tmp_path / "alpha.webp")
    assert [int(frame[5, 5, 3]) for frame in shown(tmp_path / "alpha.webp")[0]] == [255, 128]


def test_frames_that_are_equal_still_take_their_time(tmp_path: Path) -> None:
    path = tmp_path / "still.webp"
    assert video.save([flat(COLOURS[0])] * 3 + [flat(COLOURS[1])], path, fps=25) == 4
    assert sum(shown(path)[1]) == 4 * 40


def test_one_frame_is_a_film(tmp_path: Path) -> None:
    for suffix in video.SUFFIXES:
        assert video.save(film(1), tmp_path / f"one{suffix}") == 1
    assert len(decoded(tmp_path / "one.mp4")[0]) == 1
    assert shown(tmp_path / "one.webp")[0][0].shape[:2] == (32, 48)


# Refusals, before a frame is taken.


def untouched() -> Iterator[Pixels]:
    pytest.fail("a frame was taken")
    yield


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.mp4.txt", "a", ".mp4", "a.mp4 "])
def test_another_suffix_is_refused_with_those_that_go(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"was not written.*Use one of \.mp4, \.webp"):
        video.save(untouched(), tmp_path / name)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "fps", [0, -1, 0.09, 240.1, 1e300, float("nan"), float("inf"), -float("inf")]
)
@pytest.mark.parametrize("name", ["a.mp4", "a.webp"])
def test_a_speed_that_no_player_has_is_refused(tmp_path: Path, name: str, fps: float) -> None:
    with pytest.raises(InputError, match=r"The speed was refused.*Give 0\.1 to 240"):
        video.save(untouched(), tmp_path / name, fps=fps)
    with pytest.raises(InputError, match="The speed was refused"):
        video.check_suffix(tmp_path / name, fps)
    assert names(tmp_path) == []


def test_without_pyav_the_command_that_brings_it_is_said_and_webp_still_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        InputError, match=r"pip install 'gan-toolchain\[video\]', or write a \.webp"
    ):
        video.save(untouched(), tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"No \.mp4 can be written here"):
        video.check_suffix(tmp_path / "a.mp4", 30)
    assert names(tmp_path) == []
    assert video.save(film(2), tmp_path / "a.webp") == 2


def test_importing_the_file_loads_neither_pyav_nor_pillow() -> None:
    code = "import sys, gan.runtime.video; print({'av', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Failures in the middle.


@pytest.fixture(params=["walk.mp4", "walk.webp"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.write_bytes(b"old")
    return path


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("after", [0, 1, 30])
def test_an_iterator_that_fails_leaves_the_old_file_alone(
    target: Path, error: type[BaseException], after: int
) -> None:
    def frames() -> Iterator[Pixels]:
        yield from film(after)
        raise error("planted")

    with pytest.raises(error, match="planted"):
        video.save(frames(), target)
    assert target.read_bytes() == b"old" and names(target.parent) == [target.name]
    target.unlink()
    with pytest.raises(error, match="planted"):
        video.save(frames(), target)
    assert names(target.parent) == []


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((32, 48, 2), np.uint8), np.zeros((32, 48), np.uint8), np.zeros((32, 48, 3), np.float32),
        np.zeros((0, 48, 3), np.uint8), np.zeros((2, 32, 48, 3), np.uint8),
    ],
    ids=lambda bad: f"{bad.dtype} {bad.shape}",
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 2])
def test_a_frame_that_is_no_image_leaves_the_old_file_alone(
    target: Path, bad: NDArray[Any], place: int
) -> None:
    frames: list[Any] = film(4)
    frames[place] = bad
    with pytest.raises(Exception):  # noqa: B017 which one, the next test says
        video.save(frames, target)
    assert target.read_bytes() == b"old" and names(target.parent) == [target.name]


def test_a_full_disk_leaves_the_old_file_alone(target: Path) -> None:
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from gan.runtime import video\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "rng = np.random.default_rng(0)\n"
        "frames = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(60)]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: video.save(frames, sys.argv[1])\n"
        "except OSError as error: print(type(error).__name__, error.errno)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["StorageError", str(errno.EFBIG)]
    assert target.read_bytes() == b"old" and names(target.parent) == [target.name]


def test_a_folder_that_is_not_there_is_an_error_before_a_frame_is_taken(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.webp"):
        with pytest.raises(StorageError, match="No such file"):
            video.save(untouched(), tmp_path / "no" / name)


def test_a_film_of_no_frames_is_refused_and_leaves_the_old_file_alone(target: Path) -> None:
    with pytest.raises(InputError):
        video.save([], target)
    assert target.read_bytes() == b"old" and names(target.parent) == [target.name]


def test_frames_of_two_sizes_are_refused_and_leave_the_old_file_alone(target: Path) -> None:
    with pytest.raises(InputError):
        video.save([flat(COLOURS[0]), flat(COLOURS[1], 16, 16)], target)
    assert target.read_bytes() == b"old" and names(target.parent) == [target.name]


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((32, 48), np.uint8),
        np.zeros((32, 48, 3), np.float32),
        np.zeros((32, 48, 2), np.uint8),
    ],
)
def test_a_frame_that_is_no_image_is_an_input_error(target: Path, bad: NDArray[Any]) -> None:
    with pytest.raises(InputError, match="not an image"):
        video.save([bad], target)
