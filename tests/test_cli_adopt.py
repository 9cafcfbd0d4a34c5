"""`gan adopt`: its output and exit code, and each family from its published file to the same images by the runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from gan.cli import app
from gan.runtime import Generator
from gan.runtime.images import quantize

from .trainer.published import (
    FlatResNet,
    NestedUNet,
    Tutorial,
    Upscaler,
    batch,
    instance,
    randomised,
)

runner = CliRunner()


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def gan(*arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, [*arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def test_its_output_and_what_inspect_says(tmp_path: Path) -> None:
    torch.save({"netG": Tutorial(5, (6, 3, 1)).state_dict()}, "weights.pth")
    lines = gan("adopt", "weights.pth", "model.pt").splitlines()
    assert lines[0] == "Recognised: generator of the DCGAN tutorial, 16 pixels, at netG"
    parameters = 16 * (5 * 6 + 6 * 3 + 3 * 1) + 2 * (
        6 + 3
    )  # width 3 doubled is 6: no widths of its own
    assert lines[1] == f"  dcgan: latent 5, width 3; {parameters} parameters"
    size = f"{Path('model.pt').stat().st_size / 1e6:.2f} MB"
    assert lines[2] == f"Wrote model.pt ({size})"
    assert lines[3:] == ["Next: gan export model.pt model.onnx"]
    refused = gan("adopt", "weights.pth", "model.pt", code=1)
    assert refused == "gan: model.pt exists. Nothing is overwritten unasked. Add --force.\n"
    content = json.loads(gan("adopt", "weights.pth", "model.pt", "--force", "--json"))
    assert content["system"] == "dcgan" and content["key"] == "netG"
    shown = json.loads(gan("inspect", "model.pt", "--json"))
    assert shown["data"]["name"] == "adopted: generator of the DCGAN tutorial, 16 pixels"
    assert shown["data"]["digest"] == content["sha256"]
    assert shown["parameters"]["G"] == content["parameters"] and shown["progress"]["step"] == 0


def test_its_refusals_are_one_line() -> None:
    torch.save({"a": torch.ones(2)}, "weights.pth")
    said = gan("adopt", "weights.pth", "model.pt", code=1)
    assert said.startswith("gan: weights.pth was not recognised. ") and said.count("\n") == 1
    for name in ("unet_N", "resnet_Nblocks", "DCGAN tutorial", "RRDB_trunk.N", "sub.N", "body.N"):
        assert name in said
    assert "nowhere.pth cannot be read" in gan("adopt", "nowhere.pth", "model.pt", code=1)
    torch.save(NestedUNet(5, 2, instance).state_dict(), "weights.pth")
    assert "Leave --statistics out" in gan(
        "adopt", "weights.pth", "model.pt", "--statistics", "image", code=1
    )
    gan("adopt", "weights.pth", "model.pt", "--statistics", "none", code=2)
    assert "no such network" in gan("adopt", "weights.pth", "model.pt", "--key", "G", code=1)
    assert not Path("model.pt").exists()


def _trained(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return network.eval()


def _by_image(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.cat([network.train()(row[None]) for row in x])


def _from_0_to_1(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: network.eval()((x + 1) / 2) * 2 - 1


@pytest.mark.parametrize(
    ("network", "function", "statistics", "side"),
    [
        (NestedUNet(5, 4, batch), _trained, "training", 64),
        (NestedUNet(5, 4, batch), _by_image, "image", 64),
        (FlatResNet(2, 4, instance, dropout=True), _trained, "training", 24),
        (Upscaler(8, 1, 4, unshuffle=2), _from_0_to_1, "training", 20),
    ],
)
def test_a_translator_from_the_published_file_to_the_runtime(
    network: nn.Module, function: Callable[[nn.Module], Callable[[Tensor], Tensor]],
    statistics: str, side: int,
) -> None:  # fmt: skip
    theirs = function(randomised(network))
    torch.save(network.state_dict(), "weights.pth")
    gan("adopt", "weights.pth", "model.pt", "--statistics", statistics)
    assert "Next: gan translate model.onnx" in gan(
        "export", "model.pt", "model.onnx", "--max-batch", "2"
    )
    generator = Generator("model.onnx", device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (2, side, 2 * side, 3), np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        truth = theirs(x).numpy()
    made = generator(image=images)[generator.signature.main.name]
    assert truth.std() > 0.1
    steps = np.abs(quantize(truth).astype(int) - made.astype(int))
    assert steps.max() <= 1 and (steps > 0).mean() < 1e-3


def test_a_tutorial_generator_from_the_published_file_to_the_runtime() -> None:
    theirs = randomised(Tutorial(7, (9, 4, 3)))
    torch.save(theirs.state_dict(), "weights.pth")
    gan("adopt", "weights.pth", "model.pt")
    assert "Next: gan sample model.onnx" in gan("export", "model.pt", "model.onnx")
    z = np.random.default_rng(0).standard_normal((8, 7), np.float32)
    with torch.no_grad():
        truth = theirs(torch.from_numpy(z)).numpy()
    steps = np.abs(
        quantize(truth).astype(int)
        - Generator("model.onnx", device="cpu")(z=z)["image"].astype(int)
    )
    assert truth.std() > 0.1 and steps.max() <= 1 and (steps > 0).mean() < 1e-3
