"""StyleGAN2: modulation by a loop over samples, paths by finite differences, styles, noise, truncation, published sizes."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import convolve2d
from torch import Tensor, nn

from gan.runtime.errors import InputError
from gan.runtime.signature import Draw
from gan.trainer.config import make_options
from gan.trainer.engine import Training
from gan.trainer.parts import Batch, DataInfo, Live
from gan.trainer.system import build_on_meta, parameter_count
from gan.trainer.systems.stylegan2 import (
    Discriminator,
    Mapping,
    Modulated,
    StyledLayer,
    StyleGAN2,
    StyleGAN2Options,
    Synthesis,
    ToImage,
)

from .conftest import images, same, training, weights

TINY: dict[str, Any] = {
    "width": 3, "max_width": 5, "latent": 5, "style": 4, "batch_size": 6, "embedding": 3,
    "projection": 4, "mapping_layers": 2, "penalty_every": 1,
}  # fmt: skip
SMALL = DataInfo((1, 8, 8))
LINE = np.array([1.0, 3.0, 3.0, 1.0]) / 8
FILTER = np.outer(LINE, LINE)
Array = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def system(data: DataInfo = SMALL, **given: Any) -> StyleGAN2:
    return StyleGAN2(make_options(StyleGAN2, data, {**TINY, **given}), data)


def randomise(network: nn.Module) -> None:
    """Biases and noise strengths that are not zero, a mean of w too, so that none can be forgotten."""
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # a mapping stores weights a hundred times as large as others
            scale = 30.0 if "layers" in name and "linear" in name else 0.3
            parameter.add_(scale * torch.randn(parameter.shape, generator=source))
        for name, buffer in network.named_buffers():
            if name == "average":
                buffer.add_(torch.randn(buffer.shape, generator=source))


def networks(data: DataInfo = SMALL, **given: Any) -> tuple[Mapping, Synthesis, Discriminator]:
    torch.manual_seed(0)
    made = system(data, **given).networks()
    for network in made.values():
        randomise(network)
    return (
        cast(Mapping, made["mapping"]),
        cast(Synthesis, made["synthesis"]),
        cast(Discriminator, made["D"]),
    )


def live(
    steps: int = 10, *, size: int = 8, classes: int = 0, seed: int = 0, **given: Any
) -> Training:
    data = images(24, size, classes)
    options = make_options(StyleGAN2, data.info, {**TINY, **given})
    return training(StyleGAN2, data=data, options=options, steps=steps, seed=seed)


def doubled(**given: Any) -> tuple[Training, StyleGAN2]:
    """A training in float64, with parameters that hide nothing."""
    run = live(**given)
    for network in run.networks.values():
        randomise(network)
        network.double()
    return run, cast(StyleGAN2, run.system)


def a_batch(
    made: StyleGAN2, count: int, seed: int = 3, dtype: torch.dtype = torch.float64
) -> Batch:
    """z, noise, labels and a source of further draws."""
    source = torch.Generator().manual_seed(seed)
    batch: Batch = {"z": torch.randn(count, made.options.latent, generator=source, dtype=dtype)}
    for field in made.noise_fields():
        shape = (count, *(int(axis) for axis in field.shape))
        batch[field.name] = torch.randn(shape, generator=source, dtype=dtype)
    if made.classes:
        batch["label"] = torch.arange(count) % len(made.classes)
    return batch | {"source": source}


def parts(run: Training) -> tuple[Mapping, Synthesis]:
    return cast(Mapping, run.networks["mapping"]), cast(Synthesis, run.networks["synthesis"])


# Sizes.


def counts(data: DataInfo, **given: Any) -> dict[str, int]:
    options = dataclasses.replace(StyleGAN2.preset(data), **given)
    made = build_on_meta(StyleGAN2(options, data))
    return {name: parameter_count(network) for name, network in made.items()}


def test_parameters_at_1024_pixels_are_as_many_as_published() -> None:
    data = DataInfo((3, 1024, 1024))
    found = counts(data)
    assert found["mapping"] + found["synthesis"] == 30_370_060
    assert found["D"] == 29_012_513
    assert counts(data, mapping_layers=2)["mapping"] + found["synthesis"] == 28_794_124


def test_parameters_at_256_pixels_are_as_many_as_published() -> None:
    found = counts(DataInfo((3, 256, 256)), mapping_layers=8)
    assert found["mapping"] + found["synthesis"] == 24_767_458
    assert found["D"] == 24_001_089


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("size", "sizes"), [(16, [4, 8, 16]), (28, [7, 14, 28]), (24, [6, 12, 24]), (4, [4]), (5, [5])]
)
def test_any_size_that_doubling_reaches_has_a_layer_and_then_two_for_each_size(
    size: int, sizes: list[int], channels: int
) -> None:
    data = DataInfo((channels, size, size))
    made = system(data)
    assert made.noise_sizes == [sizes[0], *(side for side in sizes[1:] for _ in range(2))]
    mapping, synthesis, d = networks(data)
    assert len(synthesis.layers) == len(made.noise_sizes) == made.style_layers - 1
    assert len(synthesis.to_image) == len(sizes)
    batch = a_batch(made, 2, dtype=torch.float32)
    w = mapping(batch["z"])[:, None].expand(-1, made.style_layers, -1)
    image = synthesis(w, *made.noise(batch))
    assert image.shape == (2, channels, size, size)
    assert d(image).shape == (2,)


@pytest.mark.parametrize(("height", "width"), [(30, 30), (3, 3), (11, 11), (8, 16), (16, 8)])
def test_other_resolutions_are_refused(height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"{height} x {width} pixels.*28, 32, 48, 64"):
        system(DataInfo((3, height, width)))


def test_points_are_refused() -> None:
    with pytest.raises(InputError, match="stylegan2 cannot be trained on such data"):
        make_options(StyleGAN2, DataInfo((2,), kind="points"), {})


# Modulated convolutions, in float64.


def modulated(c_in: int, c_out: int, size: int, **how: bool) -> tuple[Modulated, Tensor, Tensor]:
    """The layer, its input and styles: 3 samples, each with its own."""
    torch.manual_seed(0)
    layer = Modulated(c_in, c_out, size, 6, **how).double()
    with torch.no_grad():
        layer.affine.bias.add_(0.5 * torch.randn(c_in))
    return layer, torch.randn(3, c_in, 5, 4).double(), torch.randn(3, 6).double()


def own_weights(layer: Modulated, w: Tensor, *, demodulate: bool) -> Array:
    """w'_oikl = d_o s_i w_oikl of one sample, d_o = (sum (s_i w_oikl)^2 + 1e-8)^(-1/2)."""
    weight = layer.weight.detach().numpy()  # (o, i, k, k)
    s = layer.affine.weight.detach().numpy() @ w.numpy() + layer.affine.bias.detach().numpy()
    own = np.empty_like(weight)
    for o, i in np.ndindex(*weight.shape[:2]):
        own[o, i] = s[i] * weight[o, i]
    for o in range(len(own) if demodulate else 0):
        own[o] /= math.sqrt((own[o] ** 2).sum() + 1e-8)
    return own


def correlated(x: Array, weight: Array) -> Array:
    """A layer's map of (i, H, W) with (o, i, k, k): of the same size, zeros outside."""
    return np.stack([
        sum(convolve2d(x[i], own[i, ::-1, ::-1], "same") for i in range(len(x))) for own in weight
    ])  # fmt: skip


def enlarged(x: Array, weight: Array) -> Array:
    """Zeros between the pixels, convolved with the weight, then with the filter of gain 4: (o, 2H, 2W)."""
    wide = np.zeros((len(x), 2 * x.shape[1] - 1, 2 * x.shape[2] - 1))
    wide[:, ::2, ::2] = x
    maps = [sum(convolve2d(wide[i], own[i]) for i in range(len(x))) for own in weight]
    return np.stack([convolve2d(map_, 4 * FILTER)[2:-2, 2:-2] for map_ in maps])


@pytest.mark.parametrize(("size", "demodulate"), [(3, True), (3, False), (1, False), (1, True)])
def test_a_modulated_convolution_has_each_samples_own_weights(size: int, demodulate: bool) -> None:
    layer, x, w = modulated(4, 7, size, demodulate=demodulate)
    with torch.no_grad():
        y = layer(x, w)
    assert y.shape == (3, 7, 5, 4)
    for i in range(3):
        expected = correlated(x[i].numpy(), own_weights(layer, w[i], demodulate=demodulate))
        assert y[i].numpy() == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("demodulate", [True, False])
def test_its_enlarging_form_is_a_convolution_between_zeros_and_then_the_filter(
    demodulate: bool,
) -> None:
    layer, x, w = modulated(4, 7, 3, up=True, demodulate=demodulate)
    with torch.no_grad():
        y = layer(x, w)
    assert y.shape == (3, 7, 10, 8)
    for i in range(3):
        expected = enlarged(x[i].numpy(), own_weights(layer, w[i], demodulate=demodulate))
        assert y[i].numpy() == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("strength", [0.1, 1.0, 20.0])
def test_demodulated_maps_have_unit_variance_whatever_the_style(strength: float) -> None:
    layer, _, w = modulated(8, 6, 3)
    x = torch.randn(3, 8, 66, 66).double()
    with torch.no_grad():
        y = layer(x, strength * w)[:, :, 1:-1, 1:-1]  # the border reads zeros
        plain = layer(x, w)[:, :, 1:-1, 1:-1]
    # neighbours share inputs, so the 4,096 places count as some hundred
    assert y.var((2, 3)).numpy() == pytest.approx(np.ones((3, 6)), abs=0.35)
    assert y.var().item() == pytest.approx(1.0, abs=0.05)
    assert not torch.allclose(y, plain, atol=1e-3) or strength == 1.0


def test_styles_begin_at_one_and_weights_are_equalised() -> None:
    torch.manual_seed(0)
    layer = Modulated(64, 48, 3, 64)
    assert torch.equal(layer.affine.bias, torch.ones(64))
    for w, fan_in in ((layer.weight, 64 * 9), (layer.affine.weight, 64)):
        std = w.detach().double().std().item()
        assert std * math.sqrt(fan_in) == pytest.approx(1, abs=5 / math.sqrt(2 * w.numel()))


# The synthesis network.


def activated(x: Array) -> Array:
    return np.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def array(x: Tensor | None) -> Array:
    assert x is not None
    return np.asarray(x.detach().numpy(), np.float64)


def styled(layer: StyledLayer, x: Array, w: Tensor, noise: Tensor) -> Array:
    own = own_weights(layer.convolution, w, demodulate=True)
    y = (enlarged if layer.convolution.up else correlated)(x, own)
    return activated(y + array(noise) * layer.strength.item() + array(layer.bias))


def image_of(layer: ToImage, x: Array, w: Tensor) -> Array:
    own = own_weights(layer.convolution, w, demodulate=False)
    return correlated(x, own) + array(layer.bias)


def filtered_up(image: Array) -> Array:
    wide = np.zeros((len(image), 2 * image.shape[1], 2 * image.shape[2]))
    wide[:, ::2, ::2] = image
    return np.stack([convolve2d(map_, 4 * FILTER)[1:-2, 1:-2] for map_ in wide])


def drawn(synthesis: Synthesis, w: Tensor, noise: list[Tensor]) -> Array:
    """The image of one sample from the styles (layers, style) and its noise, layer by layer."""
    x, image = array(synthesis.constant[0]), np.zeros(0)
    layers = cast(list[StyledLayer], list(synthesis.layers))
    readers = cast(list[ToImage], list(synthesis.to_image))
    x = styled(layers[0], x, w[0], noise[0])
    image = image_of(readers[0], x, w[1])
    for level in range(1, len(readers)):
        first, second = 2 * level - 1, 2 * level
        x = styled(layers[first], x, w[first], noise[first])
        x = styled(layers[second], x, w[second], noise[second])
        image = filtered_up(image) + image_of(readers[level], x, w[second + 1])
    return image


@pytest.mark.parametrize("size", [4, 8, 16])
def test_the_image_is_that_of_the_formula_with_the_styles_and_noises_of_their_layers(
    size: int,
) -> None:
    data = DataInfo((3, size, size))
    made, (_, synthesis, _) = system(data), networks(data)
    noise = made.noise(a_batch(made, 2))
    w = torch.randn(2, made.style_layers, 4).double()
    with torch.no_grad():
        image = synthesis.double()(w, *noise)
    for i in range(2):
        expected = drawn(synthesis, w[i], [field[i] for field in noise])
        assert image[i].numpy() == pytest.approx(expected, abs=1e-10)


def test_each_style_has_a_say_in_the_image_and_the_last_in_its_colours_alone() -> None:
    made, (_, synthesis, _) = system(), networks()
    noise = made.noise(a_batch(made, 1))
    w = torch.randn(1, made.style_layers, 4).double()
    synthesis.double()
    with torch.no_grad():
        before = synthesis(w, *noise)
        for i in range(made.style_layers):
            other = w.clone()
            other[:, i] += 0.5
            assert (synthesis(other, *noise) - before).abs().max() > 1e-3


def test_noise_has_no_strength_at_first_and_enters_each_layer_by_its_own_field() -> None:
    run = live(size=16)
    made = cast(StyleGAN2, run.system)
    _, synthesis = parts(run)
    synthesis.double()
    layers = cast(list[StyledLayer], list(synthesis.layers))
    assert len(layers) == 5 and all(layer.strength.item() == 0.0 for layer in layers)
    batch = a_batch(made, 1)
    w = torch.randn(1, made.style_layers, 4).double()
    fields = [field.name for field in made.noise_fields()]

    def image(changed: int | None = None) -> Tensor:
        noise = {name: batch[name] for name in fields}
        if changed is not None:
            noise[fields[changed]] = noise[fields[changed]] + 1.0
        with torch.no_grad():
            return cast(Tensor, synthesis(w, *noise.values()))

    assert all(torch.equal(image(i), image()) for i in range(5))
    for strong, layer in enumerate(layers):
        with torch.no_grad():
            layer.strength.fill_(0.5)
        for i in range(5):
            assert torch.equal(image(i), image()) == (i != strong)
        with torch.no_grad():
            layer.strength.zero_()


def test_noise_fields_are_in_the_order_of_the_layers_with_a_stream_each() -> None:
    fields = system(DataInfo((1, 28, 28))).noise_fields()
    assert [field.name for field in fields] == [
        "noise_7", "noise_14_0", "noise_14_1", "noise_28_0", "noise_28_1",
    ]  # fmt: skip
    assert [field.shape for field in fields] == [(1, side, side) for side in (7, 14, 14, 28, 28)]
    assert [field.draw for field in fields] == [
        Draw("normal", 16 + i, shared=True) for i in range(5)
    ]
    assert {field.kind for field in fields} == {"noise"}


def test_a_training_draws_noise_for_each_sample_and_hands_it_to_its_layer() -> None:
    run = live(size=8)
    made, seen = cast(StyleGAN2, run.system), list[list[Tensor]]()
    _, synthesis = parts(run)
    synthesis.register_forward_pre_hook(lambda _, inputs: seen.append(list(inputs[1:])))
    run.run_step()
    assert len(seen) == 3  # for D, for G, and for the path length on half of the batch
    for count, noise in zip((6, 6, 3), seen, strict=True):
        assert [tuple(x.shape) for x in noise] == [
            (count, *field.shape) for field in made.noise_fields()
        ]
        for x in noise:
            assert x.std().item() == pytest.approx(1.0, abs=0.35)
            assert not torch.equal(x[0], x[1])


# The mapping network and truncation.


def mapped(mapping: Mapping, z: Array) -> Array:
    """Each vector scaled to a mean square of 1, then layer by layer."""
    x = z / np.sqrt(np.square(z).mean(1, keepdims=True) + 1e-8)
    for layer in mapping.layers:
        linear = cast(nn.Linear, layer.linear)
        x = activated(x @ array(linear.weight).T + array(linear.bias))
    return x


@pytest.mark.parametrize("layers", [1, 2, 8])
def test_w_is_that_of_the_formula(layers: int) -> None:
    mapping, _, _ = networks(mapping_layers=layers)
    z = torch.randn(5, 5).double()
    assert len(mapping.layers) == layers
    with torch.no_grad():
        assert mapping.double()(z).numpy() == pytest.approx(mapped(mapping, array(z)), abs=1e-10)


def test_a_label_stands_beside_z_each_normalised_on_its_own() -> None:
    mapping, _, _ = networks(DataInfo((1, 8, 8), ("a", "b", "c")))
    z, label = torch.randn(3, 5).double(), torch.tensor([2, 0, 2])
    mapping.double()
    assert mapping.embed is not None
    table = array(mapping.embed.weight)[label.numpy()]
    root = np.sqrt(np.square(table).mean(1, keepdims=True) + 1e-8)
    own = array(z) / np.sqrt(np.square(array(z)).mean(1, keepdims=True) + 1e-8)
    x = np.concatenate([own, table / root], 1)
    for layer in mapping.layers:
        linear = cast(nn.Linear, layer.linear)
        x = activated(x @ array(linear.weight).T + array(linear.bias))
    with torch.no_grad():
        assert mapping(z, label).numpy() == pytest.approx(x, abs=1e-7)


def test_the_mapping_learns_at_a_hundredth_of_the_rate() -> None:
    """A step of Adam moves each weight by its rate times c, of the mapping 0.01 / sqrt(fan-in)."""
    mapping = Mapping(64, make_stylegan2(style=64), 0, 64)
    linear = cast(nn.Linear, mapping.layers[0].linear)
    before = linear.weight.detach().clone()
    mapping(torch.randn(16, 64)).square().sum().backward()
    torch.optim.Adam(mapping.parameters(), 0.1, eps=0.0).step()
    moved = (linear.weight.detach() - before).abs()
    assert moved.median().item() == pytest.approx(0.1 * 0.01 / 8, rel=1e-3)
    assert before.std().item() == pytest.approx(1 / 8, rel=0.06)


def make_stylegan2(**given: Any) -> StyleGAN2Options:
    options = make_options(StyleGAN2, SMALL, {**TINY, **given})
    assert isinstance(options, StyleGAN2Options)
    return options


def test_the_mean_of_w_is_tracked_as_in_a_loop() -> None:
    run, made = doubled(style_mixing=0.5)
    for network in run.networks.values():
        network.float()
    mapping, _ = parts(run)
    mean = array(mapping.get_buffer("average")).copy()
    for seed in range(4):
        batch = a_batch(made, 5, seed, torch.float32)
        mean = 0.995 * mean + 0.005 * mapped(mapping, array(batch["z"])).mean(0)
        made.generate(run, batch)
        assert array(mapping.get_buffer("average")) == pytest.approx(mean, rel=1e-5, abs=1e-6)


def test_the_tracked_mean_reaches_the_average_and_is_the_mean_of_the_firsts_styles_alone() -> None:
    run = live(style_mixing=1.0)
    run.run_step()
    live_mean = run.networks["mapping"].get_buffer("average")
    assert live_mean.abs().max() > 1e-4
    assert torch.equal(run.averaged["mapping"].get_buffer("average"), live_mean)
    assert "D" not in run.averaged


def graph(run: Training, name: str) -> nn.Module:
    return run.system.graphs()[name].build(run.networks)


def test_truncation_is_the_identity_at_1_one_image_at_0_and_linear_in_w() -> None:
    run, made = doubled()
    mapping, synthesis = parts(run)
    batch = a_batch(made, 4)
    noise = [field[:1].expand(4, -1, -1, -1) for field in made.noise(batch)]
    w, mean = mapping(batch["z"]), mapping.get_buffer("average")
    to_w, to_image = graph(run, "mapping"), graph(run, "image")
    with torch.no_grad():
        for psi in (1.0, 0.0, 0.5, -1.0, 2.0, 0.7):
            expected = mean + psi * (w - mean)
            given = torch.full((4,), psi).double()
            assert torch.allclose(to_w(batch["z"], given), expected, atol=1e-12)
            styles = expected[:, None].repeat(1, made.style_layers, 1)
            image = to_image(batch["z"], given, *noise)
            assert torch.allclose(image, synthesis(styles, *noise), atol=1e-10)
            assert torch.equal(image[0], image[1]) == (psi == 0.0)
        mixed = torch.tensor([0.0, 1.0, 0.3, -2.0]).double()  # each sample has its own
        assert torch.allclose(
            to_w(batch["z"], mixed), mean + mixed[:, None] * (w - mean), atol=1e-12
        )


def test_the_three_graphs_fit_each_other() -> None:
    run, made = doubled(classes=3)
    batch = a_batch(made, 4)
    psi = torch.tensor([1.0, 0.7, 0.2, 1.5]).double()
    with torch.no_grad():
        w = graph(run, "mapping")(batch["z"], batch["label"], psi)
        styles = w[:, None].repeat(1, made.style_layers, 1)
        image = graph(run, "synthesis")(styles, *made.noise(batch))
        whole = graph(run, "image")(batch["z"], batch["label"], psi, *made.noise(batch))
    assert torch.equal(whole, image)


def test_the_graphs_fields_are_those_that_their_networks_read() -> None:
    graphs = system(DataInfo((3, 8, 8), ("a", "b"))).graphs()
    noise = ["noise_4", "noise_8_0", "noise_8_1"]
    named = {name: [field.name for field in made.inputs] for name, made in graphs.items()}
    assert named == {
        "image": ["z", "label", "truncation", *noise],
        "mapping": ["z", "label", "truncation"],
        "synthesis": ["w", *noise],
    }
    assert next(iter(graphs)) == "image"
    shapes = {name: [field.shape for field in made.outputs] for name, made in graphs.items()}
    assert shapes == {"image": [(3, 8, 8)], "mapping": [(4,)], "synthesis": [(3, 8, 8)]}
    assert graphs["synthesis"].inputs[0].shape == (4, 4)  # 3 layers and the last image's
    psi = graphs["image"].inputs[2]
    assert (psi.shape, psi.kind, psi.draw) == ((), "scalar", Draw("fixed", value=1.0))
    assert psi.range == (-2.0, 2.0)
    assert graphs["image"].classes == graphs["mapping"].classes == ("a", "b")
    assert graphs["synthesis"].classes == ()
    plain = system().graphs()
    assert [field.name for field in plain["mapping"].inputs] == ["z", "truncation"]


# Mixed styles.


def mixed(run: Training, count: int, seed: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Styles of all layers, the first w and the second one of each sample."""
    made = cast(StyleGAN2, run.system)
    mapping, _ = parts(run)
    batch = a_batch(made, count, seed)
    other = torch.randn(count, 5, generator=copy_of(batch["source"]))
    with torch.no_grad():
        w = mapping(batch["z"], batch.get("label"))
        second = mapping(other.double(), batch.get("label"))
        run.networks["mapping"].float()
        styles = made.mixed(run, batch, w)
        run.networks["mapping"].double()
    return styles, w, second


def copy_of(source: torch.Generator) -> torch.Generator:
    return torch.Generator().set_state(source.get_state())


def crossovers(styles: Tensor, first: Tensor, second: Tensor) -> list[int]:
    """The layer from which each sample has its second style; asserts that it has no third."""
    found = []
    for sample, own, other in zip(styles, first, second, strict=True):
        kept = (sample - own).abs().amax(1) < 1e-5
        found.append(int(kept.sum()))
        assert kept[: found[-1]].all() and (own - other).abs().max() > 1e-3
        assert torch.allclose(sample[found[-1] :], other.expand_as(sample[found[-1] :]), atol=1e-4)
    return found


@pytest.mark.parametrize("classes", [0, 3])
def test_layers_before_the_crossover_have_the_first_style_and_the_rest_that_of_another_z(
    classes: int,
) -> None:
    run, made = doubled(size=16, style_mixing=1.0, classes=classes)
    found = crossovers(*mixed(run, 200))
    assert set(found) == set(range(1, made.style_layers))  # always mixed, never from the first


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_share_of_the_samples_is_mixed_at_a_uniform_layer(share: float) -> None:
    count = 2_000
    run, made = doubled(size=16, style_mixing=share)
    found = np.array(crossovers(*mixed(run, count)))
    layers = made.style_layers
    assert layers == 6
    times = (found < layers).sum()
    assert times == pytest.approx(share * count, abs=5 * math.sqrt(count * share * (1 - share)))
    for layer in range(1, layers):
        expected = times / (layers - 1)
        assert (found == layer).sum() == pytest.approx(expected, abs=5 * math.sqrt(expected))


def test_without_mixing_no_number_is_drawn() -> None:
    run, made = doubled(style_mixing=0.0)
    batch = a_batch(made, 4)
    begin = batch["source"].get_state()
    made.mixed(run, batch, torch.zeros(4, 4).double())
    assert torch.equal(batch["source"].get_state(), begin)


def test_the_batchs_source_decides_which_styles_are_mixed() -> None:
    run, _ = doubled(size=16, style_mixing=0.5)
    torch.manual_seed(1)
    a, _, _ = mixed(run, 20)
    torch.manual_seed(2)
    b, _, _ = mixed(run, 20)
    c, _, _ = mixed(run, 20, seed=4)
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_both_of_a_mixed_samples_styles_are_of_its_label() -> None:
    run, made = doubled(style_mixing=1.0, classes=3)
    mapping, _ = parts(run)
    seen = list[Tensor]()
    mapping.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    mapping.float()
    batch = a_batch(made, 5, dtype=torch.float32)
    made.mixed(run, batch, torch.zeros(3, 4))  # of the first three samples
    (label,) = seen
    assert torch.equal(label, batch["label"][:3])


# The discriminator.


def residual(block: nn.Module, x: Array) -> Array:
    """(conv(filtered conv(x)) + skip(x)) / sqrt 2, each half the size."""
    named = {n: (array(m.weight), m.bias) for n, m in block.named_children()
             if isinstance(m, nn.Conv2d)}  # fmt: skip
    (first, b1), (second, b2), (skip, none) = (named[n] for n in ("first", "second", "skip"))
    assert none is None and b1 is not None and b2 is not None
    y = activated(correlated(x, first) + array(b1)[:, None, None])
    # two zeros around, the filter, then the 3x3 convolution of every second place without zeros
    y = np.stack([convolve2d(map_, FILTER)[1:-1, 1:-1] for map_ in y])
    y = correlated(y, second)[:, 1:-1:2, 1:-1:2]
    y = activated(y + array(b2)[:, None, None])
    small = np.stack([convolve2d(map_, FILTER)[2:-1:2, 2:-1:2] for map_ in x])
    return (y + np.einsum("ihw,oi->ohw", small, skip[:, :, 0, 0])) / math.sqrt(2)


def features(d: Discriminator, x: Tensor, *, deviation: bool) -> Array:
    """What the last layer gives: (B, 1) or (B, projection)."""
    maps = []
    for sample in array(x):
        read: Array = np.einsum("chw,oc->ohw", sample, array(d.from_image.weight)[:, :, 0, 0])
        read = activated(read + array(d.from_image.bias)[:, None, None])
        for block in d.blocks:
            read = residual(block, read)
        maps.append(read)
    h: Array = np.stack(maps)
    if deviation:  # of one group of at most 4
        spread = np.sqrt(h.var(axis=0) + 1e-8).mean()
        h = np.concatenate([h, np.full((len(h), 1, *h.shape[2:]), spread)], 1)
    last = [correlated(sample, array(d.last.weight)) for sample in h]
    h = activated(np.stack(last) + array(d.last.bias)[:, None, None]).reshape(len(h), -1)
    dense = d.dense.linear
    h = activated(h @ array(dense.weight).T + array(dense.bias))
    return np.asarray(h @ array(d.out.weight).T + array(d.out.bias))


@pytest.mark.parametrize("deviation", [True, False])
@pytest.mark.parametrize("size", [4, 8, 16])
def test_ds_logit_is_that_of_the_formula(size: int, deviation: bool) -> None:
    _, _, d = networks(DataInfo((3, size, size)), minibatch_deviation=deviation)
    x = torch.randn(3, 3, size, size).double()
    with torch.no_grad():
        logit = d.double()(x)
    expected = features(d, x, deviation=deviation)[:, 0]
    assert logit.numpy() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_with_labels_the_logit_is_the_product_of_features_and_the_mapped_label() -> None:
    _, _, d = networks(DataInfo((3, 8, 8), ("a", "b", "c")), minibatch_deviation=False)
    d.double()
    x, label = torch.randn(4, 3, 8, 8).double(), torch.tensor([2, 0, 2, 1])
    assert d.label is not None and d.label.embed is not None
    v = mapped(d.label, array(d.label.embed.weight)[label.numpy()])
    expected = (features(d, x, deviation=False) * v).sum(1) / math.sqrt(4)
    with torch.no_grad():
        assert d(x, label).numpy() == pytest.approx(expected, rel=1e-7, abs=1e-8)


def test_a_class_changes_the_image_and_the_logit() -> None:
    data = DataInfo((1, 8, 8), ("a", "b", "c"))
    made, (mapping, synthesis, d) = system(data), networks(data)
    z, labels = torch.randn(1, 5).expand(3, -1), torch.arange(3)
    noise = [
        field[:1].expand(3, -1, -1, -1)
        for field in made.noise(a_batch(made, 1, dtype=torch.float32))
    ]
    with torch.no_grad():
        w = mapping(z, labels)[:, None].expand(-1, made.style_layers, -1)
        image = synthesis(w, *noise)
        logits = d(image[:1].expand(3, -1, -1, -1), labels)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (image[a] - image[b]).abs().max() > 1e-3
        assert (logits[a] - logits[b]).abs() > 1e-5


def test_a_training_hands_each_samples_label_to_both_networks() -> None:
    run = live(classes=3, style_mixing=0.0, r1=0.0, path_length=0.0)
    made, drawn_labels = run.system, list[Tensor]()
    seen: dict[str, list[Tensor]] = {"mapping": [], "D": []}
    generate = made.generate

    def spy(live: Live, batch: Batch) -> Batch:
        drawn_labels.append(batch["label"])
        return generate(live, batch)

    made.generate = spy  # type: ignore[method-assign]
    for name, calls in seen.items():
        run.networks[name].register_forward_pre_hook(
            lambda _, inputs, calls=calls: calls.append(inputs[1])
        )
    run.run_step()
    of_d, of_g = drawn_labels
    assert len(of_d.unique()) > 1
    expected = {"mapping": [of_d, of_g], "D": [of_d, of_d, of_g]}  # D: reals, fakes, fakes
    assert same(seen, expected)


# The path length.


def paths(run: Training, batch: Batch, count: int, y: Tensor) -> list[float]:
    """||J_w^T y|| of each sample by differences of y G(w): the norm over a style, its square averaged over layers."""
    made = cast(StyleGAN2, run.system)
    mapping, synthesis = parts(run)
    step = 1e-6
    with torch.no_grad():
        w = mapping(batch["z"][:count])[:, None].repeat(1, made.style_layers, 1)
        noise = [field[:count] for field in made.noise(batch)]
        squares = torch.zeros(count, dtype=torch.float64)
        for layer, entry in np.ndindex(made.style_layers, w.shape[2]):
            nudge = torch.zeros_like(w)
            nudge[:, layer, entry] = step
            rise = ((synthesis(w + nudge, *noise) - synthesis(w - nudge, *noise)) * y).sum(
                (1, 2, 3)
            )
            squares += (rise / (2 * step)).square()
        return cast(list[float], (squares / made.style_layers).sqrt().tolist())


def drawn_y(batch: Batch, count: int, size: int) -> Tensor:
    """The next numbers of the batch's source, as the image that the paths are taken along."""
    y = torch.randn(count, 1, size, size, generator=copy_of(batch["source"]))
    return y.double() / size


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize(("batch_of", "count"), [(4, 2), (3, 2), (1, 1)])
def test_the_path_length_is_that_of_finite_differences_on_half_of_the_batch(
    batch_of: int, count: int, size: int
) -> None:
    run, made = doubled(size=size, style_mixing=0.0)
    a = parts(run)[1].get_buffer("path_length")
    mean = 0.0
    for seed in range(2):  # the mean goes on from one batch to the next
        batch = a_batch(made, batch_of, seed)
        norms = paths(run, batch, count, drawn_y(batch, count, size))
        mean = 0.99 * mean + 0.01 * sum(norms) / count
        ours = made.path_length(run, batch).item()
        assert a.item() == pytest.approx(mean, rel=1e-6)
        expected = sum((norm - mean) ** 2 for norm in norms) / count
        assert ours == pytest.approx(expected, rel=1e-6) and min(norms) > 1e-3


def test_the_path_length_is_taken_at_mixed_styles() -> None:
    run, made = doubled(style_mixing=1.0)
    _, synthesis = parts(run)
    seen = list[Tensor]()
    synthesis.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    parts(run)[0].float()
    parts(run)[1].float()
    made.path_length(run, a_batch(made, 8, dtype=torch.float32))
    (styles,) = seen
    assert styles.shape[0] == 4
    assert (styles[:, 0] - styles[:, -1]).abs().amax(1).min() > 1e-4


@pytest.mark.parametrize("name", ["affine weight", "convolution", "mapping", "strength"])
def test_the_penaltys_gradient_by_the_weights_is_that_of_finite_differences(name: str) -> None:
    run, made = doubled(style_mixing=0.0)
    mapping, synthesis = parts(run)
    first, second = cast(list[StyledLayer], list(synthesis.layers))[:2]
    parameter = {
        "affine weight": first.convolution.affine.get_parameter("parametrizations.weight.original"),
        "convolution": second.convolution.get_parameter("parametrizations.weight.original"),
        "mapping": mapping.layers[0].get_parameter("linear.parametrizations.weight.original"),
        "strength": first.strength,
    }[name]
    batch = a_batch(made, 4)
    y = drawn_y(batch, 2, 8)

    def norms() -> Tensor:
        """By first derivatives, which the test above compares with differences."""
        w = mapping(batch["z"][:2])[:, None].repeat(1, made.style_layers, 1).detach()
        w.requires_grad_()
        image = synthesis(w, *(field[:2] for field in made.noise(batch)))
        (gradient,) = torch.autograd.grad((image * y).sum(), w)
        return gradient.square().sum((1, 2)).div(made.style_layers).sqrt()

    made.path_length(run, batch).backward()
    a = synthesis.get_buffer("path_length").clone()  # a constant in the penalty
    assert parameter.grad is not None
    step, flat = 1e-5 * parameter.abs().max().item(), parameter.data.reshape(-1)
    assert flat.data_ptr() == parameter.data_ptr()
    expected = []
    places = range(0, len(flat), 5)
    for i in places:
        before = flat[i].item()
        values = []
        for place in (before + step, before - step):
            flat[i] = place
            values.append((norms() - a).square().mean().item())
        flat[i] = before
        expected.append((values[0] - values[1]) / (2 * step))
    scale = max(map(abs, expected))
    assert scale > 1e-6
    ours = array(parameter.grad.reshape(-1)[places])
    assert ours == pytest.approx(np.array(expected), abs=1e-4 * scale)


def due(run: Training, steps: int) -> list[int]:
    """The steps at which G's loss has the path length."""
    found = []
    for step in range(steps):
        run.run_step()
        if "loss/G/path_length" in run.means.take():
            found.append(step)
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"path_length_every": 4}, [0, 4, 8]),
        ({"path_length_every": 3, "path_length_from": 0.5}, [6, 9]),
        ({"path_length_every": 1, "path_length_from": 0.7}, [7, 8, 9]),
        ({"path_length": 0.0, "path_length_every": 1}, []),
    ],
)
def test_the_path_length_is_due_at_each_kth_step_from_its_share_of_the_run_on(
    given: dict[str, Any], expected: list[int]
) -> None:
    assert due(live(10, **given), 10) == expected


def test_the_lazy_path_length_counts_as_often_as_it_is_left_out() -> None:
    run = live(path_length=3.0, path_length_every=5)
    (objective,) = (o for o in run.players["G"].objectives if o.name == "path_length")
    assert (objective.weight, objective.every) == (3.0, 5)
    objective.value = lambda live, batch: live.logits("fake", batch).sum() * 0.0 + 1.0
    run.run_step()
    assert run.means.take()["loss/G/path_length"] == pytest.approx(15.0)


def test_the_mean_path_length_follows_only_when_it_is_due_and_reaches_the_average() -> None:
    run = live(path_length_every=2)
    values = []
    for _ in range(4):
        run.run_step()
        values.append(run.networks["synthesis"].get_buffer("path_length").item())
        assert run.averaged["synthesis"].get_buffer("path_length").item() == values[-1]
    assert 0 < values[0] == values[1] < values[2] == values[3]


def test_the_half_life_of_the_average_is_its_setting() -> None:
    for half_life in (7, 500):
        (stage,) = system(ema_half_life=half_life).stages()
        curve = stage.schedules["ema_half_life"]
        assert [curve(t) for t in (0.0, 0.5, 1.0)] == [half_life] * 3


# Training.


def test_one_player_owns_both_halves_of_g() -> None:
    players = system().players()
    assert players["G"].networks == ("mapping", "synthesis") and players["D"].networks == ("D",)
    assert [o.name for o in players["G"].objectives] == ["adversarial", "path_length"]
    assert system().discriminators() == ["D"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"style_mixing": 0.0, "path_length": 0.0, "r1": 0.0},
        {"diffaugment": "color,translation,cutout", "gp": 1.0},
    ],
    ids=["preset", "plain", "augmented"],
)
def test_a_move_of_each_player_changes_every_parameter(given: dict[str, Any]) -> None:
    run = live(classes=1, size=16, **given)  # each batch has all classes
    begun = {name: weights(network) for name, network in run.networks.items()}
    run.run_step()
    assert run.skipped == 0 and all(math.isfinite(v) for v in run.means.take().values())
    for network, start in begun.items():
        for name, parameter in run.networks[network].named_parameters():
            assert torch.isfinite(parameter).all()
            assert (parameter != start[name]).all(), (network, name)


def test_the_seed_alone_decides_the_weights() -> None:
    a, b, c = (live(4, seed=seed, path_length_every=2) for seed in (1, 1, 2))
    for run in (a, b, c):
        run.run_step()
        run.run_step()
    assert same(a.state(), b.state())
    assert not same(a.state()["networks"], c.state()["networks"])


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_ends_with_the_same_bits(stop: int) -> None:
    """The means of w and of the path length are part of the state."""
    whole, first, resumed = (live(5, path_length_every=2, classes=3) for _ in range(3))
    for _ in range(5):
        whole.run_step()
    for _ in range(stop):
        first.run_step()
    resumed.load_state(copy.deepcopy(first.state()))
    torch.rand(17)  # the global generator is somewhere else in the resumed process
    while resumed.step < 5:
        resumed.run_step()
    assert same(whole.state(), resumed.state())
    for name in ("mapping", "synthesis"):
        kept = [dict(run.averaged[name].named_buffers()) for run in (whole, resumed)]
        assert kept[0] and same(*kept)
