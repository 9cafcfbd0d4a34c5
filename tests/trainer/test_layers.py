"""Shared layers: minibatch deviation by its closed form, and DCGAN's initial weights by their statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from gan.trainer.layers import MinibatchDeviation
from gan.trainer.systems.dcgan import initialise


def test_minibatch_deviation_is_the_mean_of_the_standard_deviations() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, 2, 4) * 3 + 1
    y = MinibatchDeviation()(x)
    assert y.shape == (5, 4, 2, 4)
    assert torch.equal(y[:, :3], x)
    expected = np.sqrt(x.numpy().astype(np.float64).var(axis=0) + 1e-8).mean()
    assert y[:, 3].unique().numel() == 1
    assert y[0, 3, 0, 0].item() == pytest.approx(expected, rel=1e-5)


def test_minibatch_deviation_of_known_batches() -> None:
    two = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    assert MinibatchDeviation()(two)[:, 1].flatten().tolist() == pytest.approx([1.0] * 8)
    alike = torch.ones(4, 2, 3, 3)
    assert MinibatchDeviation()(alike)[:, 2].max().item() == pytest.approx(1e-4)


def test_minibatch_deviation_of_a_collapsed_batch_still_has_a_finite_gradient() -> None:
    x = torch.ones(4, 2, 3, 3, requires_grad=True)
    MinibatchDeviation()(x).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("layer", "deviation"),
    [
        (nn.Conv2d(64, 64, 4), 0.02),
        (nn.ConvTranspose2d(64, 64, 4), 0.02),
        (nn.Embedding(256, 256), 1.0),
    ],
)
def test_dcgan_weights_are_normal(layer: nn.Module, deviation: float) -> None:
    torch.manual_seed(0)
    initialise(layer)
    w = next(layer.parameters()).detach().double().flatten()  # 65,536 values
    assert w.mean().item() == pytest.approx(0.0, abs=5 * deviation / math.sqrt(len(w)))
    assert w.std().item() == pytest.approx(deviation, rel=5 / math.sqrt(2 * len(w)))
    assert w.abs().max() > 3 * deviation  # normal, not uniform
    bias = getattr(layer, "bias", None)
    assert bias is None or bias.abs().max() == 0


def test_batch_norm_gains_lie_around_one_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(65_536)
    nn.init.constant_(layer.bias, 3.0)
    initialise(layer)
    gain = layer.weight.detach().double()
    assert gain.mean().item() == pytest.approx(1.0, abs=5 * 0.02 / 256)
    assert gain.std().item() == pytest.approx(0.02, rel=0.02)
    assert layer.bias.abs().max() == 0
