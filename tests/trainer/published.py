"""Published generators as plain torch modules, with the names that their state dicts have, written from descriptions of
the networks: Isola et al. 2017, Zhu et al. 2017, Radford et al. 2016, Wang et al. 2018 and 2021. Nothing of ours."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

M = TypeVar("M", bound=nn.Module)
NormMaker = Callable[[int], nn.Module]


def batch(c: int) -> nn.Module:
    return nn.BatchNorm2d(c)


def instance(c: int) -> nn.Module:
    return nn.InstanceNorm2d(c)


def tracked_instance(c: int) -> nn.Module:
    """With running statistics, as older files have them; nothing goes by them, since testing is in train mode."""
    return nn.InstanceNorm2d(c, track_running_stats=True)


def affine_instance(c: int) -> nn.Module:
    return nn.InstanceNorm2d(c, affine=True)


def no_norm(c: int) -> nn.Module:
    return nn.Identity()


def has_bias(norm: NormMaker) -> bool:
    return norm not in (batch, no_norm)


class SkipBlock(nn.Module):
    def __init__(
        self,
        outer: int,
        inner: int,
        norm: NormMaker,
        inside: nn.Module | None = None,
        c_in: int | None = None,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        self.outermost, bias = c_in is not None, has_bias(norm)
        down = nn.Conv2d(outer if c_in is None else c_in, inner, 4, 2, 1, bias=bias)
        if inside is None:
            up = nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias)
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, norm(outer)]
        elif self.outermost:
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1)
            layers = [down, inside, nn.ReLU(), up, nn.Tanh()]
        else:
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=bias)
            layers = [nn.LeakyReLU(0.2), down, norm(inner), inside, nn.ReLU(), up, norm(outer)]
            layers += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y if self.outermost else torch.cat([x, y], 1)


class NestedUNet(nn.Module):
    """unet_256 has 8 levels, unet_128 has 7."""

    def __init__(
        self,
        levels: int,
        width: int,
        norm: NormMaker,
        *,
        c_in: int = 3,
        c_out: int = 3,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        block = SkipBlock(8 * width, 8 * width, norm)
        for _ in range(levels - 5):
            block = SkipBlock(8 * width, 8 * width, norm, block, dropout=dropout)
        for k in (4, 2, 1):
            block = SkipBlock(k * width, 2 * k * width, norm, block)
        self.model = SkipBlock(c_out, width, norm, block, c_in)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class Block(nn.Module):
    def __init__(self, c: int, norm: NormMaker, dropout: bool) -> None:
        super().__init__()
        bias = has_bias(norm)
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(c, c, 3, bias=bias),
            norm(c),
            nn.ReLU(),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(c, c, 3, bias=bias),
            norm(c),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv_block(x)
        return y


class FlatResNet(nn.Module):
    """resnet_9blocks and resnet_6blocks."""

    def __init__(
        self,
        blocks: int,
        width: int,
        norm: NormMaker,
        *,
        c_in: int = 3,
        c_out: int = 3,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        bias, w = has_bias(norm), width
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(c_in, w, 7, bias=bias), norm(w), nn.ReLU(),
            nn.Conv2d(w, 2 * w, 3, 2, 1, bias=bias), norm(2 * w), nn.ReLU(),
            nn.Conv2d(2 * w, 4 * w, 3, 2, 1, bias=bias), norm(4 * w), nn.ReLU(),
            *(Block(4 * w, norm, dropout) for _ in range(blocks)),
            nn.ConvTranspose2d(4 * w, 2 * w, 3, 2, 1, 1, bias=bias), norm(2 * w), nn.ReLU(),
            nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1, bias=bias), norm(w), nn.ReLU(),
            nn.ReflectionPad2d(3), nn.Conv2d(w, c_out, 7), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class Tutorial(nn.Module):
    """The DCGAN tutorial's. c: channels from the smallest map on, the image's last."""

    def __init__(self, latent: int, c: tuple[int, ...], base: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, c[0], base, 1, 0, bias=False)]
        for a, b in pairwise(c):
            layers += [nn.BatchNorm2d(a), nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)]
        self.main = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        y: Tensor = self.main(z[:, :, None, None])
        return y


class Dense(nn.Module):
    def __init__(self, nf: int, gc: int) -> None:
        super().__init__()
        for i in range(1, 6):
            c_out = nf if i == 5 else gc
            setattr(self, f"conv{i}", nn.Conv2d(nf + (i - 1) * gc, c_out, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for i in range(1, 5):
            y = nn.functional.leaky_relu(getattr(self, f"conv{i}")(seen), 0.2)
            seen = torch.cat([seen, y], 1)
        last: Tensor = getattr(self, "conv5")(seen)  # noqa: B009
        return last * 0.2 + x


class Triple(nn.Module):
    def __init__(self, nf: int, gc: int, name: str) -> None:
        super().__init__()
        self.name = name
        for i in (1, 2, 3):
            setattr(self, f"{name}{i}", Dense(nf, gc))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in (1, 2, 3):
            y = getattr(self, f"{self.name}{i}")(y)
        return y * 0.2 + x


NEW = ("conv_first", "body", "rdb", "conv_body", "conv_up", "conv_hr", "conv_last")
MIDDLE = ("conv_first", "RRDB_trunk", "RDB", "trunk_conv", "upconv", "HRconv", "conv_last")


class Upscaler(nn.Module):
    """RRDBNet, for images in [0, 1]. unshuffle: pixels a side that become channels at first."""

    def __init__(
        self,
        nf: int,
        nb: int,
        gc: int,
        *,
        names: tuple[str, ...] = NEW,
        ups: int = 2,
        unshuffle: int = 1,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.names, self.ups, self.unshuffle = names, ups, unshuffle
        first, body, dense, tail, up, large, last = names
        setattr(self, first, nn.Conv2d(channels * unshuffle**2, nf, 3, 1, 1))
        setattr(self, body, nn.Sequential(*(Triple(nf, gc, dense) for _ in range(nb))))
        for name in (tail, large, *(f"{up}{i + 1}" for i in range(ups))):
            setattr(self, name, nn.Conv2d(nf, nf, 3, 1, 1))
        setattr(self, last, nn.Conv2d(nf, channels, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        places = [0, 1, 3, 5, 6]
        first, body, tail, large, last = (getattr(self, self.names[i]) for i in places)
        b, c, h, w = x.shape
        u = self.unshuffle
        x = x.view(b, c, h // u, u, w // u, u).permute(0, 1, 3, 5, 2, 4)
        y = first(x.reshape(b, c * u * u, h // u, w // u))
        y = y + tail(body(y))
        for i in range(self.ups):
            y = interpolate(y, scale_factor=2, mode="nearest")
            y = nn.functional.leaky_relu(getattr(self, f"{self.names[4]}{i + 1}")(y), 0.2)
        out: Tensor = last(nn.functional.leaky_relu(large(y), 0.2))
        return out


def old_naming(upscaler: Upscaler) -> dict[str, Tensor]:
    """Its state dict under the names of a numbered list: convolution 0, the blocks 1 (with the convolution after them
    as their last), then doubling, convolution, activation for each doubling, convolution, activation, convolution."""
    blocks, ups = len(upscaler.body), upscaler.ups  # type: ignore[arg-type]
    places = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}"}
    places |= {f"conv_up{i + 1}": f"model.{3 * i + 3}" for i in range(ups)}
    places |= {"conv_hr": f"model.{3 * ups + 2}", "conv_last": f"model.{3 * ups + 4}"}
    found = {}
    for name, tensor in upscaler.state_dict().items():
        layer, _, part = name.rpartition(".")
        if layer.startswith("body."):
            _, block, dense, conv = layer.split(".")
            found[f"model.1.sub.{block}.{dense.upper()}.{conv}.0.{part}"] = tensor
        else:
            found[f"{places[layer]}.{part}"] = tensor
    return found


def randomised(module: M, seed: int = 0, gain: float = 1.0) -> M:
    """Random weights that keep the size of what passes through, random gains, biases and statistics; eval mode."""
    source = torch.Generator().manual_seed(seed)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=source)

    with torch.no_grad():
        for part in module.modules():
            for name, tensor in [*part.named_parameters(recurse=False)]:
                deviation = 0.2
                if tensor.ndim == 4:
                    fan = tensor[0].numel() if isinstance(part, nn.Conv2d) else tensor[:, 0].numel()
                    if isinstance(part, nn.ConvTranspose2d):
                        fan = max(fan // part.stride[0] ** 2, 1)
                    deviation = gain * (2 / fan) ** 0.5
                offset = 1.0 if tensor.ndim == 1 and name == "weight" else 0.0
                tensor.copy_(offset + deviation * normal(tensor))
            for name, buffer in [*part.named_buffers(recurse=False)]:
                if name == "running_mean":
                    buffer.copy_(0.2 * normal(buffer))
                elif name == "running_var":
                    buffer.copy_(0.5 + normal(buffer).square())
                else:
                    buffer.fill_(7)
    return module.eval()
