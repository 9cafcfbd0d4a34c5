"""K4 and K5 of what the commands write: whatever fails on the disk, a file is the old or the new one, whole, the reason is
said in a line, and the same command goes on."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from gan.cli import app
from gan.export import gate
from gan.runtime import bench as benching
from gan.runtime.files import sibling

from .export.conftest import make_checkpoint, photos, trace_here  # noqa: F401
from .faults import TORTURE, SmallDisk, failing, faults, parts
from .runtime.conftest import tiny_model
from .runtime.translating import translating_model

OLD = b"old"


@dataclass(frozen=True)
class Command:
    """Words in which {out} is the folder to write to and {models} where the models are. again: added to go on.

    made: the files of a single result, which is asked for by --force over old ones; none where it is a folder.
    """

    words: str
    again: str = ""
    made: tuple[str, ...] = ()


COMMANDS = {
    "sample a folder": Command(
        "sample {models}/sampled.onnx --count 12 --seed 3 --out {out}/images", "--skip-existing"
    ),
    "sample webp": Command(
        "sample {models}/sampled.onnx --count 5 --seed 3 --out {out}/images --format webp",
        "--skip-existing",
    ),
    "sample a grid": Command(
        "sample {models}/sampled.onnx --count 9 --seed 3 --grid {out}/grid.png --force",
        made=("grid.png",),
    ),
    "sample an array": Command(
        "sample {models}/sampled.onnx --count 9 --seed 3 --out {out}/all.npy --force",
        made=("all.npy",),
    ),
    "translate a folder": Command(
        "translate {models}/plain.onnx {models}/in {out}/made", "--skip-existing"
    ),
    "translate a file": Command(
        "translate {models}/plain.onnx {models}/in/0.png {out}/made.jpg --force", made=("made.jpg",)
    ),
    "interpolate a film": Command(
        "interpolate {models}/sampled.onnx {out}/walk.webp --from 1 --to 2 --frames 4 --force",
        made=("walk.webp",),
    ),
    "interpolate an mp4": Command(
        "interpolate {models}/sampled.onnx {out}/walk.mp4 --from 1 --to 2 --frames 4 --force",
        made=("walk.mp4",),
    ),
    "interpolate a sheet": Command(
        "interpolate {models}/sampled.onnx {out}/walk.png --from 1 --to 2 --frames 4 --force",
        made=("walk.png",),
    ),
    "plot a bench": Command(
        "bench {models}/sampled.onnx --plot {out}/bench.png --force", made=("bench.png",)
    ),
    "export": Command("export {models}/model.pt {out}/m.onnx --force", made=("m.onnx",)),
    "export all": Command(
        "export {models}/model.pt {out}/m.onnx --graph all --force",
        made=("m.onnx", "m.mapping.onnx", "m.synthesis.onnx"),
    ),
    "a template": Command("systems --template {out}/mine.py --force", made=("mine.py",)),
}

NO_ROOM = list(itertools.product(COMMANDS, ("full", "quota", "read-only")))


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory,
    make_checkpoint: Callable[..., Path],  # noqa: F811
) -> Iterator[Path]:
    """Models, images, and a proof and a bench that are made once: the disk is what is tried here."""
    root = tmp_path_factory.mktemp("models")
    (root / "sampled.onnx").write_bytes(tiny_model())
    (root / "plain.onnx").write_bytes(translating_model(scale=2))
    (root / "in" / "sub").mkdir(parents=True)
    for name in ("0", "1", "2", "sub/3"):
        Image.effect_noise((9, 6), 50).convert("RGB").save(root / "in" / f"{name}.png")
    given: dict[str, Any] = {"style": 6, "mapping_layers": 2, "width": 4, "max_width": 8}
    made = make_checkpoint("stylegan2", **given, latent=5, embedding=3, projection=4)
    (root / "model.pt").write_bytes(made.read_bytes())
    prove, bench, known = vars(gate)["_prove_graph"], benching.bench, dict[str, Any]()

    def proven(kept: Path, content: Any, graph: str, settings: Any) -> Any:
        if graph not in known:
            known[graph] = prove(kept, content, graph, settings)
        return known[graph]

    def benched(subject: Any, **named: Any) -> Any:
        brief = {"batches": [1], "seconds": 0.02, "starts": 0}
        known["bench"] = known.get("bench") or bench(subject, **{**named, **brief})
        return known["bench"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "trace", trace_here)
        patch.setattr(gate, "_prove_graph", proven)
        patch.setattr(benching, "bench", benched)
        yield root


def gan(words: str, code: int | None = 0) -> str:
    """The output of a command that exits with `code`, None for 0 or 1; an error is one line at its end."""
    result = CliRunner().invoke(app, words.split())
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    assert result.exit_code in ((0, 1) if code is None else (code,)), result.output
    assert "Traceback" not in result.output
    if result.exit_code:
        last = result.output.rstrip().splitlines()[-1]
        assert re.match("gan: .* was not written|gan: .* cannot be ", last), result.output
    return result.output


class Writing:
    """A command, the folder that it writes to, and what it leaves there when nothing fails."""

    def __init__(self, name: str, models: Path, out: Path) -> None:
        self.command, self.out = COMMANDS[name], out
        self.words = self.command.words.format(models=models, out=out)
        self.prepare()
        gan(self.words)
        self.whole = self.found()
        assert self.whole and OLD not in self.whole.values()

    def prepare(self) -> None:
        for path in sorted(self.out.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        for name in self.command.made:
            (self.out / name).write_bytes(OLD)

    def found(self) -> dict[str, bytes]:
        files = [path for path in self.out.rglob("*") if path.is_file()]
        return {str(p.relative_to(self.out)): p.read_bytes() for p in files if p.name[0] != "."}

    def check_stopped(self, output: str) -> None:
        found = self.found()
        for name, data in found.items():
            assert data in (self.whole[name], OLD), f"{name} is neither old nor new"
        made = self.command.made
        assert set(made) <= set(found)  # nothing that was there is lost
        new = [name for name in made if found[name] != OLD]
        if 0 < len(new) < len(made):  # then it is said which
            assert f"; {', '.join(str(self.out / name) for name in new)} was. " in output
        assert len(parts(self.out)) <= max(len(made), 4)

    def go_on(self) -> None:
        gan(f"{self.words} {self.command.again}")
        assert self.found() == self.whole and not parts(self.out)


@pytest.mark.torture
@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_fails_a_file_is_old_or_new_and_the_command_goes_on(
    name: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "out").mkdir()
    writing = Writing(name, models, tmp_path / "out")
    for fault in faults(lambda: gan(writing.words), tmp_path, most=2, prepare=writing.prepare):
        with failing(fault):
            output = gan(writing.words, None)
        if "\ngan: " in f"\n{output}" and "was not written" in output:
            assert os.strerror(fault.code) in output
        writing.check_stopped(output)
        writing.go_on()
    for path in (tmp_path / "temporary").iterdir():  # of faults that outlasted the command
        os.utime(path, (time.time() - 100,) * 2)
    writing.go_on()
    assert not os.listdir(tmp_path / "temporary")


@pytest.mark.torture
@pytest.mark.parametrize(("name", "how"), NO_ROOM if TORTURE else NO_ROOM[::5])
def test_a_disk_without_room_is_said_and_the_command_goes_on_when_there_is(
    name: str, how: str, models: Path, tmp_path: Path
) -> None:
    disk = SmallDisk(tmp_path / "disk")
    try:
        (disk.place / "out").mkdir()
        writing = Writing(name, models, disk.place / "out")
        writing.prepare()
        with disk.without(how, 50 if how == "quota" else 0):
            output = gan(writing.words, 1)
        assert re.search("No space left|File too large|Read-only|not writable", output)
        writing.check_stopped(output)
        assert all(data == OLD for data in writing.found().values())
        writing.go_on()
    finally:
        disk.end()


def test_a_disk_that_is_full_at_the_second_graph_leaves_all_of_them_old(
    models: Path, tmp_path: Path
) -> None:
    disk = SmallDisk(tmp_path / "disk")
    try:
        (disk.place / "out").mkdir()
        writing = Writing("export all", models, disk.place / "out")
        writing.prepare()
        with disk.without("full", len(writing.whole["m.onnx"]) + 8192):
            output = gan(writing.words, 1)
        assert "m.synthesis.onnx was not written" in output
        assert set(writing.found().values()) == {OLD} and not parts(writing.out)
        writing.go_on()
        assert sibling(disk.place / "out" / "m.onnx", "mapping").exists()
    finally:
        disk.end()
