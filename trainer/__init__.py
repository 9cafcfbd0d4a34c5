"""Train GANs in PyTorch: `from gan.trainer import Request, train`, and the parts of a system of your own."""

from .checkpoint import Checkpoint
from .loop import Outcome, train
from .request import Request
from .system import (
    Batch,
    DataInfo,
    Graph,
    Live,
    Metric,
    Objective,
    Options,
    Player,
    Stage,
    System,
    Tree,
    Turn,
    image_field,
)

__all__ = [
    "Batch",
    "Checkpoint",
    "DataInfo",
    "Graph",
    "Live",
    "Metric",
    "Objective",
    "Options",
    "Outcome",
    "Player",
    "Request",
    "Stage",
    "System",
    "Tree",
    "Turn",
    "image_field",
    "train",
]
