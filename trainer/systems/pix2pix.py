"""pix2pix: Isola, Zhu, Zhou and Efros 2017. An image to an image, learnt from pairs.

A U-Net, or the residual generator of Zhu et al. 2017, is judged by a PatchGAN that sees input and output together,
and drawn to the truth by L1 (section 3.1). Rates, weights and D's halved loss as in the paper and the authors' code.
Dropout in the first three doublings acts in training only: an exported graph draws nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ...runtime.errors import InputError
from ...runtime.signature import Field
from ..augment import Beside
from ..image_layouts import ResNetLayout, UNetLayout
from ..image_networks import Norm, PatchDiscriminator, ResNetGenerator, UNet, Up
from ..layouts import Layout
from ..objectives import l1
from ..options import Options, setting
from ..parts import Augmentation, Batch, DataInfo, Graph, Live, Objective, Player
from ..system import System, image_field
from ..trees import Tree
from .dcgan import initialise


@dataclass(frozen=True, kw_only=True)
class Pix2PixOptions(Options):
    batch_size: int = setting(1, "pairs a move", above=0, below=2**24)
    decay_share: float = setting(
        0.5, "last share of the steps over which the learning rates fall linearly to 0", below=1
    )
    l1: float = setting(100.0, "lambda of the L1 distance to the truth", source="Isola et al. 2017")
    generator: Literal["unet", "resnet"] = setting("unet", "the kind of G")
    width: int = setting(64, "channels of G's first layer", above=0, below=2**16)
    downs: int = setting(
        8, "times that G halves the image, whose size must be a multiple of 2^downs; resnet: 2 is usual",
        above=0, high=10,
    )  # fmt: skip
    blocks: int = setting(9, "residual blocks of a resnet", above=0, high=64)
    norm: Norm = setting("batch", "normalisation in G; resnet: instance is usual")
    up: Up = setting("transpose", "how G doubles the size; resize leaves no checkerboard")
    dropout: float = setting(0.5, "of the first doublings of a U-Net, in training", below=1)
    residual: bool = setting(False, "a resnet adds its input before the tanh")
    d_width: int = setting(64, "channels of D's first layer", above=0, below=2**16)
    d_layers: int = setting(3, "of D; 3 judge patches of 70 pixels", above=0, high=6)
    d_norm: Norm = setting("batch", "normalisation in D")


def make_generator(o: Pix2PixOptions, c_in: int, c_out: int) -> nn.Module:
    if o.generator == "unet":
        return UNet(
            c_in, c_out, o.width, o.downs, norm=o.norm, up=o.up, dropout=o.dropout
        )  # fmt: skip
    return ResNetGenerator(
        c_in, c_out, o.width, o.blocks,
        downs=o.downs, norm=o.norm, up=o.up, residual=o.residual,
    )  # fmt: skip


def translation_graph(
    input_shape: tuple[int, ...], output: Field, network: str, downs: int, *, resnet: bool
) -> Graph:
    """image -> image of its size, of any size that `downs` halvings divide."""
    axes = tuple(f"{2**downs}*{name}" for name in ("h", "w"))
    image = Field("image", (input_shape[0], *axes), "image", range=(-1.0, 1.0))
    output = Field(output.name, (output.shape[0], *axes), "image", range=output.range)
    least = least_side("resnet" if resnet else "unet")
    return Graph((image,), (output,), lambda nets: nets[network], least=least)


def least_side(generator: str) -> int:
    """Of the smallest map within G: a residual block reflects a pixel, and so the first layer has its 3."""
    return 2 if generator == "resnet" else 1


class Pix2Pix(System):
    """Paired image translation."""

    name = "pix2pix"
    options_type = Pix2PixOptions
    arrangements = ("pairs",)

    def __init__(self, options: Options, data: DataInfo) -> None:
        super().__init__(options, data)
        self.classes = ()
        o = self.o = cast(Pix2PixOptions, options)
        assert data.partner is not None
        check_multiple(data, o.downs, least_side(o.generator))
        check_patches(data, o.d_layers)
        if o.residual and data.partner[0] != data.channels:
            raise InputError(
                "residual needs inputs and outputs of one kind",
                seen=f"{data.partner[0]} and {data.channels} channels",
                repair="Leave residual out, or give --channels",
            )

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        """The paper's for 256 pixels, with fewer halvings of smaller images."""
        layers = min(3, patch_layers(data))
        return Pix2PixOptions(downs=max(1, min(8, halvings(data))), d_layers=max(1, layers))

    @classmethod
    def layouts(cls) -> tuple[Layout, ...]:
        code = "of the CycleGAN and pix2pix code"
        return UNetLayout(f"unet_{{}} {code}"), ResNetLayout(f"resnet_{{}}blocks {code}")

    def networks(self) -> dict[str, nn.Module]:
        o, partner = self.o, cast(tuple[int, ...], self.data.partner)
        networks = {
            "G": make_generator(o, partner[0], self.data.channels),
            "D": PatchDiscriminator(
                partner[0] + self.data.channels, o.d_width, o.d_layers, o.d_norm
            ),
        }
        return {name: network.apply(initialise) for name, network in networks.items()}

    def prepare(self, batch: Batch) -> Batch:
        return batch | {"image": batch["partner"]}

    def generate(self, live: Live, batch: Batch) -> Batch:
        return {"fake": live.networks["G"](batch["image"])}

    def augmentations(self) -> list[Augmentation]:
        return [Beside("image"), *super().augmentations()]

    def discriminate(self, live: Live, sample: Tree, batch: Batch) -> Tensor:
        return live.networks["D"](torch.cat(sample, 1))  # (B, 1, H', W')

    def players(self) -> dict[str, Player]:
        """The authors' code halves D's loss."""
        players = super().players()
        players["D"].objectives[0].weight = 0.5
        players["G"].objectives.append(Objective("l1", l1, self.o.l1))
        return players

    def graphs(self) -> dict[str, Graph]:
        output = image_field(self.data, "translated")
        return {
            "translate": translation_graph(
                cast(tuple[int, ...], self.data.partner), output, "G", self.o.downs,
                resnet=self.o.generator == "resnet",
            )
        }  # fmt: skip


def halvings(data: DataInfo) -> int:
    """How often both sides of the image can be halved."""
    return min((side & -side).bit_length() - 1 for side in (data.height, data.width))


def patch_layers(data: DataInfo) -> int:
    """Layers that a PatchGAN can have: the last norm needs more than one place."""
    return max(0, (min(data.height, data.width) // 3).bit_length() - 1)


def check_patches(data: DataInfo, layers: int) -> None:
    """Raise `InputError` for a discriminator with too many layers for the image."""
    if layers > patch_layers(data):
        raise InputError(
            "The discriminator is too deep for this resolution",
            seen=f"{layers} layers, {data.height} x {data.width} pixels",
            repair=f"Use at least {3 * 2**layers} pixels, or fewer layers with --set d_layers=N",
        )


def check_multiple(data: DataInfo, downs: int, least: int = 1, *, chosen: bool = True) -> None:
    """Raise `InputError` for a training image that G's halvings do not divide, or leave fewer than `least` pixels a
    side of. chosen: by the setting downs."""
    smallest, other = least * 2**downs, ", or fewer halvings with --set downs=N" if chosen else ""
    few = min(data.height, data.width) < smallest
    if halvings(data) < downs or few:
        raise InputError(
            "This resolution does not fit",
            seen=f"{data.height} x {data.width} pixels, halved {downs} times",
            repair=f"Use a multiple of {2**downs}{f', at least {smallest}' if few else ''}{other}",
        )
