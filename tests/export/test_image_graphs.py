"""The gate on systems that take images: every one proven at all sizes, bytes in and out, known pixels untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from gan.export import Report, export, export_all, gate
from gan.export.module import Source, load_source
from gan.export.parity import cases
from gan.runtime import ExportError, Generator
from gan.trainer import Checkpoint, Request, train
from gan.trainer.checkpoint import save
from gan.trainer.systems.srgan import SRResNet

from .conftest import OF_IMAGES, randomise, trace_here

Array = NDArray[Any]
SIZE = 16
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "pix2pix": ("pix2pix", {"width": 4, "d_width": 4, "downs": 2}),
    "resnet": ("pix2pix", {"generator": "resnet", "norm": "instance", "residual": True, "width": 4,
                           "blocks": 1, "downs": 1, "d_width": 4}),
    "cyclegan": ("cyclegan", {"width": 4, "d_width": 4, "blocks": 1, "downs": 1, "up": "resize"}),
    "srgan": ("srgan", {"width": 4, "d_width": 2, "blocks": 1, "scale": 2, "norm": "batch"}),
    "rrdb": ("srgan", {"generator": "rrdb", "width": 6, "growth": 4, "d_width": 2, "blocks": 1,
                       "scale": 2, "unshuffle": 2}),
    "inpainting": ("inpainting", {"width": 8, "d_width": 4}),
    "unet": ("inpainting", {"generator": "unet", "downs": 2, "width": 8, "d_width": 4, "norm": "instance"}),
    "face-aging": ("face-aging", {"width": 4, "e_width": 4, "embedded": 5, "latent": 6,
                                  "embedding": 3, "projection": 4}),
}  # fmt: skip
GRAPHS = {
    "cyclegan": ["a2b", "b2a"],
    "face-aging": ["generate", "encode", "embed", "age"],
}


def pictures(root: Path, seed: int) -> Path:
    """Twelve images of noise in two folders."""
    source = np.random.default_rng(seed)
    for i in range(12):
        folder = root / ("18", "60")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(
            folder / f"{i}.png"
        )
    return root


@torch.no_grad()
def calibrate(checkpoint: Checkpoint) -> None:
    """Random weights, with the statistics that they give, and outputs that spread over the range but not beyond."""
    system = checkpoint.system()
    content = checkpoint.content["averaged"]
    for seed, state in enumerate(content.values(), start=1):
        randomise(state, seed)
    networks = checkpoint.averaged_networks(system)
    for graph in system.graphs().values():
        module, signature = graph.build(networks), graph.signature
        source = Source(checkpoint, checkpoint.config.system, "", signature, module)
        norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
        for _ in norms:  # each pass settles one more
            source.run(source.inputs(8))
        module.eval()
        if "srgan" in system.name:
            last = [m for m in module.modules() if isinstance(m, nn.Conv2d)][-1]
            spread = (source.run(source.inputs(8))[0]).std()
            for tensor in last.parameters():
                tensor.mul_(0.6 / spread)
    for name, network in networks.items():
        content[name] = dict(network.state_dict())


@dataclass(frozen=True)
class Proven:
    checkpoint: Path
    reports: dict[Path, Report]

    def source(self, graph: str | None = None) -> Source:
        return load_source(Checkpoint.load(self.checkpoint), graph=graph, system_file=None)


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Proven]:
    """A checkpoint of a case, and the files of all its graphs: once."""
    made: dict[str, Proven] = {}
    data = pictures(tmp_path_factory.mktemp("data"), 0)
    source = pictures(tmp_path_factory.mktemp("source"), 1)

    def prove(case: str) -> Proven:
        if case not in made:
            system, given = CASES[case]
            out = tmp_path_factory.mktemp(case)
            given = {"resolution": SIZE, "channels": 3, "batch_size": 4, "steps": 1, **given}
            sided = str(source) if system in ("pix2pix", "cyclegan") else None
            train(Request(data=str(data), source=sided, system=system, given=given, out=out, threads=1))  # fmt: skip
            checkpoint = Checkpoint.load(out / "model.pt")
            calibrate(checkpoint)
            save(out / "model.pt", checkpoint.content)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(gate, "trace", trace_here)
                reports = export_all(out / "model.pt", out / "m.onnx", max_batch=8)
            made[case] = Proven(out / "model.pt", reports)
        return made[case]

    return prove


def test_for_cpus_transposed_convolutions_are_phases_at_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that makes 8 x 8 of 4 x 4 pixels; before it rows are too short, and the last one has 3 channels."""
    given = {"width": 16, "d_width": 4, "downs": 4, "resolution": SIZE, "batch_size": 4, "steps": 1}
    data, source = pictures(tmp_path / "data", 0), pictures(tmp_path / "source", 1)
    train(Request(data=str(data), source=str(source), system="pix2pix", given=given, out=tmp_path / "run", threads=1))  # fmt: skip
    checkpoint = Checkpoint.load(tmp_path / "run" / "model.pt")
    calibrate(checkpoint)
    save(tmp_path / "model.pt", checkpoint.content)
    monkeypatch.setattr(gate, "trace", trace_here)
    made = {}
    for target in ("any", "cpu"):
        report = export(tmp_path / "model.pt", tmp_path / target, target=target, max_batch=2)
        words = {name for name in report.rewrites if "transposed" in name or "shuffles" in name}
        assert len(words) == 2 * (target == "cpu")
        image = np.random.default_rng(3).integers(0, 256, (2, 48, 32, 3), np.uint8)
        made[target] = Generator(tmp_path / target, device="cpu")(image=image)["translated"]
    difference = np.abs(made["cpu"].astype(int) - made["any"])
    assert np.ptp(made["any"]) > 100 and difference.max() <= 1 and difference.mean() < 1e-3


def formula(x: torch.Tensor) -> Array:
    """Torch's floats as bytes, in float64."""
    return np.rint(np.clip(127.5 * x.double().numpy() + 127.5, 0, 255)).transpose(0, 2, 3, 1)


def drawn(source: Source, count: int, sizes: dict[str, int]) -> dict[str, Array]:
    """Bytes, labels and latents for the source's inputs; masks of 0 and 255."""
    random, given = np.random.default_rng(5), {}
    for field in source.signature.inputs:
        shape = (count, *field.shape_at(sizes))
        if field.kind == "image":
            given[field.name] = random.integers(0, 256, shape, np.uint8).transpose(0, 2, 3, 1)
        elif field.kind == "mask":
            mask = random.integers(0, 2, shape, np.uint8) * np.uint8(255)
            given[field.name] = mask.transpose(0, 2, 3, 1)
        elif field.kind == "label":
            given[field.name] = random.integers(0, 2, shape)
        else:
            given[field.name] = random.normal(size=shape).astype(np.float32)
    return given


def as_torch(source: Source, given: dict[str, Array]) -> list[torch.Tensor]:
    """The same as torch takes them, by division in float32."""
    tensors = []
    for field in source.signature.inputs:
        x = np.ascontiguousarray(given[field.name])
        if field.kind in ("image", "mask"):
            planes = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).float()
            tensors.append(planes / 127.5 - 1 if field.kind == "image" else planes / 255)
        else:
            tensors.append(torch.from_numpy(x))
    return tensors


@pytest.mark.parametrize("case", CASES)
def test_every_graph_is_proven_at_all_batches_and_sizes(
    case: str, proven: Callable[[str], Proven]
) -> None:
    found = proven(case)
    names = GRAPHS.get(case, [None])
    files = ["m.onnx", *(f"m.{name}.onnx" for name in names[1:])]
    assert [path.name for path in found.reports] == files
    assert {system for system, _ in CASES.values()} == set(OF_IMAGES)
    for (path, report), name in zip(found.reports.items(), names, strict=True):
        source = found.source(name)
        spread = source.run(source.inputs(8))[0].std().item()
        most = 1.6 if source.signature.main.kind == "image" else 10
        assert 0.2 <= spread <= most  # else parity proves little
        wanted = cases(source.signature, 8)
        assert [row.batch for row in report.rows] == [batch for batch, _ in wanted]
        shown = [
            "x".join(map(str, source.signature.main.shape_at(sizes)[1:])) if sizes else ""
            for _, sizes in wanted
        ]
        assert [row.size for row in report.rows] == shown
        assert all(row.max_abs <= 1e-4 and (row.step or 0) <= 1 for row in report.rows)
        assert report.exactness.across_batches == 0.0
        generator = Generator(path, device="cpu")
        assert generator.verify() == "exact"
        assert generator.signature.radius == source.signature.radius
        assert generator.signature.least == source.signature.least


@pytest.mark.parametrize("case", CASES)
def test_the_files_take_and_give_bytes_of_any_size_as_torch_does(
    case: str, proven: Callable[[str], Proven]
) -> None:
    found = proven(case)
    for path, name in zip(found.reports, GRAPHS.get(case, [None]), strict=True):
        source, generator = found.source(name), Generator(path, device="cpu")
        least = source.signature.least
        for h, w in ((least, least), (least + 2, least + 4), (least + 11, least)):
            sizes = dict.fromkeys(source.signature.factors, h)
            sizes |= {"w": w} if "w" in sizes else {}
            given = drawn(source, 2, sizes)
            made = generator(**given)
            truth = source.run(as_torch(source, given))
            for field, expected in zip(source.signature.outputs, truth, strict=True):
                ours = made[field.name]
                if field.kind == "image":
                    assert ours.dtype == np.uint8
                    assert np.abs(ours.astype(int) - formula(expected)).max() <= 1
                else:
                    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-4)


def test_the_inputs_of_a_file_are_bytes_nhwc(proven: Callable[[str], Proven]) -> None:
    (path,) = proven("inpainting").reports
    image, mask = Generator(path, device="cpu").signature.inputs
    assert (image.shape, image.dtype, image.range) == (("4*h", "4*w", 3), "uint8", (0.0, 255.0))
    assert (mask.shape, mask.dtype, mask.range) == (("4*h", "4*w", 1), "uint8", (0.0, 255.0))
    for path, name in zip(proven("face-aging").reports, GRAPHS["face-aging"], strict=True):
        kinds = {f.name: f.dtype for f in Generator(path, device="cpu").signature.inputs}
        expected = {"image": "uint8", "label": "int64", "z": "float32"}
        assert kinds == {n: expected[n] for n in kinds} and len(kinds) == (name in ("generate", "age")) + 1  # fmt: skip


@pytest.fixture(scope="module")
def floats(
    proven: Callable[[str], Proven], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The same with `--output float`."""
    made: dict[str, Path] = {}

    def prove(case: str) -> Path:
        if case not in made:
            made[case] = tmp_path_factory.mktemp("float") / "m.onnx"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(gate, "trace", trace_here)
                export(proven(case).checkpoint, made[case], image="float", max_batch=8)
        return made[case]

    return prove


@pytest.mark.parametrize("case", ["srgan", "unet"])
def test_a_float_file_takes_and_gives_nchw(
    case: str, proven: Callable[[str], Proven], floats: Callable[[str], Path]
) -> None:
    source, generator = proven(case).source(), Generator(floats(case), device="cpu")
    assert generator.signature.inputs == source.signature.inputs
    given = {
        field.name: x.numpy()
        for field, x in zip(source.signature.inputs, source.inputs(2), strict=True)
    }
    (made,) = generator(**given).values()
    (truth,) = source.run(source.inputs(2))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, truth.clamp(-1, 1).numpy(), atol=1e-4)
    assert generator.verify() == "exact"


# Inpainting: what is known stays.


@pytest.mark.parametrize("case", ["inpainting", "unet"])
def test_outside_the_hole_a_file_gives_the_inputs_bytes(
    case: str, proven: Callable[[str], Proven]
) -> None:
    (path,) = proven(case).reports
    generator = Generator(path, device="cpu")
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)  # all values
    random = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    image = np.concatenate([every, random])
    mask = np.zeros((4, 16, 16, 1), np.uint8)
    mask[1:, 3:9, 5:] = 255
    mask[0, 0, 0], mask[0, 15, 15], mask[2] = 127, 1, 0  # less than half is known
    (made,) = generator(image=image, mask=mask).values()
    known = (mask < 128).repeat(3, 3)
    assert np.array_equal(made[known], image[known])
    assert (made[~known] != image[~known]).mean() > 0.9
    mask[0, 8:] = 128  # more than half is a hole
    (made,) = generator(image=image, mask=mask).values()
    assert (made[0, 8:] != image[0, 8:]).mean() > 0.9
    assert np.array_equal(made[0, :8], image[0, :8])


def test_outside_the_hole_a_float_file_gives_the_inputs_bits(floats: Callable[[str], Path]) -> None:
    generator = Generator(floats("unet"), device="cpu")
    random = np.random.default_rng(0)
    image = random.uniform(-1, 1, (4, 3, 12, 20)).astype(np.float32)
    image[0, :, 0, :4] = np.array([[-0.0, 1.0, -1.0, 1e-38]], np.float32)
    mask = random.integers(0, 2, (4, 1, 12, 20)).astype(np.float32)
    mask[0, 0, 0, :4] = 0
    (made,) = generator(image=image, mask=mask).values()
    known = (mask == 0).repeat(3, 1)
    assert np.array_equal(made[known], image[known])
    assert (made[~known] != image[~known]).mean() > 0.9


# What is refused.


def test_a_radius_that_is_too_small_is_refused_before_anything_is_traced(
    proven: Callable[[str], Proven], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = proven("srgan").checkpoint
    monkeypatch.setattr(SRResNet, "radius", staticmethod(lambda blocks, scale: 6))

    def untraced(*_: Any, **__: Any) -> Path:
        raise AssertionError

    monkeypatch.setattr(gate, "trace", untraced)
    with pytest.raises(ExportError, match="outside the radius"):
        export(checkpoint, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_least_size_that_is_too_small_is_refused(
    proven: Callable[[str], Proven], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = proven("resnet").checkpoint
    monkeypatch.setattr("gan.trainer.systems.pix2pix.least_side", lambda generator: 1)
    with pytest.raises(ExportError, match=r"another size\. 2 x 2 pixels.*raise least"):
        export(checkpoint, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_two_exports_give_the_same_bytes(
    proven: Callable[[str], Proven], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "trace", trace_here)
    found = proven("srgan")
    (path,) = found.reports
    export(found.checkpoint, tmp_path / "again.onnx", max_batch=8)
    assert path.read_bytes() == (tmp_path / "again.onnx").read_bytes()
