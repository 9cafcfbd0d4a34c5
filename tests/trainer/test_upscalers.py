"""RRDBNet: the published size, its input's range, and how far it sees."""

from __future__ import annotations

import pytest
import torch

from gan.trainer.system import parameter_count
from gan.trainer.upscalers import RRDBNet

from .published import randomised


@pytest.mark.parametrize(
    ("scale", "unshuffle", "parameters"),
    [(4, 1, 16_697_987), (2, 2, 16_703_171), (1, 4, 16_723_907)],  # 9 * 64 more for each channel
)
def test_the_published_sizes(scale: int, unshuffle: int, parameters: int) -> None:
    with torch.device("meta"):
        network = RRDBNet(3, 64, 23, 32, scale, unshuffle)
    assert parameter_count(network) == parameters


@pytest.mark.parametrize(
    ("scale", "unshuffle"), [(1, 1), (2, 1), (4, 1), (8, 1), (2, 2), (1, 4), (4, 2), (1, 2)]
)
def test_sizes_and_radius(scale: int, unshuffle: int) -> None:
    network = randomised(RRDBNet(1, 3, 1, 2, scale, unshuffle)).double()
    radius = RRDBNet.radius(1, scale, unshuffle)
    side = unshuffle * (2 * radius // unshuffle + 4)
    x = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    y = network(x)
    assert y.shape == (1, 1, scale * side, scale * side)
    reach = 0
    for here in range(side // 2, side // 2 + unshuffle):  # each place within a unit
        for place in range(scale * here, scale * (here + 1)):
            (gradient,) = torch.autograd.grad(y[0, 0, place].sum(), x, retain_graph=True)
            seen = gradient[0, 0].abs().sum(1).nonzero().flatten()
            reach = max(reach, here - int(seen.min()), int(seen.max()) - here)
    assert reach == radius  # no less would do, no more is needed


def test_its_blocks_begin_as_multiples_of_their_input() -> None:
    """Small first weights: a dense block is nearly the identity, so x + a fifth of three of them is 1.2 x."""
    torch.manual_seed(0)
    network = RRDBNet(3, 16, 2, 8, 2)
    x = torch.rand(2, 16, 8, 8)
    assert 0.0 < (network.body(x) - 1.2**2 * x).abs().max() < 0.05
