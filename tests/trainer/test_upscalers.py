"""RRDBNet: the published size, its input's range, and how far it sees."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from gan.runtime.errors import InputError
from gan.trainer import systems
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.parts import DataInfo
from gan.trainer.system import parameter_count
from gan.trainer.upscalers import RRDBNet

from .conftest import training
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


def test_a_system_is_trained_with_it() -> None:
    kind, _ = systems.load("srgan")
    options: dict[str, int | str] = {
        "generator": "rrdb", "width": 4, "blocks": 1, "growth": 2, "scale": 2, "unshuffle": 2, "d_width": 2,
        "batch_size": 2,
    }  # fmt: skip
    data = Dataset("noise", np.zeros((4, 3, 16, 16), np.uint8), None, ())
    run = training(kind, data=data, options=make_options(kind, data.info, options))
    before = [p.clone() for p in run.networks["G"].parameters()]
    run.run_step()
    assert isinstance(run.networks["G"], RRDBNet)
    assert any(
        not torch.equal(a, b) for a, b in zip(before, run.networks["G"].parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"generator": "rrdb", "norm": "batch"}, "The setting norm was refused. batch"),
        ({"unshuffle": 2}, "The setting unshuffle was refused. 2"),
        ({"generator": "rrdb", "scale": 4, "unshuffle": 4}, "made 16 times smaller"),
        ({"generator": "rrdb", "scale": 3}, "The setting scale was refused"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(given: dict[str, Any], said: str) -> None:
    kind, _ = systems.load("srgan")
    data = DataInfo((3, 24, 24))
    with pytest.raises(InputError, match=re.escape(said)):
        kind(make_options(kind, data, given), data)
