"""MSG-GAN: Karnewar and Wang 2020. Gradients flow from D to G at all scales at once, so nothing needs to grow.

G gives an image at every size from the same features; D reads each beside the features of its own that have that
size (section 3.1, with the linear combination before concatenating). The reals become a pyramid by average pooling.
The loss is that of WGAN-GP with RMSprop at 0.003 (section 3.3); the authors' later code has a relativistic hinge.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ..layers import channels_by_size
from ..options import Options, PyramidOptions
from ..parts import Augmentation, Batch, DataInfo, Graph, Live
from ..system import System, image_field
from ..trees import Tree
from .progressive import Judgement, PyramidGenerator, halving, image_convolution


class MSGGenerator(PyramidGenerator):
    """z [, label] -> images at all scales, the largest first."""

    def forward(self, z: Tensor, label: Tensor | None = None) -> tuple[Tensor, ...]:
        x = self.first(z, label)
        images = [self.to_image[0](x)]
        for block, to_image in zip(self.blocks, self.to_image[1:], strict=True):
            x = block(x)
            images.append(to_image(x))  # (B, C, base 2^level, ...), linear
        return tuple(reversed(images))


class MSGDiscriminator(nn.Module):
    """images at all scales, the largest first [, label] -> logit."""

    def __init__(self, o: PyramidOptions, data: DataInfo, classes: int) -> None:
        super().__init__()
        base, c = channels_by_size(data, o.width, o.max_width)
        read = [width if i == len(c) - 1 else max(width // 2, 1) for i, width in enumerate(c)]
        self.from_image = nn.ModuleList(
            nn.Sequential(image_convolution(data.channels, r, size=1), nn.LeakyReLU(0.2))
            for r in read
        )
        inside = [*(w + r for w, r in zip(c, read, strict=True))]
        inside[-1] = c[-1]  # there, nothing comes from above
        self.blocks = nn.ModuleList(halving(b, a) for a, b in zip(c[:-1], inside[1:], strict=True))
        self.judge = Judgement(o, inside[0], c[0], base, classes, group=None)

    def forward(self, images: Tree, label: Tensor | None = None) -> Tensor:
        h: Tensor | None = None
        for level, x in zip(reversed(range(len(self.from_image))), images, strict=True):
            seen = self.from_image[level](x)
            h = seen if h is None else torch.cat([h, seen], 1)
            if level:
                h = self.blocks[level - 1](h)
        return self.judge(h, label)


class Pyramid(Augmentation):
    """The reals at all of G's scales, the largest first."""

    name = "pyramid"
    reals_only = True

    def __init__(self, scales: int) -> None:
        self.scales = scales

    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        return tuple(avg_pool2d(sample, 2**k) if k else sample for k in range(self.scales))


class MSGGAN(System):
    """A G and a D that meet at every scale."""

    name = "msg-gan"
    options_type = PyramidOptions

    def __init__(self, options: Options, data: DataInfo) -> None:
        super().__init__(options, data)
        o = cast(PyramidOptions, options)
        base, channels = channels_by_size(data, o.width, o.max_width)
        self.sizes = [base * 2**level for level in range(len(channels))]

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        return PyramidOptions(
            loss="wasserstein", gp=10.0, optimizer="rmsprop", g_learning_rate=3e-3, d_learning_rate=3e-3,
            beta1=0.0, beta2=0.99, batch_size=16, latent=512, embedding=512, projection=512,
            minibatch_deviation=True, width=max(16_384 // data.height, 1),
        )  # fmt: skip

    def networks(self) -> dict[str, nn.Module]:
        o, classes = cast(PyramidOptions, self.options), len(self.classes)
        return {
            "G": MSGGenerator(o, self.data, classes),
            "D": MSGDiscriminator(o, self.data, classes),
        }

    def augmentations(self) -> list[Augmentation]:
        return [Pyramid(len(self.sizes)), *super().augmentations()]

    def graphs(self) -> dict[str, Graph]:
        """One graph with an output for each scale: `image`, and `image_8` for the one of 8 pixels."""
        (name, graph), *_ = super().graphs().items()
        smaller = [
            image_field(DataInfo((self.data.channels, size, size)), f"image_{size}")
            for size in reversed(self.sizes[:-1])
        ]
        return {name: Graph(graph.inputs, (*graph.outputs, *smaller), graph.build, graph.classes)}
