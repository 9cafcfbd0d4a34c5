"""What the author of a new GAN writes: a `System`, in the words of the literature.

A system names its networks, runs its generators and discriminators, and lists players, objectives, augmentations,
stages, graphs and metrics; all but the networks have defaults, which follow the options (options.py). The engine
(engine.py) does the rest and knows no system.

Two ideas carry it. A discriminator's output is a tree of logits, so patch maps, ensembles and several scales cost
nothing. Everything between the data and the discriminator is an augmentation, so a remedy turns a knob and never
touches the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn

from ..runtime.signature import Draw, Field
from .augment import AdaptiveAugmentation, DiffAugment, InstanceNoise
from .decode import Fit
from .layers import add_spectral_norm
from .layouts import Layout
from .losses import LOSSES, AdversarialLoss, accuracy, distance
from .objectives import drift, interpolated_gradient_penalty, r1_penalty, r2_penalty, roth
from .options import Options
from .parts import (
    Arrangement,
    Augmentation,
    Batch,
    DataInfo,
    DataKind,
    Graph,
    Live,
    Metric,
    Objective,
    Player,
    Schedules,
    Stage,
    Turn,
)
from .trees import Tree


class System(ABC):
    """A GAN as the literature names it. Subclasses are final and live one to a file.

    What is not overridden is the plain case: one G from z (and a label) to a sample, one D on it.
    """

    name: ClassVar[str]
    options_type: ClassVar[type[Options]] = Options
    needs_labels: ClassVar[bool] = False
    kinds: ClassVar[tuple[DataKind, ...]] = ("image",)
    arrangements: ClassVar[tuple[Arrangement, ...]] = ("single",)
    partner_channels: ClassVar[int | None] = None  # None: as the data have them
    fit: ClassVar[Fit | None] = None  # where the user gives none

    def __init__(self, options: Options, data: DataInfo) -> None:
        self.options, self.data = options, data
        self.classes = data.classes if options.labels else ()

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        """The options for this data, before the user's own are laid over them."""
        return cls.options_type()

    @classmethod
    def layouts(cls) -> tuple[Layout, ...]:
        """How other code lays out the weights of its networks, which can then be adopted. Subclasses do not inherit it."""
        return ()

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Fresh networks by name, initialised."""

    def build(self) -> dict[str, nn.Module]:
        """The networks as they are trained: D's with spectral norm, where that was chosen."""
        networks = self.networks()
        if self.options.spectral_norm:
            for name in self.discriminators():
                add_spectral_norm(networks[name])
        return networks

    def discriminators(self) -> list[str]:
        """Names of the networks that judge: those of the players that nothing is exported of."""
        judges = [player for player in self.players().values() if not player.averaged]
        return [name for player in judges for name in player.networks]

    def prepare(self, batch: Batch) -> Batch:
        """The batch of one move before anything is generated: what the graphs take, made from what the data gave.

        batch has "real", "label" with classes, "partner" where the data has partners, and "source", a generator for
        what is drawn here.
        """
        return batch

    def generate(self, live: Live, batch: Batch) -> Batch:
        """Run the generators on a batch: at least {"fake": ...}."""
        return {"fake": _call(live.networks["G"], batch["z"], batch)}

    def discriminate(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        """Run the discriminators on an augmented sample: a tree of logits."""
        return _call(live.networks["D"], sample, batch)

    def graphs(self) -> dict[str, Graph]:
        """The functions that can be exported, the main one first."""
        inputs = (self.latent_field(), *self.label_fields())
        output = sample_field(self.data)
        return {output.name: Graph(inputs, (output,), lambda nets: nets["G"], self.classes)}

    def latent_field(self, name: str = "z") -> Field:
        """z, drawn as the option `latents` says."""
        draw = Draw("normal")
        if self.options.latents == "uniform":
            draw = Draw("uniform", low=-1.0, high=1.0)
        return Field(name, (self.options.latent,), "latent", draw=draw)

    def label_fields(self, name: str = "label") -> tuple[Field, ...]:
        """The label, where there are classes."""
        if not self.classes:
            return ()
        last = float(len(self.classes) - 1)
        return (Field(name, (), "label", "int64", (0.0, last), Draw("choice", stream=1)),)

    @property
    def loss(self) -> AdversarialLoss:
        return LOSSES[self.options.loss].smoothed(self.options.label_smoothing)

    def players(self) -> dict[str, Player]:
        """One D and one G with the chosen adversarial loss, penalties, optimisers and limits."""
        o = self.options
        betas = (o.beta1, o.beta2)
        return {
            "D": Player(
                ("D",),
                [Objective("adversarial", self.loss.discriminator_objective), *self.penalties()],
                o.d_learning_rate,
                betas,
                optimizer=o.optimizer,
                weight_decay=o.d_weight_decay,
                clip_gradient=o.clip_gradient,
                skip_below=o.skip_d_below,
                after=(self.clip_weights,) if o.clip_weights else (),
            ),
            "G": Player(
                ("G",),
                [Objective("adversarial", self.loss.generator_objective)],
                o.g_learning_rate,
                betas,
                optimizer=o.optimizer,
                clip_gradient=o.clip_gradient,
                unroll=o.unroll,
                averaged=True,
            ),
        }

    def penalties(self) -> list[Objective]:
        """D's further objectives, those of the options that weigh something."""
        o = self.options
        every = o.penalty_every
        known = [
            Objective("r1", r1_penalty, o.r1 / 2, every, ("real",)),
            Objective("r2", r2_penalty, o.r2 / 2, every, ("fake",)),
            Objective("gp", interpolated_gradient_penalty, o.gp, every),
            Objective("roth", roth, o.roth / 2, every, ("real", "fake")),
            Objective("drift", drift, o.drift),
        ]
        return [penalty for penalty in known if penalty.weight]

    @torch.no_grad()
    def clip_weights(self, live: Live) -> None:
        """w <- clip(w, -c, c) for every weight of D (Arjovsky et al. 2017, algorithm 1, line 7)."""
        c = self.options.clip_weights
        for name in self.discriminators():
            for parameter in live.networks[name].parameters():
                parameter.clamp_(-c, c)

    def readings(self, real: Tree, fake: Tree) -> dict[str, float]:
        """What the logits of reals and fakes tell: shares told right, and a distance where the loss estimates one."""
        told, chosen = accuracy(self.loss, real, fake), LOSSES[self.options.loss]
        values = {"accuracy/real": told[0], "accuracy/fake": told[1]}
        return values | ({"distance": distance(real, fake)} if chosen.distance else {})

    def augmentations(self) -> list[Augmentation]:
        """Those of the options, images first transformed, noise last."""
        o, found = self.options, list[Augmentation]()
        if o.ada or o.ada_target:
            found.append(
                AdaptiveAugmentation(
                    o.ada, o.ada_target, o.ada_images,
                    colour=o.ada_colour, cutout=o.ada_cutout,
                )
            )  # fmt: skip
        if o.diffaugment:
            found.append(DiffAugment(tuple(o.diffaugment.split(","))))
        if o.instance_noise:
            found.append(InstanceNoise())
        return found

    def turns(self) -> tuple[Turn, ...]:
        """D, then G."""
        return Turn("D", self.options.d_moves), Turn("G", reuse=self.options.fakes == "reused")

    def schedules(self) -> Schedules:
        """Falling rates, noise and Roth's penalty, where the options have them."""
        o, found = self.options, Schedules()
        if o.decay_share:
            found["learning_rate"] = lambda t: min(1.0, (1.0 - t) / o.decay_share)
        if o.instance_noise:
            share = o.instance_noise_share
            found["instance_noise"] = lambda t: o.instance_noise * max(0.0, 1.0 - t / share)
        if o.roth:
            found["weight/roth"] = lambda t: 0.01**t  # as in the authors' code
        return found

    def stages(self) -> list[Stage]:
        return [Stage(self.turns(), schedules=self.schedules())]

    def metrics(self) -> list[Metric] | None:
        """None: coverage in random features, the default for images, in the points themselves for points."""
        return None


def _call(network: nn.Module, first: Tree, batch: Batch) -> Tree:
    """The network on its first argument, and on the label where there is one."""
    return network(first, batch["label"]) if "label" in batch else network(first)


def sample_field(data: DataInfo) -> Field:
    """The output of a generator of such samples: an image in [-1, 1], or points."""
    return image_field(data) if data.kind == "image" else Field("points", data.shape, "points")


def image_field(data: DataInfo, name: str = "image") -> Field:
    """An image output in [-1, 1], NCHW, as networks give it; export turns it into uint8 NHWC."""
    return Field(name, (data.channels, data.height, data.width), "image", range=(-1.0, 1.0))


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def build_on_meta(system: System) -> dict[str, nn.Module]:
    """The system's networks without memory, to count parameters."""
    with torch.device("meta"):
        return system.build()
