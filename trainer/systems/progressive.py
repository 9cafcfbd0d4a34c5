"""Progressive growing: Karras et al. 2018. Both networks begin with the smallest image and grow, level by level.

Level l has base * 2^l pixels. A new level is faded in: its image is (1 - a) up(old) + a new, its D reads
(1 - a) fromRGB(down(x)) + a new features, and the reals are (1 - a) up(down(x)) + a x, while a goes from 0 to 1
(figure 2 and section 2). Equalised learning rates, pixel norm in G, minibatch deviation in D, the optimisers forget
everything at a new level (sections 3 and 4, appendix A). The published loss is that of WGAN-GP with a drift of 1e-3.

Levels are seen in equal numbers of images, half of them while fading in; the last one takes what remains. Where it
departs from the authors' code: a label enters G by an embedding beside z, and D by projection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from ..layers import MinibatchDeviation, PixelNorm, channels_by_size, equalize
from ..options import Options, PyramidOptions, setting
from ..parts import Augmentation, Batch, DataInfo, Graph, Live, Schedules, Stage, part_of
from ..system import System
from ..trees import Tree

GAIN = math.sqrt(2.0)


@dataclass(frozen=True, kw_only=True)
class ProgressiveOptions(PyramidOptions):
    fade_share: float = setting(0.5, "share of a level's images while it fades in", below=1)
    last_share: float = setting(
        0.4, "share of the run's images at the full resolution, in and after fading", above=0, below=1
    )  # fmt: skip
    batch_rows: int = setting(
        2048, "a batch has at most so many rows of pixels, but 4 images; 0 is no limit"
    )


def image_convolution(c_in: int, c_out: int, *, gain: float = GAIN, size: int = 3) -> nn.Conv2d:
    return equalize(nn.Conv2d(c_in, c_out, size, padding=size // 2), gain=gain)


def up(x: Tensor) -> Tensor:
    """Twice the size by nearest neighbours."""
    return interpolate(x, scale_factor=2.0, mode="nearest")


def normed(layer: nn.Module) -> list[nn.Module]:
    return [layer, nn.LeakyReLU(0.2), PixelNorm()]


class First(nn.Module):
    """z [, label] -> the smallest map: pixel norm, a linear layer, a convolution."""

    def __init__(self, o: PyramidOptions, channels: int, base: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, o.embedding) if classes else None
        c_in = o.latent + (o.embedding if classes else 0)
        dense = nn.Linear(c_in, channels * base**2, bias=False)
        self.dense = equalize(dense, gain=GAIN / base)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.norm = PixelNorm()
        self.layers = nn.Sequential(
            nn.LeakyReLU(0.2), PixelNorm(), *normed(image_convolution(channels, channels))
        )
        self.shape = (channels, base, base)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        z = self.norm(z)
        if self.embed is not None:
            z = torch.cat([z, self.norm(self.embed(label))], 1)  # (B, latent + embedding)
        x = self.dense(z).reshape(-1, *self.shape)
        return self.layers(x + self.bias)  # (B, C, base, base)


class PyramidGenerator(nn.Module):
    """The features of every level, and how an image is read from them."""

    def __init__(self, o: PyramidOptions, data: DataInfo, classes: int) -> None:
        super().__init__()
        base, c = channels_by_size(data, o.width, o.max_width)
        self.first = First(o, c[0], base, classes)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2),
                *normed(image_convolution(a, b)),
                *normed(image_convolution(b, b)),
            )
            for a, b in pairwise(c)
        )  # block l leads to level l + 1
        self.to_image = nn.ModuleList(
            image_convolution(width, data.channels, gain=1.0, size=1) for width in c
        )


class ProgressiveGenerator(PyramidGenerator):
    """z [, label] -> image of a level. It remembers how far it has grown, for export."""

    def __init__(self, o: PyramidOptions, data: DataInfo, classes: int) -> None:
        super().__init__(o, data, classes)
        self.register_buffer("level", torch.tensor(len(self.blocks)))
        self.register_buffer("alpha", torch.tensor(1.0))

    def forward(
        self,
        z: Tensor,
        label: Tensor | None = None,
        level: int | None = None,
        alpha: float = 1.0,
    ) -> Tensor:
        level = len(self.blocks) if level is None else level
        x = self.first(z, label)
        before = x
        for block in self.blocks[:level]:
            before, x = x, block(x)
        image = self.to_image[level](x)  # (B, C, base 2^level, ...), linear
        if level and alpha < 1.0:
            image = torch.lerp(up(self.to_image[level - 1](before)), image, alpha)
        return image

    @torch.no_grad()
    def remember(self, level: int, alpha: float) -> None:
        """As it is now trained, in buffers, so that its average and its checkpoint know too."""
        self.get_buffer("level").fill_(level)
        self.get_buffer("alpha").fill_(alpha)


class Grown(nn.Module):
    """z [, label] -> image: a generator at the level that it has reached, enlarged to the full size where it has not
    finished. No trace of levels is left in what is exported."""

    def __init__(self, generator: ProgressiveGenerator) -> None:
        super().__init__()
        self.level = int(generator.get_buffer("level").clamp(0, len(generator.blocks)))
        self.alpha = float(generator.get_buffer("alpha").clamp(0, 1))
        self.factor = 2 ** (len(generator.blocks) - self.level)
        self.generator = generator

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        image = self.generator(z, label, self.level, self.alpha)
        if self.factor > 1:
            image = interpolate(image, scale_factor=float(self.factor), mode="nearest")
        return image  # (B, C, H, W)


class Judgement(nn.Module):
    """The smallest map [, label] -> logit: minibatch deviation, a convolution, two linear layers, and a label's logit
    by projection."""

    def __init__(
        self,
        o: PyramidOptions,
        c_in: int,
        channels: int,
        base: int,
        classes: int,
        group: int | None = 4,
    ) -> None:
        """group: samples whose deviation is taken together; None is the whole batch."""
        super().__init__()
        layers: list[nn.Module] = [MinibatchDeviation(group)] if o.minibatch_deviation else []
        self.layers = nn.Sequential(
            *layers,
            image_convolution(c_in + int(o.minibatch_deviation), channels),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            equalize(nn.Linear(channels * base**2, channels), gain=GAIN),
            nn.LeakyReLU(0.2),
        )
        self.out = equalize(nn.Linear(channels, o.projection if classes else 1))
        self.embed = nn.Embedding(classes, o.projection) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.out(self.layers(x))  # (B, projection) or (B, 1)
        if self.embed is not None:
            h = h * self.embed(label) / math.sqrt(h.shape[1])
        return h.sum(1)  # (B,)


def halving(a: int, b: int) -> nn.Sequential:
    """Two convolutions and half the size, from a channels to b."""
    return nn.Sequential(
        image_convolution(a, a), nn.LeakyReLU(0.2),
        image_convolution(a, b), nn.LeakyReLU(0.2),
        nn.AvgPool2d(2),
    )  # fmt: skip


class ProgressiveDiscriminator(nn.Module):
    """image of a level [, label] -> logit: the mirror of G."""

    def __init__(self, o: PyramidOptions, data: DataInfo, classes: int) -> None:
        super().__init__()
        base, c = channels_by_size(data, o.width, o.max_width)
        self.from_image = nn.ModuleList(
            nn.Sequential(image_convolution(data.channels, width, size=1), nn.LeakyReLU(0.2))
            for width in c
        )
        self.blocks = nn.ModuleList(halving(b, a) for a, b in pairwise(c))
        self.judge = Judgement(o, c[0], c[0], base, classes)

    def forward(
        self,
        x: Tensor,
        label: Tensor | None = None,
        level: int | None = None,
        alpha: float = 1.0,
    ) -> Tensor:
        level = len(self.blocks) if level is None else level
        h = self.from_image[level](x)
        for i in reversed(range(level)):
            h = self.blocks[i](h)
            if i == level - 1 and alpha < 1.0:
                h = torch.lerp(self.from_image[i](avg_pool2d(x, 2)), h, alpha)
        return self.judge(h, label)


class FadeIn(Augmentation):
    """The reals at the size of the present level, as sharp as G's images are: (1 - a) up(down(x)) + a x."""

    name = "fade-in"
    reals_only = True

    def __init__(self, top: int) -> None:
        self.top = top

    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        level, alpha = growth(live)
        x: Tensor = avg_pool2d(sample, 2 ** (self.top - level))
        if level and alpha < 1.0:
            x = torch.lerp(up(avg_pool2d(x, 2)), x, alpha)
        return x


def growth(live: Live) -> tuple[int, float]:
    """The present level and its alpha."""
    return int(live.knobs["level"]), live.knobs["alpha"]


class Progressive(System):
    """A G and a D that grow together."""

    name = "progressive"
    options_type = ProgressiveOptions

    def __init__(self, options: Options, data: DataInfo) -> None:
        super().__init__(options, data)
        o = cast(ProgressiveOptions, options)
        self.base, channels = channels_by_size(data, o.width, o.max_width)
        self.top = len(channels) - 1

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        return ProgressiveOptions(
            loss="wasserstein", gp=10.0, drift=1e-3, g_learning_rate=1e-3, d_learning_rate=1e-3, beta1=0.0,
            beta2=0.99, batch_size=128, latent=512, embedding=512, projection=512, minibatch_deviation=True,
            width=max(16_384 // data.height, 1),
        )  # fmt: skip

    def networks(self) -> dict[str, nn.Module]:
        o, classes = cast(ProgressiveOptions, self.options), len(self.classes)
        return {
            "G": ProgressiveGenerator(o, self.data, classes),
            "D": ProgressiveDiscriminator(o, self.data, classes),
        }

    def generate(self, live: Live, batch: Batch) -> Batch:
        generator = cast(ProgressiveGenerator, live.networks["G"])
        level, alpha = growth(live)
        generator.remember(level, alpha)
        return {"fake": generator(batch["z"], batch.get("label"), level, alpha)}

    def discriminate(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        return live.networks["D"](sample, batch.get("label"), *growth(live))

    def augmentations(self) -> list[Augmentation]:
        return [FadeIn(self.top), *super().augmentations()]

    def graphs(self) -> dict[str, Graph]:
        def build(networks: Mapping[str, nn.Module]) -> nn.Module:
            return Grown(cast(ProgressiveGenerator, networks["G"]))

        return {
            name: Graph(graph.inputs, graph.outputs, build, graph.classes)
            for name, graph in super().graphs().items()
        }

    def stages(self) -> list[Stage]:
        """A level fades in, then settles; the first one only settles. Schedules go on over all stages."""
        phases = self.phases()
        total, done, stages = sum(share for _, _, share in phases), 0.0, []
        for number, (level, fading, share) in enumerate(phases):
            knobs = part_of(self.schedules(), done / total, (done + share) / total)
            new = number > 0 and level != phases[number - 1][0]
            stages.append(
                Stage(
                    self.turns(), share, knobs | growing(level, fading), self.batch_size(level),
                    fresh_optimizers=new,
                )
            )  # fmt: skip
            done += share
        return stages

    def phases(self) -> list[tuple[int, bool, float]]:
        """(level, whether it fades in, share of the run's steps), those without steps left out.

        In images: 1 part for the first level, 2 for each further one, `fade_share` of them while fading in; but the
        last one has its own share of the whole, of which it needs no more than the others for fading.
        """
        o = cast(ProgressiveOptions, self.options)
        part = (1 - o.last_share) / max(2 * self.top - 1, 1)
        found = []
        for level in range(self.top + 1):
            images = 2 * part if level else part
            images = o.last_share if level == self.top else images
            fade = o.fade_share * min(images, 2 * part) if level else 0.0
            size = self.batch_size(level)
            found += [(level, True, fade / size), (level, False, (images - fade) / size)]
        return [phase for phase in found if phase[2] > 0]

    def batch_size(self, level: int) -> int:
        """The option's, or the largest power of two within `batch_rows`."""
        o = cast(ProgressiveOptions, self.options)
        rows = o.batch_rows // (self.base * 2**level)
        return (
            min(o.batch_size, max(2 ** (rows.bit_length() - 1), 4))
            if o.batch_rows
            else o.batch_size
        )


def growing(level: int, fading: bool) -> Schedules:
    """The knobs of one phase: alpha goes from 0 to 1 where it fades in."""
    return {"level": lambda t: float(level), "alpha": (lambda t: t) if fading else lambda t: 1.0}
