"""The gate on systems with several graphs, inputs or outputs: StyleGAN2, progressive growing, MSG-GAN."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gan.export import Report, export, export_all, gate
from gan.export.module import Source, check_isolation, load_source
from gan.export.parity import BATCHES
from gan.runtime import ExportError, Generator, InputError, ParityError, interpolate, mix
from gan.runtime.inputs import draw_field
from gan.runtime.signature import Signature
from gan.trainer import Checkpoint
from gan.trainer.checkpoint import save

from .conftest import trace_here

Make = Callable[..., Path]
Array = NDArray[Any]
PYRAMID: dict[str, Any] = {
    "width": 4, "max_width": 8, "latent": 5, "embedding": 3, "projection": 4, "channels": 3,
}  # fmt: skip
STYLED = {**PYRAMID, "style": 6, "mapping_layers": 2}
FILES = ["m.onnx", "m.mapping.onnx", "m.synthesis.onnx"]
GRAPHS = ["image", "mapping", "synthesis"]


def to_deviation(path: Path, wanted: float = 0.6) -> None:
    """Scale what an image is read by: it is linear, so the deviation of the images is then as wanted."""
    checkpoint = Checkpoint.load(path)
    source = load_source(checkpoint, graph=None, system_file=None)
    scale = wanted / source.run(source.inputs(64))[0].std().item()
    for state in checkpoint.content["averaged"].values():
        for name, tensor in state.items():
            if name.startswith("to_image.") and "affine" not in name:
                tensor *= scale
    save(path, checkpoint.content)


def as_bytes(truth: Tensor) -> Array:
    """Our own formula again, in float64, not rounded to a byte's type."""
    x = truth.double().numpy()
    return np.rint(np.clip(127.5 * x + 127.5, 0, 255)).transpose(0, 2, 3, 1)


def largest(a: Array, b: Array) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# StyleGAN2.


@dataclass(frozen=True)
class Styled:
    """A checkpoint, and the files of all its graphs."""

    checkpoint: Path
    files: list[Path]
    reports: dict[Path, Report]
    labelled: bool

    def source(self, graph: str) -> Source:
        return load_source(Checkpoint.load(self.checkpoint), graph=graph, system_file=None)

    def generators(self) -> tuple[Generator, Generator, Generator]:
        image, mapping, synthesis = (Generator(path, device="cpu") for path in self.files)
        return image, mapping, synthesis


@pytest.fixture(scope="module", params=["labelled", "unlabelled"])
def styled(
    request: pytest.FixtureRequest, make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory
) -> Styled:
    labelled = request.param == "labelled"
    checkpoint = make_checkpoint("stylegan2", **STYLED, labels=labelled)
    to_deviation(checkpoint)
    folder = tmp_path_factory.mktemp("styled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "trace", trace_here)
        reports = export_all(checkpoint, folder / "m.onnx", max_batch=9)
    assert sorted(bytes_of(folder)) == sorted(FILES)
    return Styled(checkpoint, [folder / name for name in FILES], reports, labelled)


def test_all_three_graphs_are_proven_and_exact(styled: Styled) -> None:
    assert list(styled.reports) == styled.files  # the main one first
    for (path, report), graph in zip(styled.reports.items(), GRAPHS, strict=True):
        assert [row.batch for row in report.rows] == [*BATCHES, 9]
        assert {row.output for row in report.rows} == {"w" if graph == "mapping" else "image"}
        assert all(row.max_abs <= 1e-4 for row in report.rows)
        assert all((row.step is None) == (graph == "mapping") for row in report.rows)
        assert all(row.step is None or row.step <= 1 for row in report.rows)
        assert report.exactness.across_batches == 0.0
        generator = Generator(path, device="cpu")
        assert generator.verify() == "exact"
        assert generator.metadata("system")["graph"] == graph


def test_the_networks_proven_here_use_all_their_inputs(styled: Styled) -> None:
    """Else parity proves little."""
    source = styled.source("image")
    fields, inputs = source.signature.inputs, source.inputs(32)
    images = source.run(inputs)[0]
    assert 0.3 <= images.std().item() <= 1.1
    state = Checkpoint.load(styled.checkpoint).content["averaged"]["synthesis"]
    strengths = [value.item() for name, value in state.items() if name.endswith("strength")]
    assert len(strengths) == 3 and min(map(abs, strengths)) > 0.2
    for place, field in enumerate(fields):
        other = list(inputs)
        other[place] = 1 - inputs[place] if field.kind == "label" else inputs[place].roll(1, 0)
        seen = (source.run(other)[0] - images).abs().mean().item()
        assert seen > 0.004, f"{field.name} moves the image by {seen} only"


def test_the_files_say_what_they_take_and_give(styled: Styled) -> None:
    image, mapping, synthesis = styled.generators()
    given = ["z", *["label"][: styled.labelled], "truncation"]
    noise = ["noise_4", "noise_8_0", "noise_8_1"]
    assert [field.name for field in image.signature.inputs] == given + noise
    assert [field.name for field in mapping.signature.inputs] == given
    assert [field.name for field in synthesis.signature.inputs] == ["w", *noise]
    assert (mapping.signature.main.kind, mapping.signature.main.shape) == ("style", (6,))
    styles = synthesis.signature.inputs[0]
    assert (styles.kind, styles.shape, styles.draw) == ("style", (4, 6), None)
    assert synthesis.signature.main == image.signature.main
    assert image.signature.main.shape == (8, 8, 3)
    classes = ("cat", "dog") if styled.labelled else ()
    assert image.classes == mapping.classes == classes and synthesis.classes == ()
    for generator in (image, synthesis):
        draws = [generator.signature.input(name).draw for name in noise]  # type: ignore[union-attr]
        assert [draw.stream for draw in draws if draw and draw.shared] == [16, 17, 18]


def test_the_files_of_one_checkpoint_share_its_digest_and_another_has_another(
    styled: Styled, make_checkpoint: Make, tmp_path: Path, traced_here: None
) -> None:
    digests = {g.metadata("weights")["checkpoint"] for g in styled.generators()}
    graphs = {g.metadata("weights")["graph"] for g in styled.generators()}
    assert len(digests) == 1 and len(graphs) == 3
    content = Checkpoint.load(styled.checkpoint)
    content.content["averaged"]["synthesis"]["constant"] *= 1.001
    save(tmp_path / "other.pt", content.content)
    export(tmp_path / "other.pt", tmp_path / "other.onnx", graph="mapping", max_batch=1)
    other = Generator(tmp_path / "other.onnx", device="cpu")
    assert other.metadata("weights")["checkpoint"] not in digests
    with pytest.raises(InputError, match="not of one checkpoint"):
        mix(other, styled.generators()[2], [1], [])


@pytest.mark.parametrize("noise", ["shared", "drawn"])
@pytest.mark.parametrize("truncation", [None, 0.3, -1.5, 2.0])
def test_samples_are_torchs_at_any_truncation_and_noise(
    styled: Styled, noise: Any, truncation: float | None
) -> None:
    source = styled.source("image")
    inputs = {
        field.name: draw_field(field, 7, range(5), each=noise == "drawn").copy()
        for field in source.signature.inputs
    }
    if truncation is not None:
        inputs["truncation"][:] = truncation
    truth = source.run([torch.from_numpy(x) for x in inputs.values()])[0]
    images = styled.generators()[0].sample(5, seed=7, truncation=truncation, noise=noise)
    assert largest(images, as_bytes(truth)) <= 1


def test_truncation_0_is_the_mean_image_and_drawn_noise_is_seen(styled: Styled) -> None:
    image, _, _ = styled.generators()
    mean = image.sample(6, seed=1, truncation=0.0)
    assert all(np.array_equal(one, mean[0]) for one in mean)
    drawn = image.sample(6, seed=1, truncation=0.0, noise="drawn")
    assert all(largest(a, b) > 3 for a, b in itertools.pairwise(drawn))
    assert all(largest(a, b) > 3 for a, b in itertools.pairwise(image.sample(6, seed=1)))


@pytest.mark.parametrize("truncation", [0.0, 0.25, -1.5, 2.0])
def test_truncation_leads_to_the_mean_style_of_the_checkpoint(
    styled: Styled, truncation: float
) -> None:
    _, mapping, _ = styled.generators()
    average = Checkpoint.load(styled.checkpoint).content["averaged"]["mapping"]["average"].numpy()
    w = mapping.sample(6, seed=1).astype(np.float64)
    expected = average + truncation * (w - average)
    found = mapping.sample(6, seed=1, truncation=truncation)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(w - average).max() > 0.1
    source = styled.source("mapping")
    drawn = [torch.from_numpy(draw_field(f, 1, range(6))) for f in source.signature.inputs]
    whole = cast(Any, source.module).mapping(*drawn[:-1])  # the network, which knows no truncation
    np.testing.assert_allclose(w, whole.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("truncation", [None, 0.5, -1.0])
def test_one_style_in_all_layers_is_the_main_graphs_image(
    styled: Styled, truncation: float | None
) -> None:
    image, mapping, synthesis = styled.generators()
    seeds, given = [0, 3, 12, 2**64 - 1], {"truncation": truncation}
    for label in (None, "cat", "dog") if styled.labelled else (None,):
        mixed = mix(mapping, synthesis, [seeds], [], label=label, **given)
        alone = [image.sample(1, seed=seed, label=label, **given)[0] for seed in seeds]  # type: ignore[arg-type]
        assert largest(mixed, np.stack(alone)) <= 1
    path = interpolate(mapping, synthesis, 3, 12, 5, truncation=truncation)
    ends = [image.sample(1, seed=seed, truncation=truncation)[0] for seed in (3, 12)]
    assert largest(path[[0, -1]], np.stack(ends)) <= 1


@pytest.mark.parametrize("border", [1, 2, 3])
def test_mixed_styles_are_torchs(styled: Styled, border: int) -> None:
    _, mapping, synthesis = styled.generators()
    source, fields = styled.source("mapping"), styled.source("mapping").signature.inputs
    a, b = (
        source.run([torch.from_numpy(draw_field(field, seed, [0])) for field in fields])[0][0]
        for seed in (3, 12)
    )
    w = torch.stack([a if layer < border else b for layer in range(4)])[None]
    drawn = styled.source("synthesis")
    noise = [torch.from_numpy(draw_field(f, 0, [0]).copy()) for f in drawn.signature.inputs[1:]]
    truth = drawn.run([w, *noise])[0]
    assert largest(mix(mapping, synthesis, [3, 12], [border]), as_bytes(truth)) <= 1


def test_one_graph_alone_is_the_file_that_all_give(
    styled: Styled, tmp_path: Path, traced_here: None
) -> None:
    for graph, path in zip(GRAPHS[1:], styled.files[1:], strict=True):
        export(styled.checkpoint, tmp_path / "one.onnx", graph=graph, max_batch=9, overwrite=True)
        assert (tmp_path / "one.onnx").read_bytes() == path.read_bytes()
    assert list(bytes_of(tmp_path)) == ["one.onnx"]


# What is proven, is proven of every path through the graph.


def test_parity_is_measured_with_other_truncations_and_noise_of_each_sample(
    styled: Styled,
) -> None:
    source = styled.source("image")
    inputs = dict(
        zip([field.name for field in source.signature.inputs], source.inputs(8), strict=True)
    )
    psi = inputs["truncation"]
    assert len(set(psi.tolist())) == 8 and (psi != 1).sum() >= 7
    assert 0 <= psi.min() < 0.4 and 0.6 < psi.max() <= 1  # from the middle of the range to 1
    for name in ("noise_4", "noise_8_0", "noise_8_1"):
        assert len({row.numpy().tobytes() for row in inputs[name]}) == 8
    for place, tensor in enumerate(source.inputs(3, start=4)):
        assert torch.equal(tensor, source.inputs(8)[place][4:7])


class Ignoring(nn.Module):
    """A graph to which an input is always the same."""

    def __init__(self, module: nn.Module, place: int, value: float) -> None:
        super().__init__()
        self.module, self.place, self.value = module, place, value

    def forward(self, *inputs: Tensor) -> Tensor:
        given = list(inputs)
        given[self.place] = torch.full_like(given[self.place], self.value)
        return self.module(*given)


@pytest.mark.parametrize(
    ("graph", "name", "value"),
    [("image", "truncation", 1.0), ("mapping", "truncation", 1.0), ("image", "noise_8_1", 0.0),
     ("synthesis", "noise_4", 0.0)],
)  # fmt: skip
def test_a_file_that_ignores_an_input_is_refused(
    graph: str,
    name: str,
    value: float,
    styled: Styled,
    tmp_path: Path,
    traced_here: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The traced graph takes truncation and noise to be what `sample` gives, torch what is drawn."""
    prove = gate._prove

    def other(source: Source, *rest: Any) -> Any:
        place = [field.name for field in source.signature.inputs].index(name)
        changed = Ignoring(source.module, place, value)
        return prove(
            Source(source.checkpoint, source.system, source.graph, source.signature, changed), *rest
        )

    monkeypatch.setattr(gate, "_prove", other)
    with pytest.raises(ParityError, match="disagree"):
        export(styled.checkpoint, tmp_path / "m.onnx", graph=graph, max_batch=1)
    assert bytes_of(tmp_path) == {}


def test_noise_that_is_of_one_sample_only_is_no_isolated_graph(styled: Styled) -> None:
    """Noise that all samples of a batch take from the first: seen, as each has its own in the proof."""

    class First(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: Tensor) -> Tensor:
            return self.module(*inputs[:-1], inputs[-1][:1].expand_as(inputs[-1]))

    s = styled.source("image")
    check_isolation(s)
    with pytest.raises(ExportError, match="depends on the other samples"):
        check_isolation(Source(s.checkpoint, s.system, s.graph, s.signature, First(s.module)))


# All or nothing.


@pytest.fixture(scope="module")
def plain(make_checkpoint: Make) -> Path:
    """A stylegan2 checkpoint for exports that fail."""
    return make_checkpoint("stylegan2", **STYLED, labels=False)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("before", [{}, {name: b"mine " + name.encode() for name in FILES}])
def test_a_graph_that_fails_leaves_all_files_as_they_were(
    number: int,
    before: dict[str, bytes],
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def fails(kept: Path, checkpoint: Checkpoint, graph: str, settings: Any) -> Any:
        calls.append(graph)
        if len(calls) == number:
            raise ParityError("planted")
        return None, b"not to be written", ""

    monkeypatch.setattr(gate, "_prove_graph", fails)
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ParityError, match="planted"):
        export_all(plain, tmp_path / "m.onnx", overwrite=True)
    assert calls == GRAPHS[:number] and bytes_of(tmp_path) == before


def test_a_real_fault_in_the_second_graph_leaves_no_file(
    plain: Path, tmp_path: Path, traced_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = vars(gate)["trace"]

    def spoilt(*arguments: Any, **named: Any) -> Path:
        path: Path = trace(*arguments, **named)
        if named["graph"] == "mapping":
            model = onnx.load(path)
            model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 3
            onnx.save(model, path)
        return path

    monkeypatch.setattr(gate, "trace", spoilt)
    with pytest.raises(ExportError, match="fixed batch size"):
        export_all(plain, tmp_path / "m.onnx", max_batch=1)
    assert bytes_of(tmp_path) == {}


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_prove_graph", lambda *_: pytest.fail("a graph was proven"))


@pytest.mark.parametrize("name", FILES)
def test_a_file_in_the_way_is_refused_before_any_work(
    name: str, plain: Path, tmp_path: Path, no_work: None
) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(InputError, match=r"exists.*--force") as caught:
        export_all(plain, tmp_path / "m.onnx")
    assert str(tmp_path / name) in str(caught.value)
    assert bytes_of(tmp_path) == {name: b"mine"}


def test_a_file_that_came_during_the_work_is_kept_and_none_is_written(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def proves(kept: Path, checkpoint: Checkpoint, graph: str, settings: Any) -> Any:
        (tmp_path / FILES[0]).write_bytes(b"mine")
        return None, b"not to be written", ""

    monkeypatch.setattr(gate, "_prove_graph", proves)
    with pytest.raises(InputError, match="--force"):
        export_all(plain, tmp_path / "m.onnx")
    assert bytes_of(tmp_path) == {FILES[0]: b"mine"}


def test_the_checkpoint_is_never_overwritten_by_a_further_graph(
    plain: Path, tmp_path: Path, no_work: None
) -> None:
    checkpoint = tmp_path / "m.mapping.pt"
    checkpoint.write_bytes(plain.read_bytes())
    with pytest.raises(InputError, match="the checkpoint itself"):
        export_all(checkpoint, tmp_path / "m.pt", overwrite=True)
    assert bytes_of(tmp_path) == {"m.mapping.pt": plain.read_bytes()}


@pytest.mark.parametrize("graph", ["nosuch", "", "Image", "w", "a" * 1000])
def test_a_graph_that_is_not_there_is_refused_with_those_that_are(
    graph: str,
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not graph:
        monkeypatch.setattr(gate, "check_isolation", lambda _: pytest.fail("a graph was taken"))
    with pytest.raises(InputError, match="Choose one of image, mapping, synthesis"):
        export(plain, tmp_path / "m.onnx", graph=graph, max_batch=1)
    assert bytes_of(tmp_path) == {}


# Progressive growing: at 16 pixels there are the levels 0, 1 and 2.


def grown(make: Make, level: int, alpha: float, labels: bool) -> Path:
    path = make("progressive", **PYRAMID, resolution=16, labels=labels)
    checkpoint = Checkpoint.load(path)
    state = checkpoint.content["averaged"]["G"]
    state["level"].fill_(level)
    state["alpha"].fill_(alpha)
    save(path, checkpoint.content)
    to_deviation(path)
    return path


def weight_shapes(model: onnx.ModelProto, op: str) -> list[tuple[int, ...]]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [shapes[node.input[1]] for node in model.graph.node if node.op_type == op]


@pytest.mark.parametrize(
    ("level", "alpha", "labels"),
    [(2, 1.0, True), (2, 1.0, False), (0, 1.0, True), (1, 1.0, False), (1, 0.25, True), (2, 0.5, True)],
)  # fmt: skip
def test_a_progressive_generator_is_exported_as_far_as_it_has_grown(
    level: int,
    alpha: float,
    labels: bool,
    make_checkpoint: Make,
    tmp_path: Path,
    traced_here: None,
) -> None:
    path = grown(make_checkpoint, level, alpha, labels)
    report = export(path, tmp_path / "m.onnx", max_batch=9, target=None)  # as traced
    assert report.exactness.across_batches == 0.0
    assert all(
        row.max_abs <= 1e-4 and row.step is not None and row.step <= 1 for row in report.rows
    )
    model = onnx.load(tmp_path / "m.onnx")
    assert not {"If", "Loop", "Scan"} & {node.op_type for node in model.graph.node}
    assert [value.name for value in model.graph.input] == ["z", *["label"][:labels]]
    shapes = weight_shapes(model, "Conv")
    read = [shape for shape in shapes if shape[0] == 3]  # the image's channels
    assert len(read) == (2 if alpha < 1 else 1)
    assert len([shape for shape in shapes if shape[2:] == (3, 3)]) == 1 + 2 * level
    stored = {tuple(tensor.dims)[2:] for tensor in model.graph.initializer if len(tensor.dims) == 4}
    used = [t for t in model.graph.initializer if len(t.dims) == 4 and tuple(t.dims)[2:] == (3, 3)]
    assert len(used) <= 1 + 2 * level and stored  # and nothing of the levels above is kept

    generator = Generator(tmp_path / "m.onnx", device="cpu")
    assert generator.verify() == "exact"
    images = generator.sample(6, seed=7)
    side = 4 * 2**level
    source = load_source(Checkpoint.load(path), graph=None, system_file=None)
    drawn = [torch.from_numpy(draw_field(f, 7, range(6))) for f in source.signature.inputs]
    label = drawn[1] if labels else None
    with torch.no_grad():  # the network itself, told its level
        small = cast(Any, source.module).generator(drawn[0], label, level, alpha)
    assert small.shape == (6, 3, side, side) and small.std() > 0.3
    enlarged = np.repeat(np.repeat(as_bytes(small), 16 // side, 1), 16 // side, 2)
    assert images.shape == (6, 16, 16, 3) and largest(images, enlarged) <= 1
    if labels:
        assert largest(*(generator.sample(1, seed=7, label=name) for name in ("cat", "dog"))) > 5


# MSG-GAN.


@pytest.mark.parametrize("labels", [True, False])
def test_msg_gan_gives_an_image_at_every_scale_and_the_largest_first(
    labels: bool, make_checkpoint: Make, tmp_path: Path, traced_here: None
) -> None:
    path = make_checkpoint("msg-gan", **PYRAMID, resolution=16, labels=labels)
    to_deviation(path)
    report = export(path, tmp_path / "m.onnx", max_batch=9)
    names = ["image", "image_8", "image_4"]
    assert [(row.batch, row.output) for row in report.rows] == [
        (batch, name) for batch in [*BATCHES, 9] for name in names
    ]
    assert all(
        row.max_abs <= 1e-4 and row.step is not None and row.step <= 1 for row in report.rows
    )
    assert report.exactness.across_batches == 0.0
    model = onnx.load(tmp_path / "m.onnx")
    assert [value.name for value in model.graph.output] == names
    for value, side in zip(model.graph.output, (16, 8, 4), strict=True):
        batch, *rest = value.type.tensor_type.shape.dim
        assert batch.dim_param == "batch" and [axis.dim_value for axis in rest] == [side, side, 3]

    generator = Generator(tmp_path / "m.onnx", device="cpu")
    assert generator.verify() == "exact" and generator.signature.main.name == "image"
    source = load_source(Checkpoint.load(path), graph=None, system_file=None)
    drawn = {f.name: draw_field(f, 7, range(5)) for f in source.signature.inputs}
    assert list(drawn) == ["z", *["label"][:labels]]
    truths = source.run([torch.from_numpy(x) for x in drawn.values()])
    outputs = generator(**drawn)
    assert list(outputs) == names
    for name, truth in zip(names, truths, strict=True):
        assert truth.std() > 0.1 and outputs[name].dtype == np.uint8
        assert largest(outputs[name], as_bytes(truth)) <= 1
    np.testing.assert_array_equal(generator.sample(5, seed=7), outputs["image"])


def test_a_fault_in_a_further_output_is_named_by_it(
    make_checkpoint: Make, tmp_path: Path, traced_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Off(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: Tensor) -> Sequence[Tensor]:
            first, second, third = self.module(*inputs)
            return first, second, third + 1e-3

    prove = gate._prove
    monkeypatch.setattr(
        gate,
        "_prove",
        lambda s, *rest: prove(
            Source(s.checkpoint, s.system, s.graph, s.signature, Off(s.module)), *rest
        ),
    )
    path = make_checkpoint("msg-gan", **PYRAMID, resolution=16, labels=False)
    with pytest.raises(ParityError, match=r"disagree \(output image_4\)"):
        export(path, tmp_path / "m.onnx", max_batch=1)
    assert bytes_of(tmp_path) == {}


def test_the_signatures_of_all_graphs_survive_the_file(styled: Styled) -> None:
    for graph, generator in zip(GRAPHS, styled.generators(), strict=True):
        wanted, found = styled.source(graph).signature, generator.signature
        assert found.inputs == wanted.inputs and found.classes == wanted.classes
        assert Signature.from_json(found.to_json()) == found


def test_the_default_batch_of_the_proof_is_64_and_smaller_for_large_samples() -> None:
    def of(*shape: int) -> int:
        from gan.runtime import Draw, Field

        z = Field("z", (4,), draw=Draw("normal"))
        return gate.default_max_batch(Signature((z,), (Field("image", shape, "image"),)))

    assert of(3, 128, 128) == of(1, 8, 8) == of(2) == 64
    assert of(3, 256, 256) == 16 and of(3, 1024, 1024) == 8
    assert 8 < of(3, 256, 200) < 64
