"""One training step: the turns of the stage, the moves of a turn, the loss of a move. Knows no system by name."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from ..runtime.errors import CheckpointError, TrainingDivergedError
from .checkpoint import load_weights, plain_state
from .config import Config, default_ema_decay
from .dataset import Dataset
from .distributed import ALONE, World, check_batch
from .optimizers import load_moments, make, set_rates
from .parts import Batch, Objective, Player, Stage, Turn
from .randomness import DataOrder, derive_seed, draw, generator
from .system import System
from .trees import Tree, tree_map
from .unroll import foresee, without_logits
from .windows import cut, flips, mirror, places, zoomed_size

logger = logging.getLogger("gan.trainer")

MAX_SKIPPED_IN_A_ROW = 10
DIVERGED = "Lower the learning rates or raise r1, and start anew with --force"
EXAMPLES, EXAMPLE_VALUES = 256, 256 * 3 * 64 * 64


@dataclass
class Means:
    """Running means of named numbers since the last reading."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0) + 1

    def mean(self, name: str) -> float | None:
        return self.sums[name] / self.counts[name] if name in self.sums else None

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
        self.system, self.data, self.config, self.device = system, data, config, device
        self.world = world
        torch.manual_seed(derive_seed(config.seed, "initial weights"))
        self.networks = {name: net.to(device).train() for name, net in system.build().items()}
        self.players = system.players()
        self.averaged = {
            name: copy.deepcopy(self.networks[name]).eval().requires_grad_(False)
            for player in self.players.values()
            if player.averaged
            for name in player.networks
        }
        self.optimizers = {
            name: make(
                player.optimizer,
                self._parameters(player),
                player.learning_rate,
                player.betas,
                player.weight_decay,
            )
            for name, player in self.players.items()
        }
        self.stages = system.stages()
        for stage in self.stages:
            size = stage.batch_size or system.options.batch_size
            check_batch(size, world, system.options.accumulate)
        self.augmentations = system.augmentations()
        self.graph = next(iter(system.graphs().values()))
        self.knobs: dict[str, float] = {}
        self.means = Means()
        self.step = self.position = self.images_seen = self.skipped = 0
        self.planned = config.steps  # for which the stages were laid out
        self._generated: Batch | None = None  # of the move before, for a turn that reuses it
        self._told_right: float | None = None  # share of the reals that D told right in this step
        self.skipped_in_a_row = dict.fromkeys(self.players, 0)
        self._skipped_with: dict[tuple[str, str], int] = {}  # in a row, of those with an objective
        self.stage_number = -1
        self._order = DataOrder(len(data), config.seed)
        self._partner_order = None  # that of the samples
        if data.partners is not None and data.arrangement == "unpaired":
            own = derive_seed(config.seed, "partners")
            self._partner_order = DataOrder(len(data.partners), own)
        self._examples: Batch | None = None
        self._infinite = {  # from the start, and so by intention, as a mask of attention is
            (name, of) for name, network in self.networks.items()
            for of, buffer in network.named_buffers() if not all_finite([buffer])
        }  # fmt: skip

    @property
    def sound(self) -> bool:
        """Whether all weights and buffers are finite, of the networks and their averages."""
        return all_finite(self._numbers_of(self.networks) + self._numbers_of(self.averaged))

    @property
    def batch_size(self) -> int:
        """Samples a move in the present stage, of all processes."""
        stage, _ = stage_at(self.stages, self.step, self.config.steps, self.planned)
        return self.stages[stage].batch_size or self.system.options.batch_size

    def run_step(self) -> None:
        """All turns of the present stage, once. Raises `TrainingDivergedError`."""
        # for ops that take no generator, such as dropout
        torch.manual_seed(derive_seed(self.config.seed, "step", self.step, self.world.rank))
        stage = self._enter_stage()
        self._generated = self._told_right = None
        for number, turn in enumerate(stage.turns):
            for repeat in range(turn.moves(self.step)):
                self._move(turn, f"{number}/{repeat}", stage.turns[number + 1 : number + 2])
        self._adapt()
        self.world.share([b for network in self.networks.values() for b in network.buffers()])
        size = self.batch_size  # of this step's stage
        self.images_seen += size
        self.step += 1
        self._update_averages(size)

    def logits(self, name: str, batch: Batch) -> Tree:
        """The discriminators' answer to batch[name], augmented; computed once for each batch."""
        key = f"{name} logits"
        if key not in batch:
            sample = batch[name]
            for augment in self.augmentations:
                if not (augment.reals_only or augment.fakes_only):
                    sample = augment(self, sample, batch)
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
                "planned": self.planned,
            },
            "augmentations": {a.name: a.state() for a in self.augmentations},
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
            learnt = dict(state["augmentations"])
            for augmentation in self.augmentations:
                if augmentation.name in learnt:  # else it was accepted just now
                    augmentation.load_state(learnt[augmentation.name])
            progress, health = state["progress"], state["health"]
            self.step, self.position = int(progress["step"]), int(progress["position"])
            self.images_seen, self.planned = int(progress["images_seen"]), int(progress["planned"])
            if min(self.step, self.position, self.images_seen) < 0 or self.planned < 1:
                raise ValueError(f"step {self.step}, position {self.position}, {self.planned=}")
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
        number, progress = stage_at(self.stages, self.step, self.config.steps, self.planned)
        stage = self.stages[number]
        if number != self.stage_number:
            # all that were passed: one may be shorter than a step
            passed = self.stages[self.stage_number + 1 : number + 1]
            if any(entered.fresh_optimizers for entered in passed):
                for optimizer in self.optimizers.values():
                    optimizer.state.clear()
            self.stage_number = number
        self.knobs = {name: curve(progress) for name, curve in stage.schedules.items()}
        for name, player in self.players.items():
            rate = player.learning_rate * self.knobs.get("learning_rate", 1.0)
            set_rates(self.optimizers[name], rate, self.knobs.get("beta2", player.betas[1]))
        return stage

    def _move(self, turn: Turn, purpose: str, following: Sequence[Turn]) -> None:
        """One move of the turn's player. following: the next turn, if there is one."""
        player, optimizer = self.players[turn.player], self.optimizers[turn.player]
        due = self._due(player)
        if not due:
            return
        buffers = [(b, b.clone()) for network in self.networks.values() for b in network.buffers()]
        optimizer.zero_grad()
        parts = self.system.options.accumulate
        losses, readings = torch.zeros(len(due), device=self.device), Means()
        for batch in self._play(turn, player, purpose, following):
            values = self._losses(player, due, batch)
            (values.sum() / parts).backward()
            losses += values.detach() / parts
            self._read(batch, readings)
        parameters = self._parameters(player)
        if not all_finite(self._numbers_of(self.networks, weights=False)):
            losses += math.nan  # as bad, and in a mean that all processes share
        losses, right = self._together(parameters, losses, readings)
        loss, norm = losses.sum().item(), gradient_norm(parameters)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            for buffer, before in buffers:  # batch norm would keep what is not finite for ever
                buffer.copy_(before)
            self._generated = None
            self._skip(turn.player, due, loss, norm)
            return
        self.skipped_in_a_row[turn.player] = 0
        self._skipped_with |= {(turn.player, objective.name): 0 for objective in due}
        self._told_right = self._told_right if right is None else right
        moved = not (player.skip_below and losses[0].item() < player.skip_below)
        if moved:
            if player.clip_gradient:
                clip_grad_norm_(parameters, player.clip_gradient)
            optimizer.step()
            for after in player.after:
                after(self)
        if player.skip_below:
            self.means.add(f"moved/{turn.player}", float(moved))
        names = [objective.name for objective in due]
        self._record(turn.player, dict(zip(names, losses.tolist(), strict=True)), norm, readings)

    def _play(
        self, turn: Turn, player: Player, purpose: str, following: Sequence[Turn]
    ) -> Iterator[Batch]:
        """The move's batch, part by part, with all that was generated."""
        if turn.reuse and self._generated is not None:
            yield {**self._generated}
            return
        keep = next((t.player for t in following if t.reuse), None)  # it will need the graph
        movers = [player] if keep is None else [player, self.players[keep]]
        for batch in split(self._next_batch(purpose), self.system.options.accumulate):
            with self._frozen_but(*movers):
                generated = self.system.generate(self, batch)
            if keep is not None:
                self._generated = batch | generated
                generated = {name: tree_map(Tensor.detach, v) for name, v in generated.items()}
            if not player.averaged and "fake" in generated:
                for augment in self.augmentations:
                    if augment.fakes_only:
                        pooled = augment(self, tree_map(Tensor.detach, generated["fake"]), batch)
                        generated = generated | {"fake": pooled}
            yield batch | generated

    def _losses(self, player: Player, due: list[Objective], batch: Batch) -> Tensor:
        """The weighted objectives on one batch, (len(due),), with the player's networks alone to be differentiated."""
        with self._frozen_but(player):
            _prepare(batch, due)
            with self._foresight(player, batch):
                return torch.stack([self._weight(o) * o.value(self, batch) for o in due])

    def _due(self, player: Player) -> list[Objective]:
        """The objectives of this step, those left out that a knob has turned off."""
        return [
            o
            for o in player.objectives
            if self.step % o.every == 0 and self.knobs.get(f"weight/{o.name}") != 0.0
        ]

    def _weight(self, objective: Objective) -> float:
        return objective.weight * objective.every * self.knobs.get(f"weight/{objective.name}", 1.0)

    @contextlib.contextmanager
    def _foresight(self, player: Player, batch: Batch) -> Iterator[None]:
        """For an unrolling player the networks of its opponents, the players of the other side, are those of some moves
        later, as functions of its own. One that has nothing due in this stage stays."""
        present = self.networks
        for name, other in self.players.items() if player.unroll else ():
            if other.averaged != player.averaged and self._due(other):
                loss = functools.partial(self._loss_with, other, batch)
                self.networks = self.networks | foresee(
                    other, present, self.optimizers[name], loss, player.unroll
                )
        try:
            yield
        finally:
            self.networks = present

    def _loss_with(self, player: Player, batch: Batch, networks: Mapping[str, nn.Module]) -> Tensor:
        """A player's loss on a batch with other networks in the place of its own."""
        present, self.networks = self.networks, self.networks | dict(networks)
        try:
            due = self._due(player)
            fresh = without_logits(batch)
            _prepare(fresh, due)
            return torch.stack([self._weight(o) * o.value(self, fresh) for o in due]).sum()
        finally:
            self.networks = present

    def _next_batch(self, purpose: str) -> Batch:
        """Fresh data and fresh random inputs for one move: a function of seed, step, purpose and position.

        Drawn for the whole batch, of which this process takes its slice.
        """
        size, device, seed = self.batch_size, self.device, self.config.seed
        mine = self.world.slice
        position = self.position
        indices = mine(self._order.indices(position, size))
        self.position += size
        batch: Batch = {"real": self.data.samples_of(indices, device, whole=True)}
        if self.system.classes:
            batch["label"] = self.data.labels_of(indices, device)
        if self.data.partners is not None:
            theirs = (
                indices
                if self._partner_order is None
                else mine(self._partner_order.indices(position, size))
            )
            batch["partner"] = self.data.partners_of(theirs, device, whole=True)
        self._cut_and_mirror(batch, purpose)
        for entry in self.graph.inputs:
            if entry.draw is not None and entry.draw.kind in ("normal", "uniform"):
                source = generator(device, seed, self.step, purpose, entry.name)
                batch[entry.name] = mine(draw(entry, size, source))
        batch["source"] = generator(
            device, seed, self.step, purpose, "augmentation", self.world.rank
        )
        for augment in self.augmentations:
            if augment.reals_only:
                batch["real"] = augment(self, batch["real"], batch)
        return self.system.prepare(batch)

    def _cut_and_mirror(self, batch: Batch, purpose: str) -> None:
        """Random windows and mirror images, alike of a pair; of unpaired images each side has its own."""
        paired = self.data.arrangement == "pairs"
        sides = [n for n in ("real", "partner") if n in batch]
        for names in [sides] if paired else [[name] for name in sides]:
            images = [batch[name] for name in names]
            about = purpose if names[0] == "real" else f"{purpose}/partner"
            if self.data.window is not None:
                source = generator(self.device, self.config.seed, self.step, about, "window")
                whole = zoomed_size(images[0].shape[2], self.config.zoom, source)
                begin = places(self.batch_size, whole, self.data.window, source)
                images = cut(images, self.world.slice(begin), self.data.window, whole=whole)
            if self.config.mirror:
                source = generator(self.device, self.config.seed, self.step, about, "mirror")
                images = mirror(images, self.world.slice(flips(self.batch_size, source)))
            batch |= dict(zip(names, images, strict=True))

    @property
    def examples(self) -> Batch:
        """Up to EXAMPLES of the data, fewer of large images, evenly chosen, prepared as a batch; always the same."""
        if self._examples is None:
            fitting = max(16, EXAMPLE_VALUES // math.prod(self.data.info.shape))
            count = min(EXAMPLES, fitting, len(self.data))
            rows = torch.linspace(0, len(self.data) - 1, count).long()
            batch: Batch = {"real": self.data.samples_of(rows, self.device)}
            if self.system.classes:
                batch["label"] = self.data.labels_of(rows, self.device)
            partners = self.data.partners
            if partners is not None:
                theirs = torch.linspace(0, len(partners) - 1, count).long()
                batch["partner"] = self.data.partners_of(theirs, self.device)
            batch["source"] = generator(self.device, self.config.seed, "examples")
            self._examples = self.system.prepare(batch)
        return self._examples

    @contextlib.contextmanager
    def _frozen_but(self, *players: Player) -> Iterator[None]:
        """Only the players' own networks collect gradients, so the others record no graph of their own."""
        free = {name for player in players for name in player.networks}
        for name, network in self.networks.items():
            network.requires_grad_(name in free)
        try:
            yield
        finally:
            for network in self.networks.values():
                network.requires_grad_(True)

    def _skip(self, name: str, due: Sequence[Objective], loss: float, norm: float) -> None:
        """Count a move that is not finite; a player's tenth in a row ends the run, or the tenth with a lazy objective."""
        self.skipped += 1
        self.skipped_in_a_row[name] += 1
        logger.warning(
            "Step %d: skipped a move of %s (loss %g, gradient norm %g)", self.step, name, loss, norm
        )
        most, what = self.skipped_in_a_row[name], name
        for objective in due:
            key = (name, objective.name)
            self._skipped_with[key] = self._skipped_with.get(key, 0) + 1
            if self._skipped_with[key] > most:
                most, what = self._skipped_with[key], f"{name} with {objective.name}"
        if most >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingDivergedError(
                "Training diverged",
                seen=f"{most} moves of {what} in a row with a loss, gradient or buffer that is not finite",
                repair=DIVERGED,
            )

    def _read(self, batch: Batch, readings: Means) -> None:
        if "real logits" in batch and "fake logits" in batch:
            told = self.system.readings(batch["real logits"], batch["fake logits"])
            for name, value in told.items():
                readings.add(name, value)

    def _together(
        self, parameters: list[nn.Parameter], losses: Tensor, readings: Means
    ) -> tuple[Tensor, float | None]:
        """Gradients averaged over the processes; the same of the losses, and of the share of reals told right."""
        share = readings.mean("accuracy/real")
        known = torch.cat([losses, losses.new_tensor([share or 0.0])])
        known = self.world.average(parameters, known)
        return known[:-1], None if share is None else known[-1].item()

    def _adapt(self) -> None:
        """Let augmentations learn from the step's last reading."""
        for augmentation in self.augmentations:
            if augmentation.adapts and self._told_right is not None:
                augmentation.adapt(self, self._told_right)
            for name, value in augmentation.state().items():
                if isinstance(value, float):
                    self.means.add(f"augmentation/{augmentation.name}/{name}", value)

    def _record(self, name: str, losses: dict[str, float], norm: float, readings: Means) -> None:
        self.means.add(f"loss/{name}", sum(losses.values()))
        if len(losses) > 1:
            for term, value in losses.items():
                self.means.add(f"loss/{name}/{term}", value)
        self.means.add(f"gradient/{name}", norm)
        for reading, value in readings.take().items():
            self.means.add(reading, value)

    @torch.no_grad()
    def _update_averages(self, batch_size: int) -> None:
        decay = min(self._decay(batch_size), (1 + self.step) / (10 + self.step))
        if not all_finite(self._numbers_of({name: self.networks[name] for name in self.averaged})):
            return  # an average would keep it for ever
        for name, averaged in self.averaged.items():
            live = self.networks[name]
            torch._foreach_lerp_(list(averaged.parameters()), list(live.parameters()), 1.0 - decay)
            for ours, theirs in zip(averaged.buffers(), live.buffers(), strict=True):
                ours.copy_(theirs)

    def _decay(self, batch_size: int) -> float:
        """Of the averages: the configured one, else that of a half-life in images, else that of the run's length.

        A half-life is at most a twentieth of the images seen (Karras et al. 2020b, appendix C).
        """
        half_life = self.knobs.get("ema_half_life")
        if self.config.ema_decay is not None:
            return self.config.ema_decay
        if half_life is None:
            return default_ema_decay(self.config.steps)
        half_life = min(half_life, 0.05 * self.images_seen)
        return 0.5 ** (batch_size / max(half_life, 1e-3))

    def _numbers_of(
        self, networks: Mapping[str, nn.Module], *, weights: bool = True
    ) -> list[Tensor]:
        """Weights and buffers that are to be finite."""
        found: list[Tensor] = []
        for name, network in networks.items():
            found += network.parameters() if weights else ()
            found += [b for of, b in network.named_buffers() if (name, of) not in self._infinite]
        return found

    def _parameters(self, player: Player) -> list[nn.Parameter]:
        return [
            parameter for name in player.networks for parameter in self.networks[name].parameters()
        ]


def stage_at(
    stages: list[Stage], step: int, steps: int, planned: int | None = None
) -> tuple[int, float]:
    """The stage of a step, and the progress in [0, 1) through it.

    planned: the steps for which the stages were laid out, by default all. The last stage ends with the run, so a run
    that grows does not fall back into an earlier one.
    """
    planned = steps if planned is None else planned
    total = sum(stage.share for stage in stages)
    begin = 0.0
    for number, stage in enumerate(stages):
        last = number == len(stages) - 1
        end = float(steps) if last else begin + stage.share / total * planned
        if step < end or last:
            return number, min((step - begin) / max(end - begin, 1.0), 1.0)
        begin = end
    raise AssertionError("a system has at least one stage")


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """A batch in equal parts, one after the other; what is no tensor goes along with each."""
    for part in range(parts):

        def take(x: Tensor, part: int = part) -> Tensor:
            return x.chunk(parts)[part]

        yield {n: x if n == "source" else tree_map(take, x) for n, x in batch.items()}


def _prepare(batch: Batch, due: list[Objective]) -> None:
    """Let the objectives differentiate by the entries that they name."""
    for entry in {entry for objective in due for entry in objective.differentiates}:
        batch[entry] = tree_map(
            lambda x: x if x.requires_grad else x.detach().requires_grad_(), batch[entry]
        )


@torch.no_grad()
def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every number is finite, of those tensors that hold any with a fraction."""
    numbers = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not numbers:
        return True
    return bool(torch.stack(torch._foreach_norm(numbers, math.inf)).isfinite().all())


def gradient_norm(parameters: list[nn.Parameter]) -> float:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item() if gradients else 0.0
