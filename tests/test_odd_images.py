"""Each odd image and archive of the README's table gets the answer that stands there, and no more memory or time."""

from __future__ import annotations

import json
import logging
import os
import re
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gan.cli import app
from gan.runtime import InputError, pictures
from gan.runtime.errors import DatasetError
from gan.trainer.data import load_dataset
from gan.trainer.dataset import Dataset
from gan.trainer.preparation import Preparation
from gan.trainer.request import Request, plan

from .odd_images import (
    CLASSES,
    GOOD,
    JPEG,
    NOT_TEXT,
    SCRIPTS,
    SIZE,
    OddFile,
    OddPlace,
    Pixels,
    odd_files,
    odd_places,
)
from .runtime.translating import translating_model
from .trainer.conftest import encoded, picture, write_folder, write_zip

TORTURE = os.environ.get("GAN_TORTURE") == "1"
README = (Path(__file__).parent.parent / "README.md").read_text()
FILES, PLACES = odd_files(), odd_places()
MORE = {  # by the test that holds it
    "test_a_file_beyond_the_size_limit_is_refused_unread": (
        "a file of more than 256 MiB, or of more than 1 GiB",
        ("skipped: more than 256 MiB", "refused: more than 1024 MiB"),
    ),
    "test_what_changes_while_it_is_read_is_skipped": (
        "what changes while it is read",
        ("skipped: damaged in the zip, no such file, changed while it was read", "-"),
    ),
    "test_a_zip_of_a_million_images_is_listed_in_bounded_memory_and_time": (
        "a zip of a million images",
        ("used; its list takes 1.2 GB at most", "-"),
    ),
}
runner = CliRunner()


@pytest.fixture(autouse=True)
def _forbidden_for_root_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named `forbidden` or `locked` may not be opened or listed, whoever runs the tests."""

    def opened(path: Path, *more: Any) -> Any:
        if "forbidden" in Path(path).name:
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, *more)

    def scanned(path: Any = ".") -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    scandir = os.scandir
    monkeypatch.setattr(pictures, "open", opened, raising=False)
    monkeypatch.setattr(os, "scandir", scanned)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "plain.onnx"
    path.write_bytes(translating_model(scale=1))
    return path


def load(path: str, **options: Any) -> Dataset:
    return load_dataset(path, **{"resolution": SIZE, "fit": "crop", "channels": 3, **options})


def rows() -> dict[str, tuple[str, str]]:
    cases: list[OddFile | OddPlace] = [*FILES, *PLACES]
    return {case.what: (case.training, case.runtime or "-") for case in cases} | {
        what: answers for what, answers in MORE.values()
    }


def test_the_readme_has_these_answers() -> None:
    """To write them anew: `python -m gan.tests.test_odd_images`."""
    section = README.partition("## Images that are odd")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert {what: tuple(answers) for what, *answers in lines if what != "what"} == rows()
    assert len(lines) == len(rows()) + 1
    assert MORE.keys() <= globals().keys()


# One file.


def write(root: Path, case: OddFile) -> list[Path]:
    return [put(root / name, content) for name, content in case.files.items()]


def put(path: Path, content: bytes | Callable[[Path], object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    return path


def close(made: Pixels, case: OddFile) -> bool:
    assert case.pixels is not None and made.shape == case.pixels.shape
    return bool(np.abs(made.astype(int) - case.pixels).max() <= (6 if case.lossy else 1))


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.what)
def test_a_file_amid_training_data(
    tmp_path: Path, case: OddFile, caplog: pytest.LogCaptureFixture
) -> None:
    good = {f"~{name}": data for name, data in GOOD.items()}  # behind all others
    for name, content in case.files.items():
        root = tmp_path / "".join(name.split("."))
        write_folder(root, good)
        put(root / name, content)
        caplog.clear()
        with caplog.at_level(logging.INFO, "gan.trainer"):
            data = load(str(root))
        if case.training.startswith("used"):
            assert len(data) == 5 and not data.skipped and not caplog.messages
            assert case.pixels is not None
            middle = case.pixels[:, (case.pixels.shape[1] - len(case.pixels)) // 2 :][:, :SIZE]
            expected = np.broadcast_to(middle, (SIZE, SIZE, 3)).astype(int)
            off = np.abs(data.samples[0].transpose(1, 2, 0) - expected).max()
            assert off <= (6 if case.lossy else 1)
        else:
            reason = case.training.removeprefix("skipped: ")
            assert len(data) == 4 and data.skipped == {reason: 1}
            told = f"Skipped 1 of 5 images: 1 x {reason} ({name})"
            assert caplog.messages == [told]
            for other in good:
                (root / other).unlink()
            with pytest.raises(DatasetError, match="holds no usable image") as caught:
                load(str(root))
            assert reason in caught.value.seen


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.what)
def test_a_file_given_to_the_runtime(tmp_path: Path, case: OddFile) -> None:
    for path in write(tmp_path, case):
        if case.runtime.startswith("used"):
            picture = pictures.read(path)
            made = picture.pixels(3)
            if picture.alpha is not None:
                assert "alpha" in case.runtime
                made = np.where(picture.alpha[..., None] > 0, made, 255).astype(np.uint8)
            assert close(made, case)
        else:
            with pytest.raises(InputError) as caught:
                pictures.read(path)
            assert caught.value.seen == case.runtime.removeprefix("refused: ")
            assert caught.value.failed == f"{path} cannot be read" and caught.value.repair


def test_translate_makes_all_that_can_be_used_and_names_the_rest(
    tmp_path: Path, model: Path
) -> None:
    used, refused = list[Path](), list[Path]()
    for case in FILES:
        for name, content in case.files.items():
            number = len(used) + len(refused)
            path = put(tmp_path / "in" / f"{number}" / name, content)
            (used if case.runtime.startswith("used") else refused).append(path)
    result = runner.invoke(
        app, ["translate", str(model), str(tmp_path / "in"), str(tmp_path / "out")]
    )
    assert result.exit_code == 1, result.output
    assert f"Wrote {len(used)} images" in result.output
    assert (
        f"{len(refused)} of {len(used) + len(refused)} images were not translated" in result.output
    )
    assert len(list((tmp_path / "out").rglob("*.png"))) == len(used)
    assert "Warning" not in result.output and "Traceback" not in result.output


def test_20_000_pixels_a_row_need_a_choice_and_no_enormous_square(tmp_path: Path) -> None:
    (case,) = [case for case in FILES if case.what.startswith("20,000")]
    path = write_folder(tmp_path, {"a.png": case.files["a.png"]})  # type: ignore[dict-item]
    with pytest.raises(DatasetError, match=r"is not square\. 20000 x 16 pixels.*--fit"):
        load(path, fit=None)
    for fit in ("pad", "stretch"):
        assert load(path, fit=fit).samples.max() > 150
    assert len(load(path, fit="tiles")) == 20_000 // SIZE


def test_a_file_beyond_the_size_limit_is_refused_unread(tmp_path: Path) -> None:
    root = Path(write_folder(tmp_path, GOOD))
    with open(root / "huge.png", "wb") as file:
        file.write(JPEG)
        file.truncate((256 << 20) + 1)  # of holes
        assert load(str(root)).skipped == {"more than 256 MiB": 1}
        pictures.read(root / "huge.png")
        file.truncate((1 << 30) + 1)
    with pytest.raises(InputError, match="more than 1024 MiB"):
        pictures.read(root / "huge.png")


# Folders and archives.


@pytest.mark.parametrize("case", PLACES, ids=lambda case: case.what)
def test_a_place_as_training_data(
    tmp_path: Path, case: OddPlace, caplog: pytest.LogCaptureFixture
) -> None:
    path, answer = case.make(tmp_path), case.training
    with caplog.at_level(logging.WARNING, "gan.trainer"):
        if answer.startswith("`DatasetError`"):
            with pytest.raises(DatasetError) as caught:
                plan(Request(data=path, out=tmp_path / "run", given={"fit": "crop"}))
            assert answer.removeprefix("`DatasetError`: ") in str(caught.value)
            assert caught.value.seen and caught.value.repair
            return
        data = load(path)
    assert len(data) == case.kept
    assert set(data.classes) == {c.replace("e\u0301\u0323", "\u1eb9\u0301") for c in case.classes}
    if answer.startswith("told of: "):
        (line,) = caplog.messages
        assert answer.removeprefix("told of: ") in line and not data.skipped
    elif answer.startswith("skipped: "):
        assert data.skipped == {answer.removeprefix("skipped: "): 1}
    elif answer.endswith("shown with escapes"):
        (line,) = caplog.messages
        assert line.isprintable() and all(
            shown in line
            for shown in (r"two\nlines2.png", r"\u001b[31mred2.png", r"caf\udce92.png")
        )
    else:
        assert answer.startswith(("used", "left out"))
        assert not data.skipped and not caplog.messages


@pytest.mark.parametrize(
    "case", [case for case in PLACES if case.runtime], ids=lambda case: case.what
)
def test_a_place_given_to_translate(tmp_path: Path, case: OddPlace, model: Path) -> None:
    path, out = case.make(tmp_path), tmp_path / "out"
    result = runner.invoke(app, ["translate", str(model), path, str(out)])
    written = [name for name in out.rglob("*") if name.is_file()]
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert len(written) == case.kept, result.output
    fails = "exit code 1" in case.runtime or "escapes" in case.runtime
    assert result.exit_code == (1 if fails or case.runtime.startswith("refused") else 0), (
        result.output
    )
    told = case.runtime.partition(": ")[2]
    assert told in result.output
    assert all(line.isprintable() for line in result.output.splitlines())


def test_a_folder_that_may_not_be_listed_is_an_error(tmp_path: Path, model: Path) -> None:
    path = write_folder(tmp_path / "locked", GOOD)
    with pytest.raises(DatasetError, match=r"locked cannot be used as data\. Permission denied"):
        load(path)
    result = runner.invoke(app, ["translate", str(model), path, str(tmp_path / "out")])
    assert result.exit_code == 1 and "Permission denied" in result.output


@pytest.mark.parametrize(
    "name", ["/etc/a.png", "C:a.png", "c:/a.png", "a/../../a.png", "\\\\host\\a.png", "..\\a.png"]
)
def test_names_that_leave_a_zip_are_refused_in_every_form(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="absolute or parent paths"):
        load(write_zip(tmp_path / "a.zip", {**GOOD, name: GOOD["good1.png"]}))


def test_a_time_in_a_name_is_no_drive(tmp_path: Path) -> None:
    assert len(load(write_zip(tmp_path / "a.zip", {"9:30.png": GOOD["good1.png"]}))) == 1


def fewer(images: int, batch: int) -> str:
    return (
        f"gan: {images} images, fewer than the {batch} of a batch: some come more than once in one"
    )


def test_fewer_images_than_a_batch_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_folder(tmp_path / "few", GOOD)
    words = [
        "--resolution",
        "8",
        "--set",
        "width=4",
        "--threads",
        "1",
        "--batch-size",
        "16",
        "--steps",
        "2",
    ]
    result = runner.invoke(app, ["train", path, *words])
    assert result.exit_code == 0, result.output
    assert Path("runs/dcgan-few/model.pt").is_file()
    assert fewer(4, 16) in result.output.splitlines()


@pytest.mark.parametrize("zipped", [False, True])
def test_what_changes_while_it_is_read_is_skipped(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the look at the headers: tiles are counted by then, and there is no room for more."""
    run = Preparation._fill
    make: Any = write_zip if zipped else write_folder
    large = {f"good{i}.png": encoded(picture(i, SIZE * 8)) for i in range(4)}
    path = make(tmp_path / ("in.zip" if zipped else "in"), large if zipped else GOOD)

    def changed(self: Any, *more: Any) -> Any:
        if zipped:
            raw = bytearray(Path(path).read_bytes())
            start = raw.index(b"IDAT")
            raw[start + 8 : start + 40] = bytes(32)
            Path(path).write_bytes(raw)
        else:
            Path(path, "good0.png").unlink()
            Image.new("RGB", (SIZE * 9, SIZE * 9)).save(Path(path, "good1.png"))
        return run(self, *more)

    monkeypatch.setattr(Preparation, "_fill", changed)
    data = load(path, fit="tiles")
    if zipped:
        assert data.skipped == {"damaged in the zip": 1} and len(data) == 3 * 64
    else:
        assert data.skipped == {"no such file": 1, "changed while it was read": 1}
        assert len(data) == 2


def test_pairs_with_names_of_any_script_match_and_are_told_legibly(tmp_path: Path) -> None:
    names = [name for name in CLASSES if "cat" in name]
    good = {n.replace("cat", NOT_TEXT[1]): CLASSES[n] for n in names}
    photos = write_folder(tmp_path / "photos", good)
    drawings = write_folder(tmp_path / "drawings", good)
    assert len(load(photos, source=drawings, arrangement="pairs")) == 2
    Path(drawings, next(iter(good))).unlink()
    with pytest.raises(DatasetError, match="no other image of the pair") as caught:
        load(photos, source=drawings, arrangement="pairs")
    assert str(caught.value).isprintable()


# Memory and time, in processes that have not loaded torch.

BEGIN = """
import json, resource, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from gan.runtime import pictures
from gan.trainer.decode import decode, prepare
from gan.trainer.sources import open_source

def status(name):
    return int(Path("/proc/self/status").read_text().partition(name + ":")[2].split()[0]) << 10

def measured(action, path):
    "The answer, seconds of the processor, and bytes that it took at most."
    Path("/proc/self/clear_refs").write_text("5")
    before, begin, answer = status("VmRSS"), time.process_time(), "used"
    try:
        action(path)
    except ValueError as error:  # as all that is said of bad input
        answer = str(error)
    return answer, time.process_time() - begin, status("VmHWM") - before

def trained_on(path):
    prepare(decode(Path(path).read_bytes(), 3), 16, "pad")

def cut_up(path):
    prepare(decode(Path(path).read_bytes(), 3), 64, "tiles")

found = {}
"""


def child(code: str, *arguments: object, seconds: float = 120) -> dict[str, Any]:
    """What the code leaves in `found`."""
    made = subprocess.run(
        [sys.executable, "-c", f"{BEGIN}{textwrap.dedent(code)}\nprint(json.dumps(found))"]
        + [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    result: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return result


def test_what_is_refused_or_small_takes_little_memory_and_time(tmp_path: Path) -> None:
    """With 256 MiB more than at the start, where some of these files could have asked for gigabytes."""
    names, places = list[str](), list[str]()
    for number, case in enumerate(FILES):
        made = write(tmp_path / f"{number}", case)
        names += [str(path) for path in made if path.is_file()]
    for number, place in enumerate(PLACES):
        (tmp_path / f"place{number}").mkdir()
        places.append(place.make(tmp_path / f"place{number}"))
    (tmp_path / "list.json").write_text(json.dumps([names, places]))
    found = child(
        """
        names, places = json.loads(Path(sys.argv[1]).read_text())
        room = status("VmSize") + (256 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        def looked_into(path):
            source = open_source(path)
            for item in source.items:
                source.read(item)
        for action, paths in ((pictures.read, names), (trained_on, names), (looked_into, places)):
            found |= {f"{action.__name__} {path}": measured(action, path) for path in paths}
        """,
        tmp_path / "list.json",
    )
    assert len(found) == 2 * len(names) + len(places)
    for what, (answer, seconds, grown) in found.items():
        assert "memory" not in answer, (what, answer)
        assert seconds < 5 and grown < 256 << 20, (what, answer, seconds, grown)


@pytest.mark.torture
def test_mutants_of_all_these_files_are_read_or_refused(tmp_path: Path) -> None:
    """In 1.6 GiB, as much as an honest image of 64 million pixels takes. 400 mutants, with GAN_TORTURE=1 20,000."""
    for number, case in enumerate(FILES):
        write(tmp_path / "seeds" / f"{number}", case)
    found = child(
        """
        import random, struct, zlib
        from gan.trainer.decode import ImageRefused, channels_of, size_of

        def mended(data):
            "With the sums of a PNG's chunks as they should be, for else it is not looked into."
            made, place = bytearray(data), 8
            while data[1:4] == b"PNG" and place + 12 <= len(data):
                end = place + 8 + struct.unpack_from(">I", data, place)[0]
                if end + 4 > len(data):
                    break
                struct.pack_into(">I", made, end, zlib.crc32(data[place + 4 : end]))
                place = end + 4
            return bytes(made)

        room = status("VmSize") + (1600 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        files = [path for path in sorted(Path(sys.argv[1]).rglob("*")) if path.is_file()]
        seeds = [data for data in (path.read_bytes() for path in files) if 20 < len(data) < 50_000]
        values = (0, 1, 2, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 8000, 20000, 1 << 24)
        dice, slowest = random.Random(1), 0.0
        for _ in range(int(sys.argv[2])):
            data = bytearray(dice.choice(seeds))
            for _ in range(dice.randint(1, 4)):
                place, size = dice.randrange(min(len(data), 600)), dice.choice((1, 2, 4, 8))
                value = dice.choice(values) if dice.random() < 0.7 else dice.getrandbits(64)
                value &= (1 << 8 * size) - 1
                data[place : place + size] = value.to_bytes(size, dice.choice(("little", "big")))
            begin, answer = time.process_time(), "used"
            try:
                data = mended(bytes(data))
                channels_of(data), size_of(data)
                prepare(decode(data, 3), 16, "pad")
            except ImageRefused as error:
                answer = error.reason
            slowest = max(slowest, time.process_time() - begin)
            found[answer] = found.get(answer, 0) + 1
        found["slowest"] = slowest
        """,
        tmp_path / "seeds",
        20_000 if TORTURE else 400,
        seconds=1_000,
    )
    assert found.pop("slowest") < 10
    assert sum(found.values()) == (20_000 if TORTURE else 400)
    assert found["used"] > 50 and found["damaged"] > 50 and len(found) > 4
    assert not [reason for reason in found if "memory" in reason]


LARGE: dict[str, Callable[[Image.Image, Path], None]] = {
    "rgba.png": lambda image, path: image.save(path, compress_level=1),
    "rgba.webp": lambda image, path: image.save(path, quality=10, method=0),
    "cmyk.jpg": lambda image, path: image.convert("CMYK").save(path, quality=30, progressive=True),
    "palette.gif": lambda image, path: image.convert("P").save(path, transparency=0),
    "deep.png": lambda image, path: Image.fromarray(
        np.asarray(image.convert("L")).astype(np.uint16) * 257
    ).save(path, compress_level=1),
    "float.tif": lambda image, path: image.convert("F").save(path),
}


@pytest.mark.torture
def test_a_large_image_takes_at_most_24_bytes_a_pixel(tmp_path: Path) -> None:
    """While one is decoded and made smaller: 1.5 GB of 64 million pixels. GAN_TORTURE=1: of so many, else of 4."""
    side = 8_000 if TORTURE else 2_000
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 4), np.uint8)
    image = Image.fromarray(np.tile(noise, (side // 100, side // 100, 1)))
    for name, save in LARGE.items():
        save(image, tmp_path / name)
    paths = [tmp_path / name for name in LARGE]
    found = child(
        """
        for path in sys.argv[1:]:
            for action in (trained_on, cut_up, pictures.read):
                found[f"{action.__name__} {path}"] = measured(action, path)
        """,
        *paths,
        seconds=500,
    )
    most = 24 * side * side + (8 << 20)
    for path in paths:
        for how in ("trained_on", "cut_up", "read"):
            answer, seconds, grown = found[f"{how} {path}"]
            assert answer == "used" and seconds < 60, (path, how, answer, seconds)
            assert grown < most + path.stat().st_size, (path, how, grown / side / side)


def crowded_zip(path: Path, count: int) -> None:
    """So many members of 80 bytes, and a directory of zip64's kind."""
    data = encoded(picture(0, 4, 1))
    check, size, places, start = zlib.crc32(data), len(data), list[bytes](), 0
    with open(path, "wb") as file:
        for number in range(count):
            name = b"%d/%07d.png" % (number % 10, number)
            about = struct.pack("<HHHHIIIHH", 0, 0, 0, 33, check, size, size, len(name), 0)
            local = b"PK\x03\x04" + struct.pack("<H", 20) + about + name + data
            file.write(local)
            places.append(
                b"PK\x01\x02"
                + struct.pack("<HH", 20, 20)
                + about
                + struct.pack("<HHHII", 0, 0, 0, 0, start)
                + name
            )
            start += len(local)
        directory = b"".join(places)
        file.write(directory)
        end = (44, 45, 45, 0, 0, count, count, len(directory), start)
        file.write(struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", *end))
        file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, start + len(directory), 1))
        file.write(
            struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
        )


@pytest.mark.torture
def test_a_zip_of_a_million_images_is_listed_in_bounded_memory_and_time(tmp_path: Path) -> None:
    """GAN_TORTURE=1: a million, else 50,000; at most 1.2 KB and 100 us each."""
    count = 1_000_000 if TORTURE else 50_000
    crowded_zip(tmp_path / "a.zip", count)
    found = child(
        """
        def listed(path):
            source = open_source(path)
            found["count"], found["classes"] = len(source.items), len(source.classes)
            found["first"] = len(source.read(source.items[0]))
        found["cost"] = measured(listed, sys.argv[1])
        """,
        tmp_path / "a.zip",
        seconds=600,
    )
    assert (found["count"], found["classes"]) == (count, 10) and found["first"] < 100
    _, seconds, grown = found["cost"]
    assert grown < 1_200 * count + (16 << 20) and seconds < count * 100e-6 + 2


def test_classes_in_any_script_are_the_same_in_a_zip(tmp_path: Path) -> None:
    names = [name for name in SCRIPTS if "\\" not in name]  # which is a slash in zips
    files = {f"{name}/{i}.png": GOOD[f"good{i}.png"] for name in names for i in range(2)}
    folder, zipped = write_folder(tmp_path / "a", files), write_zip(tmp_path / "a.zip", files)
    assert load(folder).classes == load(zipped).classes and len(load(zipped).classes) == len(names)
    assert load(folder).digest == load(zipped).digest


# As a user sees it.


def test_the_command_tells_of_what_it_skips_in_a_few_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, case in enumerate(FILES):
        write(Path("in", f"{number}"), case)
    for name in ("a.heic", "notes.txt", ".hidden.png"):
        Path("in", name).write_bytes(b"x")
    result = runner.invoke(app, ["train", "in", "--dry-run", "--fit", "crop", "--no-labels"])
    assert result.exit_code == 0 and "Traceback" not in result.output, result.output
    told = [line for line in result.output.splitlines() if line.startswith("gan: ")]
    bad = [name for case in FILES if case.training.startswith("skipped") for name in case.files]
    total = sum(len(case.files) for case in FILES)
    assert (
        told[0]
        == "gan: Skipped files of kinds that are not read: 1 x .heic (convert or unpack them)"
    )
    assert told[1].startswith(f"gan: Skipped {len(bad)} of {total} images: ")
    assert told[2:] == [fewer(total - len(bad), 64)]
    assert re.search(rf"^samples +{total - len(bad)}$", result.output, re.MULTILINE)


if __name__ == "__main__":
    print("| what | in training data | given to `gan translate` or the runtime |\n|---|---|---|")
    for what, answers in rows().items():
        print(f"| {what} | {' | '.join(answers)} |")
