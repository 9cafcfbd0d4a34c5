"""The settings that every system has: plain values, each with its range, its meaning and its source."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

MOST = 1e9


def setting(
    default: Any,
    help: str,
    *,
    low: float = 0.0,
    above: float | None = None,
    high: float = MOST,
    below: float | None = None,
    source: str = "",
) -> Any:
    """A dataclass field with its range: from `low`, or above `above`; to `high`, or below `below`."""
    interval = Interval(low, above, high, below)
    return field(default=default, metadata={"help": help, "range": interval, "source": source})


@dataclass(frozen=True)
class Interval:
    low: float
    above: float | None
    high: float
    below: float | None

    def holds(self, value: float) -> bool:
        enough = value > self.above if self.above is not None else value >= self.low
        return enough and (value < self.below if self.below is not None else value <= self.high)

    def __str__(self) -> str:
        if self.below is None and self.high >= MOST:
            return (
                f"{self.low:g} or more" if self.above is None else f"a number above {self.above:g}"
            )
        left = f"[{self.low:.12g}" if self.above is None else f"({self.above:.12g}"
        right = f"{self.high:.12g}]" if self.below is None else f"{self.below:.12g})"
        return f"a number in {left}, {right}"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings that every system has. All are plain values; a system's own class adds to them."""

    # The objectives.
    loss: str = setting("non-saturating", "the adversarial loss")
    label_smoothing: float = setting(
        0.0, "epsilon: reals get the target 1 - epsilon in D's loss", below=0.5,
        source="Salimans et al. 2016, section 3.4",
    )  # fmt: skip
    r1: float = setting(
        0.0, "gamma of the penalty gamma/2 E||grad D||^2 on reals", source="Mescheder et al. 2018"
    )
    r2: float = setting(0.0, "the same on fakes", source="Mescheder et al. 2018")
    gp: float = setting(
        0.0, "lambda of the gradient penalty lambda E(||grad D|| - 1)^2 between reals and fakes",
        source="Gulrajani et al. 2017, eq. 3",
    )  # fmt: skip
    roth: float = setting(
        0.0, "gamma of Roth's penalty, which falls to a hundredth over the run",
        source="Roth et al. 2017, eq. 21",
    )  # fmt: skip
    drift: float = setting(
        0.0, "weight of E[D(x)^2] on reals, which keeps a critic near 0",
        source="Karras et al. 2018, appendix A.1",
    )  # fmt: skip
    penalty_every: int = setting(
        1, "lazy penalties: at each k-th step, counted k times", above=0,
        source="Karras et al. 2020a, appendix B",
    )  # fmt: skip
    # The discriminator.
    clip_weights: float = setting(
        0.0, "c: after its moves each weight of D is clipped to [-c, c]; 0 is off",
        source="Arjovsky et al. 2017, algorithm 1",
    )  # fmt: skip
    d_weight_decay: float = setting(
        0.0, "lambda of lambda/2 ||w||^2 over D's weights", source="Krogh and Hertz 1992"
    )
    spectral_norm: bool = setting(
        False, "every layer of D has a weight of spectral norm 1", source="Miyato et al. 2018"
    )
    minibatch_deviation: bool = setting(
        False, "D also sees how much the samples of a batch differ",
        source="Karras et al. 2018, section 3",
    )  # fmt: skip
    # What D sees.
    instance_noise: float = setting(
        0.0, "sigma of the noise added to reals and fakes alike",
        source="Sønderby et al. 2017; Arjovsky and Bottou 2017",
    )  # fmt: skip
    instance_noise_share: float = setting(
        0.5, "share of the run over which that noise falls linearly to 0", above=0, high=1
    )
    diffaugment: str = setting(
        "", "any of color, translation, cutout, joined by commas", source="Zhao et al. 2020"
    )
    ada: float = setting(
        0.0, "probability of each transform of the ADA pipeline (with ada_target: at the start)",
        high=1, source="Karras et al. 2020b, appendix B",
    )  # fmt: skip
    ada_target: float = setting(
        0.0, "r_t to which the controller steers that probability; 0.6 in the paper, 0 is off",
        below=1, source="Karras et al. 2020b, section 3.1",
    )  # fmt: skip
    ada_images: int = setting(
        500_000, "images in which the controller can move the probability from 0 to 1", above=0
    )
    ada_colour: float = setting(1.0, "multiplies it for the transforms of colour", high=1)
    ada_cutout: float = setting(
        0.0, "multiplies it for a square that is cut out; 0 in the paper", high=1
    )
    # The moves.
    optimizer: Literal["adam", "rmsprop", "sgd"] = setting("adam", "of both players")
    g_learning_rate: float = setting(2e-4, "of G", above=0)
    d_learning_rate: float = setting(
        2e-4, "of D; another one than G's is TTUR", above=0, source="Heusel et al. 2017"
    )
    beta1: float = setting(0.5, "of Adam", below=1)
    beta2: float = setting(0.999, "of Adam; of RMSprop its alpha", below=1)
    decay_share: float = setting(
        0.0, "last share of the steps over which the learning rates fall linearly to 0", below=1
    )
    d_moves: int = setting(
        1, "n_critic: moves of D a step", above=0, source="Goodfellow et al. 2014, algorithm 1"
    )
    skip_d_below: float = setting(
        0.0, "D does not move where its adversarial loss is below this; 0 is off",
        source="Wu et al. 2016, there by accuracy",
    )  # fmt: skip
    unroll: int = setting(
        0, "k: G's loss is taken after k moves of D, and differentiated through them", high=100,
        source="Metz et al. 2017, section 2",
    )  # fmt: skip
    fakes: Literal["fresh", "reused"] = setting(
        "fresh", "reused: G learns from the fakes of D's last move instead of new ones"
    )
    clip_gradient: float = setting(
        0.0, "longest gradient of a move, over all weights; 0 is off", source="Pascanu et al. 2013"
    )
    accumulate: int = setting(
        1, "parts that a batch is computed in, one after the other, to save memory", above=0
    )
    batch_size: int = setting(64, "samples a move", above=0, below=2**24)
    # The samples.
    labels: bool = setting(True, "use the data's labels where it has them")
    latents: Literal["normal", "uniform"] = setting(
        "normal", "distribution of z: standard normal, or uniform in [-1, 1)"
    )
    latent: int = setting(100, "numbers in z", above=0, below=2**24)
    # The networks.
    width: int = setting(
        64, "channels, or units, of the layer next to the sample", above=0, below=2**16
    )
    embedding: int = setting(32, "numbers that stand for a label in G", above=0, below=2**16)
    projection: int = setting(
        128, "numbers by which D compares sample and label", above=0, below=2**16,
        source="Miyato and Koyama 2018",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PyramidOptions(Options):
    """Of networks with a place for an image at every size."""

    width: int = setting(
        64, "channels next to the image; twice as many at half the size", above=0, below=2**16
    )
    max_width: int = setting(512, "most channels of a layer", above=0, below=2**16)


def ranges(options: Options) -> dict[str, Interval]:
    """The intervals of the numeric settings that have one."""
    return {
        f.name: f.metadata["range"]
        for f in dataclasses.fields(options)
        if "range" in f.metadata and type(getattr(options, f.name)) in (int, float)
    }


def described(kind: type[Options]) -> list[tuple[str, str, str]]:
    """(name, meaning, source) of every setting, in order; a user's own without text has empty ones."""
    return [
        (f.name, f.metadata.get("help", ""), f.metadata.get("source", ""))
        for f in dataclasses.fields(kind)
    ]


def cosine(start: float, end: float, t: float) -> float:
    """From `start` at t = 0 to `end` at t = 1 on half a cosine, constant after that."""
    return end + (start - end) * (1.0 + math.cos(math.pi * min(max(t, 0.0), 1.0))) / 2.0
