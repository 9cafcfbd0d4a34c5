"""SRGAN: Ledig et al. 2017. A photograph enlarged 2, 4 or 8 times, or restored at its size by ESRGAN's network.

First SRResNet learns the content alone, then an adversarial stage adds detail: mean squared error, a perceptual
distance and the adversarial loss together (section 2.2). Two things are newer than the paper: no batch norm unless
asked, which leaves artefacts (Wang et al. 2018), and the network adds to a bicubic enlargement, from which it starts.
No weights are downloaded: the perceptual distance is measured in fixed random features, or in those of any network
that a system of your own returns from `features`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ...runtime.errors import InputError
from ...runtime.signature import Field
from ..degrade import degrade, reduce
from ..features import RandomMaps
from ..image_layouts import RRDB_LAYOUTS
from ..image_networks import Norm, make_norm
from ..layouts import Layout
from ..metrics import psnr, run_averaged
from ..objectives import Perceptual, mse
from ..options import Options, setting
from ..parts import Batch, DataInfo, Graph, Live, Metric, Objective, Player, Schedules, Stage, Turn
from ..system import System
from ..upscalers import RRDBNet
from .dcgan import initialise

LEAST = 2  # pixels a side of a small image: a norm means nothing in one place


@dataclass(frozen=True, kw_only=True)
class SRGANOptions(Options):
    batch_size: int = setting(16, "images a move", above=0, below=2**24)
    g_learning_rate: float = setting(1e-4, "of G", above=0)
    d_learning_rate: float = setting(1e-4, "of D", above=0)
    beta1: float = setting(0.9, "of Adam", below=1)
    scale: Literal[1, 2, 4, 8] = setting(4, "times that both sides grow; 1 mends without enlarging")
    generator: Literal["srresnet", "rrdb"] = setting(
        "srresnet", "the kind of G; rrdb: ESRGAN's, of 23 blocks", source="Wang et al. 2018"
    )
    width: int = setting(64, "channels of G", above=0, below=2**16)
    blocks: int = setting(16, "residual blocks of G", above=0, high=128)
    growth: int = setting(
        32, "rrdb: channels that each convolution of a dense block adds", above=0, below=2**16,
        source="Wang et al. 2018",
    )  # fmt: skip
    unshuffle: Literal[1, 2, 4] = setting(
        1, "rrdb: times smaller that its blocks work than the image; 2 with a scale of 2 and 4 with 1 are usual",
        source="Wang et al. 2021",
    )  # fmt: skip
    norm: Norm = setting("none", "normalisation in an srresnet; batch in the paper")
    degradation: Literal["bicubic", "mixed"] = setting(
        "bicubic", "how the small images are made; mixed: with blur, noise and JPEG"
    )
    content_share: float = setting(
        0.5, "first share of the steps, in which G learns the content alone", above=0, below=1
    )
    content: float = setting(1.0, "weight of the mean squared error")
    perceptual: float = setting(
        0.1, "weight of the distance in features, in the adversarial stage",
        source="Ledig et al. 2017, eq. 5; there 0.006, in features of VGG",
    )  # fmt: skip
    adversarial: float = setting(
        1e-3, "weight of the adversarial loss", source="Ledig et al. 2017, eq. 3"
    )
    adversarial_rate: float = setting(
        1.0, "multiplies the learning rates in the adversarial stage", above=0
    )
    d_width: int = setting(64, "channels of D's first layer", above=0, below=2**16)


class SRResNet(nn.Module):
    """image -> image `scale` times as large: residual blocks at the small size, then pixel shuffles by 2 (Ledig et al.
    2017, section 2.1), added to a bicubic enlargement. The last layer begins at 0."""

    def __init__(self, channels: int, width: int, blocks: int, scale: int, norm: Norm) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Sequential(nn.Conv2d(channels, width, 9, padding=4), nn.PReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                make_norm(norm, width),
                nn.PReLU(),
                nn.Conv2d(width, width, 3, padding=1),
                make_norm(norm, width),
            )
            for _ in range(blocks)
        )
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), make_norm(norm, width))
        ups: list[nn.Module] = []
        for _ in range(int(math.log2(scale))):
            ups += [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]
        self.ups = nn.Sequential(*ups)
        self.tail = nn.Conv2d(width, channels, 9, padding=4)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(cast(Tensor, self.tail.bias))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        h = first = self.head(x)
        for block in self.blocks:
            h = h + block(h)
        detail = self.tail(self.ups(first + self.body(h)))
        return detail + interpolate(x, scale_factor=float(self.scale), mode="bicubic")

    @staticmethod
    def radius(blocks: int, scale: int) -> int:
        """In pixels of the small image."""
        stages = int(math.log2(scale))
        shuffled = sum(1 / 2**i for i in range(stages))  # each stage's 3x3 convolution
        return math.ceil(4 + 2 * blocks + 1 + shuffled + 4 / scale) + 1


class SRDiscriminator(nn.Module):
    """image -> logit: eight 3x3 convolutions, every second one halves, then two linear layers (Ledig et al. 2017,
    section 2.1.1)."""

    def __init__(self, data: DataInfo, width: int) -> None:
        super().__init__()
        c = [width * 2 ** (i // 2) for i in range(8)]
        layers: list[nn.Module] = []
        for i, c_out in enumerate(c):
            c_in = c[i - 1] if i else data.channels
            layers.append(nn.Conv2d(c_in, c_out, 3, 1 + i % 2, 1))
            if i:
                layers.append(nn.BatchNorm2d(c_out))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(c[-1] * math.prod(judged_sides(data)), 16 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(16 * width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).flatten(1)).flatten()  # (B,)


def judged_sides(data: DataInfo) -> tuple[int, int]:
    """Of D's last map."""
    return -(-data.height // 16), -(-data.width // 16)


class SRGAN(System):
    """Super-resolution."""

    name = "srgan"
    options_type = SRGANOptions
    fit = "tiles"

    def __init__(self, options: Options, data: DataInfo) -> None:
        super().__init__(options, data)
        self.classes = ()
        o = self.o = cast(SRGANOptions, options)
        multiple = o.scale * o.unshuffle
        few = min(data.height, data.width) < LEAST * multiple
        if data.height % multiple or data.width % multiple or few:
            raise InputError(
                "This resolution does not fit",
                seen=f"{data.height} x {data.width} pixels, made {multiple} times smaller",
                repair=f"Use a multiple of {multiple}, at least {LEAST * multiple}",
            )
        one = math.prod(judged_sides(data)) == 1
        if one and o.batch_size // o.accumulate < 2:  # D's batch norm would see one number
            raise InputError(
                "This batch is too small for D's batch norm",
                seen=f"{o.batch_size} images in {o.accumulate} parts, of {data.height} x {data.width} pixels",
                repair="Give --batch-size 2 a part, or images of more than 16 pixels",
            )
        wrong = (
            ("unshuffle", 1, "srresnet") if o.generator == "srresnet" else ("norm", "none", "rrdb")
        )
        if getattr(o, wrong[0]) != wrong[1]:
            raise InputError(
                f"The setting {wrong[0]} was refused",
                seen=f"{getattr(o, wrong[0])}, with generator {wrong[2]}",
                repair="Leave it out, or choose the other generator",
            )

    @classmethod
    def layouts(cls) -> tuple[Layout, ...]:
        return RRDB_LAYOUTS

    def features(self) -> nn.Module:
        """The network in whose features the perceptual distance is measured: image of [-1, 1] -> a tree of maps.

        Override it in a system of your own to use another, such as VGG with weights that you have.
        """
        return RandomMaps(self.data.channels)

    def networks(self) -> dict[str, nn.Module]:
        o = self.o
        d = SRDiscriminator(self.data, o.d_width).apply(initialise)
        c = self.data.channels
        if o.generator == "rrdb":
            g: nn.Module = RRDBNet(c, o.width, o.blocks, o.growth, o.scale, o.unshuffle)
        else:
            g = SRResNet(c, o.width, o.blocks, o.scale, o.norm)
        return {"G": g, "D": d}

    def prepare(self, batch: Batch) -> Batch:
        real, o = batch["real"], self.o
        small = (
            reduce(real, o.scale)
            if o.degradation == "bicubic"
            else degrade(real, o.scale, batch["source"])
        )
        return batch | {"image": small}

    def generate(self, live: Live, batch: Batch) -> Batch:
        return {"fake": live.networks["G"](batch["image"])}

    def discriminate(self, live: Live, sample: Tensor, batch: Batch) -> Tensor:
        return live.networks["D"](sample)

    def players(self) -> dict[str, Player]:
        o, players = self.o, super().players()
        g = players["G"]
        g.objectives[0].weight = o.adversarial
        g.objectives.append(Objective("content", mse, o.content))
        if o.perceptual:
            g.objectives.append(Objective("perceptual", Perceptual(self.features()), o.perceptual))
        return players

    def stages(self) -> list[Stage]:
        """The content alone; then all terms, with fresh optimisers."""
        share, whole = self.o.content_share, self.schedules()
        off: Schedules = {f"weight/{name}": lambda t: 0.0 for name in ("adversarial", "perceptual")}
        rate, factor = whole.get("learning_rate"), self.o.adversarial_rate
        slower: Schedules = {"learning_rate": lambda t: factor * (rate(t) if rate else 1.0)}
        return [
            Stage((Turn("G"),), share, whole | off),
            Stage(self.turns(), 1 - share, whole | slower, fresh_optimizers=True),
        ]

    def graphs(self) -> dict[str, Graph]:
        o, c = self.o, self.data.channels
        small, grown = (
            (c, _axis(k, "h"), _axis(k, "w")) for k in (o.unshuffle, o.unshuffle * o.scale)
        )
        image = Field("image", small, "image", range=(-1.0, 1.0))
        large = Field("enlarged", grown, "image", range=(-1.0, 1.0))
        whole = o.norm in ("instance", "affine-instance")  # they read the whole image
        radius = (
            RRDBNet.radius(o.blocks, o.scale, o.unshuffle)
            if o.generator == "rrdb"
            else SRResNet.radius(o.blocks, o.scale)
        )
        graph = Graph(
            (image,), (large,), lambda nets: nets["G"],
            radius=None if whole else radius, least=LEAST if whole else 1,
        )  # fmt: skip
        return {"enlarge": graph}

    def metrics(self) -> list[Metric]:
        """The distance in features, which detail lowers, and PSNR, which it may cost."""
        distance = Perceptual(self.features())

        @torch.no_grad()
        def measure(live: Live) -> dict[str, float]:
            truth = live.examples["real"]
            made = run_averaged(self.graphs()["enlarge"], live, live.examples).clamp(-1, 1)
            parts = zip(made.split(32), truth.split(32), strict=True)
            total = sum(distance.between(x, y).item() * len(x) for x, y in parts)
            return {"perceptual": total / len(truth), "psnr": psnr(made, truth)}

        return [Metric("perceptual", measure, good=(0.0, math.inf), higher_is_better=False)]


def _axis(factor: int, name: str) -> str:
    return f"{factor}*{name}" if factor > 1 else name
