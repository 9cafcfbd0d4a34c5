"""What the discriminators see instead of the samples: instance noise, DiffAugment, and the ADA pipeline.

All are differentiable, twice where a penalty needs it, and draw from the batch's own generator. An image is
[B, C, H, W] of [-1, 1] with C 1 (grey), 3 (RGB) or 4 (RGBA, whose alpha keeps its values).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .parts import Augmentation, Batch, Live
from .trees import Tree, leaves, tree_map

POLICIES = ("color", "translation", "cutout")


def alike(function: Callable[[Tensor], Tensor], sample: Tree, batch: Batch) -> Tree:
    """`function` of every tensor of a sample, each with the same draws: an image at several scales stays one image."""
    source: torch.Generator = batch["source"]
    begin = source.get_state()

    def from_the_begin(x: Tensor) -> Tensor:
        source.set_state(begin)
        return function(x)

    return tree_map(from_the_begin, sample)


def uniform(like: Tensor, batch: Batch, low: float = 0.0, high: float = 1.0) -> Tensor:
    """One number of [low, high) for each sample, shaped to be multiplied with it: [B, 1, ...]."""
    shape = (len(like), *(1 for _ in like.shape[1:]))
    return torch.rand(shape, generator=batch["source"], device=like.device) * (high - low) + low


def normal(like: Tensor, batch: Batch) -> Tensor:
    """One standard normal number for each sample: [B, 1, ...]."""
    shape = (len(like), *(1 for _ in like.shape[1:]))
    return torch.randn(shape, generator=batch["source"], device=like.device)


class ImagePool(Augmentation):
    """Fakes of earlier steps: with probability 1/2 a fake is exchanged for a random one of the last `size`
    (Shrivastava et al. 2017, section 2.3; Zhu et al. 2017, section 4)."""

    name = "pool"
    fakes_only = True

    def __init__(self, size: int) -> None:
        self.size = size
        self._images: dict[str, Tensor] = {}  # of each leaf, [up to size, C, H, W]

    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        number = iter(range(len(list(leaves(sample)))))
        return tree_map(lambda x: self._exchanged(str(next(number)), x, batch), sample)

    def _exchanged(self, leaf: str, x: Tensor, batch: Batch) -> Tensor:
        x = x.detach()  # else the pool would keep the graphs of all its images
        pool = self._images.get(leaf, x[:0]).to(x.device)
        if pool.shape[1:] != x.shape[1:]:  # images grow in some systems
            pool = x[:0]
        exchange = _flat(uniform(x, batch)) < 0.5
        place = _flat(uniform(x, batch))
        result = []
        for i, image in enumerate(x):
            if not image.isfinite().all():  # would come back for ever
                result.append(image)
            elif len(pool) < self.size:
                pool = torch.cat([pool, image[None]])
                result.append(image)
            elif exchange[i]:
                k = min(int(place[i] * len(pool)), len(pool) - 1)
                result.append(pool[k].clone())
                pool[k] = image
            else:
                result.append(image)
        self._images[leaf] = pool
        return torch.stack(result)

    def state(self) -> dict[str, Any]:
        return {leaf: images.clone() for leaf, images in self._images.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        for leaf, images in state.items():
            if not (isinstance(leaf, str) and isinstance(images, Tensor)):
                raise TypeError(f"pool {leaf!r:.40}")
            fits = images.ndim == 4 and len(images) <= self.size and images.is_floating_point()
            if not (fits and images.isfinite().all()):
                raise ValueError(f"pool {leaf!r:.40} of {images.dtype} {list(images.shape)!r:.80}")
        self._images = {leaf: images.clone() for leaf, images in state.items()}


class Beside(Augmentation):
    """The sample beside what it was made from, batch[entry], so that the discriminators judge both as one and further
    augmentations act alike on them (Isola et al. 2017, section 3.1)."""

    name = "beside"

    def __init__(self, entry: str) -> None:
        self.entry = entry

    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        return [batch[self.entry], sample]


class InstanceNoise(Augmentation):
    """x + sigma_t N(0, I), alike on reals and fakes (Sønderby et al. 2017); the knob "instance_noise" is sigma_t."""

    name = "instance_noise"

    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        sigma = live.knobs[self.name]
        if sigma == 0.0:
            return sample

        def add(x: Tensor) -> Tensor:
            noise = torch.randn(x.shape, generator=batch["source"], device=x.device)
            return x + sigma * noise

        return tree_map(add, sample)


class DiffAugment(Augmentation):
    """Differentiable augmentation with given policies, always on (Zhao et al. 2020, section 3)."""

    name = "diffaugment"

    def __init__(self, policies: tuple[str, ...]) -> None:
        table = {"color": self.color, "translation": self.translation, "cutout": self.cutout}
        self._steps: list[Callable[[Tensor, Batch], Tensor]] = [table[p] for p in policies]

    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        def augment(x: Tensor) -> Tensor:
            for step in self._steps:
                x = step(x, batch)
            return x

        return alike(augment, sample, batch)

    @staticmethod
    def color(x: Tensor, batch: Batch) -> Tensor:
        """Brightness +-0.5, saturation 0 to 2, contrast 0.5 to 1.5."""
        c, alpha = split_alpha(x)
        c = c + uniform(x, batch, -0.5, 0.5)
        grey = c.mean(1, keepdim=True)
        c = grey + (c - grey) * uniform(x, batch, 0.0, 2.0)
        mean = c.mean((1, 2, 3), keepdim=True)
        c = mean + (c - mean) * uniform(x, batch, 0.5, 1.5)
        return torch.cat([c, alpha], 1)

    @staticmethod
    def translation(x: Tensor, batch: Batch) -> Tensor:
        """A shift of up to an eighth of each side; zeros come in."""
        _, _, h, w = x.shape
        down, right = (_integers(x, batch, -_eighth(side), _eighth(side)) for side in (h, w))
        return shift(x, down, right)

    @staticmethod
    def cutout(x: Tensor, batch: Batch) -> Tensor:
        """A square of half the side becomes 0; its centre is anywhere."""
        return x * cut_mask(x, batch, 0.5)


class AdaptiveAugmentation(Augmentation):
    """ADA (Karras et al. 2020b): each transform of the pipeline with probability p, steered by r_t.

    r_t = E[sign D(real)]; of relative losses, whose sign means nothing, E[sign(D(real) - D(fake))]. Every fourth step
    p moves by sign(r_t - target) * 4 batch / images, within 0 and 1. With target 0, p stays as given. The knob "ada"
    multiplies p. Images are resampled bilinearly at a reflected border; the paper's wavelet filters and its
    image-space corruptions, off in its own default "bgc", are left out.
    """

    name = "ada"
    INTERVAL = 4

    def __init__(
        self,
        p: float,
        target: float,
        images: int,
        *,
        colour: float = 1.0,
        cutout: float = 0.0,
    ) -> None:
        """p: at the start. images: in which p can go from 0 to 1. colour, cutout: multiply p for those."""
        self.p, self._target = p, target
        self._colour, self._cutout = colour, cutout
        self._images = images
        self._right: list[float] = []

    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        p = self.p * live.knobs.get(self.name, 1.0)
        if p <= 0:
            return sample
        return alike(lambda x: pipeline(x, batch, p, self._colour, self._cutout), sample, batch)

    @property
    def adapts(self) -> bool:
        return self._target > 0

    def adapt(self, live: Live, right: float) -> None:
        self._right.append(2.0 * right - 1.0)
        if len(self._right) == self.INTERVAL:
            r_t = sum(self._right) / len(self._right)
            self._right = []
            # not math.copysign: on target, p stays
            direction = float(r_t > self._target) - float(r_t < self._target)
            speed = self.INTERVAL * live.batch_size / self._images
            self.p = min(max(self.p + direction * speed, 0.0), 1.0)

    def state(self) -> dict[str, float | list[float]]:
        return {"p": self.p, "readings": list(self._right)} if self.adapts else {}

    def load_state(self, state: dict[str, float | list[float]]) -> None:
        if not self.adapts:
            return  # p is a setting
        p, readings = state["p"], state["readings"]
        if not isinstance(readings, list) or isinstance(p, list):
            raise TypeError(f"a probability {p!r:.40} and readings {readings!r:.40}")
        if not 0.0 <= p <= 1.0 or not all(-1.0 <= r <= 1.0 for r in readings):
            raise ValueError(f"probability {p} of augmentation")
        self.p, self._right = float(p), [float(r) for r in readings][-self.INTERVAL + 1 :]


def pipeline(x: Tensor, batch: Batch, p: float, colour: float = 1.0, cutout: float = 0.0) -> Tensor:
    """Karras et al. 2020b, appendix B: pixel blits, geometry and colour, each with probability p, and cutout."""
    x = warp(x, blits(x, batch, p) @ geometry(x, batch, p))
    x = recolour(x, colours(x, batch, p * colour))
    if not cutout:
        return x
    cut = _when(x, batch, p * cutout)[:, None, None, None]
    return x * torch.where(cut > 0, cut_mask(x, batch, 0.5), torch.ones_like(x[:, :1]))


def blits(x: Tensor, batch: Batch, p: float) -> Tensor:
    """Mirroring, turns by 90 degrees, whole pixels: [B, 3, 3] from places in the result to places in x."""
    _, _, h, w = x.shape
    flip = 1 - 2 * (_when(x, batch, p) * (_flat(uniform(x, batch)) < 0.5))
    quarter = torch.pi / 2 * _when(x, batch, p) * _flat(uniform(x, batch, 0, 4)).floor()
    if h != w:
        quarter = 2 * quarter  # a half turn keeps the shape
    far = _when(x, batch, p)
    dx = far * (_flat(uniform(x, batch, -0.125, 0.125)) * w).round()
    dy = far * (_flat(uniform(x, batch, -0.125, 0.125)) * h).round()
    return translation(dx, dy) @ scaling(flip, torch.ones_like(flip)) @ rotation(quarter)


def geometry(x: Tensor, batch: Batch, p: float) -> Tensor:
    """Scaling, rotation before and after an uneven scaling, and fractions of pixels: [B, 3, 3]."""
    _, _, h, w = x.shape
    s = torch.exp2(0.2 * _flat(normal(x, batch)) * _when(x, batch, p))
    p_turn = 1 - math.sqrt(1 - p)  # of each of two, so that one happens with probability p
    before, after = (
        _flat(uniform(x, batch, -math.pi, math.pi)) * _when(x, batch, p_turn) for _ in range(2)
    )
    uneven = torch.exp2(0.2 * _flat(normal(x, batch)) * _when(x, batch, p))
    far = _when(x, batch, p)
    dx, dy = (0.125 * side * _flat(normal(x, batch)) * far for side in (w, h))
    turned = scaling(s, s) @ rotation(before) @ scaling(uneven, 1 / uneven) @ rotation(after)
    return turned @ translation(dx, dy)


def colours(x: Tensor, batch: Batch, p: float) -> Tensor:
    """Brightness, contrast, luma flip, hue and saturation as an affine map of RGB: [B, 4, 4]."""
    eye = torch.eye(4, device=x.device)
    grey = torch.ones(3, device=x.device) / math.sqrt(3.0)  # the axis of grey
    luma = torch.zeros(4, 4, device=x.device)
    luma[:3, :3] = torch.outer(grey, grey)

    def by(values: Tensor) -> Tensor:
        return values[:, None, None]

    m = eye.repeat(len(x), 1, 1)
    shift_by = 0.2 * _flat(normal(x, batch)) * _when(x, batch, p)
    brightness = m.clone()
    brightness[:, :3, 3] = shift_by[:, None]
    contrast = torch.exp2(0.5 * _flat(normal(x, batch)) * _when(x, batch, p))
    m = torch.diag_embed(torch.stack([contrast] * 3 + [torch.ones_like(contrast)], 1)) @ brightness
    flip = _when(x, batch, p) * (_flat(uniform(x, batch)) < 0.5)
    m = (eye - 2 * luma * by(flip)) @ m  # Householder: light becomes dark
    angle = _flat(uniform(x, batch, -math.pi, math.pi)) * _when(x, batch, p)
    saturation = torch.exp2(_flat(normal(x, batch)) * _when(x, batch, p))
    if x.shape[1] == 1:
        return m  # a grey image has neither hue nor saturation
    m = _hue(angle, grey) @ m
    return (luma + (eye - luma) * _saturate(saturation)) @ m


def recolour(x: Tensor, m: Tensor) -> Tensor:
    """The affine map [B, 4, 4] applied to the colours of [B, C, H, W]; a grey image takes that of grey."""
    c, alpha = split_alpha(x)
    count, channels, h, w = c.shape
    if channels == 1:
        scale, offset = m[:, :3, :3].sum((1, 2)) / 3, m[:, :3, 3].mean(1)
        return c * scale[:, None, None, None] + offset[:, None, None, None]
    mixed = m[:, :3, :3] @ c.reshape(count, channels, h * w) + m[:, :3, 3:]
    return torch.cat([mixed.reshape(count, channels, h, w), alpha], 1)


def warp(x: Tensor, inverse: Tensor) -> Tensor:
    """x resampled bilinearly: the pixel at (u, v) from the centre shows x at inverse (u, v, 1), in pixels.

    Written with gathers, because torch's grid_sample cannot be differentiated twice, as penalties need. Outside,
    the image is reflected at its border.
    """
    count, channels, h, w = x.shape
    v, u = torch.meshgrid(
        torch.arange(h, device=x.device) - (h - 1) / 2,
        torch.arange(w, device=x.device) - (w - 1) / 2,
        indexing="ij",
    )
    places = torch.stack([u.flatten(), v.flatten(), torch.ones(h * w, device=x.device)])  # (3, HW)
    px, py = (inverse[:, :2] @ places).unbind(1)  # (B, HW)
    px, py = px + (w - 1) / 2, py + (h - 1) / 2
    left, top = px.floor(), py.floor()
    flat = x.reshape(count, channels, h * w)
    result = torch.zeros_like(flat)
    for dx in (0, 1):
        for dy in (0, 1):
            weight = (1 - (px - left - dx).abs()) * (1 - (py - top - dy).abs())  # (B, HW)
            index = _reflect(top + dy, h) * w + _reflect(left + dx, w)
            index = index.long()[:, None].expand(-1, channels, -1)
            result = result + flat.gather(2, index) * weight[:, None]
    return result.reshape(x.shape)


def shift(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each image moved by whole pixels (B,), zeros come in."""
    _, _, h, w = x.shape
    my, mx = (_eighth(side) for side in (h, w))
    padded = pad(x, (mx, mx, my, my))
    rows = torch.arange(h, device=x.device) + my - down[:, None]  # (B, H)
    columns = torch.arange(w, device=x.device) + mx - right[:, None]  # (B, W)
    index = rows[:, None, :, None].expand(-1, x.shape[1], -1, padded.shape[3])
    padded = padded.gather(2, index)
    index = columns[:, None, None, :].expand(-1, x.shape[1], h, -1)
    return padded.gather(3, index)


def cut_mask(x: Tensor, batch: Batch, share: float) -> Tensor:
    """1, but 0 in a rectangle of `share` of each side around a random place: [B, 1, H, W]."""
    _, _, h, w = x.shape
    inside = [
        (torch.arange(side, device=x.device) + 0.5 - centre[:, None]).abs() < share * side / 2
        for side, centre in ((side, _flat(uniform(x, batch)) * side) for side in (h, w))
    ]  # (B, H) and (B, W)
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return (~hole)[:, None].to(x.dtype)


def split_alpha(x: Tensor) -> tuple[Tensor, Tensor]:
    """Colours and alpha of [B, C, H, W]; the alpha of images without one has no channel."""
    colour_channels = 3 if x.shape[1] == 4 else x.shape[1]
    return x[:, :colour_channels], x[:, colour_channels:]


def translation(dx: Tensor, dy: Tensor) -> Tensor:
    return _matrix(1, 0, dx, 0, 1, dy)


def scaling(sx: Tensor, sy: Tensor) -> Tensor:
    return _matrix(sx, 0, 0, 0, sy, 0)


def rotation(angle: Tensor) -> Tensor:
    return _matrix(angle.cos(), -angle.sin(), 0, angle.sin(), angle.cos(), 0)


def _matrix(*entries: Tensor | float) -> Tensor:
    """[B, 3, 3] of the first two rows; numbers stand for the same in every sample."""
    like = next(entry for entry in entries if isinstance(entry, Tensor))
    full = [e if isinstance(e, Tensor) else torch.full_like(like, e) for e in (*entries, 0, 0, 1)]
    return torch.stack(full, 1).reshape(-1, 3, 3)


def _hue(angle: Tensor, axis: Tensor) -> Tensor:
    """A rotation of RGB about the axis of grey (Rodrigues): [B, 4, 4]."""
    a, b, c = axis.tolist()
    cross = torch.tensor([[0, -c, b], [c, 0, -a], [-b, a, 0]], device=angle.device)
    eye = torch.eye(3, device=angle.device)
    along = torch.outer(axis, axis)
    sin, cos = angle.sin()[:, None, None], angle.cos()[:, None, None]
    m = torch.eye(4, device=angle.device).repeat(len(angle), 1, 1)
    m[:, :3, :3] = along + cos * (eye - along) + sin * cross
    return m


def _saturate(values: Tensor) -> Tensor:
    """Factors of the colour axes, 1 for the constant: [B, 4, 1], to scale rows."""
    return torch.stack([values] * 3 + [torch.ones_like(values)], 1)[:, :, None]


def _when(like: Tensor, batch: Batch, p: float) -> Tensor:
    """1 with probability p, else 0: (B,)."""
    return (_flat(uniform(like, batch)) < p).float()


def _integers(like: Tensor, batch: Batch, low: int, high: int) -> Tensor:
    """Whole numbers from low to high, both included: int64 (B,)."""
    return _flat(uniform(like, batch, low, high + 1)).floor().long().clamp_(low, high)


def _flat(x: Tensor) -> Tensor:
    return x.flatten()


def _eighth(side: int) -> int:
    return int(side / 8 + 0.5)


def _reflect(place: Tensor, size: int) -> Tensor:
    """Places outside 0 to size - 1 mirrored back into it; the border pixel is not repeated."""
    if size == 1:
        return torch.zeros_like(place)
    period = 2.0 * (size - 1)
    place = place.remainder(period)
    return torch.where(place >= size, period - place, place)
