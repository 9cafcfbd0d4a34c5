"""The torch side of the gate: averaged weights, parametrisations baked, isolation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from gan.export.module import load_source, remove_parametrizations
from gan.trainer import Checkpoint


def test_parametrisations_are_baked_into_the_same_function() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        spectral_norm(nn.Linear(4, 5)), nn.ReLU(), weight_norm(nn.Linear(5, 2))
    ).eval()
    x = torch.randn(3, 4)
    expected = net(x)
    remove_parametrizations(net)
    assert not [name for name, _ in net.named_parameters() if "parametrizations" in name]
    torch.testing.assert_close(net(x), expected)


def test_the_averaged_weights_are_loaded_frozen_and_in_eval_mode(
    make_checkpoint: Callable[..., Path],
) -> None:
    checkpoint = Checkpoint.load(make_checkpoint("cgan", width=4))
    source = load_source(checkpoint, graph=None, system_file=None)
    state = source.module.state_dict()
    assert all(torch.equal(state[k], v) for k, v in checkpoint.content["averaged"]["G"].items())
    assert any(not torch.equal(state[k], v) for k, v in checkpoint.content["networks"]["G"].items())
    assert not source.module.training and not any(
        p.requires_grad for p in source.module.parameters()
    )
