"""What the author of a new GAN writes: a `System`, in the words of the literature.

A system names its networks, runs its generators, runs its discriminators, and lists players, objectives,
augmentations, stages, graphs and metrics. The engine (engine.py) does the rest and knows no system.

Two ideas carry it. A discriminator's output is a tree of logits, so patch maps, ensembles and several scales cost
nothing. Everything between the data and the discriminator is an augmentation, so a remedy turns a knob and never
touches the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ..runtime.signature import Field, Signature
from .losses import LOSSES, accuracy
from .penalties import squared_gradient_norm

Tree = Any  # a tensor, or nested lists, tuples and dicts of tensors
Batch = dict[
    str, Tree
]  # the data of one move and all that is made from it: real, label, z, fake, ...
Augmentation = Callable[
    [Tree, Batch, int], Tree
]  # (sample, batch, step) -> what the discriminators see


class Live(Protocol):
    """The live state of a training, as objectives, schedules and metrics may read it."""

    networks: dict[str, nn.Module]  # always reach networks through this, never by capture
    averaged: dict[str, nn.Module]  # the exponential moving averages, in eval mode
    knobs: dict[str, float]
    step: int

    def logits(self, name: str, batch: Batch) -> Tree:
        """The discriminators' answer to batch[name], augmented; computed once for each batch."""
        ...


@dataclass(frozen=True)
class DataInfo:
    """What a system may know of the data: image size and class names."""

    channels: int
    height: int
    width: int
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """One exported function: its fields, and how to build it from the averaged networks."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    build: Callable[[Mapping[str, nn.Module]], nn.Module]
    classes: tuple[str, ...] = ()

    @property
    def signature(self) -> Signature:
        return Signature(self.inputs, self.outputs, self.classes)


@dataclass
class Objective:
    """One weighted term of a player's loss.

    every: computed at each k-th step and counted k times (lazy regularisation), in the same optimiser step, so
    the optimiser needs no correction. differentiates: entries of the batch whose gradient the term takes.
    """

    name: str
    value: Callable[[Live, Batch], Tensor]
    weight: float = 1.0
    every: int = 1
    differentiates: tuple[str, ...] = ()


@dataclass
class Player:
    """One side of the game: the networks it owns, what it minimises, and how.

    averaged: keep an exponential moving average of its networks; graphs are built from that.
    """

    networks: tuple[str, ...]
    objectives: list[Objective]
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    averaged: bool = False
    after: tuple[Callable[[Live], None], ...] = ()


@dataclass
class Turn:
    """A player's moves within one step."""

    player: str
    times: int = 1


@dataclass
class Stage:
    """A stretch of training with its own turns.

    share: of the run's steps. schedules: knobs as functions of the progress in [0, 1) through the stage; the knob
    "learning_rate" multiplies every player's rate. enter: called once, before the first step.
    """

    turns: tuple[Turn, ...]
    share: float = 1.0
    schedules: dict[str, Callable[[float], float]] = field(default_factory=dict)
    enter: Callable[[Live], None] | None = None


@dataclass(frozen=True)
class Metric:
    """One number of the averaged generator, and the range in which it is good."""

    name: str
    measure: Callable[
        [Live], dict[str, float]
    ]  # the metric under its own name, and whatever explains it
    good: tuple[float, float]
    higher_is_better: bool = True


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings that every system has. All are plain values; a system's own class adds to them."""

    loss: str = "non-saturating"
    r1: float = 0.0  # gamma of the R1 penalty on reals
    r2: float = 0.0  # gamma of the R2 penalty on fakes
    penalty_every: int = 1  # lazy R1 and R2: at each k-th step, counted k times
    g_learning_rate: float = 2e-4
    d_learning_rate: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    decay_share: float = (
        0.0  # last share of the steps over which the learning rate falls linearly to 0
    )
    d_moves: int = 1  # discriminator moves a step
    labels: bool = True  # use the data's labels where it has them
    latent: int = 100
    batch_size: int = 64


class System(ABC):
    """A GAN as the literature names it. Subclasses are final and live one to a file."""

    name: ClassVar[str]
    options_type: ClassVar[type[Options]] = Options
    needs_labels: ClassVar[bool] = False

    def __init__(self, options: Options, data: DataInfo) -> None:
        self.options, self.data = options, data
        self.classes = data.classes if options.labels else ()

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        """The options for this data, before the user's own are laid over them."""
        return cls.options_type()

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Fresh networks by name, initialised."""

    @abstractmethod
    def generate(self, live: Live, batch: Batch) -> Batch:
        """Run the generators on a batch: at least {"fake": ...}."""

    @abstractmethod
    def discriminate(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        """Run the discriminators on an augmented sample: a tree of logits."""

    @abstractmethod
    def graphs(self) -> dict[str, Graph]:
        """The functions that can be exported, the main one first."""

    def players(self) -> dict[str, Player]:
        """One D and one G with the chosen adversarial loss, R1 and R2."""
        o = self.options
        loss = LOSSES[o.loss]
        penalties = [
            Objective("r1", r1_penalty, o.r1 / 2, o.penalty_every, ("real",)),
            Objective("r2", r2_penalty, o.r2 / 2, o.penalty_every, ("fake",)),
        ]
        d = [Objective("adversarial", loss.discriminator_objective)]
        d += [penalty for penalty in penalties if penalty.weight]
        g = [Objective("adversarial", loss.generator_objective)]
        betas = (o.beta1, o.beta2)
        return {
            "D": Player(("D",), d, o.d_learning_rate, betas),
            "G": Player(("G",), g, o.g_learning_rate, betas, averaged=True),
        }

    def accuracy(self, real: Tree, fake: Tree) -> tuple[float, float]:
        """Shares of reals and fakes told right, from their logits."""
        return accuracy(LOSSES[self.options.loss], real, fake)

    def augmentations(self) -> list[Augmentation]:
        return []

    def stages(self) -> list[Stage]:
        share = self.options.decay_share
        schedules = {"learning_rate": lambda t: min(1.0, (1.0 - t) / share)} if share else {}
        return [Stage((Turn("D", self.options.d_moves), Turn("G")), schedules=schedules)]

    def metrics(self) -> list[Metric] | None:
        """None: coverage in random features, the default for images."""
        return None


def r1_penalty(live: Live, batch: Batch) -> Tensor:
    """E ||grad_x D(x)||^2 on reals (Mescheder et al. 2018, eq. 9, without gamma/2)."""
    return squared_gradient_norm(live.logits("real", batch), batch["real"])


def r2_penalty(live: Live, batch: Batch) -> Tensor:
    """E ||grad_x D(x)||^2 on fakes."""
    return squared_gradient_norm(live.logits("fake", batch), batch["fake"])


def image_field(data: DataInfo, name: str = "image") -> Field:
    """An image output in [-1, 1], NCHW, as networks give it; export turns it into uint8 NHWC."""
    return Field(name, (data.channels, data.height, data.width), "image", range=(-1.0, 1.0))


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def build_on_meta(system: System) -> dict[str, nn.Module]:
    """The system's networks without memory, to count parameters."""
    with torch.device("meta"):
        return system.networks()
