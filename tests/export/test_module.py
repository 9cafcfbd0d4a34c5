"""The torch side of the gate: averaged weights, parametrisations baked, the inputs of the proof."""

from __future__ import annotations

import dataclasses
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
    check_radius,
    check_sizes,
    draw_inputs,
    graph_names,
    load_source,
    other_sizes,
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


# Generators that take images: all sizes, the stated radius, isolation.

PICTURE = Field("image", (1, "h", "w"), "image", range=(-1.0, 1.0))
MASK = Field("mask", (1, "h", "w"), "mask", range=(0.0, 1.0))


def made(factor: int = 1) -> Field:
    axes = ("h", "w") if factor == 1 else (f"{factor}*h", f"{factor}*w")
    return Field("made", (1, *axes), "image", range=(-1.0, 1.0))


def translating(module: nn.Module, signature: Signature) -> Source:
    nothing: Any = None
    return Source(nothing, nothing, "made", signature, module.eval())


def of_image(module: nn.Module, *, factor: int = 1, radius: int | None = None, least: int = 1) -> Source:  # fmt: skip
    return translating(module, Signature((PICTURE,), (made(factor),), (), radius, least))


def conv(kernel: tuple[int, int], padding: tuple[int, int] | str, dilation: int = 1) -> nn.Conv2d:
    """A convolution of which no weight is near 0."""
    layer = nn.Conv2d(1, 1, kernel, padding=padding, dilation=dilation)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(layer.weight.shape) * 0.5 + 0.2)
    return layer


def upscaled(scale: int) -> nn.Sequential:
    """Reaches 2 + 1 pixels of the small image."""
    return nn.Sequential(
        conv((5, 5), "same"), nn.Upsample(scale_factor=float(scale)), conv((3, 3), "same")
    )


LOCAL: list[tuple[nn.Module, int, int]] = [
    (conv((1, 1), "same"), 1, 0),
    (conv((7, 7), "same"), 1, 3),
    (nn.Sequential(conv((3, 3), "same"), nn.Tanh(), conv((3, 3), "same")), 1, 2),
    (conv((3, 3), "same", dilation=4), 1, 4),
    (conv((9, 1), "same"), 1, 4),
    (conv((1, 9), "same"), 1, 4),
    (nn.Sequential(nn.ZeroPad2d((4, 0, 2, 2)), conv((5, 5), (0, 0))), 1, 4),  # sees left alone
    (nn.Sequential(nn.ZeroPad2d((0, 4, 2, 2)), conv((5, 5), (0, 0))), 1, 4),
    (nn.Sequential(nn.ZeroPad2d((2, 2, 4, 0)), conv((5, 5), (0, 0))), 1, 4),
    (nn.Sequential(nn.ZeroPad2d((2, 2, 0, 4)), conv((5, 5), (0, 0))), 1, 4),
    (upscaled(2), 2, 3),
    (upscaled(4), 4, 3),
]


@pytest.mark.parametrize(("module", "factor", "radius"), LOCAL)
def test_the_true_radius_passes_and_one_pixel_less_is_refused(
    module: nn.Module, factor: int, radius: int
) -> None:
    for larger in (radius, radius + 1, radius + 10):
        check_radius(of_image(module, factor=factor, radius=larger))
    if radius:
        with pytest.raises(ExportError, match=rf"A radius of {radius - 1} pixels"):
            check_radius(of_image(module, factor=factor, radius=radius - 1))
    check_radius(of_image(module, factor=factor))  # states none


def test_a_mask_counts_as_the_image_does_and_what_is_no_image_is_left_alike() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.far = conv((7, 7), "same")

        def forward(self, image: Tensor, mask: Tensor, z: Tensor) -> Tensor:
            return image + self.far(mask) + z[:, :1, None, None]

    fields = (PICTURE, MASK, Field("z", (2,), draw=Draw("normal")))
    check_radius(translating(Masked(), Signature(fields, (made(),), radius=3)))
    with pytest.raises(ExportError, match="A radius of 2 pixels"):
        check_radius(translating(Masked(), Signature(fields, (made(),), radius=2)))


def test_a_norm_over_the_image_has_no_radius() -> None:
    for norm in (nn.InstanceNorm2d(1), nn.GroupNorm(1, 1)):
        module = nn.Sequential(conv((3, 3), "same"), norm)
        with pytest.raises(ExportError, match="None where norms read the whole image"):
            check_radius(of_image(module, radius=40))
    check_radius(of_image(nn.Sequential(conv((3, 3), "same"), nn.BatchNorm2d(1)), radius=1))


def test_a_radius_of_axes_that_are_multiples_is_in_pixels() -> None:
    """Unshuffled by 2: a convolution of three places there reaches 3 pixels, on the far side of its own two."""
    module = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 4, 3, padding=1), nn.PixelShuffle(2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.rand(parameter.shape) * 0.1 + 0.05)
    fields = [Field(n, (1, "2*h", "2*w"), "image", range=(-1.0, 1.0)) for n in ("image", "made")]
    signature = Signature((fields[0],), (fields[1],), radius=3)
    check_radius(translating(module, signature))
    with pytest.raises(ExportError, match="A radius of 2 pixels"):
        check_radius(translating(module, dataclasses.replace(signature, radius=2)))


def test_along_a_fixed_axis_there_is_no_radius() -> None:
    class Rows(nn.Module):
        """Sees a whole column, and one pixel to the side."""

        def forward(self, image: Tensor) -> Tensor:
            rows = image.mean(2, keepdim=True) + image
            return rows + nn.functional.pad(rows, (1, 0))[..., :-1]

    fixed = [Field(n, (1, 8, "w"), "image", range=(-1.0, 1.0)) for n in ("image", "made")]
    signature = Signature((fixed[0],), (fixed[1],), radius=1)
    check_radius(translating(Rows(), signature))
    with pytest.raises(ExportError, match="A radius of 0 pixels"):
        check_radius(translating(Rows(), dataclasses.replace(signature, radius=0)))


class Flat(nn.Module):
    """A linear layer of 64 pixels a side."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64 * 64, 64 * 64)

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(image.flatten(1)).reshape(image.shape)


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("picture", torch.rand(1, 64, 64))

    def forward(self, image: Tensor) -> Tensor:
        return image + self.get_buffer("picture")


class Cropped(nn.Module):
    """Of more than 32 pixels the first 64."""

    def forward(self, image: Tensor) -> Tensor:
        return image[..., :64] if image.shape[3] > 4 else image[..., :1]


@pytest.mark.parametrize("kind", [Flat, Added])
def test_a_generator_of_one_size_alone_is_refused(kind: Callable[[], nn.Module]) -> None:
    source = of_image(kind())
    check_isolation(source)  # at the example's size, which is its own
    with pytest.raises(
        ExportError, match=r"another size\. 1 x 1 pixels: RuntimeError|another shape"
    ):
        check_sizes(source)


def test_an_output_of_another_size_than_the_signature_says_is_refused() -> None:
    check_isolation(of_image(Cropped()))
    with pytest.raises(ExportError, match="another shape than its signature says"):
        check_sizes(of_image(Cropped()))
    with pytest.raises(ExportError, match="another shape than its signature says"):
        check_isolation(of_image(nn.Identity(), factor=2))


def test_the_least_size_is_what_the_signature_says() -> None:
    reflecting = nn.Sequential(nn.ReflectionPad2d(3), conv((7, 7), (0, 0)))
    check_sizes(of_image(reflecting, least=4))
    with pytest.raises(ExportError, match=r"3 x 3 pixels.*raise least in graphs"):
        check_sizes(of_image(reflecting, least=3))


def test_the_sizes_that_are_tried_are_the_least_and_two_of_other_proportions() -> None:
    signature = of_image(nn.Identity(), least=2).signature
    assert other_sizes(signature) == [{"h": 2, "w": 2}, {"h": 3, "w": 5}, {"h": 8, "w": 4}]
    assert other_sizes(source_of(nn.Identity()).signature) == []


def test_samples_that_see_one_anothers_images_are_refused() -> None:
    class Mixed(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image + image.mean(0, keepdim=True)

    check_isolation(of_image(nn.Tanh()))
    with pytest.raises(ExportError, match="depends on the other samples"):
        check_isolation(of_image(Mixed()))


def test_images_of_the_proof_are_of_bytes_and_masks_of_0_and_1() -> None:
    drawn = draw_inputs((PICTURE, MASK), 4, sizes={"h": 9, "w": 5})
    image, mask = drawn["image"], drawn["mask"]
    assert image.shape == mask.shape == (4, 1, 9, 5) and image.dtype == mask.dtype == np.float32
    steps = image.astype(np.float64) * 127.5 + 127.5
    assert np.abs(steps - np.rint(steps)).max() < 1e-4
    assert image.min() < -0.8 and image.max() > 0.8
    assert set(np.unique(mask)) == {0.0, 1.0} and 0.3 < mask.mean() < 0.7
    again = draw_inputs((PICTURE, MASK), 4, sizes={"h": 9, "w": 5})
    assert all(np.array_equal(drawn[name], again[name]) for name in drawn)
