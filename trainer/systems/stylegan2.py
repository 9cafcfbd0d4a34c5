"""StyleGAN2: Karras et al. 2020a, with the settings of Karras et al. 2020b (ADA) for other sizes than 1024 pixels.

A mapping network turns z (and a label) into a style w; a synthesis network draws the image from a learnt constant,
its convolutions modulated by w, with noise after each. G has skip connections, D residual ones (section 4).
Modulation scales the activations instead of the weights, which is the same and takes any batch size:

    conv(x, s w) d = d conv(s x, w),    d = (sum (s w)^2 + 1e-8)^(-1/2)        (equations 1 to 3)

D minimises softplus(-D(x)) + softplus(D(G(z))) + gamma/2 ||grad D(x)||^2, the penalty lazily; G softplus(-D(G(z)))
and, lazily, (||J_w^T y|| - a)^2, the path length regularisation (section 3.2), with mixed styles (Karras et al.
2019, section 3.1).

Departures: styles are mixed sample by sample, not batch by batch; the average's half-life is at most a twentieth of
the images seen (the engine's rule); a label is looked up in a table, not multiplied as one-hot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Named
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu

from ...runtime.signature import Draw, Field
from ..layers import MinibatchDeviation, PixelNorm, channels_by_size, equalize
from ..options import Options, PyramidOptions, setting
from ..parts import Batch, DataInfo, Graph, Live, Objective, Player, Schedules
from ..randomness import draw
from ..resample import blur, downsample, upsample
from ..system import System, image_field

GAIN = math.sqrt(2.0)  # of a leaky ReLU
MAX_TRUNCATION = 2.0


@dataclass(frozen=True, kw_only=True)
class StyleGAN2Options(PyramidOptions):
    style: int = setting(512, "numbers in w", above=0, below=2**16)
    mapping_layers: int = setting(8, "layers of the mapping network", low=1, high=32)
    style_mixing: float = setting(
        0.9, "share of samples with two styles", high=1, source="Karras et al. 2019, section 3.1"
    )
    path_length: float = setting(
        2.0, "weight of the path length regularisation", source="Karras et al. 2020a, section 3.2"
    )
    path_length_every: int = setting(
        4, "it is taken at each k-th step, and counted k times", above=0
    )
    path_length_from: float = setting(0.0, "share of the run before which it is left out", below=1)
    ema_half_life: int = setting(10_000, "of the averages, in images", above=0)


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance."""
    return leaky_relu(x, 0.2) * GAIN


class Dense(nn.Module):
    """A linear layer, equalised, and its activation."""

    def __init__(self, n_in: int, n_out: int, rate: float = 1.0) -> None:
        super().__init__()
        self.linear = equalize(nn.Linear(n_in, n_out), rate=rate)

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.linear(x))


class Mapping(nn.Module):
    """z [, label] -> w: both normalised, then layers with a hundredth of the learning rate. latent 0: of a label alone.

    That of z tracks the mean of w, to which truncation leads.
    """

    def __init__(self, latent: int, o: StyleGAN2Options, classes: int, style: int) -> None:
        super().__init__()
        embedding = o.embedding if classes else 0
        self.embed = nn.Embedding(classes, o.embedding) if classes else None
        self.norm = PixelNorm()
        widths = [latent + embedding] + [style] * o.mapping_layers
        self.layers = nn.Sequential(*(Dense(a, b, rate=0.01) for a, b in pairwise(widths)))
        if latent:
            self.register_buffer("average", torch.zeros(style))

    def forward(self, z: Tensor | None, label: Tensor | None = None) -> Tensor:
        parts = [] if z is None else [self.norm(z)]
        if self.embed is not None:
            parts.append(self.norm(self.embed(label)))
        return self.layers(torch.cat(parts, 1))  # (B, style)

    @torch.no_grad()
    def track(self, w: Tensor) -> None:
        """average <- 0.995 average + 0.005 E w."""
        self.get_buffer("average").lerp_(w.mean(0), 0.005)

    def truncate(self, w: Tensor, psi: Tensor) -> Tensor:
        """average + psi (w - average) (Karras et al. 2019, appendix B); psi: (B,)."""
        average = self.get_buffer("average")
        return average + psi[:, None] * (w - average)


class Modulated(nn.Module):
    """A convolution whose weights are scaled by s = A w, and demodulated where asked, for each sample its own."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        size: int,
        style: int,
        *,
        up: bool = False,
        demodulate: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in, size, size))
        self.affine = equalize(nn.Linear(style, c_in))
        equalize(self)
        with torch.no_grad():
            self.affine.bias.fill_(1.0)
        self.up, self.demodulate, self.padding = up, demodulate, size // 2

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        s, weight = self.affine(w), self.weight  # (B, c_in), (c_out, c_in, k, k)
        x = x * s[:, :, None, None]
        if self.up:
            x = conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (B, c_out, 2H + 1, ...)
            x = blur(x, 1, 1, gain=4.0)  # (B, c_out, 2H, ...)
        else:
            x = conv2d(x, weight, padding=self.padding)
        if self.demodulate:
            d = (s.square() @ weight.square().sum((2, 3)).T + 1e-8).rsqrt()  # (B, c_out)
            x = x * d[:, :, None, None]
        return x


class StyledLayer(nn.Module):
    """A modulated convolution, noise of a learnt strength, a bias, the activation."""

    def __init__(self, c_in: int, c_out: int, style: int, *, up: bool = False) -> None:
        super().__init__()
        self.convolution = Modulated(c_in, c_out, 3, style, up=up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(c_out, 1, 1))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        x = self.convolution(x, w)
        return activate(x + noise * self.strength + self.bias)  # (B, c_out, H, W)


class ToImage(nn.Module):
    """Features -> image: a modulated 1x1 convolution without demodulation."""

    def __init__(self, c_in: int, channels: int, style: int) -> None:
        super().__init__()
        self.convolution = Modulated(c_in, channels, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.convolution(x, w) + self.bias


class Synthesis(nn.Module):
    """Styles (B, layers, style) and noise images -> image. Layer i has style i; an image is read with the style after
    that of its last layer. It keeps the mean path length a."""

    def __init__(self, o: StyleGAN2Options, data: DataInfo) -> None:
        super().__init__()
        base, c = channels_by_size(data, o.width, o.max_width)
        self.constant = nn.Parameter(torch.randn(1, c[0], base, base))
        layers = [StyledLayer(c[0], c[0], o.style)]
        for a, b in pairwise(c):
            layers += [StyledLayer(a, b, o.style, up=True), StyledLayer(b, b, o.style)]
        self.layers = nn.ModuleList(layers)
        self.to_image = nn.ModuleList(ToImage(width, data.channels, o.style) for width in c)
        self.register_buffer("path_length", torch.zeros(()))

    def forward(self, w: Tensor, *noise: Tensor) -> Tensor:
        x = self.constant * torch.ones_like(w[:, :1, :1, None])  # (B, C, base, base)
        image: Tensor | None = None
        for i, layer in enumerate(self.layers):
            x = layer(x, w[:, i], noise[i])
            if i % 2 == 0:  # the last layer of its size
                seen = self.to_image[i // 2](x, w[:, i + 1])
                image = seen if image is None else upsample(image) + seen
        assert image is not None
        return image  # (B, channels, H, W), linear


class Residual(nn.Module):
    """Half the size: (conv(conv(x)) + skip(x)) / sqrt 2."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.first = equalize(nn.Conv2d(a, a, 3, padding=1))
        self.second = equalize(nn.Conv2d(a, b, 3, stride=2))
        self.skip = equalize(nn.Conv2d(a, b, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y = activate(self.first(x))
        y = activate(self.second(blur(y, 2, 2)))  # (B, b, H/2, W/2)
        return (y + self.skip(downsample(x))) / math.sqrt(2)


class Discriminator(nn.Module):
    """image [, label] -> logit; with classes the product of features and a mapped label."""

    def __init__(self, o: StyleGAN2Options, data: DataInfo, classes: int) -> None:
        super().__init__()
        base, c = channels_by_size(data, o.width, o.max_width)
        self.from_image = equalize(nn.Conv2d(data.channels, c[-1], 1))
        self.blocks = nn.Sequential(*(Residual(a, b) for a, b in pairwise(reversed(c))))
        self.deviation = MinibatchDeviation(4) if o.minibatch_deviation else nn.Identity()
        self.last = equalize(nn.Conv2d(c[0] + int(o.minibatch_deviation), c[0], 3, padding=1))
        self.dense = Dense(c[0] * base**2, c[0])
        self.out = equalize(nn.Linear(c[0], o.projection if classes else 1))
        self.label = Mapping(0, o, classes, o.projection) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.blocks(activate(self.from_image(x)))
        h = activate(self.last(self.deviation(h)))
        h = self.out(self.dense(h.flatten(1)))  # (B, projection) or (B, 1)
        if self.label is not None:
            h = h * self.label(None, label) / math.sqrt(h.shape[1])
        return h.sum(1)  # (B,)


class MappingGraph(nn.Module):
    """z [, label], truncation -> w, the same for all layers."""

    def __init__(self, mapping: Mapping) -> None:
        super().__init__()
        self.mapping = mapping

    def forward(self, z: Tensor, *rest: Tensor) -> Tensor:
        *label, psi = rest
        return self.mapping.truncate(self.mapping(z, *label), psi)


class ImageGraph(nn.Module):
    """z [, label], truncation, noise -> image."""

    def __init__(self, mapping: Mapping, synthesis: Synthesis, given: int) -> None:
        super().__init__()
        self.mapping, self.synthesis, self.given = MappingGraph(mapping), synthesis, given

    def forward(self, *inputs: Tensor) -> Tensor:
        w = self.mapping(*inputs[: self.given])
        styles = w[:, None].expand(-1, len(self.synthesis.layers) + 1, -1)
        return self.synthesis(styles, *inputs[self.given :])


class StyleGAN2(System):
    """Styles, noise, and paths of even length."""

    name = "stylegan2"
    options_type = StyleGAN2Options

    def __init__(self, options: Options, data: DataInfo) -> None:
        super().__init__(options, data)
        o = cast(StyleGAN2Options, options)
        base, channels = channels_by_size(data, o.width, o.max_width)
        sizes = [base * 2**level for level in range(len(channels))]
        self.noise_sizes = [sizes[0], *(size for size in sizes[1:] for _ in range(2))]
        self.style_layers = len(self.noise_sizes) + 1

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        r = data.height
        batch = max(min(4096 // r, 32), 4)
        rate = 2e-3 if r >= 1024 else 2.5e-3
        return StyleGAN2Options(
            r1=round(2e-4 * r**2 / batch, 4), penalty_every=16, g_learning_rate=rate, d_learning_rate=rate,
            beta1=0.0, beta2=0.99, batch_size=batch, ema_half_life=batch * 10_000 // 32, latent=512, embedding=512,
            projection=512, minibatch_deviation=True, width=max((32_768 if r >= 512 else 16_384) // r, 1),
        )  # fmt: skip

    def networks(self) -> dict[str, nn.Module]:
        o, classes = cast(StyleGAN2Options, self.options), len(self.classes)
        return {
            "mapping": Mapping(o.latent, o, classes, o.style),
            "synthesis": Synthesis(o, self.data),
            "D": Discriminator(o, self.data, classes),
        }

    def generate(self, live: Live, batch: Batch) -> Batch:
        mapping, synthesis = live.networks["mapping"], live.networks["synthesis"]
        w = mapping(batch["z"], batch.get("label"))
        cast(Mapping, mapping).track(w)
        styles = self.mixed(live, batch, w)
        return {"fake": synthesis(styles, *self.noise(batch))}

    def mixed(self, live: Live, batch: Batch, w: Tensor) -> Tensor:
        """The styles of all layers: (B, layers, style); a share of samples has those of another z from some layer on."""
        source, layers = batch["source"], self.style_layers
        styles = w[:, None].expand(-1, layers, -1)
        share = cast(StyleGAN2Options, self.options).style_mixing
        if not share:
            return styles
        other = draw(self.latent_field(), len(w), source)
        label = batch["label"][: len(w)] if "label" in batch else None
        crossover = torch.randint(1, layers, (len(w), 1), generator=source, device=w.device)
        once = torch.rand((len(w), 1), generator=source, device=w.device) >= share
        crossover = crossover.masked_fill(once, layers)
        own = torch.arange(layers, device=w.device) < crossover  # (B, layers)
        return torch.where(own[:, :, None], styles, live.networks["mapping"](other, label)[:, None])

    def noise(self, batch: Batch, count: int | None = None) -> list[Tensor]:
        return [batch[field.name][:count] for field in self.noise_fields()]

    def discriminate(self, live: Live, sample: Tensor, batch: Batch) -> Tensor:
        return live.networks["D"](sample, batch.get("label"))

    def players(self) -> dict[str, Player]:
        o, players = cast(StyleGAN2Options, self.options), super().players()
        players["G"].networks = ("mapping", "synthesis")
        if o.path_length:
            players["G"].objectives.append(
                Objective("path_length", self.path_length, o.path_length, o.path_length_every)
            )
        return players

    def path_length(self, live: Live, batch: Batch) -> Tensor:
        """E (||J_w^T y|| - a)^2, y ~ N(0, 1) / sqrt(H W), a the running mean of the norms, on half of the batch.

        Karras et al. 2020a, equation 4; J^T y is the gradient of y G(w), and the norm is taken over each layer's
        style, its square averaged over layers.
        """
        mapping, synthesis = live.networks["mapping"], live.networks["synthesis"]
        count = (len(batch["z"]) + 1) // 2
        label = batch["label"][:count] if "label" in batch else None
        w = self.mixed(live, batch, mapping(batch["z"][:count], label))
        image = synthesis(w, *self.noise(batch, count))
        y = torch.randn(image.shape, generator=batch["source"], device=image.device)
        y = y / math.sqrt(image.shape[2] * image.shape[3])
        (gradient,) = torch.autograd.grad((image * y).sum(), w, create_graph=True)
        norms = gradient.square().sum(2).mean(1).sqrt()  # (B/2,)
        a = cast(Synthesis, synthesis).get_buffer("path_length")
        a.lerp_(norms.detach().mean(), 0.01)
        return (norms - a).square().mean()

    def schedules(self) -> Schedules:
        o = cast(StyleGAN2Options, self.options)
        found = super().schedules() | {"ema_half_life": lambda t: float(o.ema_half_life)}
        if o.path_length_from:
            found["weight/path_length"] = lambda t: float(t >= o.path_length_from)
        return found

    def noise_fields(self) -> tuple[Field, ...]:
        """One for each layer: noise_4, then noise_8_0, noise_8_1, ..."""
        fields = []
        for i, size in enumerate(self.noise_sizes):
            name = f"noise_{size}_{(i - 1) % 2}" if i else f"noise_{size}"
            fields.append(
                Field(name, (1, size, size), "noise", draw=Draw("normal", 16 + i, shared=True))
            )
        return tuple(fields)

    def graphs(self) -> dict[str, Graph]:
        """`image`, from z to the image; `mapping`, from z to w; `synthesis`, from the styles of all layers."""
        o = cast(StyleGAN2Options, self.options)
        span = (-MAX_TRUNCATION, MAX_TRUNCATION)
        psi = Field("truncation", (), "scalar", range=span, draw=Draw("fixed", value=1.0))
        given, noise = (self.latent_field(), *self.label_fields(), psi), self.noise_fields()
        styles = Field("w", (self.style_layers, o.style), "style")
        image = (image_field(self.data),)

        def whole(nets: Named[str, nn.Module]) -> nn.Module:
            mapping, synthesis = cast(Mapping, nets["mapping"]), cast(Synthesis, nets["synthesis"])
            return ImageGraph(mapping, synthesis, len(given))

        def mapping(nets: Named[str, nn.Module]) -> nn.Module:
            return MappingGraph(cast(Mapping, nets["mapping"]))

        return {
            "image": Graph((*given, *noise), image, whole, self.classes),
            "mapping": Graph(given, (Field("w", (o.style,), "style"),), mapping, self.classes),
            "synthesis": Graph((styles, *noise), image, lambda nets: nets["synthesis"]),
        }
