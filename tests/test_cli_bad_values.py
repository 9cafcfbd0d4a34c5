"""Every option of every command against odd texts: done where it must be, else one line and exit code 1, or usage and 2.

An option without a case here fails a test. A normal run gives each option a few of the texts, and each text to some
option; GAN_TORTURE=1 gives all to all, and draws 1,000 more cases instead of 40. A text with NUL is left out: no system
hands one to a program.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from gan.cli import app

from . import odd
from .odd import TEXTS
from .runtime import test_styles
from .runtime.conftest import tiny_model
from .runtime.translating import translating_model

TORTURE = os.environ.get("GAN_TORTURE") == "1"
FEW = 3  # texts of an option in a normal run
MIB, SEED = 2**20, 2**64 - 1
NUMBERS = ["nan", "inf", "-inf", "1e309", "-1", "-0.0", "0", "0.5", "1", "2.5", "3", "8", "5e-324", "1e-400", f"{10**9}",
           f"{10**18}", f"{2**63}", f"{2**64 - 1}", f"{2**64}", f"{10**400}", "1_0", "0x10", "1e3", "3,3", "3x3x3",
           "true", "null", "$HOME", "%s", "{}", "-", "a=b", "=", "a=", "\udcff"]  # fmt: skip
ALL = {repr(text)[:30]: text for text in NUMBERS}
ALL |= {name: make() for name, make in TEXTS.items() if "\0" not in make()}
runner = CliRunner()
Takes = Callable[[str], bool | None]


def as_written(text: str) -> bool | None:
    """None for a number that is written oddly: what is taken there is a matter of typer's version."""
    plain = text.isascii() and all(c in "0123456789.e-" for c in text) and text != "-0.0"
    return True if plain else None


def number(low: float, high: float, *, above: bool = False, below: bool = False) -> Takes:
    def takes(text: str) -> bool | None:
        try:
            value = float(text)
        except ValueError:
            return False
        ends = (above and value == low) or (below and value == high)
        return as_written(text) if low <= value <= high and not ends else False

    return takes


def whole(low: int, high: int) -> Takes:
    within = number(low, high)

    def takes(text: str) -> bool | None:
        if text.isascii() and text.isdecimal():  # a float would round it
            return len(text) < 400 and low <= int(text) <= high
        return None if within(text) is not False and float(text).is_integer() else False

    return takes


def either(*texts: str) -> Takes:
    return lambda text: text in texts


def never(text: str) -> bool:
    return False


def any_text(text: str) -> bool:
    return text != ""


def unspecified(text: str) -> None:
    """Done or refused, as long as it is either."""


def place(text: str) -> bool:
    """What can be the name of a file or a folder."""
    try:
        return (
            all(len(part.encode(errors="surrogateescape")) < 256 for part in text.split("/"))
            and text != ""
        )
    except UnicodeEncodeError:
        return False


def label(*names: str) -> Takes:
    return lambda text: text in names or text in [str(i) for i in range(len(names))]


@dataclass(frozen=True)
class Option:
    """takes: the texts with which the command is done; reached: what it then says, where it cannot be done here.

    base: the rest of the command line. first: the text stands for an argument, after these words.
    """

    takes: Takes
    base: str = ""
    reached: str = ""


TRAIN = "train photos --resolution 8 --set width=4 --batch-size 4 --threads 1 --dry-run"
SAMPLE = "sample model.onnx --grid g.png --seed 0 --device cpu"
MIX = "sample styled.onnx --grid g.png --seed 0 --mix 2x2 --device cpu"
WAY = "interpolate model.onnx way.webp --from 1 --to 2 --frames 2 --device cpu"
MADE = "translate made.onnx in.png out.png --device cpu"
EXPORT, LOST = "export nowhere.pt new.onnx", "nowhere.pt cannot be read"
BENCH, NONE = "bench nowhere.onnx", "nowhere.onnx cannot be read"
ADOPT = "adopt nowhere.pth new.pt"
# As a shell would split them; {} stands for the text, where it is not the value of the option at the end.
CASES: dict[str, Option] = {
    "train.data": Option(never, "train {} --dry-run"),
    "train.source": Option(never, f"{TRAIN} --source"),
    "train.system": Option(never, f"{TRAIN} --system"),
    "train.resolution": Option(whole(8, 10), f"{TRAIN} --resolution"),
    "train.channels": Option(either("1", "3"), f"{TRAIN} --channels"),
    "train.fit": Option(never, f"{TRAIN} --fit"),
    "train.crop": Option(whole(8, 8), f"{TRAIN} --crop"),
    "train.zoom": Option(number(1, 1), f"{TRAIN} --zoom"),
    "train.steps": Option(whole(1, 10**9), f"{TRAIN} --steps"),
    "train.minutes": Option(number(0, 1e7, above=True), f"{TRAIN} --minutes"),
    "train.batch_size": Option(whole(1, 2**24 - 1), f"{TRAIN} --batch-size"),
    "train.seed": Option(whole(0, SEED), f"{TRAIN} --seed"),
    "train.loss": Option(never, f"{TRAIN} --loss"),
    "train.r1": Option(number(0, 1e9), f"{TRAIN} --r1"),
    "train.r2": Option(number(0, 1e9), f"{TRAIN} --r2"),
    "train.gp": Option(number(0, 1e9), f"{TRAIN} --gp"),
    "train.augment": Option(never, f"{TRAIN} --augment"),
    "train.ada": Option(number(0, 1, below=True), f"{TRAIN} --ada"),
    "train.unroll": Option(whole(0, 100), f"{TRAIN} --unroll"),
    "train.ema_decay": Option(number(0, 1, below=True), f"{TRAIN} --ema-decay"),
    "train.settings": Option(never, f"{TRAIN} --set"),
    "train.out": Option(place, f"{TRAIN} --out"),
    "train.accept": Option(any_text, f"{TRAIN} --accept"),
    "train.checkpoint_every": Option(whole(1, 10**9), f"{TRAIN} --checkpoint-every"),
    "train.keep": Option(whole(0, 10**9), f"{TRAIN} --keep"),
    "train.sample_every": Option(whole(1, 10**9), f"{TRAIN} --sample-every"),
    "train.measure_every": Option(whole(1, 10**9), f"{TRAIN} --measure-every"),
    "train.threads": Option(whole(1, 1024), f"{TRAIN} --threads"),
    "train.device": Option(never, f"{TRAIN} --device"),
    "train.workers": Option(whole(1, 256), f"{TRAIN} --workers"),
    "systems.name": Option(never, "systems {}"),
    "systems.template": Option(never, "systems --template"),
    "adopt.weights": Option(never, "adopt {} new.pt"),
    "adopt.output": Option(never, "adopt nowhere.pth {}"),
    "adopt.key": Option(never, f"{ADOPT} --key"),
    "adopt.statistics": Option(never, f"{ADOPT} --statistics"),
    "export.checkpoint": Option(never, "export {} new.onnx"),
    "export.output": Option(never, "export nowhere.pt {}"),
    "export.graph": Option(any_text, f"{EXPORT} --graph", LOST),
    "export.image": Option(never, f"{EXPORT} --output", LOST),
    "export.opset": Option(whole(18, 23), f"{EXPORT} --opset", LOST),
    "export.max_batch": Option(whole(1, 4096), f"{EXPORT} --max-batch", LOST),
    "export.target": Option(never, f"{EXPORT} --target", LOST),
    "export.precision": Option(never, f"{EXPORT} --precision", LOST),
    "export.samples": Option(whole(1, 1_000_000), f"{EXPORT} --samples", LOST),
    "export.system": Option(place, f"{EXPORT} --system", LOST),
    "export.accept": Option(any_text, f"{EXPORT} --accept", LOST),
    "sample.model": Option(never, "sample {} --grid g.png"),
    "sample.count": Option(whole(1, 10**7), f"{SAMPLE} --count"),
    "sample.seed": Option(whole(0, SEED), "sample model.onnx --grid g.png --seed"),
    "sample.start": Option(whole(0, SEED - 15), f"{SAMPLE} --start"),
    "sample.label": Option(label("1", "2", "10"), f"{SAMPLE} --label"),
    "sample.truncation": Option(number(0, 1), f"{SAMPLE} --truncation"),
    "sample.noise": Option(never, f"{SAMPLE} --noise"),
    "sample.mix": Option(never, "sample styled.onnx --grid g.png --seed 0 --mix"),
    "sample.layers": Option(whole(1, 3), f"{MIX} --layers"),
    "sample.out": Option(place, "sample model.onnx --seed 0 --count 1 --out"),
    "sample.format": Option(never, "sample model.onnx --seed 0 --out made --format"),
    "sample.grid": Option(never, "sample model.onnx --seed 0 --grid"),
    "sample.columns": Option(whole(1, 1_000), f"{SAMPLE} --columns"),
    "sample.device": Option(never, f"{SAMPLE} --device"),
    "sample.threads": Option(whole(1, 1024), f"{SAMPLE} --threads"),
    "sample.memory_limit": Option(
        whole(1, 2**43 - 1), "sample model.onnx --grid g.png --seed 0 --memory-limit"
    ),
    "interpolate.model": Option(never, "interpolate {} way.webp --from 1 --to 2"),
    "interpolate.output": Option(never, "interpolate model.onnx {} --from 1 --to 2"),
    "interpolate.first": Option(whole(0, SEED), f"{WAY} --from"),
    "interpolate.last": Option(whole(0, SEED), f"{WAY} --to"),
    "interpolate.frames": Option(whole(2, 100_000), f"{WAY} --frames"),
    "interpolate.space": Option(never, f"{WAY} --space"),
    "interpolate.label": Option(label("1", "2", "10"), f"{WAY} --label"),
    "interpolate.truncation": Option(number(0, 1), f"{WAY} --truncation"),
    "interpolate.fps": Option(number(0.1, 240), f"{WAY} --fps"),
    "interpolate.columns": Option(
        whole(1, 1_000), "interpolate model.onnx way.png --from 1 --to 2 --frames 2 --columns"
    ),
    "interpolate.device": Option(never, f"{WAY} --device"),
    "interpolate.threads": Option(whole(1, 1024), f"{WAY} --threads"),
    "translate.model": Option(never, "translate {} in.png out.png"),
    "translate.source": Option(never, "translate made.onnx {} out.png"),
    "translate.target": Option(never, "translate made.onnx in.png {}"),
    "translate.label": Option(label("dusk", "night"), f"{MADE} --label"),
    "translate.mask": Option(never, f"{MADE} --mask"),
    "translate.tile": Option(whole(1, 2**20), f"{MADE} --tile"),
    "translate.overlap": Option(whole(0, 2**20), f"{MADE} --tile 2 --overlap"),
    "translate.seed": Option(whole(0, SEED), f"{MADE} --seed"),
    "translate.format": Option(never, "translate made.onnx photos made --format"),
    "translate.device": Option(never, f"{MADE} --device"),
    "translate.threads": Option(whole(1, 1024), f"{MADE} --threads"),
    "translate.memory_limit": Option(
        whole(1, 2**43 - 1), "translate made.onnx in.png out.png --memory-limit"
    ),
    "inspect.file": Option(never, "inspect {}"),
    "inspect.device": Option(never, "inspect model.onnx --graph --device"),
    "inspect.threads": Option(whole(1, 1024), "inspect model.onnx --graph --device cpu --threads"),
    "bench.model": Option(never, "bench {}"),
    "bench.against": Option(lambda text: True if text.isprintable() and text else None, f"{BENCH} --against", NONE),
    "bench.batch": Option(
        lambda text: all(part.strip().isdecimal() and part.isascii() and len(part) < 5 and 1 <= int(part) <= 4096
                         for part in text.split(",")),
        f"{BENCH} --batch", NONE,
    ),
    "bench.seconds": Option(number(0.01, 3600), f"{BENCH} --seconds", NONE),
    "bench.starts": Option(whole(0, 1000), f"{BENCH} --starts", NONE),
    "bench.system": Option(any_text, f"{BENCH} --system", NONE),
    "bench.device": Option(unspecified, f"{BENCH} --device"),
    "bench.threads": Option(unspecified, f"{BENCH} --threads"),
    "bench.plot": Option(never, f"{BENCH} --plot", NONE),
    "doctor.device": Option(never, "doctor --device"),
}  # fmt: skip


def options() -> Iterator[str]:
    """Every option and argument that has a value, as command.name."""
    root: Any = typer.main.get_command(app)
    for command, about in root.commands.items():
        for parameter in about.params:
            if not getattr(parameter, "is_flag", False):
                yield f"{command}.{parameter.name}"


def test_every_option_of_every_command_has_a_case() -> None:
    assert set(CASES) == set(options())


@cache
def furniture() -> dict[str, bytes]:
    return {
        "model.onnx": tiny_model(truncation=True),
        "styled.onnx": tiny_model(),
        "styled.mapping.onnx": test_styles.mapping_model(),
        "styled.synthesis.onnx": test_styles.synthesis_model(),
        "made.onnx": translating_model(label=True, latent=True),
    }


def furnish(folder: Path) -> None:
    """Models, an image, and a folder of images."""
    for name, data in furniture().items():
        (folder / name).write_bytes(data)
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    (folder / "photos").mkdir()
    for name in ("in.png", *(f"photos/{i}.png" for i in range(1, 5))):
        Image.fromarray(noise).save(folder / name)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A furnished folder, deep enough that `../../..` is still ours."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    furnish(folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def outcome(option: Option, text: str, room: Path) -> str:
    """ "" for what a command may do with a text, else what it did. What it made is removed."""
    words = option.base.split()
    words = [text if word == "{}" else word for word in words] if "{}" in words else [*words, text]
    before, begin = set(room.rglob("*")), time.monotonic()
    result = runner.invoke(app, words)
    seconds = time.monotonic() - begin
    made = set(room.rglob("*")) - before
    for path in sorted(made):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(
            missing_ok=True
        )
    if not isinstance(result.exception, SystemExit | None):
        return f"raised {type(result.exception).__name__}: {result.exception!s:.200}"
    code, wanted = result.exit_code, option.takes(text)
    lines = [
        line
        for line in result.stderr.splitlines()
        if not line.startswith(("gan: Used", "gan: 1/8", "gan: 4 images, fewer than"))
    ]
    if code == 0 and wanted is False:
        return "was taken"
    if wanted and (option.reached not in result.stderr if option.reached else code):
        return f"refused with {code}: {result.stderr:.300}"
    if option.reached and wanted is False and option.reached in result.stderr:
        return "was taken"
    if code not in (0, 1, 2) or "Traceback" in result.output:
        return f"exit code {code}"
    if code == 1 and (len(lines) != 1 or not lines[0].startswith("gan: ") or len(lines[0]) > 4_000):
        return f"told as {lines!r:.300}"
    if code == 0 and lines:
        return f"printed {lines!r:.300}"
    if code and made:
        return f"left {made}"
    return f"took {seconds:.1f} s" if seconds > odd.LIMIT else ""


def texts_of(name: str) -> dict[str, str]:
    """All texts, or a few that are others for each option."""
    if TORTURE:
        return ALL
    known, first = list(ALL), zlib.crc32(name.encode())
    return {what: ALL[what] for what in (known[(first + 17 * i) % len(known)] for i in range(FEW))}


def test_every_text_is_given_to_some_option() -> None:
    assert {what for name in CASES for what in texts_of(name)} == set(ALL)


@pytest.mark.torture
@pytest.mark.parametrize("name", CASES)
def test_an_option_is_done_or_refused_in_one_line(name: str, room: Path) -> None:
    found = {what: outcome(CASES[name], text, room) for what, text in texts_of(name).items()}
    assert {what: told for what, told in found.items() if told} == {}


@pytest.mark.torture
@settings(
    deadline=None,
    derandomize=not TORTURE,
    max_examples=1_000 if TORTURE else 40,
    suppress_health_check=list(HealthCheck),
)
@given(name=st.sampled_from(sorted(CASES)), text=odd.any_texts)
def test_any_text_for_any_option(name: str, text: str, room: Path) -> None:
    try:
        slow = 20 < float(text) < 1e7 and math.isfinite(float(text))
    except ValueError:
        slow = False
    if "\0" not in text and not slow:
        assert outcome(CASES[name], text, room) == ""


# The same in plain words: command line, exit code, a part of what is said. E stands for an empty argument.

ENORMOUS, LONG = f"{10**18}", "7" * 5000
TABLE: list[tuple[str, int, str]] = [
    (f"{SAMPLE} --count 0", 2, "--count"),
    (f"{SAMPLE} --count -1", 2, "--count"),
    (f"{SAMPLE} --count nan", 2, "--count"),
    (f"{SAMPLE} --count {10**9}", 1, "Too many images for one call. 1000000000 of 192 bytes"),
    (f"{SAMPLE} --count {ENORMOUS} --by-class", 1, "Too many images for one call. 1000000000000000000 of 192"),
    (f"sample model.onnx --seed 0 --out all.npy --count {ENORMOUS}", 1, "Too many images"),
    (f"{SAMPLE} --count {2**64}", 1, "The count was refused. 18446744073709551616"),
    ("sample model.onnx --grid g.png --seed -1", 1, "The seed was refused. -1 of type int."),
    (f"sample model.onnx --grid g.png --seed {2**64}", 1, "The seed was refused."),
    ("sample model.onnx --grid g.png --seed 1e309", 2, "--seed"),
    (f"{SAMPLE} --start {2**64 - 1}", 1, "index of the last image was refused."),
    (f"{SAMPLE} --label {LONG}", 1, "The label was refused. '7777777"),
    (f"{SAMPLE} --label 3", 1, "Give a class index from 0 to 2, or one of: 1, 2, 10"),
    (f"{SAMPLE} --label \u0663", 1, "The label was refused. '\u0663'."),
    (f"{SAMPLE} --label E", 2, "--label is empty: was a variable not set?"),
    (f"{SAMPLE} --label=", 2, "--label= is empty"),
    (f"{SAMPLE} --truncation nan", 1, "The truncation was refused. nan of type float."),
    (f"{SAMPLE} --truncation 1e309", 1, "The truncation was refused. inf of type float."),
    (f"{SAMPLE} --columns {10**9}", 1, "1000000000 columns, 2 pixels apart. Give columns from 1 to 1000"),
    (f"{SAMPLE} --threads 0", 1, "The thread count was refused. 0 of type int."),
    (f"{SAMPLE} --threads {10**9}", 1, "The thread count was refused."),
    (f"{SAMPLE} --device cuda:\u0663", 1, "The device was refused. device='cuda:\u0663'."),
    (f"{SAMPLE} --noise loud", 2, "--noise"),
    (f"{MIX} --layers 4", 1, "The layer was refused. 4 of type int."),
    ("sample styled.onnx --grid g.png --mix 0x4", 2, "--mix takes ROWSxCOLUMNS"),
    ("sample model.onnx --seed 0 --out E", 2, "--out is empty"),
    ("sample E --grid g.png", 2, "an argument is empty"),
    ("sample model.onnx --seed 0 --grid E", 2, "--grid is empty"),
    ("sample " + "x" * 10**6 + " --grid g.png", 1, "cannot be read. [Errno 36] File name too long"),
    ("sample a\nb.onnx --grid g.png", 1, r"a\nb.onnx cannot be read. There is no such file."),
    ("sample model.onnx --seed 0 --grid g\x1b[31m.jpg", 1, r"g\u001b[31m.jpg was not written."),
    (f"{WAY} --fps nan", 1, "The speed was refused. nan frames a second."),
    (f"{WAY} --fps inf", 1, "The speed was refused. inf frames a second."),
    (f"{WAY} --frames {10**9}", 2, "--frames"),
    (f"{WAY} --from {2**64}", 1, "The first seed was refused."),
    (f"{MADE} --tile 0", 1, "The tile was refused. 0 of type int."),
    (f"{MADE} --overlap 1", 1, "An overlap was given. no tile."),
    (f"{MADE} --seed -1", 1, "The seed was refused. -1 of type int."),
    (f"{MADE} --label {LONG}", 1, "The label was refused. '7777777"),
    ("translate made.onnx E out.png", 2, "an argument is empty"),
    ("train E --dry-run", 2, "an argument is empty"),
    (f"{TRAIN} --out E", 2, "--out is empty"),
    (f"{TRAIN} --resolution {10**9}", 1, "The setting resolution was refused. 1000000000. Give 1 to 16,384."),
    ("train digits --resolution 14336 --dry-run", 1, "digits would not fit in memory."),
    (f"{TRAIN} --set batch_size=16000000", 1, "The batch would not fit in memory."),
    (f"{TRAIN} --set width=1e309", 1, "The setting width was refused. '1e309'."),
    (f"{TRAIN} --set width={LONG}", 1, "The setting width was refused. '7777777"),
    (f"{TRAIN} --set g-learning-rate=nan", 1, "The setting g_learning_rate was refused. 'nan'."),
    (f"{TRAIN} --set beta1=-0.5", 1, "The setting beta1 was refused. -0.5."),
    (f"{TRAIN} --set labels=perhaps", 1, "The setting labels was refused. 'perhaps'."),
    (f"{TRAIN} --set =3", 1, "--set =3 was refused."),
    (f"{TRAIN} --r1 inf", 1, "The setting r1 was refused. inf."),
    (f"{TRAIN} --ema-decay nan", 1, "The setting ema_decay was refused. nan."),
    (f"{TRAIN} --minutes nan", 1, "The number of minutes was refused. nan of type float."),
    (f"{TRAIN} --threads {10**9}", 1, "The number of threads was refused. 1000000000 of type int."),
    (f"{TRAIN} --checkpoint-every {2**64}", 1, "The checkpoint_every was refused."),
    (f"{TRAIN} --workers 0", 2, "--workers"),
    (f"{TRAIN} --device tpu", 1, "The device was refused. 'tpu'."),
    (f"{EXPORT} --opset 17", 1, "The opset was refused. 17 of type int."),
    (f"{EXPORT} --max-batch {10**18}", 1, "The largest batch was refused."),
    (f"{EXPORT} --samples -1", 1, "The number of samples was refused. -1 of type int."),
    (f"{EXPORT} --precision fp8", 2, "--precision"),
    ("export nowhere.pt " + "x" * 300, 1, "The output was refused. 'xxxx"),
    ("adopt nowhere.pth E", 2, "an argument is empty"),
    (f"{BENCH} --seconds nan", 2, "--seconds"),
    (f"{BENCH} --batch 1,{10**9}", 2, "--batch takes numbers from 1 to 4096"),
    ("doctor --device tpu", 1, "The device was refused. device='tpu'."),
    ("systems biggan", 1, "There is no such system. 'biggan'."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code", "told"), TABLE, ids=[f"{i}-{row[0][:40]!a}" for i, row in enumerate(TABLE)]
)
def test_what_is_said_names_the_option_and_shows_the_value(
    line: str, code: int, told: str, room: Path
) -> None:
    before = set(room.rglob("*"))
    result = runner.invoke(app, ["" if word == "E" else word for word in line.split(" ")])
    assert isinstance(result.exception, SystemExit), result.output
    assert result.exit_code == code
    said = (
        " ".join(re.sub("[\u2500-\u257f]", " ", result.stderr).split())
        if code == 2
        else result.stderr
    )
    assert told in said
    assert code == 2 or len(said.splitlines()) == 1
    assert set(room.rglob("*")) == before


def test_a_name_that_is_no_text_is_written_and_told(room: Path) -> None:
    """A file's name may be any bytes; a terminal's encoding does not take all of them."""
    done = subprocess.run(
        [sys.executable, "-c", "from gan.cli import main; main()", *SAMPLE.split()[:2], "--seed", "0", "--grid",
         b"g\xff\xc3.png", "--device", "cpu"],
        capture_output=True, check=False, env=os.environ | {"PYTHONUTF8": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(rb"Wrote g\udcff\udcc3.png (16 images")
    assert os.path.exists(b"g\xff\xc3.png")


def sweep() -> dict[str, float]:
    """All texts for all options but those of commands that load torch, which is large; and what it took."""
    room = Path.cwd() / "a" / "b" / "c"
    room.mkdir(parents=True)
    furnish(room)
    os.chdir(room)
    heavy = ("train", "systems", "adopt", "export")
    light = {name: case for name, case in CASES.items() if not name.startswith(heavy)}
    for case in light.values():
        outcome(case, "1", room.parents[2])
    before, begin, calls = odd.peak_megabytes(), time.monotonic(), 0
    for name, case in light.items():
        for text in list(texts_of(name).values())[: None if TORTURE else 1]:
            outcome(case, text, room.parents[2])
            calls += 1
    grown = odd.peak_megabytes() - before
    os.chdir(room.parents[2])
    shutil.rmtree(room.parents[1])
    return {"calls": calls, "seconds": time.monotonic() - begin, "megabytes": grown}


@pytest.mark.torture
def test_no_text_costs_memory(tmp_path: Path) -> None:
    code = "import json; from tests.test_cli_bad_values import sweep; print(json.dumps(sweep()))"
    found = odd.in_a_child(code, tmp_path)
    assert found["calls"] > 50 and found["megabytes"] < 50, found
