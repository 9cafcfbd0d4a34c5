"""How other code names and shapes the weights of a network that is one of ours too. Knows no file and no system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from .parts import DataInfo

Shapes = Mapping[str, tuple[int, ...]]
MOST = 2**16  # of channels, and of all that is read from a shape
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass
class Names:
    """ours: our tensor by the foreign name. zeros: ours that are 0 where the file has none. ignored: foreign names that
    have no part in the output."""

    ours: dict[str, str] = field(default_factory=dict)
    zeros: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)

    def conv(self, foreign: str, ours: str, *, no_bias: bool = False) -> None:
        """no_bias: theirs has none, ours has."""
        self.ours |= {f"{foreign}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}
        if no_bias:
            self.zeros.add(f"{ours}.bias")

    def norm(self, foreign: str, ours: str, *, statistics: bool) -> None:
        """statistics: those of training count; else they are passed over."""
        self.ours |= {f"{foreign}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}
        if statistics:
            self.ours |= {f"{foreign}.{part}": f"{ours}.{part}" for part in STATISTICS}
            self.zeros.add(f"{ours}.num_batches_tracked")  # older torch has none
        else:
            self.ignored |= {f"{foreign}.{part}" for part in STATISTICS}


@dataclass(frozen=True)
class Reading:
    """What a layout makes of a file's names and shapes: its best guess of the sizes. Whether it fits, others judge.

    network: which of the system's it is. image_statistics: norms by the image's own were asked for, and there are such.
    """

    title: str
    options: dict[str, int | str]
    data: DataInfo
    names: Names
    network: str = "G"
    image_statistics: bool = False


class Layout(ABC):
    """A way in which published code lays out a network."""

    title: str

    @abstractmethod
    def read(self, shapes: Shapes, *, image_statistics: bool) -> Reading:
        """The sizes that fit `shapes` best. image_statistics: batch norm is to go by the statistics of each image.

        Must not fail, whatever the names and shapes are.
        """


def size(shapes: Shapes, name: str, axis: int, default: int) -> int:
    """One size of a tensor, between 1 and 65,536; the default where there is no such tensor."""
    shape = shapes.get(name, ())
    return min(max(shape[axis], 1), MOST) if axis < len(shape) else default


def count(shapes: Shapes, pattern: str, most: int, *, first: int = 0) -> int:
    """How many of the names `pattern` % first, first + 1, ... there are without a gap, at most `most`."""
    found = 0
    while found < most and pattern % (first + found) in shapes:
        found += 1
    return found
