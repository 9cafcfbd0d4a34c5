"""The checkpoint, model.pt: plain dicts, numbers, strings and tensors, written atomically, read without pickle.

The README specifies the format.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..runtime.errors import CheckpointError, ModelFileError, TrainingDivergedError, shown
from ..runtime.files import atomic_file
from ..runtime.signature import Signature
from ..runtime.values import check_path
from . import systems
from .config import Config, make_options
from .parts import Arrangement, DataInfo, DataKind
from .system import System, build_on_meta
from .torch_file import check_regular, load_torch_file

FORMAT = 4
AXES: dict[DataKind, int] = {"image": 3, "points": 1}
OLDER = "Use a model.pt of `gan train`, or an older copy such as best.pt"
LEARNT = ("networks", "averaged", "optimizers", "augmentations")  # whose numbers are finite
SECTIONS = (
    "config", "data", "signature", "networks", "averaged", "optimizers", "progress", "augmentations", "health",
    "metrics", "threads",
)  # fmt: skip
WITH_TENSORS = ("networks", "averaged", "optimizers", "augmentations")
LARGEST = 2**63


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's content, checked for its shape. Each section is a plain dict."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Read a checkpoint on the CPU. Raises `CheckpointError` for anything that is not a whole one."""
        path = check_path("checkpoint", path)
        check_regular(path)
        content = load_torch_file(path, what="checkpoint", repair=OLDER)
        found = content.get("format") if isinstance(content, dict) else None
        if type(found) is not int or found != FORMAT:
            raise CheckpointError(
                f"{path} is not a checkpoint of `gan train`",
                seen=f"format {shown(found)}",
                repair=f"This version reads format {FORMAT}",
            )
        missing = [name for name in SECTIONS if not isinstance(content.get(name), dict)]
        if missing:
            raise _damaged(path, f"no section {missing[0]}")
        for name in SECTIONS:
            _check_plain(path, name, content[name], tensors=name in WITH_TENSORS)
        checkpoint = cls(path, content)
        _ = (
            checkpoint.config,
            checkpoint.data,
            checkpoint.step,
            checkpoint.metrics,
            checkpoint.threads,
            checkpoint.processes,
        )
        checkpoint._check_contents()
        return checkpoint

    @property
    def config(self) -> Config:
        return Config.from_dict(self.content["config"])

    @property
    def data(self) -> DataInfo:
        try:
            info = self.content["data"]["info"]
            if not isinstance(info, dict):
                raise TypeError(f"info {info!r:.40}")
            lists = {name: tuple(info[name]) for name in ("shape", "classes")}
            partner = None if info.get("partner") is None else tuple(info["partner"])
            data = DataInfo(**{**info, **lists, "partner": partner})
            if data.kind not in get_args(DataKind) or len(data.shape) != AXES[data.kind]:
                raise TypeError(f"{data.kind!r:.40} of shape {data.shape!r:.80}")
            if data.arrangement not in get_args(Arrangement):
                raise TypeError(f"arrangement {data.arrangement!r:.40}")
            if (data.arrangement == "single") != (data.partner is None):
                raise TypeError(f"{data.arrangement} with partner {data.partner!r:.80}")
            shapes = (data.shape, *([] if data.partner is None else [data.partner]))
            if any(len(shape) != AXES[data.kind] for shape in shapes):
                raise TypeError(f"partner {data.partner!r:.80}")
            if not all(type(size) is int and size > 0 for shape in shapes for size in shape):
                raise TypeError(f"shape {data.shape!r:.80}, partner {data.partner!r:.80}")
            if not all(isinstance(name, str) for name in data.classes):
                raise TypeError("class names that are no texts")
            return data
        except (KeyError, TypeError) as error:
            raise _damaged(self.path, f"data section: {error}") from error

    @property
    def step(self) -> int:
        return self._count("progress", "step", at_least=0)

    @property
    def threads(self) -> int:
        """CPU threads, on whose number the weights depend."""
        return self._count("threads", "count", at_least=1)

    @property
    def processes(self) -> int:
        """Processes that trained together."""
        return self._count("threads", "processes", at_least=1)

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps

    def system(self, *, file: str | None = None, accept_changed: bool = False) -> System:
        """The system that was trained. file: the user's own system file, where it was one."""
        config = self.config
        kind = systems.load_recorded(config.system, file=file, accept_changed=accept_changed)
        system = kind(make_options(kind, self.data, config.options), self.data)
        self.check_fit(system)
        return system

    def check_fit(self, system: System) -> None:
        """Raise `CheckpointError` unless the weights are those of the system's networks, before any is made.

        What a few bytes of options ask for may be larger than any memory; weights that are there are not.
        """
        try:
            networks = build_on_meta(system)
        except (RuntimeError, OverflowError, ValueError) as error:  # sizes that no tensor can have
            raise _damaged(self.path, f"networks of the options: {error!s:.100}") from error
        if missing := networks.keys() - self.content["networks"].keys():
            raise _damaged(self.path, f"no weights of the network {min(missing)}")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "for .*copying from a non-meta", UserWarning)
            for section in ("networks", "averaged"):
                for name, state in self.content[section].items():
                    if name in networks:
                        load_weights(networks[name], state, f"{self.path}: {section} {name}")

    def averaged_networks(self, system: System) -> dict[str, nn.Module]:
        """The averaged networks in eval mode, frozen: what is exported. Raises `CheckpointError`."""
        networks = {
            name: net for name, net in system.build().items() if name in self.content["averaged"]
        }
        for name, network in networks.items():
            load_weights(network, self.content["averaged"][name], f"{self.path}: averaged {name}")
            network.eval().requires_grad_(False)
        return networks

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """values: of the last reading. best: the best value of the first metric, once there is one."""
        parts = {part: self.content["metrics"].get(part) for part in ("values", "best")}
        for part, numbers in parts.items():
            if not isinstance(numbers, dict) or not all(
                isinstance(number, (int, float)) for number in numbers.values()
            ):
                raise _damaged(self.path, f"metrics: {part}")
        return parts

    def _check_contents(self) -> None:
        """What is shown and exported without being loaded into a network. Raises `CheckpointError`."""
        for section in ("networks", "averaged"):
            for name, state in self.content[section].items():
                if not isinstance(state, dict) or not all(
                    isinstance(key, str) and isinstance(tensor, Tensor)
                    for key, tensor in state.items()
                ):
                    raise _damaged(self.path, f"{section}: {name!r:.40}")
        for name, text in self.content["signature"].items():
            try:
                Signature.from_json(text if isinstance(text, str) else "")
            except ModelFileError as error:
                raise _damaged(self.path, f"signature: {name!r:.40}") from error
        data = self.content["data"]
        if not isinstance(data.get("name"), str) or not isinstance(data.get("digest"), str):
            raise _damaged(self.path, "data: name or digest")
        if spoilt := first_bad_number(self.content):
            raise _damaged(self.path, f"{spoilt} is not finite")
        self._count("data", "count", at_least=1)
        self._count("progress", "images_seen", at_least=0)

    def _count(self, section: str, name: str, *, at_least: int) -> int:
        value = self.content[section].get(name)
        if type(value) is not int or value < at_least:
            raise _damaged(self.path, f"{section}: {name} {value!r:.40}")
        return value


def _check_plain(path: Path, section: str, value: Any, *, tensors: bool) -> None:
    """The format's own types and no others, which later code may print, sort and save again."""
    if isinstance(value, dict):
        for key, part in value.items():
            _check_plain(path, section, key, tensors=False)
            _check_plain(path, section, part, tensors=tensors)
    elif isinstance(value, list):
        for part in value:
            _check_plain(path, section, part, tensors=tensors)
    elif isinstance(value, Tensor):
        odd = value.layout is not torch.strided or value.is_quantized or value.is_meta
        if not odd:  # one number may be repeated without end
            odd = value.numel() * value.element_size() > value.untyped_storage().nbytes()
        if not tensors or odd or value.is_complex():
            raise _damaged(path, f"{section}: a tensor of a kind that does not belong there")
    elif type(value) is int and not -LARGEST <= value < LARGEST:
        raise _damaged(path, f"{section}: a number of more than 64 bits")
    elif value is not None and type(value) not in (bool, int, float, str):
        raise _damaged(path, f"{section}: {type(value).__name__:.40}")


def _damaged(path: Path, seen: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged", seen=seen, repair=OLDER)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a kill leaves the old or the new one, whole. Raises `StorageError`.

    What is not finite is never written over a good file: it raises `TrainingDivergedError`.
    """
    if spoilt := first_bad_number(content):
        raise TrainingDivergedError(
            "Training diverged",
            seen=f"{spoilt} is not finite; nothing was saved",
            repair="Lower the learning rates",
        )
    with atomic_file(path) as file:
        try:
            torch.save(plain({"format": FORMAT, **content}), file)
        except RuntimeError as error:  # torch's own of a file that ended early hides the disk's
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def first_bad_number(content: Mapping[str, Any]) -> str | None:
    """The name of a number or tensor among what was learnt that is not finite, or None.

    In networks infinity may be meant, as in a mask of attention. The content may be a stranger's: nested without end,
    or within itself.
    """
    for section in LEARNT:
        infinite = section in ("networks", "averaged")
        waiting: list[tuple[str, Any]] = [(section, content[section])]
        seen = set[int]()
        while waiting:
            name, value = waiting.pop()
            if isinstance(value, (Mapping, list, tuple)):
                if id(value) not in seen:
                    seen.add(id(value))
                    entries = value.items() if isinstance(value, Mapping) else enumerate(value)
                    waiting += [(f"{name:.120} {key!s:.40}", entry) for key, entry in entries]
            elif isinstance(value, (float, Tensor)) and _bad(value, infinite=infinite):
                return name
    return None


def _bad(value: float | Tensor, *, infinite: bool) -> bool:
    try:
        tensor = torch.as_tensor(value)
        return bool(tensor.isnan().any() if infinite else not tensor.isfinite().all())
    except (RuntimeError, NotImplementedError, TypeError):  # sparse, quantised, without values
        return True


def plain(value: Any) -> Any:
    """The same in the format's own types: a number of NumPy's, saved as it is, could not be read back."""
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, (bool, Tensor)):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise AssertionError(f"{type(value).__name__} does not belong in a checkpoint")


def load_weights(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """`load_state_dict` with a `CheckpointError` that names what did not fit."""
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"The weights do not fit ({what})",
            seen=" ".join(str(error).split())[:200],
            repair="Was it trained by another version of the system? Train anew, or use that version",
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
