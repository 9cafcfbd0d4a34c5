"""The parts of a training, as declarations: data, graph, player, objective, augmentation, turn, stage, metric.

They know neither networks nor losses; a system (system.py) puts them together and the engine plays them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from ..runtime.signature import Field, Signature
from .trees import Tree

DataKind = Literal["image", "points"]
Arrangement = Literal["single", "pairs", "unpaired"]
Batch = dict[str, Tree]  # one move's data and all that is made of it: real, label, z, fake, ...


class Live(Protocol):
    """The live state of a training, as objectives, schedules and metrics may read it."""

    networks: dict[str, nn.Module]  # always reach networks through this, never by capture
    averaged: dict[str, nn.Module]  # the exponential moving averages, in eval mode
    knobs: dict[str, float]
    step: int

    @property
    def examples(self) -> Batch:
        """A fixed choice of the data, prepared as a batch."""
        ...

    @property
    def batch_size(self) -> int:
        """Samples a move, of all processes."""
        ...

    def logits(self, name: str, batch: Batch) -> Tree:
        """The discriminators' answer to batch[name], augmented; computed once for each batch."""
        ...


class Augmentation(ABC):
    """What the discriminators see instead of a sample, alike for real and fake.

    It is differentiable, draws from batch["source"] alone, and reads the knobs of `live`, so that a schedule or a
    remedy can turn them. One that learns from the training says so in `adapts`, and keeps what it learnt in `state`.
    One that is for the reals only gives them the form in which the generators make their samples (a pyramid, a
    fade-in); it is applied once, when they are drawn, so that all objectives see them so. One that is for the fakes
    only (a pool of earlier ones) is applied once, when they are made for a move of the discriminators.
    """

    name: ClassVar[str]
    reals_only: ClassVar[bool] = False
    fakes_only: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree: ...

    @property
    def adapts(self) -> bool:
        return False

    def adapt(self, live: Live, right: float) -> None:
        """Called after every step. right: share of reals that the discriminators told right in it."""
        return

    def state(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """What `state` gave; anything else raises KeyError, TypeError or ValueError."""
        return


@dataclass(frozen=True)
class DataInfo:
    """What a system may know of the data: what a sample is, its shape ([C, H, W] of images), class names.

    arrangement: single samples; pairs, where each sample has a partner, the image that it is to be made from; or
    unpaired, where the partners are a set of their own. partner: the shape of a partner.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    kind: DataKind = "image"
    arrangement: Arrangement = "single"
    partner: tuple[int, ...] | None = None

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def height(self) -> int:
        return self.shape[1]

    @property
    def width(self) -> int:
        return self.shape[2]


@dataclass(frozen=True)
class Graph:
    """One exported function: its fields, and how to build it from the averaged networks.

    radius and least: as in `Signature`; export proves the first.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    build: Callable[[Mapping[str, nn.Module]], nn.Module]
    classes: tuple[str, ...] = ()
    radius: int | None = None
    least: int = 1

    @property
    def signature(self) -> Signature:
        return Signature(self.inputs, self.outputs, self.classes, self.radius, self.least)


@dataclass
class Objective:
    """One weighted term of a player's loss.

    The knob "weight/NAME" multiplies the weight. every: computed at each k-th step and counted k times (lazy
    regularisation), in the same optimiser step, so the optimiser needs no correction. differentiates: entries of
    the batch whose gradient the term takes.
    """

    name: str
    value: Callable[[Live, Batch], Tensor]
    weight: float = 1.0
    every: int = 1
    differentiates: tuple[str, ...] = ()


@dataclass
class Player:
    """One side of the game: the networks it owns, what it minimises, and how.

    The first objective is its adversarial loss. averaged: keep an exponential moving average of its networks;
    graphs are built from that. clip_gradient: the longest gradient of a move; 0 is off. skip_below: it does not move
    where its first objective is below this; 0 is off. unroll: its objectives are taken after so many moves of the
    other players, and differentiated through them.
    """

    networks: tuple[str, ...]
    objectives: list[Objective]
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    optimizer: str = "adam"
    weight_decay: float = 0.0
    clip_gradient: float = 0.0
    skip_below: float = 0.0
    unroll: int = 0
    averaged: bool = False
    after: tuple[Callable[[Live], None], ...] = ()


@dataclass
class Turn:
    """A player's moves within one step.

    times: how many, or a function of the step that says so. reuse: of what was generated in the move before it.
    """

    player: str
    times: int | Callable[[int], int] = 1
    reuse: bool = False

    def moves(self, step: int) -> int:
        return self.times if isinstance(self.times, int) else self.times(step)


Schedules = dict[str, Callable[[float], float]]  # knobs as functions of the progress in [0, 1)


def part_of(schedules: Schedules, begin: float, end: float) -> Schedules:
    """Schedules of a whole run as those of a stage that goes from `begin` to `end` of it."""

    def part(curve: Callable[[float], float]) -> Callable[[float], float]:
        return lambda t: curve(begin + t * (end - begin))

    return {name: part(curve) for name, curve in schedules.items()}


@dataclass
class Stage:
    """A stretch of training with its own turns.

    share: of the run's steps. schedules: knobs as functions of the progress in [0, 1) through the stage. The engine
    reads "learning_rate", which multiplies every player's rate; "weight/NAME", which multiplies the objectives of
    that name; "beta2"; and "ema_half_life" in images. The system and its augmentations read the rest. batch_size: of
    its moves; None is the option's. fresh_optimizers: they forget what they learnt when the stage begins.
    """

    turns: tuple[Turn, ...]
    share: float = 1.0
    schedules: Schedules = field(default_factory=dict)
    batch_size: int | None = None
    fresh_optimizers: bool = False


@dataclass(frozen=True)
class Metric:
    """One number of the averaged generator, and the range in which it is good."""

    name: str
    measure: Callable[
        [Live], dict[str, float]
    ]  # the metric under its own name, and whatever explains it
    good: tuple[float, float]
    higher_is_better: bool = True
