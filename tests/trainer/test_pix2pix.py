"""pix2pix: the objectives of the paper, D that sees input and output alike, sizes that fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from gan.runtime.errors import InputError
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.engine import Training
from gan.trainer.image_networks import ResNetGenerator, UNet
from gan.trainer.parts import Batch, DataInfo, Live
from gan.trainer.systems.pix2pix import Pix2Pix
from gan.trainer.trees import Tree

from .conftest import same, training
from .translation import batch_of, dataset, live, noise, parameters, values


def info(size: int = 16, partner: tuple[int, ...] | None = None, channels: int = 3) -> DataInfo:
    shape = (channels, size, size)
    return DataInfo(shape, arrangement="pairs", partner=partner or shape)


def options(data: DataInfo, **given: Any) -> Any:
    return make_options(Pix2Pix, data, given)


def system(data: DataInfo, **given: Any) -> Pix2Pix:
    return Pix2Pix(options(data, **given), data)


def test_the_preset_is_the_papers_at_256_pixels_and_smaller_below() -> None:
    paper = options(info(256))
    assert (paper.loss, paper.l1, paper.batch_size) == ("non-saturating", 100.0, 1)
    assert (paper.g_learning_rate, paper.d_learning_rate, paper.beta1) == (2e-4, 2e-4, 0.5)
    assert (paper.decay_share, paper.dropout, paper.downs, paper.d_layers) == (0.5, 0.5, 8, 3)
    assert (options(info(512)).downs, options(info(96)).downs, options(info(24)).downs) == (8, 5, 3)
    assert [options(info(size)).d_layers for size in (6, 11, 12, 23, 24)] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("partner", [1, 3])
def test_the_objectives_are_the_papers_with_ds_halved(partner: int) -> None:
    run = live("pix2pix", dataset("pix2pix", partner=partner), dropout=0.0, d_norm="none")
    batch = batch_of(run)
    d, x, y, fake = (run.networks["D"], batch["image"], batch["real"], batch["fake"])
    assert x.shape == (2, partner, 16, 16) and fake.shape == y.shape == (2, 3, 16, 16)
    r, f = (d(torch.cat([x, image], 1)).double() for image in (y, fake))
    assert r.shape == (2, 1, 6, 6)  # a map of logits
    judge = 0.5 * (softplus(-r) + softplus(f)).mean().item()
    assert values(run, "D", batch) == pytest.approx({"adversarial": judge}, rel=1e-5)
    distance = 100 * np.abs((fake - y).detach().double().numpy()).mean()
    expected = {"adversarial": softplus(-f).mean().item(), "l1": distance}
    assert values(run, "G", batch) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(fake, run.networks["G"](batch["partner"]))


def test_a_step_moves_both_networks_by_their_own_objectives() -> None:
    """D's loss has no part of L1, G's gradient both parts."""
    run = live("pix2pix")
    before = parameters(run)
    run.run_step()
    after, read = parameters(run), run.means.take()
    assert not same(before["G"], after["G"]) and not same(before["D"], after["D"])
    assert {"loss/G/l1", "loss/G/adversarial", "loss/D"} <= read.keys()
    assert "loss/D/l1" not in read
    assert 0 < read["accuracy/real"] <= 1


def seen_by_d(run: Training, name: str, batch: Batch) -> tuple[Tensor, Tensor]:
    """What D is shown: the condition, and the sample."""
    shown: list[Any] = []

    def spy(live: Live, sample: Tree, batch: Batch) -> Tree:
        shown.append(sample)
        return torch.zeros(len(sample[0]))

    run.system.discriminate = spy  # type: ignore[method-assign]
    run.logits(name, batch)
    ((condition, sample),) = shown
    return condition, sample


AUGMENTED = [{}, {"diffaugment": "translation,cutout,color"}, {"ada": 1.0}]


@pytest.mark.parametrize("given", AUGMENTED, ids=["none", "diffaugment", "ada"])
def test_augmentations_act_alike_on_what_was_given_and_what_was_made(given: dict[str, Any]) -> None:
    pixels = noise(6, 3, 16, 4)
    data = Dataset("same", pixels, None, (), partners=pixels.copy(), arrangement="pairs")
    run = live("pix2pix", data, batch_size=6, **given)
    batch = run._next_batch("test")
    condition, sample = seen_by_d(run, "real", batch)
    assert torch.equal(condition, sample)
    assert torch.equal(sample, batch["real"]) == (not given)


def test_d_sees_the_condition_of_each_sample_beside_its_fake() -> None:
    run = live("pix2pix", dataset("pix2pix", partner=1))
    batch = batch_of(run)
    condition, sample = seen_by_d(run, "fake", batch)
    assert torch.equal(condition, batch["partner"]) and torch.equal(sample, batch["fake"])


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("generator", ["unet", "resnet"])
def test_the_graph_takes_images_of_any_size_that_the_halvings_divide(
    generator: str, norm: str
) -> None:
    run = live("pix2pix", dataset("pix2pix", partner=1), generator=generator, downs=2, norm=norm)
    assert isinstance(run.networks["G"], UNet if generator == "unet" else ResNetGenerator)
    ((name, graph),) = run.system.graphs().items()
    ours, theirs = graph.inputs[0], graph.outputs[0]
    assert (name, ours.name, theirs.name) == ("translate", "image", "translated")
    assert (ours.shape, theirs.shape) == ((1, "4*h", "4*w"), (3, "4*h", "4*w"))
    assert ours.range == theirs.range == (-1.0, 1.0) and ours.draw is None
    assert graph.radius is None  # norms, or all of a U-Net, see the whole
    module = graph.build(run.averaged)
    assert graph.least == (2 if generator == "resnet" else 1)
    for h, w in ((graph.least, graph.least), (3, 2), (2, 5)):
        x = torch.rand(2, 1, 4 * h, 4 * w) * 2 - 1
        made = module(x)
        assert made.shape == (2, 3, 4 * h, 4 * w) and made.abs().max() <= 1
        assert torch.allclose(module(x[:1]), made[:1], atol=1e-5)  # and draws nothing


REFUSED: list[tuple[int, dict[str, Any], str]] = [
    (7, {}, r"7 x 7 pixels, halved 1 times\. Use a multiple of 2"),
    (24, {"downs": 4}, r"24 x 24 pixels, halved 4 times\. Use a multiple of 16.*--set downs=N"),
    (8, {"downs": 3, "generator": "resnet"}, r"8 x 8 pixels, halved 3 times.*at least 16"),
    (4, {}, r"too deep for this resolution.*1 layers, 4 x 4 pixels\. Use at least 6 pixels"),
    (16, {"d_layers": 3}, "too deep.*Use at least 24 pixels, or fewer layers with --set d_layers=N"),
]  # fmt: skip


@pytest.mark.parametrize(("size", "given", "said"), REFUSED)
def test_sizes_that_do_not_fit_are_refused(size: int, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        system(info(size), **given)


@pytest.mark.parametrize(
    ("size", "given"),
    [
        (6, {"downs": 1, "d_layers": 1}),
        (8, {"downs": 2, "d_layers": 1, "generator": "resnet"}),
        (24, {"downs": 3, "d_layers": 3}),
        (16, {"downs": 4, "d_layers": 1}),
    ],
)
def test_the_smallest_that_fit_train(size: int, given: dict[str, Any]) -> None:
    """At the border of what is refused, on batches of one, with either norm."""
    for norm in ("batch", "instance"):
        run = live(
            "pix2pix", dataset("pix2pix", size=size), batch_size=1, norm=norm, d_norm=norm, **given
        )
        run.run_step()
        assert run.skipped == 0


def test_a_residual_one_needs_images_of_one_kind() -> None:
    with pytest.raises(InputError, match=r"1 and 3 channels\..*Leave residual out"):
        system(info(16, (1, 16, 16)), generator="resnet", residual=True, downs=2)
    assert system(info(16), generator="resnet", residual=True, downs=2).networks()["G"].residual


def test_labels_are_left_aside() -> None:
    data = dataset("pix2pix")
    data.labels, data.classes = np.zeros(12, np.int64), ("only",)
    run = training(Pix2Pix, data=data, options=options(data.info, width=4, d_width=4))
    assert run.system.classes == ()
    run.run_step()


@pytest.mark.parametrize("arrangement", ["single", "unpaired"])
def test_data_that_is_no_pairs_is_refused(arrangement: Any) -> None:
    data = dataset("pix2pix", arrangement=arrangement)
    with pytest.raises(InputError, match=rf"arranged as {arrangement}\. It takes pairs"):
        live("pix2pix", data)
