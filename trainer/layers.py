"""Layers that several systems share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrizations import spectral_norm

from ..runtime.errors import InputError
from .parts import DataInfo


class MinibatchDeviation(nn.Module):
    """Appends one channel: the standard deviation over the batch, averaged over features and places.

    Karras et al. 2018 (progressive growing), section 3. It couples the samples of a batch, so it belongs to
    discriminators only.
    """

    def forward(self, x: Tensor) -> Tensor:
        deviation = (x.var(0, correction=0) + 1e-8).sqrt().mean()
        return torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], 1)  # (B, C + 1, H, W)


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
