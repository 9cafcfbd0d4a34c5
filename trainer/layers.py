"""Layers that several systems share."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from ..runtime.errors import InputError
from .parts import DataInfo

M = TypeVar("M", bound=nn.Module)


class Equalized(nn.Module):
    """The parametrisation w = c w', by which the optimiser moves w' and the network uses w."""

    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = c

    def forward(self, weight: Tensor) -> Tensor:
        return self.c * weight


def equalize(layer: M, *, gain: float = 1.0, rate: float = 1.0) -> M:
    """The layer with an equalised learning rate (Karras et al. 2018, section 4.1): w' ~ N(0, 1), c = gain / sqrt(fan-in).

    rate: multiplies the learning rates of weight and bias; the weights begin as they would without it. A bias is 0
    at first. A parametrisation, so export finds plain weights.
    """
    weight = layer.get_parameter("weight")
    nn.init.normal_(weight, 0.0, 1.0 / rate)
    c = rate * gain / math.sqrt(weight[0].numel())
    parametrize.register_parametrization(layer, "weight", Equalized(c))
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.get_parameter("bias"))
        if rate != 1.0:
            parametrize.register_parametrization(layer, "bias", Equalized(rate))
    return layer


class PixelNorm(nn.Module):
    """x / sqrt(mean of x^2 over channels + 1e-8) at every place (Karras et al. 2018, section 4.2).

    The mean is a product with constant weights: onnxruntime's ReduceMean gives other bytes for a batch of one.
    """

    def forward(self, x: Tensor) -> Tensor:  # (B, C) or (B, C, H, W)
        c = x.shape[1]
        if x.ndim == 2:
            mean = x.square() @ x.new_full((c, 1), 1 / c)  # (B, 1)
        else:
            mean = conv2d(x.square(), x.new_full((1, c, 1, 1), 1 / c))  # (B, 1, H, W)
        return x * (mean + 1e-8).rsqrt()


class MinibatchDeviation(nn.Module):
    """Appends one channel: the standard deviation over the batch, averaged over features and places.

    Karras et al. 2018, section 3. It couples the samples of a batch, so it belongs to
    discriminators only. group: of so many samples, or the next smaller number that divides the batch, instead of
    all (4 in the authors' code).
    """

    def __init__(self, group: int | None = None) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        size = len(x) if self.group is None else min(self.group, len(x))
        while len(x) % size:
            size -= 1
        groups = x.reshape(size, -1, *x.shape[1:])  # (size, groups, C, H, W)
        deviation = (groups.var(0, correction=0) + 1e-8).sqrt().flatten(1).mean(1)  # (groups,)
        map_ = deviation.repeat(size).reshape(-1, *(1 for _ in x.shape[1:]))
        return torch.cat([x, map_.expand(-1, 1, *x.shape[2:])], 1)  # (B, C + 1, H, W)


def add_spectral_norm(network: nn.Module) -> None:
    """Divide the weight of every linear and convolutional layer by its largest singular value (Miyato et al. 2018)."""
    for layer in list(network.modules()):
        if isinstance(layer, (nn.Linear, nn.Embedding, _ConvNd)):
            spectral_norm(layer)


def smallest_map(data: DataInfo, doublings: int = 0) -> tuple[int, int]:
    """The size, 4 to 7, from which the image's is reached by doubling, and how often: at least `doublings` times.

    Raises `InputError` for other sizes, and for images that are not square.
    """
    base, times = data.height, 0
    while base > 7 and base % 2 == 0:
        base, times = base // 2, times + 1
    if data.height != data.width or not 4 <= base <= 7 or times < doublings:
        raise InputError(
            "This resolution does not fit",
            seen=f"{data.height} x {data.width} pixels",
            repair="Use 4, 5, 6 or 7 times a power of two: 28, 32, 48, 64, 96, 128, 256, ...",
        )
    return base, times


def channels_by_size(data: DataInfo, width: int, most: int) -> tuple[int, list[int]]:
    """Size of the smallest map, 4 to 7, and the channels from there to the image: width R / r at r of R pixels, at
    most `most`. Raises `InputError` for a resolution that doubling does not reach."""
    base, doublings = smallest_map(data)
    return base, [min(width * 2**i, most) for i in reversed(range(doublings + 1))]
