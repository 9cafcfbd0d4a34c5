"""The default metrics: coverage and density (Naeem et al. 2020), overall and within each class; modes of a mixture."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..runtime.inputs import draw_field
from .dataset import Dataset, Mixture
from .features import RandomFeatures, embed
from .parts import Batch, Graph, Live, Metric

K = 5
CHUNK_VALUES = 64 * 3 * 256 * 256  # most values of the samples that are made at once


def coverage_and_density(real: Tensor, fake: Tensor, k: int = K) -> tuple[float, float]:
    """Naeem et al. 2020, eqs. 5 and 6, on features [N, F] and [M, F].

    coverage: share of reals with a fake within the distance of their k-th nearest real. density: fakes in a
    real's ball, over k; near 1 for fakes distributed as the reals.
    """
    k = min(k, len(real) - 1)
    centre = real.mean(0)  # cdist multiplies matrices and loses digits far from the origin
    real, fake = real - centre, fake - centre
    radius = torch.cdist(real, real).kthvalue(k + 1, dim=1).values  # (N,), the nearest is itself
    inside = torch.cdist(real, fake) < radius[:, None]  # (N, M)
    coverage = inside.any(1).float().mean().item()
    density = inside.float().sum(0).mean().item() / k
    return coverage, density


def coverage_within(
    real: Tensor, fake: Tensor, real_labels: Tensor, fake_labels: Tensor, k: int = K
) -> dict[int, float]:
    """Coverage of each class by the fakes of that class; classes of fewer than k + 1 reals are left out."""
    within = {}
    for label in real_labels.unique().tolist():
        ours, theirs = real[real_labels == label], fake[fake_labels == label]
        if len(ours) > k:
            within[label] = coverage_and_density(ours, theirs, k)[0] if len(theirs) else 0.0
    return within


class Coverage:
    """Coverage of the averaged generator's samples, as a fraction of what other reals reach.

    The same latents, labels and reals at every reading: the first `count` samples of seed 0 of the latent
    stream, and a fixed choice of the data.
    """

    def __init__(self, data: Dataset, graph: Graph, device: torch.device, count: int = 512) -> None:
        self._graph = graph
        count = max(2, min(count, len(data) // 2))
        rows = torch.linspace(0, len(data) - 1, 2 * count).long()
        info = data.info
        self._features: nn.Module = nn.Flatten()  # points are their own features
        if info.kind == "image":
            self._features = RandomFeatures(info.channels).to(device)
        seen = embed(self._features, data.samples_of(rows, device))
        self._real, other = seen[0::2], seen[1::2]
        self.real_to_real = max(coverage_and_density(self._real, other)[0], 1e-6)
        self._inputs = drawn_inputs(graph, 0, count, device)
        self._labels = None
        field = graph.signature.label
        if field is not None and data.labels is not None:
            self._asked = self._inputs[field.name]
            labels = torch.from_numpy(data.labels)[rows].to(device)
            self._labels, other_labels = labels[0::2], labels[1::2]
            self._within = coverage_within(self._real, other, self._labels, other_labels)

    def metric(self) -> Metric:
        return Metric("coverage", self.measure, good=(0.7, float("inf")))

    @torch.no_grad()
    def measure(self, live: Live) -> dict[str, float]:
        """coverage and density; with classes also `class_coverage`, the mean of the fractions within each."""
        fakes = run_averaged(self._graph, live, self._inputs)
        seen = embed(self._features, fakes)
        coverage, density = coverage_and_density(self._real, seen)
        values = {"coverage": coverage / self.real_to_real, "density": density}
        if self._labels is not None:
            within = coverage_within(self._real, seen, self._labels, self._asked)
            fractions = [value / max(self._within.get(c, 0.0), 1e-6) for c, value in within.items()]
            fractions = [min(fraction, 2.0) for fraction in fractions]
            values["class_coverage"] = sum(fractions) / max(len(fractions), 1)
            values["worst_class_coverage"] = min(fractions, default=0.0)
        return values


class Modes:
    """Modes of a known mixture that the averaged generator reaches, on the first `count` samples of seed 0."""

    def __init__(
        self, mixture: Mixture, graph: Graph, device: torch.device, count: int = 2_000
    ) -> None:
        self._mixture, self._graph = mixture, graph
        self._inputs = drawn_inputs(graph, 0, count, device)

    def metric(self) -> Metric:
        found = len(self._mixture.centres)
        return Metric("modes", self.measure, good=(0.85 * found, float("inf")))

    @torch.no_grad()
    def measure(self, live: Live) -> dict[str, float]:
        """modes, and near: the share of samples within three deviations of a mode."""
        found, near = modes(run_averaged(self._graph, live, self._inputs).cpu(), self._mixture)
        return {"modes": float(found), "near": near}


def modes(samples: Tensor, mixture: Mixture, within: float | None = None) -> tuple[int, float]:
    """Modes that hold at least 5 % of their fair share of samples, and the share of samples near any.

    within: the distance that counts as near; by default three deviations, as in the literature.
    """
    centres = torch.from_numpy(mixture.centres)
    distance, nearest = torch.cdist(samples, centres).min(1)
    near = distance < (3 * mixture.deviation if within is None else within)
    counts = torch.bincount(nearest[near], minlength=len(centres))
    enough = counts >= max(0.05 * len(samples) / len(centres), 1)
    return int(enough.sum()), near.float().mean().item()


class Likeness:
    """How near the averaged generator's images are to the truths of the examples."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def metric(self) -> Metric:
        return Metric("psnr", self.measure, good=(20.0, float("inf")))

    @torch.no_grad()
    def measure(self, live: Live) -> dict[str, float]:
        """psnr of all pixels together in dB, and l1, of images in [-1, 1]."""
        truth = live.examples["real"]
        made = run_averaged(self._graph, live, live.examples)
        return {"psnr": psnr(made, truth), "l1": (made - truth).abs().mean().item()}


def psnr(made: Tensor, truth: Tensor) -> float:
    """10 log10(2^2 / E (x - y)^2) of images in [-1, 1]: of all pixels together, so that flat images do not rule it."""
    error = (made.clamp(-1, 1) - truth).square().mean().item()
    return 10 * math.log10(4 / max(error, 4e-12))


def default_metrics(data: Dataset, graph: Graph, device: torch.device) -> list[Metric]:
    """Coverage of images and points, after the modes where they are known; likeness to the truth where the graph
    takes what the data gives; none for fewer than 8 samples."""
    if graph.outputs[0].kind not in ("image", "points") or len(data) < 8:
        return []
    if takes_data(graph):
        return [Likeness(graph).metric()]
    found = [Modes(data.mixture, graph, device).metric()] if data.mixture else []
    return [*found, Coverage(data, graph, device).metric()]


def takes_data(graph: Graph) -> bool:
    """Whether an input of the graph is not drawn: it comes from the data."""
    return any(field.draw is None for field in graph.inputs)


def drawn_inputs(graph: Graph, seed: int, count: int, device: torch.device) -> dict[str, Tensor]:
    """The inputs of images 0 to count - 1 of a seed of the latent stream; shared ones are one row, repeated."""
    inputs = {}
    for field in graph.inputs:
        shared = field.draw is not None and field.draw.shared
        drawn = draw_field(field, 0 if shared else seed, range(1 if shared else count), each=True)
        inputs[field.name] = torch.from_numpy(drawn).to(device).expand(count, *drawn.shape[1:])
    return inputs


@torch.no_grad()
def run_averaged(graph: Graph, live: Live, inputs: Batch, chunk: int | None = None) -> Tensor:
    """The graph's main output for all inputs, by the averaged networks, some at a time."""
    module = graph.build(live.averaged)
    given = [inputs[field.name] for field in graph.inputs]
    count = len(given[0])
    largest = max(graph.signature.example_values, *(x[0].numel() for x in given))
    chunk = chunk or max(1, min(64, CHUNK_VALUES // largest))
    parts = []
    for start in range(0, count, chunk):
        output = module(*(x[start : start + chunk] for x in given))
        parts.append(output if isinstance(output, Tensor) else output[0])
    return torch.cat(parts)
