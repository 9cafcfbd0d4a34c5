"""The command and styles: all graphs exported, sheets of mixed styles, ways as moving pictures, and nasty values."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from gan.cli import app
from gan.runtime import Generator, mix
from gan.trainer import Checkpoint
from gan.trainer.checkpoint import save

from .runtime.conftest import watch_runs

runner = CliRunner()
LAST = 2**64 - 1
STYLED = [
    "--resolution", "8", "--batch-size", "4", "--threads", "1", "--steps", "1", "--set", "width=4",
    "--set", "max_width=8", "--set", "style=6", "--set", "mapping_layers=2", "--set", "latent=5",
    "--set", "embedding=3", "--set", "projection=4",
]  # fmt: skip
EXPORT_ALL = "--graph all"


def said(*arguments: object, code: int = 0) -> str:
    """The output of a command, its exit code checked; an error of ours is one line, and never a traceback."""
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    assert result.exit_code == code, result.output
    if code == 1:
        steps = re.compile(r"Seed \d+$|gan: (\d/8 |Graph )")  # what is told before
        (line,) = [line for line in result.output.splitlines() if not steps.match(line)]
        assert line.startswith("gan: ")
    return " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())


def pixels(path: Path | str) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stylegan2 of one step with labels: its run, and model.onnx with all graphs; lone.onnx is without."""
    root = tmp_path_factory.mktemp("styles")
    rng = np.random.default_rng(0)
    for i in range(12):
        place = root / "pets" / ("cat", "dog")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(place / f"{i}.png")
    said("train", root / "pets", "--system", "stylegan2", *STYLED, "--out", root / "run")
    checkpoint = Checkpoint.load(root / "run" / "model.pt")
    for name, tensor in checkpoint.content["averaged"]["synthesis"].items():
        if name.endswith("strength"):  # after one step, next to nothing
            tensor.fill_(0.3)
        if name.startswith("to_image.") and "affine" not in name:
            tensor *= 3.0
    save(root / "run" / "model.pt", checkpoint.content)
    output = said(
        "export", root / "run" / "model.pt", root / "model.onnx", "--graph", "all", "--max-batch", 2
    )
    for name in ("model.onnx", "model.mapping.onnx", "model.synthesis.onnx"):
        assert f"Wrote {root / name} (" in output
    assert output.count("Same bytes in batches of 1, 2, 3, 8: yes") == 3
    assert f"Next: gan sample {root / 'model.onnx'} --grid grid.png" in output
    shutil.copy(root / "model.onnx", root / "lone.onnx")
    return root


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def image(model: Path) -> Generator:
    return Generator(model, device="cpu")


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[Generator, Generator]:
    mapping, synthesis = (
        Generator(folder / f"model.{graph}.onnx", device="cpu")
        for graph in ("mapping", "synthesis")
    )
    return mapping, synthesis


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of points, without truncation or noise."""
    root = tmp_path_factory.mktemp("ring")
    tiny = ["--set", "width=8", "--set", "depth=2", "--batch-size", "8", "--threads", "1"]
    said("train", "ring", "--steps", "2", *tiny, "--out", root / "run")
    said("export", root / "run" / "model.pt", root / "ring.onnx", "--max-batch", 2)
    return root / "ring.onnx"


# gan export


def test_the_graphs_of_one_export_belong_together_and_are_named(folder: Path) -> None:
    files = [folder / f"model{part}.onnx" for part in ("", ".mapping", ".synthesis")]
    generators = [Generator(path, device="cpu") for path in files]
    assert {g.verify() for g in generators} == {"exact"}
    assert len({g.metadata("weights")["checkpoint"] for g in generators}) == 1
    graphs = [g.metadata("system")["graph"] for g in generators]
    assert graphs == ["image", "mapping", "synthesis"]


@pytest.mark.parametrize("graph", ["nosuch", "ALL", "Mapping"])
def test_another_graph_is_refused_with_the_choices(folder: Path, graph: str) -> None:
    output = said("export", folder / "run" / "model.pt", "m.onnx", "--graph", graph, code=1)
    assert f"'{graph}'. Choose one of image, mapping, synthesis" in output.splitlines()[-1]
    assert names() == []


@pytest.mark.parametrize("name", ["model.onnx", "model.mapping.onnx", "model.synthesis.onnx"])
def test_a_graph_in_the_way_is_refused_at_once_and_kept(folder: Path, name: str) -> None:
    Path(name).write_bytes(b"mine")
    output = said("export", folder / "run" / "model.pt", "model.onnx", "--graph", "all", code=1)
    assert output == f"gan: {name} exists. Nothing is overwritten unasked. Add --force."
    assert names() == [name] and Path(name).read_bytes() == b"mine"


# gan sample


def test_the_help_tells_of_the_new_options() -> None:
    sample, walk, export = (said(name, "--help") for name in ("sample", "interpolate", "export"))
    for option in ("--noise", "--mix", "--layers", "--truncation", "ROWSxCOLUMNS"):
        assert option in sample
    for option in ("--from", "--to", "--frames", "--space", "--loop", "--fps", "--columns",
                   "--label", "--truncation", "--force"):  # fmt: skip
        assert option in walk
    for text in ("OUTPUT", ".mp4", ".webp", ".png", "Example: gan interpolate model.onnx"):
        assert text in walk
    assert "--graph" in export and "NAME.GRAPH.onnx" in export
    assert "interpolate" in said("--help")


@pytest.mark.parametrize("noise", ["shared", "drawn"])
def test_sample_takes_the_noise_for_arrays_grids_and_files(
    model: Path, image: Generator, noise: str
) -> None:
    expected = image.sample(4, seed=3, start=2, noise=noise)  # type: ignore[arg-type]
    asked = ["sample", model, "--count", 4, "--seed", 3, "--start", 2, "--noise", noise]
    said(*asked, "--out", "x.npy")
    assert np.load("x.npy").tobytes() == expected.tobytes()
    said(*asked, "--grid", "x.png", "--columns", 4)
    assert (pixels("x.png")[:, 10:18] == expected[1]).all()
    said(*asked, "--out", "files")
    assert (pixels("files/000005.png") == expected[3]).all()


def test_shared_noise_is_the_default_and_truncation_and_label_go_with_it(
    model: Path, image: Generator
) -> None:
    said("sample", model, "--count", 4, "--seed", 3, "--out", "x.npy")
    assert np.load("x.npy").tobytes() == image.sample(4, seed=3).tobytes()
    given = ["--truncation", "-0.5", "--label", "dog", "--noise", "drawn"]
    said("sample", model, "--count", 4, "--seed", 3, *given, "--out", "y.npy")
    expected = image.sample(4, seed=3, truncation=-0.5, label="dog", noise="drawn")
    assert np.load("y.npy").tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--noise", "loud", "--grid", "g.png"],
        ["--mix", "2x2", "--out", "folder"],
        ["--mix", "2x2", "--out", "x.npy"],
        ["--mix", "2x2", "--grid", "g.png", "--count", "4"],
        ["--mix", "2x2", "--grid", "g.png", "--start", "4"],
        ["--mix", "2x2", "--grid", "g.png", "--by-class"],
        ["--mix", "2x2", "--grid", "g.png", "--columns", "2"],
        ["--mix", "2x2", "--grid", "g.png", "--noise", "drawn"],
        ["--mix", "2x2", "--grid", "g.png", "--noise", "shared"],
        ["--mix", "2x2", "--grid", "g.png", "--layers", "0"],
        ["--mix", "2x2", "--grid", "g.png", "--layers", "1.5"],
        ["--layers", "2", "--grid", "g.png"],
        *(
            ["--mix", text, "--grid", "g.png"]
            for text in (
                "0x3", "3x0", "2x", "x2", "2", "", "x", "2x3x4", "2X3", "-2x3", "2x-3", "axb", "2.0x3", "2 x 3",
                "x" * 5000,
            )
        ),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_exit_with_2(model: Path, wrong: list[str]) -> None:
    said("sample", model, "--seed", 0, *wrong, code=2)
    assert names() == []


@pytest.mark.parametrize(
    "text",
    [
        "²x3",
        "9" * 5000 + "x1",
    ],
)
def test_a_size_of_a_sheet_that_is_no_number_exits_with_2(model: Path, text: str) -> None:
    said("sample", model, "--seed", 0, "--grid", "g.png", "--mix", text, code=2)
    assert names() == []


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (1, 1), (3, 1), (1, 4)])
@pytest.mark.parametrize("layers", [None, 1, 3])
def test_a_sheet_of_mixed_styles_has_the_single_ones_at_its_edges(
    model: Path,
    image: Generator,
    pair: tuple[Generator, Generator],
    rows: int,
    columns: int,
    layers: int | None,
) -> None:
    more = [] if layers is None else ["--layers", layers]
    output = said(
        "sample", model, "--seed", 5, "--mix", f"{rows}x{columns}", "--grid", "g.png", *more
    )
    begin = 2 if layers is None else layers
    coarse = range(5, 5 + rows)
    fine = range(5 + rows, 5 + rows + columns)
    assert f"seeds {coarse[0]} to {coarse[-1]}, fine ones of {fine[0]} to {fine[-1]}" in output
    assert f"from layer {begin} of 4" in output
    sheet = pixels("g.png")
    assert sheet.shape == (10 * (rows + 1) - 2, 10 * (columns + 1) - 2, 3)

    def tile(row: int, column: int) -> NDArray[np.int64]:
        return sheet[10 * row : 10 * row + 8, 10 * column : 10 * column + 8].astype(int)

    def off(row: int, column: int, expected: NDArray[np.uint8]) -> int:
        return int(np.abs(tile(row, column) - expected.astype(int)).max())

    assert (tile(0, 0) == 0).all()
    for i, seed in enumerate(coarse, start=1):
        assert off(i, 0, image.sample(1, seed=seed)[0]) <= 1
    for j, seed in enumerate(fine, start=1):
        assert off(0, j, image.sample(1, seed=seed)[0]) <= 1
    for i, c in enumerate(coarse, start=1):
        for j, f in enumerate(fine, start=1):
            assert off(i, j, mix(*pair, [c, f], [begin])[0]) == 0
    assert names() == ["g.png"]


def test_a_sheet_takes_label_and_truncation_of_the_mapping(model: Path, image: Generator) -> None:
    sheets = {}
    for label in ("cat", "dog"):
        given = ["--label", label, "--truncation", "0.5"]
        said("sample", model, "--seed", 5, "--mix", "1x1", "--grid", f"{label}.png", *given)
        sheets[label] = pixels(f"{label}.png")
        alone = image.sample(1, seed=5, label=label, truncation=0.5)[0]
        assert np.abs(sheets[label][10:18, :8].astype(int) - alone).max() <= 1
    assert (sheets["cat"] != sheets["dog"]).any()


def test_a_sheet_without_a_seed_says_the_one_that_it_drew(model: Path) -> None:
    output = said("sample", model, "--mix", "1x1", "--grid", "a.png")
    seed = output.split()[1]
    said("sample", model, "--mix", "1x1", "--grid", "b.png", "--seed", seed)
    assert (pixels("a.png") == pixels("b.png")).all()


def test_a_sheet_is_written_over_another_picture_only_by_force(model: Path) -> None:
    Path("g.png").write_bytes(b"mine")
    command = ("sample", model, "--seed", 5, "--mix", "1x2", "--grid", "g.png")
    assert "--force" in said(*command, code=1)
    assert Path("g.png").read_bytes() == b"mine"
    said(*command, "--force")
    assert pixels("g.png").shape == (18, 28, 3)


REFUSED = [
    (["--seed", "-1"], "seed was refused"),
    (["--seed", str(2**64)], "seed was refused"),
    (["--seed", str(LAST)], "seed was refused"),  # the next seeds are none
    (["--seed", "0", "--truncation", "99"], "number truncation from -2 to 2"),
    (
        ["--seed", "0", "--truncation", "nan"],
        "nan of type float. Give a number truncation from -2 to 2",
    ),
    (
        ["--seed", "0", "--truncation", "inf"],
        "inf of type float. Give a number truncation from -2 to 2",
    ),
    (["--seed", "0", "--label", "cow"], "one of: cat, dog"),
    (["--seed", "0", "--label", "2"], "one of: cat, dog"),
    (["--seed", "0", "--label", "-1"], "one of: cat, dog"),
    (["--seed", "0", "--layers", "4"], "from 1 to 3"),
    (["--seed", "0", "--layers", "9" * 30], "from 1 to 3"),
    (["--seed", "0", "--device", "tpu"], "auto"),
]


@pytest.mark.parametrize(("wrong", "why"), REFUSED)
def test_a_value_that_a_sheet_cannot_have_is_one_line(
    model: Path, wrong: list[str], why: str
) -> None:
    assert why in said("sample", model, "--mix", "1x1", "--grid", "g.png", *wrong, code=1)
    assert names() == []


@pytest.mark.parametrize("path", ["g.gif", "g", "no/g.png"])
def test_a_sheet_that_cannot_be_written_is_refused(model: Path, path: str) -> None:
    said("sample", model, "--seed", 0, "--mix", "1x1", "--grid", path, code=1)
    assert names() == []


@pytest.mark.parametrize("value", ["99", "nan", "-2.01", "inf"])
def test_a_truncation_outside_is_one_line_and_the_range_is_said(model: Path, value: str) -> None:
    output = said("sample", model, "--seed", 0, "--grid", "g.png", "--truncation", value, code=1)
    assert "from -2 to 2" in output
    assert names() == []


def test_noise_is_refused_where_a_model_has_none(ring: Path) -> None:
    output = said("sample", ring, "--seed", 0, "--out", "x.npy", "--noise", "drawn", code=1)
    assert "Leave noise out" in output and names() == []
    said("sample", ring, "--seed", 0, "--out", "x.npy", "--noise", "shared")


@pytest.mark.parametrize("missing", ["mapping", "synthesis", "both"])
@pytest.mark.parametrize("command", ["mix", "way"])
def test_missing_graphs_are_named_with_the_command_that_makes_them(
    folder: Path, missing: str, command: str, tmp_path: Path
) -> None:
    for part in ("", ".mapping", ".synthesis"):
        if part.removeprefix(".") not in (
            missing,
            *(("mapping", "synthesis") * (missing == "both")),
        ):
            shutil.copy(folder / f"model{part}.onnx", f"model{part}.onnx")
    before = names()
    arguments = (
        ["sample", "model.onnx", "--seed", "0", "--mix", "2x2", "--grid", "g.png"]
        if command == "mix"
        else ["interpolate", "model.onnx", "w.png", "--from", "0", "--to", "1", "--space", "w"]
    )
    output = said(*arguments, code=1)
    first = "synthesis" if missing == "synthesis" else "mapping"
    assert f"There is no model.{first}.onnx" in output
    assert f"gan export model.pt model.onnx {EXPORT_ALL} --force" in output
    assert names() == before


def test_graphs_of_two_checkpoints_are_refused(folder: Path) -> None:
    """A mapping left from an earlier export beside a newer synthesis."""
    checkpoint = Checkpoint.load(folder / "run" / "model.pt")
    checkpoint.content["averaged"]["mapping"]["average"] += 0.5
    save(Path("other.pt"), checkpoint.content)
    said("export", "other.pt", "model.mapping.onnx", "--graph", "mapping", "--max-batch", 1)
    for part in ("", ".synthesis"):
        shutil.copy(folder / f"model{part}.onnx", f"model{part}.onnx")
    command = ["sample", "model.onnx", "--seed", "0", "--mix", "1x1", "--grid", "g.png"]
    output = said(*command, code=1)
    assert "not of one checkpoint" in output and EXPORT_ALL in output
    assert not Path("g.png").exists()


@pytest.mark.parametrize("size", [f"{10**14}x1", "1000x1", "1x1000", "0x3", "03x1"])
def test_a_sheet_of_a_thousand_rows_or_none_exits_with_2_at_once(model: Path, size: str) -> None:
    said("sample", model, "--seed", 0, "--mix", size, "--grid", "g.png", code=2)
    assert names() == []


def test_pictures_of_a_model_that_gives_floats_say_the_way_out(folder: Path) -> None:
    checkpoint = folder / "run" / "model.pt"
    said("export", checkpoint, "float.onnx", "--output", "float", "--max-batch", 1)
    for command in (
        ["sample", "float.onnx", "--seed", 0, "--grid", "g.png"],
        ["interpolate", "float.onnx", "g.png", "--from", 1, "--to", 2],
    ):
        assert "Export it without --output" in said(*command, code=1)
    assert names() == ["float.onnx"]


# gan interpolate


def way(image: Generator, frames: int, **given: object) -> NDArray[np.uint8]:
    return image.interpolate(3, 9, frames, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("suffix", ["mp4", "webp", "png"])
def test_a_way_is_written_as_film_or_sheet(
    model: Path, image: Generator, suffix: str, loop: bool
) -> None:
    path = f"way.{suffix}"
    arguments = ["interpolate", model, path, "--from", 3, "--to", 9, "--frames", 5]
    output = said(*arguments, *["--loop"][:loop], *(["--fps", 25] if suffix != "png" else []))
    count = 8 if loop else 5
    assert output == f"Wrote {path} ({count} frames, seeds 3 to 9 in z, {image.device})"
    there = list(way(image, 5))
    expected = [*there, *there[3:0:-1]] if loop else there
    assert len(expected) == count and names() == [path]
    if suffix == "png":
        sheet = pixels(path)
        assert sheet.shape == (28 if loop else 18, 28, 3)  # as square as can be: 3 columns
        for place, frame in enumerate(expected):
            top, left = place // 3 * 10, place % 3 * 10
            assert (sheet[top : top + 8, left : left + 8] == frame).all()
    elif suffix == "mp4":
        with av.open(path) as container:
            stream = container.streams.video[0]
            assert stream.average_rate == 25
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert len(frames) == count and frames[0].shape == (8, 8, 3)
        for seen, frame in zip(frames, expected, strict=True):
            assert np.abs(seen.mean((0, 1)) - frame.mean((0, 1))).max() < 12
    else:
        with Image.open(path) as film:
            assert film.size == (8, 8) and film.info["loop"] == 0
            durations = []
            for place in range(getattr(film, "n_frames", 1)):
                film.seek(place)
                film.load()
                durations.append(film.info["duration"])
        assert sum(durations) == count * 40


def test_a_sheet_of_a_way_has_the_columns_asked_for(model: Path, image: Generator) -> None:
    arguments = ["interpolate", model, "w.png", "--from", 3, "--to", 9, "--frames", 4]
    said(*arguments, "--columns", 4, "--label", "dog", "--truncation", "0.5")
    sheet = pixels("w.png")
    assert sheet.shape == (8, 38, 3)
    for place, frame in enumerate(way(image, 4, label="dog", truncation=0.5)):
        assert (sheet[:, 10 * place : 10 * place + 8] == frame).all()


def test_the_default_is_60_frames_at_30_a_second(model: Path) -> None:
    said("interpolate", model, "w.mp4", "--from", 3, "--to", 9)
    with av.open("w.mp4") as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 30 and len(list(container.decode(stream))) == 60


def test_the_way_in_w_has_the_same_ends_and_another_middle(
    model: Path, image: Generator, pair: tuple[Generator, Generator]
) -> None:
    from gan.runtime import interpolate

    arguments = ["interpolate", model, "w.png", "--from", 3, "--to", 9, "--frames", 5]
    output = said(*arguments, "--columns", 5, "--space", "w", "--label", "dog", "--truncation", 2)
    assert "(5 frames, seeds 3 to 9 in w, cpu)" in output
    frames = [pixels("w.png")[:, 10 * i : 10 * i + 8].astype(int) for i in range(5)]
    given = {"label": "dog", "truncation": 2.0}
    expected = interpolate(*pair, 3, 9, 5, **given)  # type: ignore[arg-type]
    assert all((a == b).all() for a, b in zip(frames, expected, strict=True))
    for place, seed in ((0, 3), (-1, 9)):
        alone = image.sample(1, seed=seed, **given)[0]  # type: ignore[arg-type]
        assert np.abs(frames[place] - alone).max() <= 1
    assert (frames[2] != way(image, 5, **given)[2]).any()


@pytest.mark.parametrize("name", ["w.mp4", "w.webp", "w.png"])
def test_a_film_is_written_over_another_only_by_force(model: Path, name: str) -> None:
    Path(name).write_bytes(b"mine")
    command = ("interpolate", model, name, "--from", 3, "--to", 9, "--frames", 2)
    assert "--force" in said(*command, code=1)
    assert Path(name).read_bytes() == b"mine"
    said(*command, "--force")
    assert Path(name).read_bytes()[:4] != b"mine" and names() == [name]


BETWEEN = ["--from", "3", "--to", "9"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["w.png"],
        ["w.png", "--from", "3"],
        ["w.png", "--to", "3"],
        ["w.png", "--from", "a", "--to", "3"],
        ["w.png", *BETWEEN, "--frames", "1"],
        ["w.png", *BETWEEN, "--frames", "0"],
        ["w.png", *BETWEEN, "--frames", "-5"],
        ["w.png", *BETWEEN, "--frames", "100001"],
        ["w.png", *BETWEEN, "--frames", "2.5"],
        ["w.png", *BETWEEN, "--space", "x"],
        ["w.png", *BETWEEN, "--columns", "0"],
        ["w.mp4", *BETWEEN, "--columns", "2"],
        ["w.webp", *BETWEEN, "--columns", "2"],
        ["w.mp4", *BETWEEN, "--fps", "fast"],
    ],
)
def test_a_way_asked_for_wrongly_exits_with_2(model: Path, wrong: list[str]) -> None:
    said("interpolate", model, *wrong, code=2)
    assert names() == []


@pytest.mark.parametrize("space", ["z", "w"])
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (["w.mp4", *BETWEEN, "--fps", "0"], "0.1 to 240"),
        (["w.webp", *BETWEEN, "--fps", "nan"], "0.1 to 240"),
        (["w.mp4", *BETWEEN, "--fps", "-1"], "0.1 to 240"),
        (["w.mp4", *BETWEEN, "--fps", "1e9"], "0.1 to 240"),
        (["w.gif", *BETWEEN], ".mp4, .webp"),
        (["w", *BETWEEN], ".mp4, .webp"),
        (["no/w.mp4", *BETWEEN], "Make it"),
        (["w.png", "--from", "-1", "--to", "3"], "seed was refused"),
        (["w.mp4", "--from", "3", "--to", "-1"], "seed was refused"),
        (["w.png", "--from", "3", "--to", str(2**64)], "seed was refused"),
        (["w.png", *BETWEEN, "--label", "cow"], "one of: cat, dog"),
        (["w.webp", *BETWEEN, "--label", "7"], "one of: cat, dog"),
        (["w.png", *BETWEEN, "--truncation", "99"], "-2 to 2"),
        (["w.mp4", *BETWEEN, "--truncation", "nan"], "-2 to 2"),
        (["w.png", *BETWEEN, "--device", "cuda"], "cuda"),
    ],
)
def test_a_way_that_cannot_be_is_one_line_that_says_the_repair(
    model: Path, wrong: list[str], why: str, space: str
) -> None:
    output = said("interpolate", model, *wrong, "--space", space, code=1)
    assert why.lower() in output.lower()
    assert names() == []


def test_points_have_no_film(ring: Path) -> None:
    for name in ("w.png", "w.webp", "w.mp4"):
        assert "gan sample" in said("interpolate", ring, name, *BETWEEN, code=1)
    assert "no graphs of styles" in said(
        "interpolate", ring, "w.png", *BETWEEN, "--space", "w", code=1
    )
    assert "no graphs of styles" in said(
        "sample", ring, "--seed", 0, "--mix", "1x1", "--grid", "g.png", code=1
    )
    assert "This model has none" in said(
        "sample", ring, "--seed", 0, "--grid", "g.png", "--truncation", 1, code=1
    )
    assert names() == []


@pytest.mark.parametrize("graph", ["mapping", "synthesis"])
def test_a_graph_of_styles_alone_is_no_model_to_draw_from(folder: Path, graph: str) -> None:
    path = folder / f"model.{graph}.onnx"
    for arguments in (
        ["sample", path, "--seed", 0, "--grid", "g.png"],
        ["sample", path, "--seed", 0, "--out", "files"],
        ["interpolate", path, "w.png", *BETWEEN],
        ["interpolate", path, "w.webp", *BETWEEN],
    ):
        assert "gan: " in said(*arguments, code=1)
    assert [name for name in names() if name != "files"] == []


def test_a_mapping_gives_its_styles_as_an_array(
    folder: Path, pair: tuple[Generator, Generator]
) -> None:
    said("sample", folder / "model.mapping.onnx", "--seed", 3, "--count", 5, "--out", "w.npy")
    assert np.load("w.npy").tobytes() == pair[0].sample(5, seed=3).tobytes()


def test_without_pyav_a_film_says_the_command_and_writes_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    output = said("interpolate", model, "w.mp4", *BETWEEN, code=1)
    assert "pip install 'gan-toolchain[video]'" in output and names() == []
    said("interpolate", model, "w.webp", *BETWEEN, "--frames", 2)


def test_a_run_that_fails_in_the_middle_leaves_no_film(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gan.runtime import ModelFileError

    calls: list[object] = []

    def fails(inputs: object) -> None:
        calls.append(inputs)
        if len(calls) == 3:
            raise ModelFileError("planted")

    watch_runs(monkeypatch, fails)
    for name in ("w.mp4", "w.webp", "w.png"):
        calls.clear()
        assert "planted" in said("interpolate", model, name, *BETWEEN, "--frames", 60, code=1)
        assert names() == []
