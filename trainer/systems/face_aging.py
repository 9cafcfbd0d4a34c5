"""Face aging: Antipov, Baccouche and Dugelay 2017 (Age-cGAN). A face as it would look at another age.

A conditional GAN draws faces from z and an age group, an encoder learns z of a face, and an embedder what makes two
faces the same person whatever their age. Age-cGAN takes an embedder trained elsewhere on labelled identities; here it
is trained, contrastively (Chen et al. 2020), and nothing is downloaded. Where the data has partners, other photographs
of the same persons, it learns from these, first, and the generator is held to one person for each z (after Wang et al.
2018, IPCGAN); else it learns from the generator, whose faces of one z at two ages are taken for one person. The latent
search that preserves the identity is the runtime's, `gan.runtime.search`, which starts from the encoder; the graph
`age` does without it, by an encoder of its own that is held to the identity in training.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, normalize, pad

from ...runtime.errors import InputError
from ...runtime.signature import Field
from ..options import setting
from ..parts import Batch, DataInfo, Graph, Live, Objective, Player, Schedules, Stage, Turn
from ..system import image_field
from .dcgan import DCGAN, DCGANOptions, dc_networks, plan


@dataclass(frozen=True, kw_only=True)
class FaceAgingOptions(DCGANOptions):
    up: Literal["transpose", "resize"] = setting("resize", "how G doubles the size")
    d_norm: Literal["batch", "none"] = setting("none", "normalisation in D")
    e_width: int = setting(
        32, "channels of the first layer of encoder and embedder", above=0, below=2**16
    )
    embedded: int = setting(128, "numbers in the embedding of a face", above=0, below=2**16)
    gan_share: float = setting(
        0.6, "share of the steps in which the conditional GAN learns", above=0, below=1
    )
    embedder_share: float = setting(
        0.15, "share in which the embedder learns; the encoder has the rest", above=0, below=1
    )
    one_person: float = setting(
        1.0, "weight of G's squared distance in the embedding between one z at two ages; with partners only",
        source="Wang et al. 2018 (IPCGAN), eq. 5",
    )  # fmt: skip
    temperature: float = setting(
        0.1, "of the embedder's contrast", above=0, high=10, source="Chen et al. 2020, eq. 1"
    )
    latent_weight: float = setting(
        1.0, "weight of the encoders' |z - E(G(z, y))|^2", source="Antipov et al. 2017, section 3.1"
    )
    identity: float = setting(
        1.0, "of the encoder of `age`: weight of the squared distance of a face and its reconstruction in the embedding",
        source="Antipov et al. 2017, eq. 1",
    )  # fmt: skip
    pixels: float = setting(
        1.0, "of the encoder of `age`: weight of the L1 distance of a face and its reconstruction"
    )


class Encoder(nn.Module):
    """image -> numbers: 5x5 convolutions that halve it, then two linear layers (Antipov et al. 2017, section 3.2)."""

    def __init__(self, data: DataInfo, width: int, out: int, *, unit: bool = False) -> None:
        super().__init__()
        base, doublings = plan_of(data)
        c = [data.channels, *(min(width * 2**i, 8 * width) for i in range(doublings))]
        layers: list[nn.Module] = []
        for a, b in pairwise(c):
            layers += [nn.Conv2d(a, b, 5, 2, 2), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        hidden = 16 * width
        self.head = nn.Sequential(
            nn.Linear(c[-1] * base * base, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, out)
        )
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.layers(x))  # (B, out)
        if not self.unit:
            return y
        # a convolution and not a sum over features: onnxruntime's sum rounds otherwise in a batch of one
        ones = y.new_ones(1, y.shape[1], 1, 1)
        squared = conv2d(y.square()[:, :, None, None], ones)[:, :, 0, 0]  # (B, 1)
        return y / (squared + 1e-8).sqrt()


def plan_of(data: DataInfo) -> tuple[int, int]:
    base, channels = plan(data, 1)
    return base, len(channels)


class Aging(nn.Module):
    """face, label -> the face at that age: G(E(face), label)."""

    def __init__(self, encoder: nn.Module, generator: nn.Module) -> None:
        super().__init__()
        self.encoder, self.generator = encoder, generator

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        return self.generator(self.encoder(image), label)


def contrast(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """NT-Xent (Chen et al. 2020, eq. 1): rows of a and b [N, D] that belong together, against all others."""
    x = normalize(torch.cat([a, b]), dim=1)  # (2N, D)
    n = len(a)
    alike = x @ x.T / temperature
    itself = torch.eye(2 * n, dtype=torch.bool, device=x.device)
    alike = alike.masked_fill(itself, float("-inf"))
    partner = torch.arange(2 * n, device=x.device).roll(n)
    return cross_entropy(alike, partner)


class FaceAging(DCGAN):
    """Conditional generator, encoders, identity embedder."""

    name = "face-aging"
    options_type = FaceAgingOptions
    needs_labels = True
    arrangements = ("single", "pairs")

    def __init__(self, options: FaceAgingOptions, data: DataInfo) -> None:
        super().__init__(options, data)
        self.o, self.paired = options, data.arrangement == "pairs"
        if options.gan_share + options.embedder_share >= 1:
            raise InputError(
                "The stages leave the encoders no step",
                seen=f"gan_share {options.gan_share:g} and embedder_share {options.embedder_share:g}",
                repair="Let them be less than 1 together; the encoders have the rest",
            )
        if options.batch_size // options.accumulate < 2:
            raise InputError(
                "The embedder needs other persons to tell one from",
                seen=f"{options.batch_size} images in {options.accumulate} parts",
                repair="Give --batch-size 2 a part, or more",
            )

    def networks(self) -> dict[str, nn.Module]:
        o, networks = self.o, dc_networks(self.o, self.data, len(self.classes))
        networks["E"] = Encoder(self.data, o.e_width, o.latent)
        networks["A"] = Encoder(self.data, o.e_width, o.latent)  # of `age`
        networks["FR"] = Encoder(self.data, o.e_width, o.embedded, unit=True)
        return networks

    def generate(self, live: Live, batch: Batch) -> Batch:
        return {"fake": live.networks["G"](batch["z"], batch["label"])}

    def players(self) -> dict[str, Player]:
        o, players = self.o, super().players()
        betas = (o.beta1, o.beta2)
        same = self.same_person if self.paired else self.same_latent
        players["FR"] = Player(
            ("FR",), [Objective("contrast", same)], o.g_learning_rate, betas, averaged=True
        )
        if self.paired and o.one_person:
            players["G"].objectives.append(Objective("person", self.one_person, o.one_person))
        latent = (
            functools.partial(self.latent_distance, "E"),
            functools.partial(self.latent_distance, "A"),
        )
        players["E"] = Player(
            ("E",),
            [Objective("latent", latent[0], o.latent_weight)],
            o.g_learning_rate,
            betas,
            averaged=True,
        )
        players["A"] = Player(
            ("A",),
            [
                Objective("latent", latent[1], o.latent_weight),
                Objective("identity", self.identity_distance, o.identity),
                Objective("pixels", self.pixel_distance, o.pixels),
            ],
            o.g_learning_rate,
            betas,
            averaged=True,
        )
        return players

    def another_age(self, batch: Batch) -> Tensor:
        """A label for each sample, drawn from all but its own."""
        label = batch["label"]
        shift = torch.randint(
            1,
            max(len(self.classes), 2),
            label.shape,
            generator=batch["source"],
            device=label.device,
        )
        return (label + shift) % len(self.classes)

    def one_person(self, live: Live, batch: Batch) -> Tensor:
        """E |FR(G(z, y)) - FR(G(z, y'))|^2."""
        embed, g = live.averaged["FR"], live.networks["G"]
        there = g(batch["z"], self.another_age(batch))
        return (embed(batch["fake"]) - embed(there)).square().sum(1).mean()

    def same_person(self, live: Live, batch: Batch) -> Tensor:
        """The contrast of two photographs of each person."""
        embed, source = live.networks["FR"], batch["source"]
        a, b = (embed(view(batch[name], source)) for name in ("real", "partner"))
        return contrast(a, b, self.o.temperature)

    def same_latent(self, live: Live, batch: Batch) -> Tensor:
        """The contrast of generated faces at two ages, and of two views of real ones."""
        label, source = batch["label"], batch["source"]
        with torch.no_grad():
            g = live.averaged["G"]
            here, there = g(batch["z"], label), g(batch["z"], self.another_age(batch))
        embed = live.networks["FR"]
        real = batch["real"]
        made = contrast(embed(view(here, source)), embed(view(there, source)), self.o.temperature)
        seen = contrast(embed(view(real, source)), embed(view(real, source)), self.o.temperature)
        return made + seen

    def latent_distance(self, encoder: str, live: Live, batch: Batch) -> Tensor:
        """E (z - E(G(z, y)))^2."""
        with torch.no_grad():
            face = live.averaged["G"](batch["z"], batch["label"])
        return (live.networks[encoder](face) - batch["z"]).square().mean()

    def identity_distance(self, live: Live, batch: Batch) -> Tensor:
        """E |FR(G(A(x), y)) - FR(x)|^2 on real faces."""
        embed = live.averaged["FR"]
        with torch.no_grad():
            wanted = embed(batch["real"])
        return (embed(self.rebuilt(live, batch)) - wanted).square().sum(1).mean()

    def pixel_distance(self, live: Live, batch: Batch) -> Tensor:
        """E |G(A(x), y) - x| on real faces."""
        return (self.rebuilt(live, batch) - batch["real"]).abs().mean()

    def rebuilt(self, live: Live, batch: Batch) -> Tensor:
        """G(A(x), y) of real faces; computed once for each batch."""
        if "rebuilt" not in batch:
            z = live.networks["A"](batch["real"])
            batch["rebuilt"] = live.averaged["G"](z, batch["label"])
        return batch["rebuilt"]

    def stages(self) -> list[Stage]:
        """The conditional GAN and the embedder, whichever the other learns from first; then the encoders."""
        o = self.o
        rest = 1.0 - o.gan_share - o.embedder_share
        gan = Stage(self.turns(), o.gan_share, self.schedules())
        falling: Schedules = {"learning_rate": lambda t: 1.0 - t}
        embedder = Stage((Turn("FR"),), o.embedder_share, falling)
        first = [embedder, gan] if self.paired else [gan, embedder]
        return [*first, Stage((Turn("E"), Turn("A")), rest, falling)]

    def graphs(self) -> dict[str, Graph]:
        """`generate` is the main one."""
        shape, z = self.data.shape, self.latent_field()
        face = Field("image", shape, "image", range=(-1.0, 1.0))
        label, classes = self.label_fields(), self.classes
        made = image_field(self.data, "face")
        code = Field("z", (self.options.latent,), "latent")
        embedding = Field("embedding", (self.o.embedded,), "embedding")
        return {
            "generate": Graph((z, *label), (made,), lambda nets: nets["G"], classes),
            "encode": Graph((face,), (code,), lambda nets: nets["E"]),
            "embed": Graph((face,), (embedding,), lambda nets: nets["FR"]),
            "age": Graph(
                (face, *label), (made,), lambda nets: Aging(nets["A"], nets["G"]), classes
            ),
        }


def view(x: Tensor, source: torch.Generator) -> Tensor:
    """Another look at the same face: moved by up to a sixteenth, noisy.

    Not brighter or darker: the tone of the skin is a part of who it is.
    """
    reach = max(1, x.shape[2] // 16)
    down, right = torch.randint(0, 2 * reach + 1, (2,), generator=source, device=x.device).tolist()
    h, w = x.shape[2:]
    x = pad(x, (reach,) * 4, "replicate")[:, :, down : down + h, right : right + w]
    noise = torch.randn(x.shape, generator=source, device=x.device)
    return x + 0.05 * noise
