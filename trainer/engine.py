"""One training step: the turns of the stage, the moves of a turn, the loss of a move. Knows no system by name."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.errors import CheckpointError, TrainingDivergedError
from .checkpoint import load_weights, plain_state
from .config import Config
from .data import Dataset
from .distributed import ALONE, World, check_batch
from .randomness import DataOrder, derive_seed, draw, generator
from .system import Batch, Player, Stage, System, Tree
from .trees import tree_map

logger = logging.getLogger("gan.trainer")

MAX_SKIPPED_IN_A_ROW = 10


@dataclass
class Means:
    """Running means of named numbers since the last reading."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


class Training:
    """The live state of one run. Weights, optimisers and counters; all randomness is a function of the step."""

    def __init__(
        self,
        system: System,
        data: Dataset,
        config: Config,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        """Fresh state. world: the processes that train together, each on its slice of every batch."""
        check_batch(system.options.batch_size, world)
        self.system, self.data, self.config, self.device = system, data, config, device
        self.world = world
        torch.manual_seed(derive_seed(config.seed, "initial weights"))
        self.networks = {name: net.to(device).train() for name, net in system.networks().items()}
        self.players = system.players()
        self.averaged = {
            name: copy.deepcopy(self.networks[name]).eval().requires_grad_(False)
            for player in self.players.values()
            if player.averaged
            for name in player.networks
        }
        self.optimizers = {
            name: torch.optim.Adam(
                self._parameters(player), player.learning_rate, betas=player.betas
            )
            for name, player in self.players.items()
        }
        self.stages = system.stages()
        self.augmentations = system.augmentations()
        self.graph = next(iter(system.graphs().values()))
        self.knobs: dict[str, float] = {}
        self.means = Means()
        self.step = self.position = self.skipped = 0
        self.skipped_in_a_row = dict.fromkeys(self.players, 0)
        self.stage_number = -1
        self._order = DataOrder(len(data), config.seed)

    @property
    def images_seen(self) -> int:
        return self.step * self.system.options.batch_size

    def run_step(self) -> None:
        """All turns of the present stage, once. Raises `TrainingDivergedError`."""
        # for ops that take no generator, such as dropout
        torch.manual_seed(derive_seed(self.config.seed, "step", self.step, self.world.rank))
        stage = self._enter_stage()
        for turn_number, turn in enumerate(stage.turns):
            for repeat in range(turn.times):
                self._move(turn.player, f"{turn_number}/{repeat}")
        self.step += 1
        self._update_averages()

    def logits(self, name: str, batch: Batch) -> Tree:
        """The discriminators' answer to batch[name], augmented; computed once for each batch."""
        key = f"{name} logits"
        if key not in batch:
            sample = batch[name]
            for augment in self.augmentations:
                sample = augment(sample, batch, self.step)
            batch[key] = self.system.discriminate(self, sample, batch)
        return batch[key]

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as plain values and tensors."""
        return {
            "networks": {name: plain_state(net) for name, net in self.networks.items()},
            "averaged": {name: plain_state(net) for name, net in self.averaged.items()},
            "optimizers": {name: opt.state_dict() for name, opt in self.optimizers.items()},
            "progress": {
                "step": self.step,
                "position": self.position,
                "images_seen": self.images_seen,
                "stage": self.stage_number,
            },
            "augmentations": {},
            "health": {"skipped": self.skipped, "skipped_in_a_row": dict(self.skipped_in_a_row)},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave. Raises `CheckpointError` where it does not fit."""
        try:
            for name, network in self.networks.items():
                load_weights(network, state["networks"][name], name)
            for name, network in self.averaged.items():
                load_weights(network, state["averaged"][name], f"averaged {name}")
            for name, optimizer in self.optimizers.items():
                load_moments(optimizer, state["optimizers"][name]["state"], name)
            progress, health = state["progress"], state["health"]
            self.step, self.position = int(progress["step"]), int(progress["position"])
            if self.step < 0 or self.position < 0:
                raise ValueError(f"step {self.step}, position {self.position}")
            self.stage_number = int(progress["stage"])
            self.skipped, in_a_row = int(health["skipped"]), dict(health["skipped_in_a_row"])
            self.skipped_in_a_row = {name: int(in_a_row[name]) for name in self.players}
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(
                "The checkpoint does not fit",
                seen=f"{type(error).__name__}: {error}",
                repair="Use an older copy such as best.pt, or start anew with --force",
            ) from error

    def _enter_stage(self) -> Stage:
        number, progress = stage_at(self.stages, self.step, self.config.steps)
        stage = self.stages[number]
        if number != self.stage_number:
            if stage.enter is not None:
                stage.enter(self)
            self.stage_number = number
        self.knobs = {name: curve(progress) for name, curve in stage.schedules.items()}
        for name, player in self.players.items():
            for group in self.optimizers[name].param_groups:
                group["lr"] = player.learning_rate * self.knobs.get("learning_rate", 1.0)
        return stage

    def _move(self, name: str, purpose: str) -> None:
        player, optimizer = self.players[name], self.optimizers[name]
        due = [o for o in player.objectives if self.step % o.every == 0]
        if not due:
            return
        buffers = [(b, b.clone()) for network in self.networks.values() for b in network.buffers()]
        with self._frozen_but(player):
            batch = self._next_batch(purpose)
            batch |= self.system.generate(self, batch)
            for entry in {entry for objective in due for entry in objective.differentiates}:
                batch[entry] = tree_map(
                    lambda x: x if x.requires_grad else x.detach().requires_grad_(), batch[entry]
                )
            losses = {o.name: o.weight * o.every * o.value(self, batch) for o in due}
            total = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            total.backward()
        parameters = self._parameters(player)
        loss, norm = self.world.average(parameters, total).item(), gradient_norm(parameters)
        if math.isfinite(loss) and math.isfinite(norm):
            self.skipped_in_a_row[name] = 0
            optimizer.step()
            for after in player.after:
                after(self)
            self._record(name, losses, loss, norm, batch)
        else:
            for buffer, before in buffers:  # batch norm would keep what is not finite for ever
                buffer.copy_(before)
            self._skip(name, loss, norm)

    def _next_batch(self, purpose: str) -> Batch:
        """Fresh data and fresh random inputs for one move: a function of seed, step, purpose and position.

        Drawn for the whole batch, of which this process takes its slice.
        """
        size, device, seed = self.system.options.batch_size, self.device, self.config.seed
        mine = self.world.slice
        indices = mine(self._order.indices(self.position, size))
        self.position += size
        batch: Batch = {"real": self.data.images(indices, device)}
        if self.system.classes:
            batch["label"] = self.data.labels_of(indices, device)
        if self.config.mirror:
            source = generator(device, seed, self.step, purpose, "mirror")
            flip = mine(torch.rand((size, 1, 1, 1), generator=source, device=device)) < 0.5
            batch["real"] = torch.where(flip, batch["real"].flip(3), batch["real"])
        for entry in self.graph.inputs:
            if entry.draw is not None and entry.draw.kind in ("normal", "uniform"):
                source = generator(device, seed, self.step, purpose, entry.name)
                batch[entry.name] = mine(draw(entry, size, source))
        batch["source"] = generator(
            device, seed, self.step, purpose, "augmentation", self.world.rank
        )
        return batch

    @contextlib.contextmanager
    def _frozen_but(self, player: Player) -> Iterator[None]:
        """Only the player's own networks collect gradients, so the others record no graph of their own."""
        for name, network in self.networks.items():
            network.requires_grad_(name in player.networks)
        try:
            yield
        finally:
            for network in self.networks.values():
                network.requires_grad_(True)

    def _skip(self, name: str, loss: float, norm: float) -> None:
        """Count a move that is not finite; a player's tenth in a row ends the run."""
        self.skipped += 1
        self.skipped_in_a_row[name] += 1
        logger.warning(
            "Step %d: skipped a move of %s (loss %g, gradient norm %g)", self.step, name, loss, norm
        )
        if self.skipped_in_a_row[name] >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingDivergedError(
                "Training diverged",
                seen=f"{MAX_SKIPPED_IN_A_ROW} moves of {name} in a row with a loss or gradient that is not finite",
                repair="The last checkpoint is good: lower the learning rate or raise r1, and start with --force",
            )

    def _record(
        self, name: str, losses: dict[str, Tensor], loss: float, norm: float, batch: Batch
    ) -> None:
        self.means.add(f"loss/{name}", loss)
        if len(losses) > 1:
            for term, value in losses.items():
                self.means.add(f"loss/{name}/{term}", value.item())
        self.means.add(f"gradient/{name}", norm)
        if "real logits" in batch and "fake logits" in batch:
            real, fake = self.system.accuracy(batch["real logits"], batch["fake logits"])
            self.means.add("accuracy/real", real)
            self.means.add("accuracy/fake", fake)

    @torch.no_grad()
    def _update_averages(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for name, averaged in self.averaged.items():
            live = self.networks[name]
            torch._foreach_lerp_(list(averaged.parameters()), list(live.parameters()), 1.0 - decay)
            for ours, theirs in zip(averaged.buffers(), live.buffers(), strict=True):
                ours.copy_(theirs)

    def _parameters(self, player: Player) -> list[nn.Parameter]:
        return [
            parameter for name in player.networks for parameter in self.networks[name].parameters()
        ]


def stage_at(stages: list[Stage], step: int, steps: int) -> tuple[int, float]:
    """The stage of a step, and the progress in [0, 1) through it."""
    total = sum(stage.share for stage in stages)
    begin = 0.0
    for number, stage in enumerate(stages):
        end = begin + stage.share / total * steps
        if step < end or number == len(stages) - 1:
            return number, min((step - begin) / max(end - begin, 1.0), 1.0)
        begin = end
    raise AssertionError("a system has at least one stage")


def load_moments(optimizer: torch.optim.Adam, moments: dict[int, Any], what: str) -> None:
    """`load_state_dict` of the moments alone: rates and betas are the players'. Checks names and shapes."""
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    for parameter, entry in optimizer.state.items():
        shape = parameter.shape
        wanted = {"step": torch.Size(), "exp_avg": shape, "exp_avg_sq": shape}
        if {name: getattr(value, "shape", None) for name, value in entry.items()} != wanted:
            raise ValueError(f"the optimiser of {what} is of another shape")


def gradient_norm(parameters: list[nn.Parameter]) -> float:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item() if gradients else 0.0
