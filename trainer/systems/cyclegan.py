"""CycleGAN: Zhu, Park, Isola and Efros 2017. Two translations, a to b and back, learnt from unpaired images.

Two residual generators and two PatchGANs, least squares, the cycle a -> b -> a and b -> a -> b (section 3.2), the
identity on images that are there already (section 5.2), and a pool of 50 earlier fakes for the discriminators
(section 4). The partners of the data are a, its samples b.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ...runtime.errors import InputError
from ..augment import ImagePool
from ..features import RandomFeatures, embed
from ..image_networks import Norm, PatchDiscriminator, ResNetGenerator, Up
from ..metrics import coverage_and_density
from ..options import Options, setting
from ..parts import Augmentation, Batch, DataInfo, Graph, Live, Metric, Objective, Player, Turn
from ..system import System, image_field
from ..trees import Tree
from .dcgan import initialise
from .pix2pix import (
    check_multiple,
    check_patches,
    halvings,
    least_side,
    patch_layers,
    translation_graph,
)


@dataclass(frozen=True, kw_only=True)
class CycleGANOptions(Options):
    loss: str = setting("least-squares", "the adversarial loss")
    batch_size: int = setting(1, "images of each kind a move", above=0, below=2**24)
    decay_share: float = setting(
        0.5, "last share of the steps over which the learning rates fall linearly to 0", below=1
    )
    cycle: float = setting(10.0, "lambda of the cycle's L1", source="Zhu et al. 2017, eq. 3")
    identity: float = setting(
        5.0, "weight of the identity's L1, which keeps colours; 0 is off",
        source="Zhu et al. 2017, section 5.2",
    )  # fmt: skip
    pool: int = setting(50, "earlier fakes that the discriminators may see; 0 is off", high=10_000)
    width: int = setting(64, "channels of a generator's first layer", above=0, below=2**16)
    downs: int = setting(
        2, "times that a generator halves the image, whose size must be a multiple of 2^downs",
        above=0, high=10,
    )  # fmt: skip
    blocks: int = setting(9, "residual blocks; the paper has 6 for 128 pixels", above=0, high=64)
    norm: Norm = setting("instance", "normalisation in the generators")
    up: Up = setting("transpose", "how the size is doubled; resize leaves no checkerboard")
    residual: bool = setting(
        False, "a generator adds its input before the tanh: training starts near the identity"
    )
    d_width: int = setting(64, "channels of a discriminator's first layer", above=0, below=2**16)
    d_layers: int = setting(3, "of a discriminator; 3 judge patches of 70 pixels", above=0, high=6)
    d_norm: Norm = setting("instance", "normalisation in the discriminators")


def cycle(live: Live, batch: Batch) -> Tensor:
    """E |F(G(a)) - a| + E |G(F(b)) - b| (Zhu et al. 2017, eq. 2)."""
    real, fake, networks = batch["real"], batch["fake"], live.networks
    a, b = networks["B2A"](fake["b"]), networks["A2B"](fake["a"])
    return (a - real["a"]).abs().mean() + (b - real["b"]).abs().mean()


def identity(live: Live, batch: Batch) -> Tensor:
    """E |G(b) - b| + E |F(a) - a| (Zhu et al. 2017, section 5.2)."""
    real, networks = batch["real"], live.networks
    a, b = networks["B2A"](real["a"]), networks["A2B"](real["b"])
    return (a - real["a"]).abs().mean() + (b - real["b"]).abs().mean()


class CycleGAN(System):
    """Unpaired image translation, both ways."""

    name = "cyclegan"
    options_type = CycleGANOptions
    arrangements = ("unpaired",)

    def __init__(self, options: Options, data: DataInfo) -> None:
        super().__init__(options, data)
        self.classes = ()
        self.o = cast(CycleGANOptions, options)
        check_multiple(data, self.o.downs, least_side("resnet"))
        check_patches(data, self.o.d_layers)
        if data.partner != data.shape:
            raise InputError(
                "The two sets are of different kinds",
                seen=f"{data.partner} and {data.shape}",
                repair="Give --channels, which is for both",
            )

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        """The paper's: 6 blocks up to 128 pixels, 9 above; fewer halvings and layers of small images."""
        return CycleGANOptions(
            blocks=6 if data.height <= 128 else 9,
            downs=max(1, min(2, halvings(data))),
            d_layers=max(1, min(3, patch_layers(data))),
        )

    def networks(self) -> dict[str, nn.Module]:
        o, c = self.o, self.data.channels
        networks: dict[str, nn.Module] = {
            name: ResNetGenerator(
                c, c, o.width, o.blocks, downs=o.downs, norm=o.norm, up=o.up, residual=o.residual
            )
            for name in ("A2B", "B2A")
        }
        for name in ("DA", "DB"):
            networks[name] = PatchDiscriminator(c, o.d_width, o.d_layers, o.d_norm)
        return {name: network.apply(initialise) for name, network in networks.items()}

    def prepare(self, batch: Batch) -> Batch:
        a, b = batch["partner"], batch["real"]
        return batch | {"real": {"a": a, "b": b}, "image": a}

    def generate(self, live: Live, batch: Batch) -> Batch:
        real, networks = batch["real"], live.networks
        return {"fake": {"a": networks["B2A"](real["b"]), "b": networks["A2B"](real["a"])}}

    def discriminate(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        return {"a": live.networks["DA"](sample["a"]), "b": live.networks["DB"](sample["b"])}

    def augmentations(self) -> list[Augmentation]:
        pool = [ImagePool(self.o.pool)] if self.o.pool else []
        return [*pool, *super().augmentations()]

    def players(self) -> dict[str, Player]:
        """One of both generators, one of both discriminators; the authors' code halves the loss of the latter."""
        o, players = self.o, super().players()
        d, g = players["D"], players["G"]
        d.networks, g.networks = ("DA", "DB"), ("A2B", "B2A")
        d.objectives[0].weight = 0.5
        g.objectives.append(Objective("cycle", cycle, o.cycle))
        if o.identity:
            g.objectives.append(Objective("identity", identity, o.identity))
        return players

    def turns(self) -> tuple[Turn, ...]:
        """The generators first, as in the authors' code."""
        return Turn("G"), Turn("D", self.o.d_moves)

    def graphs(self) -> dict[str, Graph]:
        output = image_field(self.data, "translated")
        return {
            name: translation_graph(self.data.shape, output, network, self.o.downs, resnet=True)
            for name, network in (("a2b", "A2B"), ("b2a", "B2A"))
        }

    def metrics(self) -> list[Metric]:
        """Coverage of b by translations of a, and the L1 of a -> b -> a."""
        return [Metric("coverage", self.measure, good=(0.5, float("inf")))]

    @torch.no_grad()
    def measure(self, live: Live) -> dict[str, float]:
        real = live.examples["real"]
        there = run_in_parts(live.averaged["A2B"], real["a"])
        back = run_in_parts(live.averaged["B2A"], there)
        features = RandomFeatures(self.data.channels).to(there.device)
        ours, theirs = (embed(features, x) for x in (real["b"], there))
        coverage, density = coverage_and_density(ours, theirs)
        distance = (back - real["a"]).abs().mean().item()
        return {"coverage": coverage, "density": density, "cycle": distance}


def run_in_parts(network: nn.Module, images: Tensor, part: int = 16) -> Tensor:
    return torch.cat([network(x) for x in images.split(part)])
