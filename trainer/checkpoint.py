"""The checkpoint, model.pt: plain dicts, numbers, strings and tensors, written atomically, read without pickle.

Loaded with `weights_only=True` and never otherwise. The README specifies the format.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.errors import CheckpointError
from ..runtime.files import atomic_file
from . import systems
from .config import Config, make_options
from .system import DataInfo, System

FORMAT = 1
SECTIONS = (
    "config", "data", "signature", "networks", "averaged", "optimizers", "progress", "augmentations", "health",
    "metrics", "threads",
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's content, checked for its shape. Each section is a plain dict."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Read a checkpoint on the CPU. Raises `CheckpointError` for anything that is not a whole one."""
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(
                f"{path} cannot be read", seen="There is no such file", repair="Check the path"
            )
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler raises many kinds on foreign or damaged bytes
            first_line = str(error).strip().partition("\n")[0]
            raise CheckpointError(
                f"{path} is not a readable checkpoint",
                seen=f"{type(error).__name__}: {first_line:.160}",
                repair="Use a model.pt of `gan train`, or an older copy such as best.pt",
            ) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} is not a checkpoint of `gan train`",
                seen=f"format {content.get('format')!r:.40}"
                if isinstance(content, dict)
                else "no dict",
                repair=f"This version reads format {FORMAT}",
            )
        missing = [name for name in SECTIONS if not isinstance(content.get(name), dict)]
        if missing:
            raise CheckpointError(f"{path} is damaged", seen=f"no section {missing[0]}")
        return cls(path, content)

    @property
    def config(self) -> Config:
        return Config.from_dict(self.content["config"])

    @property
    def data(self) -> DataInfo:
        try:
            info = dict(self.content["data"]["info"])
            return DataInfo(**{**info, "classes": tuple(info["classes"])})
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.path} is damaged", seen=f"data section: {error}"
            ) from error

    @property
    def step(self) -> int:
        return int(self.content["progress"]["step"])

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps

    def system(self, *, file: str | None = None, accept_changed: bool = False) -> System:
        """The system that was trained. file: the user's own system file, where it was one."""
        config = self.config
        kind = systems.load_recorded(config.system, file=file, accept_changed=accept_changed)
        return kind(make_options(kind, self.data, config.options), self.data)

    def averaged_networks(self, system: System) -> dict[str, nn.Module]:
        """The averaged networks in eval mode, frozen: what is exported. Raises `CheckpointError`."""
        networks = {
            name: net for name, net in system.networks().items() if name in self.content["averaged"]
        }
        for name, network in networks.items():
            load_weights(network, self.content["averaged"][name], f"{self.path}: averaged {name}")
            network.eval().requires_grad_(False)
        return networks


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a kill leaves the old or the new one, whole."""
    with atomic_file(path) as file:
        torch.save({"format": FORMAT, **content}, file)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """`load_state_dict` with a `CheckpointError` that names what did not fit."""
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"The weights do not fit ({what})", seen=" ".join(str(error).split())[:200]
        ) from error


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in network.state_dict().items()}


def weights_digest(states: Mapping[str, Mapping[str, Tensor]]) -> str:
    """SHA-256 over names, shapes, dtypes and values of several networks' weights."""
    sha = hashlib.sha256()
    for network in sorted(states):
        for name, tensor in sorted(states[network].items()):
            values = tensor.detach().cpu().contiguous()
            sha.update(f"{network}/{name}/{tuple(values.shape)}/{values.dtype}\n".encode())
            sha.update(values.numpy().tobytes())
    return sha.hexdigest()
