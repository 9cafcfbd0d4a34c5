"""Random features have fixed weights, drawn from the latent stream, and are a plain strided network."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gan.trainer.features import SEED, WIDTHS, RandomFeatures, RandomMaps, embed


def normals(layer: int, row: int, count: int) -> NDArray[np.float64]:
    """The latent stream's normals for one output channel: NumPy's Philox and the library's inverse normal CDF."""
    bits = np.random.Philox(key=[SEED, layer], counter=[0, 0, row, 0])
    values = []
    for word in bits.random_raw(count).tolist():
        p = ((word >> 12) + 0.5) * 2.0**-53
        magnitude = -NormalDist().inv_cdf(p)
        values.append(-magnitude if word & 1 else magnitude)
    return np.array(values)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_weights_are_the_streams_normals_over_the_root_of_the_fan_in(channels: int) -> None:
    network = RandomFeatures(channels)
    inputs = channels
    for number, (layer, outputs) in enumerate(zip(network.layers, WIDTHS, strict=True)):
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        assert weight.shape == (outputs, inputs, 3, 3)
        fan_in = inputs * 9
        for row in (0, outputs - 1):
            expected = normals(number, row, fan_in) / math.sqrt(fan_in)
            assert np.abs(weight[row].flatten().double().numpy() - expected).max() < 1e-6
        inputs = outputs


def test_two_instances_are_equal_whatever_the_global_seed() -> None:
    torch.manual_seed(1)
    first = RandomFeatures(3)
    torch.manual_seed(2)
    second = RandomFeatures(3)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b) and not a.requires_grad


def test_the_features_are_those_of_a_plain_convolution() -> None:
    network, x = RandomFeatures(1), torch.rand(2, 1, 16, 16) * 2 - 1
    h = x.double().numpy()
    for layer in network.layers:
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        h = strided(h, weight.double().numpy())
        h = np.where(h > 0, h, 0.2 * h)  # (2, C, 8, 8), (2, C, 4, 4), (2, C, 2, 2)
    quarters = np.kron(h, np.ones((2, 2)))  # 4x4 means of a 2x2 map
    expected = np.concatenate([h.mean((2, 3)), quarters.reshape(2, -1) / 4], 1)
    assert expected.shape == (2, 128 + 128 * 16)
    assert np.abs(network(x).double().numpy() - expected).max() < 1e-5


def strided(x: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """A 3x3 convolution of stride 2 and padding 1, place by place."""
    size = x.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty((len(x), len(weight), size, size))
    for i in range(size):
        for j in range(size):
            window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            out[:, :, i, j] = np.einsum("bchw,ochw->bo", window, weight)
    return out


@pytest.mark.parametrize("size", [8, 28, 64])
def test_any_size_of_image_gives_as_many_features(size: int) -> None:
    assert RandomFeatures(1)(torch.zeros(2, 1, size, size)).shape == (2, 2176)


def test_embedding_in_chunks_changes_nothing() -> None:
    network, x = RandomFeatures(1), torch.rand(10, 1, 16, 16)
    whole = embed(network, x)
    assert whole.shape == (10, 2176)
    assert torch.allclose(embed(network, x, chunk=3), whole, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_maps_are_the_features_own_convolutions_before_they_are_pooled(channels: int) -> None:
    x = torch.rand(2, channels, 24, 16) * 2 - 1
    maps = RandomMaps(channels)(x)
    assert [m.shape[2:] for m in maps] == [(12, 8), (6, 4), (3, 2)]
    h, layers = x, RandomFeatures(channels).layers
    for layer, found in zip(layers, maps, strict=True):
        assert isinstance(layer, torch.nn.Conv2d)
        h = torch.nn.functional.leaky_relu(layer(h), 0.2)
        assert torch.equal(found, h)
    assert torch.allclose(RandomFeatures(channels)(x)[:, : h.shape[1]], h.mean((2, 3)), atol=1e-6)
