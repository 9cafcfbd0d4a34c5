"""Inpainting: Iizuka, Simo-Serra and Ishikawa 2017 (GLCIC). A hole in an image, painted from what is around it.

The completion network of the paper, with dilated convolutions, or a U-Net; a global critic of the whole image and a
local one of the window around the hole; three stages: completion alone, critics alone, both (section 3.3). The
exported graph takes image and mask and returns the composite, whose known pixels are the input's, bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ...runtime.errors import InputError
from ...runtime.signature import Field
from ..image_networks import Norm, UNet, Up, doubled, make_norm
from ..metrics import run_averaged
from ..options import Options, setting
from ..parts import Batch, DataInfo, Graph, Live, Metric, Objective, Player, Stage, Turn
from ..system import System
from ..trees import Tree
from .dcgan import initialise
from .pix2pix import check_multiple, halvings

DILATED_DOWNS = 2


@dataclass(frozen=True, kw_only=True)
class InpaintingOptions(Options):
    batch_size: int = setting(16, "images a move", above=0, below=2**24)
    generator: Literal["dilated", "unet"] = setting("dilated", "the completion network")
    width: int = setting(64, "channels of G's first layer", above=0, below=2**16)
    downs: int = setting(
        5, "times that a U-Net halves the image, whose size must be a multiple of 2^downs",
        above=0, high=10,
    )  # fmt: skip
    norm: Norm = setting("batch", "normalisation in G")
    up: Up = setting("resize", "how G doubles the size")
    d_width: int = setting(64, "channels of a critic's first layer", above=0, below=2**16)
    reconstruction: float = setting(30.0, "weight of the L1 distance inside the hole")
    adversarial: float = setting(1.0, "weight of G's adversarial loss, once there are critics")
    completion_share: float = setting(
        0.18, "first share of the steps, in which G learns alone", below=1, source="there 90 of 500"
    )
    critics_share: float = setting(
        0.02, "next share, in which the critics learn alone", below=1, source="there 10 of 500"
    )
    smallest_hole: float = setting(
        0.25, "share of a side that a random hole has at least", above=0, high=1
    )
    largest_hole: float = setting(
        0.5, "share of a side that a random hole has at most", above=0, high=1
    )


class DilatedNetwork(nn.Module):
    """image beside mask -> image, at a quarter of the size within; dilations 2, 4, 8 and 16 see far (Iizuka et al.
    2017, section 3.2 and appendix A)."""

    def __init__(self, c_in: int, c_out: int, width: int, norm: Norm, up: Up) -> None:
        super().__init__()
        w = width
        plan = [
            (c_in, w, 5, 1, 1), (w, 2 * w, 3, 2, 1), (2 * w, 2 * w, 3, 1, 1),
            (2 * w, 4 * w, 3, 2, 1), (4 * w, 4 * w, 3, 1, 1), (4 * w, 4 * w, 3, 1, 1),
            *((4 * w, 4 * w, 3, 1, dilation) for dilation in (2, 4, 8, 16)),
            (4 * w, 4 * w, 3, 1, 1), (4 * w, 4 * w, 3, 1, 1),
        ]  # fmt: skip
        layers: list[nn.Module] = []
        for a, b, kernel, stride, dilation in plan:
            padding = dilation * (kernel - 1) // 2
            layers += [nn.Conv2d(a, b, kernel, stride, padding, dilation), make_norm(norm, b)]
            layers.append(nn.ReLU())
        for a, b, c in ((4 * w, 2 * w, 2 * w), (2 * w, w, max(w // 2, 1))):
            layers += [doubled(a, b, up), make_norm(norm, b), nn.ReLU()]
            layers += [nn.Conv2d(b, c, 3, padding=1), make_norm(norm, c), nn.ReLU()]
        layers += [nn.Conv2d(max(w // 2, 1), c_out, 3, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Critic(nn.Module):
    """image -> logit: 5x5 convolutions that halve it down to about 4 pixels, then a linear layer (Iizuka et al. 2017,
    section 3.2; there both critics meet in one last layer)."""

    def __init__(self, channels: int, height: int, width: int, features: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c, n = channels, 0
        while max(height, width) > 4:
            c_out = min(features * 2**n, 8 * features)
            layers += [nn.Conv2d(c, c_out, 5, 2, 2), nn.LeakyReLU(0.2)]
            c, n, height, width = c_out, n + 1, -(-height // 2), -(-width // 2)
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(c * height * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).flatten(1)).flatten()  # (B,)


class Filled(nn.Module):
    """image, mask -> image with the hole painted: the known pixels are the input's own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:  # (B, C, H, W), (B, 1, H, W)
        hole = mask > 0.5
        return torch.where(hole, paint(self.network, image, hole), image)


def paint(network: nn.Module, image: Tensor, hole: Tensor) -> Tensor:
    """What the network makes of the image without its hole."""
    known = torch.where(hole, torch.zeros_like(image), image)
    return network(torch.cat([known, hole.to(image.dtype)], 1))


def rectangles(like: Tensor, smallest: float, largest: float, source: torch.Generator) -> Tensor:
    """A hole in each image, a rectangle anywhere within it: [B, 1, H, W] of 0 and 1."""
    _, _, *sides = like.shape

    def draw() -> Tensor:
        return torch.rand(len(like), generator=source, device=like.device)

    inside = []
    for side in sides:
        length = (side * (smallest + (largest - smallest) * draw())).round().clamp(1, side)
        begin = (draw() * (side - length + 1)).floor()
        place = torch.arange(side, device=like.device)
        inside.append((place >= begin[:, None]) & (place < (begin + length)[:, None]))
    return (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(like.dtype)


def window(x: Tensor, mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The part of each image, [C, *size], around the middle of its hole, inside the image."""
    index = []
    for dim, side in enumerate(size):
        extent = x.shape[2 + dim]
        inside = mask.amax(dim=(1, 3 - dim)) > 0.5  # (B, extent)
        place = torch.arange(extent, device=x.device)
        first = torch.where(inside, place, extent).amin(1)
        last = torch.where(inside, place, -1).amax(1)
        begin = ((first + last + 1 - side) // 2).clamp(0, extent - side)  # (B,)
        index.append(begin[:, None] + torch.arange(side, device=x.device))  # (B, side)
    number = torch.arange(len(x), device=x.device)[:, None, None]
    rows, columns = index[0][:, :, None], index[1][:, None, :]
    return x.permute(0, 2, 3, 1)[number, rows, columns].permute(0, 3, 1, 2)


def reconstruction(live: Live, batch: Batch) -> Tensor:
    """E |y - G(x)| over the pixels of the holes."""
    return hole_l1(batch["painted"], batch["real"], batch["mask"])


def hole_l1(made: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    return ((made - truth) * mask).abs().sum() / (mask.sum() * truth.shape[1]).clamp(min=1)


class Inpainting(System):
    """Image completion."""

    name = "inpainting"
    options_type = InpaintingOptions
    arrangements = ("single", "unpaired")
    partner_channels = 1  # masks

    def __init__(self, options: Options, data: DataInfo) -> None:
        super().__init__(options, data)
        self.classes = ()
        o = self.o = cast(InpaintingOptions, options)
        self.downs = DILATED_DOWNS if o.generator == "dilated" else o.downs
        self.least = 2 if o.generator == "dilated" else 1  # a norm means nothing in one place
        check_multiple(data, self.downs, self.least, chosen=o.generator != "dilated")
        if o.completion_share + o.critics_share > 1:
            raise InputError(
                "The stages take more than the whole run",
                seen=f"completion_share {o.completion_share:g} and critics_share {o.critics_share:g}",
                repair="Let them be 1 together at most; both players have the rest",
            )
        self.local = (max(data.height // 2, 1), max(data.width // 2, 1))

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        return InpaintingOptions(downs=max(1, min(5, halvings(data))))

    def networks(self) -> dict[str, nn.Module]:
        o, c = self.o, self.data.channels
        if o.generator == "dilated":
            g: nn.Module = DilatedNetwork(c + 1, c, o.width, o.norm, o.up)
        else:
            g = UNet(c + 1, c, o.width, o.downs, norm=o.norm, up=o.up, dropout=0.0)
        networks = {
            "G": g,
            "D": Critic(c, self.data.height, self.data.width, o.d_width),
            "local D": Critic(c, *self.local, o.d_width),
        }
        return {name: network.apply(initialise) for name, network in networks.items()}

    def prepare(self, batch: Batch) -> Batch:
        o, real = self.o, batch["real"]
        if "partner" in batch:
            mask = (batch["partner"][:, :1] > 0).to(real.dtype)
        else:
            low, high = sorted((o.smallest_hole, o.largest_hole))
            mask = rectangles(real, low, high, batch["source"])
        return batch | {"image": real, "mask": mask}

    def generate(self, live: Live, batch: Batch) -> Batch:
        hole = batch["mask"] > 0.5
        painted = paint(live.networks["G"], batch["image"], hole)
        return {"painted": painted, "fake": torch.where(hole, painted, batch["image"])}

    def discriminate(self, live: Live, sample: Tensor, batch: Batch) -> Tree:
        near = window(sample, batch["mask"], self.local)
        return {"global": live.networks["D"](sample), "local": live.networks["local D"](near)}

    def players(self) -> dict[str, Player]:
        o, players = self.o, super().players()
        players["D"].networks = ("D", "local D")
        g = players["G"]
        g.objectives[0].weight = o.adversarial
        g.objectives.append(Objective("reconstruction", reconstruction, o.reconstruction))
        return players

    def stages(self) -> list[Stage]:
        """Completion alone; critics alone; both."""
        o, whole = self.o, self.schedules()
        both = 1 - o.completion_share - o.critics_share
        alone = whole | {"weight/adversarial": lambda t: 0.0}
        stages = [
            Stage((Turn("G"),), o.completion_share, alone),
            Stage((Turn("D"),), o.critics_share, whole),
            Stage(self.turns(), both, whole),
        ]
        return [stage for stage in stages if stage.share > 0]

    def graphs(self) -> dict[str, Graph]:
        axes = tuple(f"{2**self.downs}*{name}" for name in ("h", "w"))
        c = self.data.channels
        image = Field("image", (c, *axes), "image", range=(-1.0, 1.0))
        mask = Field("mask", (1, *axes), "mask", range=(0.0, 1.0))
        filled = Field("filled", (c, *axes), "image", range=(-1.0, 1.0))
        fill = Graph((image, mask), (filled,), lambda nets: Filled(nets["G"]), least=self.least)
        return {"fill": fill}

    def metrics(self) -> list[Metric]:
        @torch.no_grad()
        def measure(live: Live) -> dict[str, float]:
            examples = live.examples
            made = run_averaged(self.graphs()["fill"], live, examples)
            return {"hole_l1": hole_l1(made, examples["real"], examples["mask"]).item()}

        return [Metric("hole_l1", measure, good=(0.0, math.inf), higher_is_better=False)]
