"""The torch side of the gate: averaged weights, parametrisations baked, the inputs of the proof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from gan.export.module import (
    SEED,
    Source,
    check_isolation,
    draw_inputs,
    graph_names,
    load_source,
    remove_parametrizations,
)
from gan.runtime import Draw, ExportError, Field, InputError, Signature
from gan.runtime.inputs import check_input, draw_field, stand_in
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


def test_the_graphs_of_a_checkpoint_are_named_the_main_one_first(
    make_checkpoint: Callable[..., Path],
) -> None:
    small = {
        "width": 4,
        "max_width": 8,
        "latent": 4,
        "style": 4,
        "mapping_layers": 2,
        "embedding": 3,
    }
    checkpoint = Checkpoint.load(make_checkpoint("stylegan2", **small, projection=4))
    assert graph_names(checkpoint, system_file=None) == ["image", "mapping", "synthesis"]
    default = load_source(checkpoint, graph=None, system_file=None)
    assert default.graph == "image"
    for name, kinds in (("image", "image"), ("mapping", "style"), ("synthesis", "image")):
        source = load_source(checkpoint, graph=name, system_file=None)
        assert source.graph == name and source.signature.main.kind == kinds
        assert not [key for key in source.module.state_dict() if "parametrizations" in key]
        (output,) = source.run(source.inputs(3))
        assert output.shape == (3, *source.signature.main.shape)
    with pytest.raises(InputError, match=r"'nosuch'\. Choose one of image, mapping, synthesis"):
        load_source(checkpoint, graph="nosuch", system_file=None)
    plain = Checkpoint.load(make_checkpoint("dcgan", width=4))
    assert graph_names(plain, system_file=None) == ["image"]


# The inputs of the proof.

Z = Field("z", (4,), draw=Draw("normal"))
PSI = Field("truncation", (), "scalar", range=(-2.0, 2.0), draw=Draw("fixed", value=1.0))
NOISE = Field("noise", (1, 8, 8), "noise", draw=Draw("normal", 16, shared=True))
W = Field("w", (3, 6), "style")


def test_what_sample_draws_is_drawn_for_the_proof_too() -> None:
    label = Field("label", (), "label", "int64", (0, 9), Draw("choice", 1))
    inputs = draw_inputs((Z, label), 5)
    assert list(inputs) == ["z", "label"]
    for field in (Z, label):
        np.testing.assert_array_equal(inputs[field.name], draw_field(field, SEED, range(5)))


@pytest.mark.parametrize(
    ("low", "high", "value"),
    [(-2.0, 2.0, 1.0), (0.0, 1.0, 1.0), (0.0, 1.0, 0.0), (-3.0, 5.0, -2.0)],
)
def test_what_is_fixed_takes_values_from_there_to_the_middle_of_its_range(
    low: float, high: float, value: float
) -> None:
    psi = Field("psi", (), "scalar", range=(low, high), draw=Draw("fixed", value=value))
    drawn = draw_inputs((Z, psi), 400)["psi"]
    assert drawn.dtype == np.float32 and drawn.shape == (400,)
    middle = (low + high) / 2
    first, last = sorted((value, middle))
    assert first <= drawn.min() and drawn.max() <= last
    assert np.ptp(drawn) > 0.95 * (last - first)
    assert abs(drawn.mean() - (first + last) / 2) < 0.1 * (last - first)
    check_input(psi, drawn)


@pytest.mark.parametrize("field", [PSI, NOISE, W, Z])
def test_no_two_samples_of_the_proof_have_the_same_input(field: Field) -> None:
    drawn = draw_inputs((Z, field) if field is not Z else (Z,), 16)[field.name]
    assert len({row.tobytes() for row in drawn}) == 16


def test_what_is_fixed_without_a_range_stays() -> None:
    level = Field("level", (2,), "scalar", draw=Draw("fixed", value=3.0))
    assert (draw_inputs((level,), 4)["level"] == 3.0).all()


def test_what_the_caller_brings_has_a_stand_in_and_two_inputs_do_not_repeat_each_other() -> None:
    other = Field("v", (3, 6), "style")
    inputs = draw_inputs((W, Z, other), 6)
    np.testing.assert_array_equal(inputs["w"], stand_in(W, 0, SEED, range(6)))
    np.testing.assert_array_equal(inputs["v"], stand_in(other, 2, SEED, range(6)))
    assert not np.array_equal(inputs["w"], inputs["v"])
    twice = draw_inputs(
        tuple(
            Field(name, (), "scalar", range=(0, 4), draw=Draw("fixed", value=0)) for name in "ab"
        ),
        6,
    )
    assert not np.array_equal(twice["a"], twice["b"])


def test_the_inputs_of_a_later_sample_are_the_same_whatever_the_batch() -> None:
    fields = (Z, PSI, NOISE, W)
    whole = draw_inputs(fields, 9)
    for name, values in draw_inputs(fields, 4, start=3).items():
        np.testing.assert_array_equal(values, whole[name][3:7])


def test_the_proof_has_other_inputs_than_the_golden_sample_whose_seed_is_0() -> None:
    for name, values in draw_inputs((Z, NOISE), 2).items():
        field = {"z": Z, "noise": NOISE}[name]
        assert not np.array_equal(values, draw_field(field, 0, range(2), each=True))


class Coupled(nn.Module):
    """z, and a little of how many there are: in float32, in float64, or in both."""

    def __init__(self, *dtypes: torch.dtype, breaks: bool = False) -> None:
        super().__init__()
        self.dtypes, self.breaks = dtypes, breaks

    def forward(self, z: Tensor) -> Tensor:
        if self.breaks and z.dtype == torch.float64:
            raise RuntimeError("no float64 here")
        return z + 1e-4 * (len(z) - 1) * (z.dtype in self.dtypes)


def source_of(module: nn.Module) -> Source:
    z, out = Field("z", (3,), "latent", draw=Draw("normal")), Field("points", (3,), "points")
    nothing: Any = None
    return Source(nothing, nothing, "points", Signature((z,), (out,)), module)


def test_where_float32_couples_samples_float64_decides_whether_it_was_rounding() -> None:
    single, double = torch.float32, torch.float64
    for sound in (Coupled(), Coupled(double), Coupled(single), Coupled(breaks=True)):
        check_isolation(source_of(sound))
    for unsound in (Coupled(single, double), Coupled(single, breaks=True)):
        with pytest.raises(ExportError, match=r"depends on the other samples.*differ by 0\.00035"):
            check_isolation(source_of(unsound))
