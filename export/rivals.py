"""What a user would run instead of the exported file: torch, on the same checkpoint, with the same inputs and bytes."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..runtime.errors import InputError
from ..runtime.inputs import Array
from ..runtime.measure import Contender, example_inputs
from ..runtime.model_file import ModelFile
from ..runtime.signature import Field
from ..trainer.checkpoint import Checkpoint, weights_digest
from .module import load_source

EAGER, LAST, COMPILED = "torch eager", "torch channels_last", "torch.compile"


class Whole(nn.Module):
    """A graph's main output from inputs as the file takes them, to bytes as the file gives them."""

    def __init__(self, module: nn.Module, inputs: Sequence[Field], main: Field) -> None:
        super().__init__()
        self.module, self.inputs, self.main = module, tuple(inputs), main

    def forward(self, *given: Tensor) -> Tensor:
        outputs = self.module(*map(_foot, self.inputs, given))
        x = outputs if isinstance(outputs, Tensor) else outputs[0]
        if self.main.kind != "image":
            return x
        if self.main.dtype != "uint8":
            return x.clamp(-1, 1)
        x = (x * 127.5 + 127.5).clamp(0, 255).round().to(torch.uint8)
        return x.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C)


def _foot(field: Field, x: Tensor) -> Tensor:
    if field.dtype != "uint8":
        return x
    x = x.permute(0, 3, 1, 2).float()
    return x / 127.5 - 1 if field.kind == "image" else x / 255


@dataclass(frozen=True)
class Rivals:
    """The torch contenders of one model. missing: those that cannot run here, each with the reason."""

    model: ModelFile
    variants: Mapping[str, nn.Module]
    missing: Mapping[str, str]

    def contenders(self, count: int, threads: int) -> list[Contender]:
        """Each makes `count` images with so many threads from the same inputs as ours, as an array."""
        inputs = example_inputs(self.model, count)
        return [
            Contender(name, count, _call(module, inputs), lambda: torch.set_num_threads(threads))
            for name, module in self.variants.items()
        ]


def _call(module: nn.Module, inputs: Mapping[str, Array]) -> Callable[[], Array]:
    def call() -> Array:
        with torch.inference_mode():
            return module(*map(torch.from_numpy, inputs.values())).numpy()

    return call


def load_rivals(
    checkpoint: str | os.PathLike[str],
    model: ModelFile,
    *,
    system_file: str | None = None,
    compiled: bool = True,
) -> Rivals:
    """The rivals of `model`, from the checkpoint that it was exported from; of any other, `InputError`."""
    loaded = Checkpoint.load(checkpoint)
    if weights_digest(loaded.content["averaged"]) != model.section("weights").get("checkpoint"):
        raise InputError(
            f"{checkpoint} is not what {model.name} was exported from",
            seen="The weights have another digest",
            repair="Give the checkpoint of the model, or export it again",
        )
    graph = model.section("system").get("graph")
    missing = {}

    def whole() -> nn.Module:
        source = load_source(loaded, graph=graph, system_file=system_file)
        return Whole(source.module, model.signature.inputs, model.signature.main).eval()

    variants: dict[str, nn.Module] = {
        EAGER: whole(),
        LAST: whole().to(memory_format=torch.channels_last),
    }
    if not compiled:
        return Rivals(model, variants, missing)
    reason = _why_not_compiled()
    if reason:
        missing[COMPILED] = reason
    else:
        variants[COMPILED] = _Compiled(whole())
    return Rivals(model, variants, missing)


class _Compiled(nn.Module):
    """torch.compile, anew for each shape: one graph for all would be slower."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.call = torch.compile(module, dynamic=False)

    def forward(self, *given: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.call(*given)


def _why_not_compiled() -> str:
    named = os.environ.get("CXX", "g++")
    return "" if shutil.which(named) else f"no C++ compiler {named}"
