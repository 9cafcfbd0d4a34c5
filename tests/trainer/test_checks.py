"""Contradictory settings are refused before anything is trained, by name and with the way out; others pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from gan.runtime.errors import InputError
from gan.runtime.signature import Draw, Field
from gan.trainer import systems
from gan.trainer.checks import check
from gan.trainer.config import make_options
from gan.trainer.losses import LOSSES
from gan.trainer.parts import DataInfo, Graph, Player
from gan.trainer.request import plan
from gan.trainer.system import System, sample_field

from .conftest import Point, PointOptions, tiny_request

LABELLED = DataInfo((3, 32, 32), ("a", "b", "c"))
UNLABELLED = DataInfo((1, 64, 64))
ALPHA = DataInfo((4, 8, 8))
CLOUD = DataInfo((2,), (), "points")
LABELLED_CLOUD = DataInfo((3,), ("a", "b"), "points")
EVERY = (LABELLED, UNLABELLED, ALPHA, CLOUD, LABELLED_CLOUD)
Given = dict[str, Any]


def made(name: str, data: DataInfo, given: Mapping[str, Any]) -> System:
    """A built-in system with its preset for this data, with partners where it needs them, and other settings over it."""
    kind, _ = systems.load(name)
    if "single" not in kind.arrangements:
        data = dataclasses.replace(data, arrangement=kind.arrangements[0], partner=data.shape)
    return kind(make_options(kind, data, given), data)


def suitable(name: str) -> list[DataInfo]:
    """The kinds of data that a built-in system takes."""
    kind, _ = systems.load(name)
    return [
        data
        for data in EVERY
        if data.kind in kind.kinds and (data.classes or not kind.needs_labels)
    ]


# name of the system, data, settings: and words of the message, in its order.
REFUSED: list[tuple[str, DataInfo, Given, str]] = [
    *(
        ("gan", ALPHA, {"label_smoothing": 0.1, "loss": loss},
         f"Label smoothing.*{loss}.*Use non-saturating, minimax, least-squares")
        for loss in ("hinge", "wasserstein", "relativistic")
    ),
    ("gan", ALPHA, {"skip_d_below": 0.1, "loss": "wasserstein"},
     "skip_d_below.*wasserstein.*Leave skip_d_below out, or choose another loss"),
    ("gan", ALPHA, {"fakes": "reused", "accumulate": 2, "batch_size": 4},
     "Reused fakes.*accumulat.*Leave one of fakes=reused and accumulate out"),
    ("unrolled", ALPHA, {"accumulate": 2, "batch_size": 4},
     "Unrolling.*accumulat.*Leave one of unroll and accumulate out"),
    ("gan", ALPHA, {"accumulate": 3, "batch_size": 64},
     "equal parts.*64 samples in 3 parts.*multiple of accumulate"),
    ("gan", ALPHA, {"accumulate": 128, "batch_size": 64}, "64 samples in 128 parts"),
    ("gan", ALPHA, {"diffaugment": "color,flip"},
     "diffaugment.*'flip'.*color, translation, cutout"),
    ("gan", ALPHA, {"diffaugment": "Color"}, "diffaugment.*'Color'.*color, translation, cutout"),
    ("gan", CLOUD, {"diffaugment": "color"}, "diffaugment is for images.*Leave diffaugment out"),
    ("gan", CLOUD, {"ada": 0.1}, "ada is for images.*points.*Leave ada out"),
    ("gan", CLOUD, {"ada_target": 0.6}, "ada_target is for images.*Leave ada_target out"),
    ("dcgan", LABELLED, {"gp": 10.0}, "gradient penalty.*batch norm.*gp.*d_norm=none"),
    ("wgan-gp", LABELLED, {"d_norm": "batch"}, "gradient penalty.*batch norm.*d_norm=none"),
    ("dcgan", LABELLED, {"unroll": 1}, "batch norm.*unroll.*d_norm=none"),
    ("unrolled", LABELLED, {"d_norm": "batch"}, "batch norm.*unroll.*d_norm=none"),
    ("r3gan", LABELLED, {"spectral_norm": True}, "spectral norm.*weights of 0.*Leave spectral_norm out"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "given", "words"), REFUSED, ids=[f"{case[0]} {case[2]}" for case in REFUSED]
)
def test_a_contradiction_is_refused_by_name_and_with_the_way_out(
    name: str, data: DataInfo, given: Given, words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        check(made(name, data, given))
    assert caught.value.failed and caught.value.seen and caught.value.repair


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"label_smoothing": 0.1, "loss": "hinge"}, "Label smoothing"),
        ({"accumulate": 3}, "4 samples in 3 parts"),
        ({"diffaugment": "blur"}, "diffaugment"),
        ({"gp": 10.0, "d_norm": "batch", "resolution": 16}, "gradient penalty"),
        ({"unroll": 2, "d_norm": "batch", "resolution": 16}, "unrolled"),
    ],
)
def test_a_plan_with_a_contradiction_is_refused_and_writes_nothing(
    digit_folder: Path, tmp_path: Path, given: Given, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        plan(tiny_request(digit_folder, tmp_path / "run", given))
    assert not (tmp_path / "run").exists()


def test_a_plan_that_mirrors_points_is_refused(tmp_path: Path) -> None:
    request = tiny_request(Path("ring"), tmp_path / "run", {"resolution": None, "mirror": True})
    with pytest.raises(InputError, match=r"mirror is for images.*points.*Leave mirror out"):
        plan(request)


def test_mirroring_is_refused_for_points_and_passes_for_images() -> None:
    with pytest.raises(InputError, match=r"mirror is for images.*Leave mirror out"):
        check(made("gan", CLOUD, {}), mirror=True)
    check(made("gan", ALPHA, {}), mirror=True)


# A user's own system is held to the same.


class Two(Point):
    """Two discriminators, of which the second may have a batch norm."""

    norm: nn.Module = nn.Identity()

    def networks(self) -> dict[str, nn.Module]:
        second = nn.Sequential(nn.Linear(1, 2), type(self).norm, nn.Linear(2, 1))
        return {**super().networks(), "E": second}

    def players(self) -> dict[str, Player]:
        both = super().players()
        both["D"].networks = ("D", "E")
        return both


@pytest.mark.parametrize("given", [{"gp": 1.0}, {"unroll": 1}])
@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2)]
)
def test_a_batch_norm_in_any_discriminator_of_ones_own_is_found(
    monkeypatch: pytest.MonkeyPatch, norm: nn.Module, given: Given
) -> None:
    data = DataInfo((1, 1, 1))
    check(Two(PointOptions(**given), data))
    monkeypatch.setattr(Two, "norm", norm)
    with pytest.raises(InputError, match="batch norm"):
        check(Two(PointOptions(**given), data))
    check(Two(PointOptions(), data))  # which harms nothing else


def test_a_batch_norm_in_g_harms_no_discriminator() -> None:
    class Normed(Point):
        def networks(self) -> dict[str, nn.Module]:
            g = nn.Sequential(nn.Linear(self.options.latent, 1), nn.BatchNorm1d(1))
            return {**super().networks(), "G": g}

    check(Normed(PointOptions(gp=1.0, unroll=2), DataInfo((1, 1, 1))))


def test_minibatch_deviation_needs_a_place_in_a_discriminator_of_ones_own() -> None:
    words = r"point has no place for minibatch deviation.*MinibatchDeviation\(\) before D's last"
    with pytest.raises(InputError, match=words):
        check(Point(PointOptions(minibatch_deviation=True), DataInfo((1, 1, 1))))


class OwnLatents(Point):
    """A field z of its own, with another draw."""

    draw: Draw | None = Draw("normal")

    def graphs(self) -> dict[str, Graph]:
        z = Field("z", (3,), "latent", draw=type(self).draw)
        output = sample_field(self.data)
        return {"image": Graph((z,), (output,), lambda nets: nets["G"])}


@pytest.mark.parametrize("draw", [Draw("normal"), None])
def test_uniform_latents_need_a_graph_that_draws_them_so(
    monkeypatch: pytest.MonkeyPatch, draw: Draw | None
) -> None:
    data = DataInfo((1, 1, 1))
    monkeypatch.setattr(OwnLatents, "draw", draw)
    with pytest.raises(InputError, match=r"point draws its latents.*self\.latent_field\(\)"):
        check(OwnLatents(PointOptions(latents="uniform"), data))
    check(OwnLatents(PointOptions(), data))
    monkeypatch.setattr(OwnLatents, "draw", Draw("uniform", low=-1.0, high=1.0))
    check(OwnLatents(PointOptions(latents="uniform"), data))


# What is no contradiction.


def passes(system: System) -> None:
    """Not refused, and what a training asks of a system can be made."""
    check(system)
    assert system.players() and system.stages() and system.graphs()
    system.augmentations()


@pytest.mark.parametrize("name", systems.names())
def test_every_preset_passes_on_all_suitable_data(name: str) -> None:
    data = suitable(name)
    assert data
    for info in data:
        passes(made(name, info, {}))


WITHOUT_DEVIATION = (
    "cyclegan",
    "inpainting",
    "pix2pix",
    "srgan",
)  # they judge patches, or images given
ON_ALL: dict[str, Given] = {
    "penalties": {"r1": 1.0, "r2": 1.0, "roth": 1.0, "drift": 1e-3, "penalty_every": 4},
    "the discriminator": {"clip_weights": 0.1, "d_weight_decay": 0.1},
    "minibatch deviation": {"minibatch_deviation": True},
    "noise": {"instance_noise": 0.1},
    "moves": {"optimizer": "rmsprop", "d_moves": 3, "clip_gradient": 1.0, "decay_share": 0.5},
    "uniform latents": {"latents": "uniform", "latent": 7},
    "reused fakes": {"fakes": "reused"},
}


@pytest.mark.parametrize("name", systems.names())
@pytest.mark.parametrize("case", ON_ALL)
def test_what_contradicts_nothing_passes_for_every_system(name: str, case: str) -> None:
    for info in suitable(name):
        system = made(name, info, ON_ALL[case])
        if case == "minibatch deviation" and name in WITHOUT_DEVIATION:
            with pytest.raises(InputError, match=f"{name} has no place for minibatch deviation"):
                check(system)
        else:
            passes(system)


@pytest.mark.parametrize("name", [name for name in systems.names() if name != "r3gan"])
def test_spectral_norm_passes_for_every_other_system(name: str) -> None:
    passes(made(name, DataInfo((3, 16, 16), ("a", "b")), {"spectral_norm": True}))


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_passes_with_what_it_can_do(loss: str) -> None:
    given: Given = {"loss": loss}
    if LOSSES[loss].smooth:
        given["label_smoothing"] = 0.1
    if loss != "wasserstein":
        given["skip_d_below"] = 0.1
    passes(made("gan", LABELLED, given))


def test_labels_may_be_left_out() -> None:
    for name in systems.names():
        if not systems.load(name)[0].needs_labels:
            passes(made(name, LABELLED, {"labels": False}))


def test_images_may_be_augmented_in_every_way() -> None:
    for policies in ("color", "translation,cutout", "color,translation,cutout"):
        passes(made("dcgan", UNLABELLED, {"diffaugment": policies, "ada": 0.5, "ada_target": 0.6}))


@pytest.mark.parametrize("policies", ["color,", ",", ",cutout", "color,,cutout"])
def test_an_empty_policy_is_refused(policies: str) -> None:
    with pytest.raises(InputError, match=r"diffaugment.*''.*color, translation, cutout"):
        check(made("gan", ALPHA, {"diffaugment": policies}))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("dcgan", {"gp": 10.0, "d_norm": "none"}),
        ("dcgan", {"unroll": 2, "d_norm": "none"}),
        ("cgan", {"gp": 10.0}),
        ("gan", {"unroll": 2, "fakes": "reused"}),
        ("gan", {"accumulate": 4, "batch_size": 64}),
        ("gan", {"accumulate": 1, "batch_size": 7, "fakes": "reused", "unroll": 1}),
    ],
)
def test_the_ways_out_are_ways_out(name: str, given: Given) -> None:
    passes(made(name, LABELLED, given))
