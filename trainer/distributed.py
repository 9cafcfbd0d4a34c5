"""Several processes that train one model: torchrun's ranks, each with its slice of every batch.

No wrapper around the networks: gradients are averaged in one flat all-reduce after each backward pass, which leaves
penalties that differentiate twice as they are. One process is a world of size 1, where everything here does nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..runtime.errors import InputError


@dataclass(frozen=True)
class World:
    """This process's place among `size` that train together."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that measures, writes and tells."""
        return self.rank == 0

    def slice(self, batch: Tensor) -> Tensor:
        """This rank's part of a global batch: every size-th row."""
        return batch[self.rank :: self.size]

    @torch.no_grad()
    def average(self, parameters: Sequence[nn.Parameter], values: Tensor) -> Tensor:
        """Average the gradients over all ranks in place, and return the averages of `values` (n,)."""
        if self.size == 1:
            return values.detach()
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([values.detach(), *(g.reshape(-1) for g in gradients)])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat[len(values) :].split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return flat[: len(values)]

    @torch.no_grad()
    def share(self, buffers: Sequence[Tensor]) -> None:
        """Average the buffers that are numbers over all ranks in place: running means are then those of the whole batch."""
        floats = [buffer for buffer in buffers if buffer.is_floating_point()]
        if self.size == 1 or not floats:
            return
        flat = torch.cat([buffer.reshape(-1) for buffer in floats])
        dist.all_reduce(flat)
        parts = (flat / self.size).split([buffer.numel() for buffer in floats])
        for buffer, part in zip(floats, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

    def largest(self, value: int, device: torch.device) -> int:
        """The largest of the ranks' values, the same on all."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], device=device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared.item())

    def wait(self) -> None:
        """Return when every rank is here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


def check_batch(size: int, world: World, parts: int = 1) -> None:
    """Raise `InputError` unless a batch can be dealt out evenly, and each share computed in equal parts."""
    if size % (world.size * parts):
        several = f" in {parts} parts" if parts > 1 else ""
        raise InputError(
            "The batch cannot be dealt out evenly",
            seen=f"{size} images over {world.size} processes{several}",
            repair=f"Choose a --batch-size that is a multiple of {world.size * parts}"
            + (", or a smaller accumulate" if parts > 1 else ""),
        )


def local_device(name: str) -> str:
    """Under torchrun "auto" and "cuda" mean the GPU of this process's local rank."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or not torch.cuda.is_available() or name not in ("auto", "cuda"):
        return name
    return f"cuda:{rank}"


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[World]:
    """The world that torchrun's environment describes; of size 1 without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    # Its functions have the group of the moment of import for a default, and the first optimiser imports it. Imported
    # while a group is there it holds that group's threads past the group's end, and one of them may abort the process
    # while the interpreter shuts down.
    importlib.import_module("torch.distributed.nn.functional")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
