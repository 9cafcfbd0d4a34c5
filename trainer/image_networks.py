"""Networks that take an image: U-Net, residual generator, patch discriminator."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["batch", "instance", "affine-instance", "none"]
Up = Literal["transpose", "resize"]


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """affine-instance: instance norm with a gain and a bias, as batch norm has them."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "none":
        return nn.Identity()
    return nn.InstanceNorm2d(channels, affine=kind == "affine-instance")


def doubled(c_in: int, c_out: int, up: Up, *, kernel: int = 4, bias: bool = True) -> nn.Module:
    """Twice the size: a transposed convolution, or nearest neighbours and a 3x3 convolution."""
    if up == "transpose":
        return nn.ConvTranspose2d(c_in, c_out, kernel, 2, 1, output_padding=kernel % 2, bias=bias)
    return nn.Sequential(
        nn.Upsample(scale_factor=2), nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias)
    )


class UNet(nn.Module):
    """image -> image of its size: halved `downs` times, doubled as often, each map beside its mirror (Isola et al.
    2017, section 3.2.1).

    Channels double up to `most` times `width`. dropout: of the first three doublings, in training. The size of the
    image must be a multiple of 2^downs.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        width: int,
        downs: int,
        *,
        norm: Norm = "batch",
        up: Up = "transpose",
        dropout: float = 0.5,
        most: int = 8,
    ) -> None:
        super().__init__()
        bias = norm != "batch"  # batch norm has its own
        c = [min(2**i, most) * width for i in range(downs)]
        self.downs = nn.ModuleList([nn.Conv2d(c_in, c[0], 4, 2, 1, bias=bias)])
        for i in range(1, downs):
            layers = [nn.LeakyReLU(0.2), nn.Conv2d(c[i - 1], c[i], 4, 2, 1, bias=bias)]
            if i < downs - 1:  # the smallest map may have one place, where a norm means nothing
                layers.append(make_norm(norm, c[i]))
            self.downs.append(nn.Sequential(*layers))
        self.ups = nn.ModuleList()
        for n, i in enumerate(reversed(range(1, downs))):
            wide = c[i] if n == 0 else 2 * c[i]
            layers = [nn.ReLU(), doubled(wide, c[i - 1], up, bias=bias), make_norm(norm, c[i - 1])]
            self.ups.append(nn.Sequential(*layers, nn.Dropout(dropout if n < 3 else 0.0)))
        last = c[0] if downs == 1 else 2 * c[0]
        self.ups.append(nn.Sequential(nn.ReLU(), doubled(last, c_out, up), nn.Tanh()))

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for down in self.downs:
            x = down(x)
            maps.append(x)
        x = self.ups[0](maps.pop())
        for up in self.ups[1:]:
            x = up(torch.cat([maps.pop(), x], 1))
        return x  # (B, c_out, H, W)


class ResidualBlock(nn.Module):
    """x + two 3x3 convolutions with norms, reflected at the border."""

    def __init__(self, c: int, norm: Norm, bias: bool, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(c, c, 3, bias=bias),
            make_norm(norm, c),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.ReflectionPad2d(1),
            nn.Conv2d(c, c, 3, bias=bias),
            make_norm(norm, c),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ResNetGenerator(nn.Module):
    """image -> image of its size: c7s1, `downs` halvings, `blocks` residual blocks, as many doublings, c7s1
    (Zhu et al. 2017, section 7.2, after Johnson et al. 2016).

    residual: adds its input before the tanh, so that training starts near the identity. The size of the image must be
    a multiple of 2^downs.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        width: int,
        blocks: int,
        *,
        downs: int = 2,
        norm: Norm = "instance",
        up: Up = "transpose",
        dropout: float = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        bias = norm != "batch"
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(c_in, width, 7, bias=bias),
            make_norm(norm, width),
            nn.ReLU(),
        ]
        c = width
        for _ in range(downs):
            layers += [nn.Conv2d(c, 2 * c, 3, 2, 1, bias=bias), make_norm(norm, 2 * c), nn.ReLU()]
            c *= 2
        layers += [ResidualBlock(c, norm, bias, dropout) for _ in range(blocks)]
        for _ in range(downs):
            layers += [doubled(c, c // 2, up, kernel=3, bias=bias), make_norm(norm, c // 2)]
            layers.append(nn.ReLU())
            c //= 2
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(c, c_out, 7)]
        self.layers = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:  # (B, c_in, H, W)
        y = self.layers(x)
        return torch.tanh(y + x if self.residual else y)


class PatchDiscriminator(nn.Sequential):
    """image -> a map of logits, each of a patch; 70 pixels a side with 3 layers (Isola et al. 2017, section 3.2.2)."""

    def __init__(self, c_in: int, width: int, layers: int = 3, norm: Norm = "batch") -> None:
        bias = norm != "batch"
        c = [min(2**i, 8) * width for i in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(c_in, c[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, layers + 1):
            stride = 2 if i < layers else 1
            parts += [nn.Conv2d(c[i - 1], c[i], 4, stride, 1, bias=bias), make_norm(norm, c[i])]
            parts.append(nn.LeakyReLU(0.2))
        parts.append(nn.Conv2d(c[-1], 1, 4, 1, 1))
        super().__init__(*parts)
