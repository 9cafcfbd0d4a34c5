"""DCGAN: Radford, Metz and Chintala 2016, with labels where the data has them.

Its rules (section 3): no pooling and no fully connected layer, batch norm everywhere but at G's output and D's
input, ReLU in G with tanh at its end, LeakyReLU in D. Labels enter G by an embedding beside z, and D by projection
(Miyato and Koyama 2018), in a head that has no batch norm either.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ...runtime.errors import InputError
from ..layers import MinibatchDeviation, smallest_map
from ..layouts import Layout, Names, Reading, Shapes, size
from ..options import Options, setting
from ..parts import DataInfo
from ..system import System

MAX_CHANNELS, MAX_DOUBLINGS = 1024, 8


@dataclass(frozen=True, kw_only=True)
class DCGANOptions(Options):
    width: int = setting(64, "channels of the layer next to the image", above=0, below=2**16)
    widths: str = setting(
        "",
        "channels from the smallest map on, as 512,256,128,64; else width, doubled from the image on",
    )
    up: Literal["transpose", "resize"] = setting("transpose", "how G doubles the size")
    d_norm: Literal["batch", "none"] = setting("batch", "normalisation in D")


class Upsample(nn.Sequential):
    """Twice the size: a transposed convolution, or nearest neighbours and a convolution, which leaves no
    checkerboard (Odena et al. 2016)."""

    def __init__(self, c_in: int, c_out: int, up: str) -> None:
        if up == "transpose":
            layers: list[nn.Module] = [nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False)]
        else:
            layers = [nn.Upsample(scale_factor=2), nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)]
        super().__init__(*layers)


class DCGenerator(nn.Module):
    """z [, label] -> image: a map of `base` pixels from a 1x1 one, then doubled to the resolution."""

    def __init__(self, o: DCGANOptions, data: DataInfo, classes: int) -> None:
        super().__init__()
        base, c = plan(data, o.width, o.widths)
        self.embed = nn.Embedding(classes, o.embedding) if classes else None
        c_in = o.latent + (o.embedding if classes else 0)
        layers: list[nn.Module] = [nn.ConvTranspose2d(c_in, c[0], base, bias=False)]
        for a, b in pairwise(c):
            layers += [nn.BatchNorm2d(a), nn.ReLU(), Upsample(a, b, o.up)]
        layers += [
            nn.BatchNorm2d(c[-1]),
            nn.ReLU(),
            Upsample(c[-1], data.channels, o.up),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], 1)  # (B, latent + embedding)
        return self.layers(z[:, :, None, None])  # (B, C, H, W)


class DCDiscriminator(nn.Module):
    """image [, label] -> logit: halved down to a map of `base` pixels, then one convolution over all of it."""

    def __init__(self, o: DCGANOptions, data: DataInfo, classes: int) -> None:
        super().__init__()
        base, c = plan(data, o.width, o.widths)
        bias = o.d_norm == "none"
        widths = [data.channels, *reversed(c)]
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(a, b, 4, 2, 1, bias=bias))
            if i and o.d_norm == "batch":
                layers.append(nn.BatchNorm2d(b))
            layers.append(nn.LeakyReLU(0.2))
        if o.minibatch_deviation:
            layers.append(MinibatchDeviation())
        self.layers = nn.Sequential(*layers)
        features = c[0] + int(o.minibatch_deviation)
        self.embed = nn.Embedding(classes, o.projection) if classes else None
        if classes:
            self.head: nn.Module = nn.Sequential(
                nn.Conv2d(features, o.projection, base, bias=bias), nn.LeakyReLU(0.2)
            )
            self.out = nn.Conv2d(o.projection, 1, 1, bias=bias)
        else:
            self.head = nn.Identity()
            self.out = nn.Conv2d(features, 1, base, bias=bias)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.head(self.layers(x))  # (B, projection, 1, 1)
        logit = self.out(h).flatten()  # (B,)
        if self.embed is not None:
            h = h.flatten(1)
            logit = logit + (self.embed(label) * h).sum(1) / math.sqrt(h.shape[1])
        return logit


def plan(data: DataInfo, width: int, widths: str = "") -> tuple[int, list[int]]:
    """Size of the smallest map (4 to 7) and G's channels from there on, the image's left out.

    64 px: 4 and 512, 256, 128, 64. 28 px: 7 and 128, 64. Other sizes, and widths that are not one for each map, raise
    `InputError`.
    """
    base, doublings = smallest_map(data, 1)
    if not widths:
        return base, [min(width * 2**i, MAX_CHANNELS) for i in reversed(range(doublings))]
    numbers = [
        int(text) if re.fullmatch(r" *[0-9]{1,5} *", text) else 0 for text in widths.split(",")
    ]
    if len(numbers) != doublings or not all(0 < number < 2**16 for number in numbers):
        raise InputError(
            "The setting widths was refused",
            seen=f"{widths!r:.60}",
            repair=f"Give {doublings} numbers from 1 to 65,535, as {','.join(['64'] * doublings)}",
        )
    return base, numbers


def initialise(module: nn.Module) -> None:
    """N(0, 0.02) for weights, N(1, 0.02) for batch norm's gains (Radford et al. 2016, section 4).

    Embeddings keep N(0, 1): a class is an input, like z.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def dc_networks(o: DCGANOptions, data: DataInfo, classes: int) -> dict[str, nn.Module]:
    """G and D of the paper's kind, initialised."""
    networks = {"G": DCGenerator(o, data, classes), "D": DCDiscriminator(o, data, classes)}
    for network in networks.values():
        network.apply(initialise)
    return dict(networks)


class TutorialLayout(Layout):
    """One list of layers, `main`: convolution, batch norm, ReLU, and so on."""

    title = "generator of the DCGAN tutorial"

    def read(self, shapes: Shapes, *, image_statistics: bool) -> Reading:
        doublings = 0
        while doublings < MAX_DOUBLINGS and f"main.{3 * doublings + 3}.weight" in shapes:
            doublings += 1
        doublings = doublings or 4
        names = Names()
        names.conv("main.0", "layers.0")
        for i in range(1, doublings + 1):
            names.norm(f"main.{3 * i - 2}", f"layers.{3 * i - 2}", statistics=True)
            names.conv(f"main.{3 * i}", f"layers.{3 * i}.0")
        c = [size(shapes, f"main.{3 * i}.weight", 0, 64) for i in range(1, doublings + 1)]
        channels = size(shapes, f"main.{3 * doublings}.weight", 1, 3)
        side = min(max(size(shapes, "main.0.weight", 2, 4), 4), 7) * 2**doublings
        data = DataInfo((channels, side, side))
        regular = plan(data, c[-1])[1] == c
        options: dict[str, int | str] = {
            "latent": size(shapes, "main.0.weight", 0, 100),
            "width": c[-1],
            "labels": False,  # though data to train on with may have some
            "widths": "" if regular else ",".join(map(str, c)),
        }
        return Reading(f"{self.title}, {side} pixels", options, data, names)


class DCGAN(System):
    """Convolutional generator and discriminator."""

    name = "dcgan"
    options_type = DCGANOptions

    def __init__(self, options: Options, data: DataInfo) -> None:
        super().__init__(options, data)
        plan(
            data, options.width, cast(DCGANOptions, options).widths
        )  # refuses a resolution before anything is made

    @classmethod
    def layouts(cls) -> tuple[Layout, ...]:
        return (TutorialLayout(),)

    def networks(self) -> dict[str, nn.Module]:
        return dc_networks(cast(DCGANOptions, self.options), self.data, len(self.classes))
