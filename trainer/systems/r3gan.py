"""R3GAN: Huang et al. 2024. A relativistic pairing loss with R1 and R2 at every step, and plain residual networks.

D minimises softplus(-(D(x) - D(G(z)))) + gamma/2 (||grad D(x)||^2 + ||grad D(G(z))||^2), and G
softplus(-(D(G(z)) - D(x))). The networks have no normalisation: blocks of 1x1, grouped 3x3 and 1x1 convolutions whose
last is 0 at first (fix-up initialisation). Learning rate, beta2, gamma, the average's half-life and the augmentation
move on cosines over the first `burn_in` of the run.

Where it departs from the authors' code, which is under another licence and was not copied: upsampling is bilinear with
the symmetric filter [1, 3, 3, 1] instead of [1, 2, 1], which shifts by half a pixel; the schedules are shares of the
run, whose published length is 20 million images and more; the average's half-life is at most a twentieth of the
images seen (the engine's rule), so that short runs have one too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu, pad

from ...runtime.errors import InputError
from ..layers import MinibatchDeviation, smallest_map
from ..options import Options, cosine, setting
from ..parts import DataInfo, Schedules
from ..system import System

GAIN = math.sqrt(2.0 / (1.0 + 0.2**2))  # of LeakyReLU 0.2
GAMMAS = (
    (32, 0.05),
    (64, 2.0),
    (128, 17.0),
    (256, 150.0),
)  # published but for 128: between its neighbours


@dataclass(frozen=True, kw_only=True)
class R3GANOptions(Options):
    width: int = setting(
        768, "channels up to 32 pixels; halved at each doubling after that", above=0, below=2**16
    )
    blocks: int = setting(2, "residual blocks at each resolution", low=1, high=32)
    expansion: int = setting(2, "times the channels inside a block", low=1, high=8)
    group: int = setting(16, "channels a group of the 3x3 convolutions", above=0)
    burn_in: float = setting(0.8, "share of the run over which the schedules move", above=0, high=1)
    final_rate: float = setting(0.25, "the learning rates' last factor", above=0)
    final_gamma: float = setting(0.1, "the last factor of r1 and r2")
    first_beta2: float = setting(0.9, "of Adam at the start; beta2 at the end", below=1)
    ema_half_life: int = setting(500_000, "of the average at the end, in images", above=0)


class Block(nn.Module):
    """x + conv1(lrelu(conv3(lrelu(conv1(x))))), expanded inside; the identity at first."""

    def __init__(self, channels: int, o: R3GANOptions, total: int) -> None:
        super().__init__()
        inside = channels * o.expansion
        groups = max(inside // o.group, 1)
        gain = GAIN * total ** (-1 / (2 * 3 - 2))  # fix-up, of `total` blocks of 3 layers
        self.expand = convolution(channels, inside, 1, gain=gain)
        self.spatial = convolution(inside, inside, 3, groups=groups, gain=gain)
        self.reduce = convolution(inside, channels, 1, gain=0.0)
        self.bias1, self.bias2 = (nn.Parameter(torch.zeros(inside)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = leaky_relu(self.expand(x) + self.bias1[:, None, None], 0.2)
        y = leaky_relu(self.spatial(y) + self.bias2[:, None, None], 0.2)
        return x + self.reduce(y)  # (B, C, H, W)


class Up(nn.Module):
    """Twice the size, bilinear, and other channels."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.mix = convolution(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(self.mix(x), scale_factor=2.0, mode="bilinear", align_corners=False)


class Down(nn.Module):
    """Half the size by the same filter, [1, 3, 3, 1] / 8 each way, and other channels."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.mix = convolution(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("taps", torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        taps = self.get_buffer("taps").expand(x.shape[1], 1, 4, 4)
        x = conv2d(pad(x, (1, 1, 1, 1), "replicate"), taps, stride=2, groups=x.shape[1])
        return self.mix(x)  # (B, c_out, H/2, W/2)


class R3Generator(nn.Module):
    """z [, label] -> image: a learnt basis of `base` pixels scaled by a linear map of z, then stages of blocks."""

    def __init__(self, o: R3GANOptions, data: DataInfo, classes: int) -> None:
        super().__init__()
        base, c = plan(data, o.width)
        self.embed = embedding(classes, o.embedding) if classes else None
        self.basis = nn.Parameter(torch.randn(c[0], base, base))
        self.scale = linear(o.latent + (o.embedding if classes else 0), c[0])
        total = o.blocks * len(c)
        layers: list[nn.Module] = [Block(c[0], o, total) for _ in range(o.blocks)]
        for a, b in pairwise(c):
            layers += [Up(a, b), *(Block(b, o, total) for _ in range(o.blocks))]
        self.layers = nn.Sequential(*layers, convolution(c[-1], data.channels, 1))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], 1)  # (B, latent + embedding)
        x = self.basis * self.scale(z)[:, :, None, None]  # (B, C, base, base)
        return self.layers(x)  # (B, C, H, W), linear


class R3Discriminator(nn.Module):
    """image [, label] -> logit: the mirror of G; a label's logit is the product of features and embedding."""

    def __init__(self, o: R3GANOptions, data: DataInfo, classes: int) -> None:
        super().__init__()
        base, c = plan(data, o.width)
        total = o.blocks * len(c)
        layers: list[nn.Module] = [convolution(data.channels, c[-1], 1)]
        for a, b in pairwise(reversed(c)):
            layers += [*(Block(a, o, total) for _ in range(o.blocks)), Down(a, b)]
        layers += [Block(c[0], o, total) for _ in range(o.blocks)]
        if o.minibatch_deviation:
            layers.append(MinibatchDeviation())
        self.layers = nn.Sequential(*layers)
        features = c[0] + int(o.minibatch_deviation)
        self.basis = convolution(features, features, base, groups=features, padding=0)
        self.out = linear(features, o.projection if classes else 1)
        gain = 1 / math.sqrt(o.projection)
        self.embed = embedding(classes, o.projection, gain) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.out(self.basis(self.layers(x)).flatten(1))  # (B, projection) or (B, 1)
        if self.embed is not None:
            h = h * self.embed(label)
        return h.sum(1)  # (B,)


def convolution(
    c_in: int,
    c_out: int,
    size: int,
    *,
    groups: int = 1,
    gain: float = 1.0,
    padding: int | None = None,
) -> nn.Conv2d:
    """Without bias, N(0, gain^2 / fan-in); its input keeps its size unless a padding is given."""
    pixels = size // 2 if padding is None else padding
    layer = nn.Conv2d(c_in, c_out, size, padding=pixels, groups=groups, bias=False)
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    return layer


def linear(n_in: int, n_out: int) -> nn.Linear:
    """Without bias, N(0, 1 / fan-in)."""
    layer = nn.Linear(n_in, n_out, bias=False)
    nn.init.normal_(layer.weight, 0.0, 1 / math.sqrt(n_in))
    return layer


def embedding(classes: int, size: int, gain: float = 1.0) -> nn.Embedding:
    """A linear map of one-hot labels, N(0, gain^2 / classes)."""
    layer = nn.Embedding(classes, size)
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(classes))
    return layer


def plan(data: DataInfo, width: int) -> tuple[int, list[int]]:
    """Size of the smallest map (4 to 7) and the channels from there to the image.

    64 px: 4 and 768, 768, 768, 768, 384. 256 px: two more, 192 and 96. Other sizes raise `InputError`.
    """
    base, doublings = smallest_map(data)
    sizes = [base * 2**i for i in range(doublings + 1)]
    return base, [max(width >> max(0, math.ceil(math.log2(r / 32))), 1) for r in sizes]


def gamma_for(resolution: int) -> float:
    """The published gamma of the next size, in the ratio of logarithms between two."""
    logs = [(math.log(r), math.log(g)) for r, g in GAMMAS]
    x = math.log(resolution)
    (x0, y0), (x1, y1) = next(
        ((a, b) for a, b in pairwise(logs) if x <= b[0]), (logs[-2], logs[-1])
    )
    return math.exp(y0 + (y1 - y0) * (max(x, logs[0][0]) - x0) / (x1 - x0))


class R3GAN(System):
    """Relativistic, regularised at both ends, and otherwise plain: the system recommended for photographs."""

    name = "r3gan"
    options_type = R3GANOptions

    def __init__(self, options: Options, data: DataInfo) -> None:
        super().__init__(options, data)
        o = cast(R3GANOptions, options)
        _, channels = plan(data, o.width)
        if o.spectral_norm:
            raise InputError(
                "r3gan cannot have spectral norm",
                seen="Blocks that begin with weights of 0, which no norm divides",
                repair="Leave spectral_norm out: r1 and r2 bound D's slope here",
            )
        if any((c * o.expansion) % max(c * o.expansion // o.group, 1) for c in channels):
            raise InputError(
                "The width does not fit the groups",
                seen=f"width {o.width}, {o.expansion} times inside, groups of {o.group}",
                repair="Choose a width that is a power of two times the group, or another group",
            )

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        gamma = round(gamma_for(data.height), 4)
        # as published: 32 px has the settings of CIFAR-10, 64 to 256 px those of FFHQ
        return R3GANOptions(
            loss="relativistic", r1=gamma, r2=gamma, latent=64, batch_size=512 if data.height <= 32 else 256,
            g_learning_rate=2e-4, d_learning_rate=2e-4, beta1=0.0, beta2=0.99, embedding=768, projection=768,
            ada=0.55 if data.height <= 32 else 0.3, ada_colour=0.5, ada_cutout=1.0,
        )  # fmt: skip

    def networks(self) -> dict[str, nn.Module]:
        o, classes = cast(R3GANOptions, self.options), len(self.classes)
        return {
            "G": R3Generator(o, self.data, classes),
            "D": R3Discriminator(o, self.data, classes),
        }

    def schedules(self) -> Schedules:
        o = cast(R3GANOptions, self.options)

        def curve(start: float, end: float) -> Callable[[float], float]:
            return lambda t: cosine(start, end, t / o.burn_in)

        base, rate, gamma = super().schedules(), curve(1.0, o.final_rate), curve(1.0, o.final_gamma)
        decay = base.get("learning_rate", curve(1.0, 1.0))
        return base | {
            "learning_rate": lambda t: rate(t) * decay(t),
            "beta2": curve(o.first_beta2, o.beta2),
            "weight/r1": gamma,
            "weight/r2": gamma,
            "ema_half_life": curve(0.0, o.ema_half_life),
            "ada": curve(0.0, 1.0),
        }
