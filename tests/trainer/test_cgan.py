"""The conditional GAN: a class changes the image and the logit, and D compares the two by a projection."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gan.runtime.errors import InputError
from gan.trainer.config import make_options
from gan.trainer.parts import DataInfo
from gan.trainer.systems.cgan import CGAN

from .conftest import TINY, images, training

DATA = DataInfo((1, 8, 8), ("a", "b", "c"))
GIVEN = {name: value for name, value in TINY.items() if name != "resolution"}


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return CGAN(make_options(CGAN, DATA, GIVEN), DATA).networks()


def test_a_class_changes_the_image() -> None:
    network = networks()["G"].eval()
    z = torch.randn(1, 4).expand(3, -1)
    images = network(z, torch.arange(3))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (images[a] - images[b]).abs().max() > 1e-3
    same = network(z, torch.ones(3, dtype=torch.long))
    assert torch.allclose(same[0], same[2], atol=1e-6)


def test_a_class_changes_the_logit() -> None:
    network = networks()["D"]
    x = torch.randn(1, 1, 8, 8).expand(3, -1, -1, -1)
    logits = network(x, torch.arange(3))
    assert logits.shape == (3,) and len({round(v, 6) for v in logits.tolist()}) == 3


def test_the_logit_is_that_of_the_image_plus_a_projection_on_the_class() -> None:
    network = networks()["D"]
    x, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 2, 1, 1])
    seen: list[torch.Tensor] = []
    head, out, embed = (network.get_submodule(name) for name in ("head", "out", "embed"))
    head.register_forward_hook(lambda module, inputs, h: seen.append(h.detach().flatten(1)))
    logits = network(x, labels)
    h, v = seen[0].double(), embed(labels).double()
    plain = out(seen[0][:, :, None, None]).flatten().double()
    expected = plain + (v * h).sum(1) / math.sqrt(h.shape[1])
    assert h.shape == (4, 4)
    assert torch.allclose(logits.double(), expected, atol=1e-6)


def test_labels_are_required() -> None:
    with pytest.raises(InputError, match="cgan needs labels"):
        make_options(CGAN, DataInfo((1, 8, 8)), {})


def test_no_batch_norm_in_d_and_r1_instead() -> None:
    assert not any(isinstance(m, nn.BatchNorm2d) for m in networks()["D"].modules())
    system = CGAN(make_options(CGAN, DATA, GIVEN), DATA)
    assert "r1" in [objective.name for objective in system.players()["D"].objectives]


def test_training_pairs_each_image_with_its_own_label(monkeypatch: pytest.MonkeyPatch) -> None:
    data = images(24, 8, classes=3)
    live = training(CGAN, data=data, options=make_options(CGAN, data.info, GIVEN))
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    discriminate = live.system.discriminate

    def spy(live: object, sample: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        pairs.append((sample.detach().clone(), batch["label"]))
        return discriminate(live, sample, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(live.system, "discriminate", spy)
    for _ in range(6):
        live.run_step()
    assert data.labels is not None
    pictures = [image.tobytes() for image in data.samples]
    known = dict(zip(pictures, data.labels.tolist(), strict=True))
    matched = 0
    for sample, labels in pairs:
        pixels = ((sample + 1) * 127.5).round().clamp(0, 255).byte().numpy()
        for image, label in zip(pixels, labels.tolist(), strict=True):
            if image.tobytes() in known:
                assert known[image.tobytes()] == label
                matched += 1
    assert matched >= 24
