"""What takes a photograph's detail away, to learn its return: bicubic reduction, and blur, noise and JPEG before it."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

BLUR, NOISE, QUALITY = (0.2, 2.0), (0.0, 0.08), (40.0, 95.0)  # each drawn uniformly for an image


def reduce(x: Tensor, scale: int) -> Tensor:
    """[B, C, H, W] -> [B, C, H / scale, W / scale] by antialiased bicubic interpolation, in the steps of bytes."""
    small = interpolate(x, scale_factor=1 / scale, mode="bicubic", antialias=True)
    return as_bytes(small)


def degrade(x: Tensor, scale: int, source: torch.Generator) -> Tensor:
    """`reduce` after a Gaussian blur, and before Gaussian noise and JPEG, each of its own strength in every image."""
    draws = [uniform(len(x), *bounds, source) for bounds in (BLUR, NOISE, QUALITY)]
    small = reduce(blur(x, draws[0]), scale)
    noise = torch.randn(small.shape, generator=source, device=x.device)
    return jpeg(as_bytes(small + draws[1][:, None, None, None] * noise), draws[2])


def blur(x: Tensor, sigma: Tensor, reach: int = 6) -> Tensor:
    """Each image [C, H, W] by a Gaussian of its own sigma (B,), in pixels; the border is repeated."""
    b, c, h, w = x.shape
    place = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (place / sigma[:, None]) ** 2)  # (B, 2 reach + 1)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)
    x = pad(x, (reach,) * 4, "replicate").reshape(1, b * c, h + 2 * reach, w + 2 * reach)
    x = conv2d(x, kernel[:, None, :, None], groups=b * c)
    return conv2d(x, kernel[:, None, None, :], groups=b * c).reshape(b, c, h, w)


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """Each image, [1 or 3, H, W] of [-1, 1], through a JPEG file of its own quality (B,); an alpha channel stays."""
    colour = 3 if x.shape[1] >= 3 else 1
    pixels = (x[:, :colour] * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    back = []
    for image, q in zip(pixels, quality.tolist(), strict=True):
        file = io.BytesIO()
        Image.fromarray(image[:, :, 0] if colour == 1 else image).save(file, "JPEG", quality=int(q))
        back.append(np.asarray(Image.open(file)).reshape(image.shape))
    images = torch.from_numpy(np.stack(back)).permute(0, 3, 1, 2).to(x.device)
    return torch.cat([images.float() / 127.5 - 1, x[:, colour:]], 1)


def as_bytes(x: Tensor) -> Tensor:
    """The nearest values that an image file can hold, in [-1, 1]."""
    return (x * 127.5 + 127.5).round().clamp(0, 255) / 127.5 - 1


def uniform(count: int, low: float, high: float, source: torch.Generator) -> Tensor:
    return torch.rand(count, generator=source, device=source.device) * (high - low) + low
