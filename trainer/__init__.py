"""Train GANs in PyTorch: `from gan.trainer import Request, train`, and the parts of a system of your own."""

from .checkpoint import Checkpoint
from .loop import Outcome, train
from .options import Options, setting
from .parts import (
    Augmentation,
    Batch,
    DataInfo,
    Graph,
    Live,
    Metric,
    Objective,
    Player,
    Stage,
    Turn,
)
from .request import Request
from .system import System, image_field, sample_field
from .trees import Tree

__all__ = [
    "Augmentation",
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
    "sample_field",
    "setting",
    "train",
]
