"""Layouts of the published generators that take an image: U-Net, residual generator, RRDBNet.

Written from the names and shapes of the tensors in published files. Those of numbered layers follow from the order
of the layers in the papers' descriptions.
"""

from __future__ import annotations

from dataclasses import dataclass

from .image_networks import Norm
from .layouts import Layout, Names, Reading, Shapes, count, size
from .parts import DataInfo
from .upscalers import DENSE

MOST_DOWNS, MOST_BLOCKS, MOST_RRDBS, MOST_DOUBLINGS = 10, 64, 128, 3
PATCH = 128  # pixels a side of the images on which enlarging was learnt
NORM_TITLES: dict[Norm, str] = {
    "batch": "batch norm",
    "instance": "instance norm",
    "affine-instance": "instance norm with gains",
    "none": "no norm",
}


@dataclass(frozen=True)
class UNetLayout(Layout):
    """Blocks within blocks: each holds [activation,] convolution, [norm,] the next block, activation, convolution
    [, norm], and is called `model` by the one around it."""

    title: str

    def read(self, shapes: Shapes, *, image_statistics: bool) -> Reading:
        prefixes = [_unet_prefix(level) for level in range(MOST_DOWNS)]
        firsts = [f"{prefix}{min(level, 1)}.weight" for level, prefix in enumerate(prefixes)]
        downs = next((i for i, name in enumerate(firsts) if name not in shapes), MOST_DOWNS)
        downs = downs if downs > 2 else 8
        norm = _norm(shapes, f"{prefixes[1]}2", f"{prefixes[1]}1")
        here, names = _Norms(norm, image_statistics), Names()
        for level, prefix in enumerate(prefixes[:downs]):
            ours = f"downs.{level}", f"ups.{downs - 1 - level}.1"
            if level == 0:
                names.conv(f"{prefix}0", ours[0], no_bias=here.no_bias)
                names.conv(f"{prefix}3", ours[1])
                continue
            inner = level == downs - 1
            up = 3 if inner else 5
            names.conv(f"{prefix}1", f"{ours[0]}.1", no_bias=here.no_bias)
            names.conv(f"{prefix}{up}", ours[1], no_bias=here.no_bias)
            here.name(names, f"{prefix}{up + 1}", f"ups.{downs - 1 - level}.2")
            if not inner:
                here.name(names, f"{prefix}2", f"{ours[0]}.2")
        width = size(shapes, firsts[0], 0, 64)
        c_in, c_out = size(shapes, firsts[0], 1, 3), size(shapes, f"{prefixes[0]}3.weight", 1, 3)
        options: dict[str, int | str] = {"generator": "unet", "downs": downs}
        return _translation(
            f"{self.title.format(2**downs)}, {here.title}", options, width, (c_in, c_out), names,
            here, side=max(2**downs, 256),
        )  # fmt: skip


@dataclass(frozen=True)
class ResNetLayout(Layout):
    """One list of layers, `model`, in which the residual blocks have their own, `conv_block`; with dropout in a block
    its second convolution stands a place later."""

    title: str

    def read(self, shapes: Shapes, *, image_statistics: bool) -> Reading:
        blocks = count(shapes, "model.%d.conv_block.1.weight", MOST_BLOCKS, first=10) or 9
        end = 10 + blocks
        here, names = _Norms(_norm(shapes, "model.2", "model.1"), image_statistics), Names()
        for place in (1, 4, 7, end, end + 3):
            names.conv(f"model.{place}", f"layers.{place}", no_bias=here.no_bias)
            here.name(names, f"model.{place + 1}", f"layers.{place + 1}")
        for place in range(10, end):
            late = len(shapes.get(f"model.{place}.conv_block.6.weight", ())) == 4
            for theirs, ours in ((1, 1), (6 if late else 5, 6)):
                block = f"model.{place}.conv_block", f"layers.{place}.layers"
                names.conv(f"{block[0]}.{theirs}", f"{block[1]}.{ours}", no_bias=here.no_bias)
                here.name(names, f"{block[0]}.{theirs + 1}", f"{block[1]}.{ours + 1}")
        last = end + 7
        names.conv(f"model.{last}", f"layers.{last}")
        width, c_in = (size(shapes, "model.1.weight", axis, n) for axis, n in ((0, 64), (1, 3)))
        c_out = size(shapes, f"model.{last}.weight", 0, 3)
        options: dict[str, int | str] = {"generator": "resnet", "downs": 2, "blocks": blocks}
        return _translation(
            f"{self.title.format(blocks)}, {here.title}", options, width, (c_in, c_out), names,
            here, side=256,
        )  # fmt: skip


@dataclass(frozen=True)
class RRDBLayout(Layout):
    """A naming of RRDBNet. block: of (RRDB, dense block, convolution), the latter two counted from 1. numbered: the
    layers after the blocks go by their place in one list, in which each doubling takes three."""

    title: str
    first: str
    block: str
    tail: str
    up: str
    large: str
    last: str
    numbered: bool = False

    def read(self, shapes: Shapes, *, image_statistics: bool) -> Reading:
        begin = self.block.format("%d", 1, 1) + ".weight"
        blocks = count(shapes, begin, MOST_RRDBS) or 23
        doublings = 0
        while doublings < MOST_DOUBLINGS and f"{self._up(doublings)}.weight" in shapes:
            doublings += 1
        if f"{self.first}.weight" not in shapes:
            doublings = 2
        after = 2 + 3 * doublings
        large, last = self.large.format(after), self.last.format(after + 2)
        names = Names()
        names.conv(self.first, "first")
        for block in range(blocks):
            for dense in range(3):
                for conv in range(DENSE):
                    theirs = self.block.format(block, dense + 1, conv + 1)
                    names.conv(theirs, f"body.{block}.{dense}.convs.{conv}")
        names.conv(self.tail.format(blocks), "tail")
        for i in range(doublings):
            names.conv(self._up(i), f"ups.{i}")
        names.conv(large, "large")
        names.conv(last, "last")
        channels = size(shapes, f"{last}.weight", 0, 3)
        squared = size(shapes, f"{self.first}.weight", 1, channels) / channels
        unshuffle = {4.0: 2, 16.0: 4}.get(squared, 1)
        if 2**doublings < unshuffle:
            unshuffle = 1
        scale, width = 2**doublings // unshuffle, size(shapes, f"{self.first}.weight", 0, 64)
        options: dict[str, int | str] = {
            "generator": "rrdb",
            "width": width,
            "blocks": blocks,
            "growth": size(shapes, begin % 0, 0, 32),
            "scale": scale,
            "unshuffle": unshuffle,
            "d_width": min(width, 64),
        }
        return Reading(
            f"{self.title}, times {scale}", options, DataInfo((channels, PATCH, PATCH)), names
        )

    def _up(self, i: int) -> str:
        return self.up.format(3 * i + 3 if self.numbered else i + 1)


RRDB_LAYOUTS = (
    RRDBLayout(
        "RRDBNet of the ESRGAN family (conv_first, body.N.rdbN)",
        "conv_first", "body.{}.rdb{}.conv{}", "conv_body", "conv_up{}", "conv_hr", "conv_last",
    ),
    RRDBLayout(
        "RRDBNet of the ESRGAN family (conv_first, RRDB_trunk.N.RDBN)",
        "conv_first", "RRDB_trunk.{}.RDB{}.conv{}", "trunk_conv", "upconv{}", "HRconv", "conv_last",
    ),
    RRDBLayout(
        "RRDBNet of the ESRGAN family (model.N, sub.N.RDBN)",
        "model.0", "model.1.sub.{}.RDB{}.conv{}.0", "model.1.sub.{}", "model.{}", "model.{}",
        "model.{}", numbered=True,
    ),
)  # fmt: skip


class _Norms:
    """How a file's norms become ours."""

    def __init__(self, norm: Norm, image_statistics: bool) -> None:
        self.by_image = image_statistics and norm == "batch"
        self.norm: Norm = "affine-instance" if self.by_image else norm
        self.no_bias = self.by_image or norm == "none"  # of theirs; batch norm makes it needless
        self.title = NORM_TITLES[norm] + (" by the image's statistics" if self.by_image else "")

    def name(self, names: Names, foreign: str, ours: str) -> None:
        if self.norm != "none":
            names.norm(foreign, ours, statistics=self.norm == "batch")


def _norm(shapes: Shapes, norm: str, conv: str) -> Norm:
    """The norm by its tensors: a convolution has no bias before batch norm, and one before instance norm."""
    gain, bias = f"{norm}.weight" in shapes, f"{conv}.bias" in shapes
    if gain:
        return "affine-instance" if bias and f"{norm}.running_mean" not in shapes else "batch"
    return "instance" if bias else "none"


def _unet_prefix(level: int) -> str:
    return "model.model." + "".join("1.model." if i == 0 else "3.model." for i in range(level))


def _translation(
    title: str,
    options: dict[str, int | str],
    width: int,
    channels: tuple[int, int],
    names: Names,
    norms: _Norms,
    *,
    side: int,
) -> Reading:
    """A reading of a generator of the given sizes."""
    c_in, c_out = channels
    own: dict[str, int | str] = {
        "width": width, "norm": norms.norm, "up": "transpose", "d_width": min(width, 64),
    }  # fmt: skip
    data = DataInfo((c_out, side, side), arrangement="pairs", partner=(c_in, side, side))
    return Reading(title, options | own, data, names, image_statistics=norms.by_image)
