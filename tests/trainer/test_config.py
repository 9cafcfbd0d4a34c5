"""Settings: what they resolve to, what is refused, and how a resumed run's differences are named."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from gan.runtime.errors import CheckpointError, InputError
from gan.trainer.config import (
    Config,
    check_type,
    check_windows,
    default_ema_decay,
    make_config,
    make_options,
    parse_setting,
    resume_config,
)
from gan.trainer.losses import LOSSES
from gan.trainer.options import Options
from gan.trainer.parts import DataInfo
from gan.trainer.request import plan
from gan.trainer.system import System
from gan.trainer.systems import SystemSource, load

from .conftest import Point, tiny_request

DATA = DataInfo((1, 28, 28), ("a", "b"))
PLAIN = DataInfo((3, 64, 64))


@dataclass(frozen=True, kw_only=True)
class OwnOptions(Options):
    """One option of each type that an author may choose."""

    count: int = 3
    rate: float = 0.5
    flag: bool = False
    word: str = "x"
    kind: Literal["soft", "hard"] = "soft"
    level: Literal[1, 2] = 1
    cut: float | None = None
    top: int | None = 7


class Own(Point):
    name = "own"
    options_type = OwnOptions


class OfPoints(Own):
    kinds = ("points",)


def make(given: dict[str, Any] | None = None, kind: type[System] = Own, **rest: Any) -> Config:
    data = rest.pop("data", PLAIN)
    return make_config(kind, SystemSource(kind.name), data, given or {}, **{"steps": 500, **rest})


def test_every_value_is_resolved_from_the_preset() -> None:
    config = make()
    assert config.flat() == {
        "system": "own", "resolution": 64, "channels": 3, "fit": None, "crop": None, "zoom": 1.0, "mirror": False,
        "swap": False, "steps": 500,
        "seed": 0, "ema_decay": None, "loss": "non-saturating", "label_smoothing": 0.0, "r1": 0.0, "r2": 0.0,
        "gp": 0.0, "roth": 0.0, "drift": 0.0, "penalty_every": 1, "clip_weights": 0.0, "d_weight_decay": 0.0,
        "spectral_norm": False, "minibatch_deviation": False, "instance_noise": 0.0, "instance_noise_share": 0.5,
        "diffaugment": "", "ada": 0.0, "ada_target": 0.0, "ada_images": 500_000, "ada_colour": 1.0,
        "ada_cutout": 0.0, "optimizer": "adam", "g_learning_rate": 2e-4, "d_learning_rate": 2e-4, "beta1": 0.5,
        "beta2": 0.999, "decay_share": 0.0, "d_moves": 1, "skip_d_below": 0.0, "unroll": 0, "fakes": "fresh",
        "clip_gradient": 0.0, "accumulate": 1, "batch_size": 64, "labels": True, "latents": "normal",
        "latent": 100, "width": 64, "embedding": 32, "projection": 128, "count": 3, "rate": 0.5, "flag": False,
        "word": "x", "kind": "soft", "level": 1, "cut": None, "top": 7,
    }  # fmt: skip
    assert Config.from_dict(config.to_dict()) == config


def test_every_value_can_be_given() -> None:
    given: dict[str, Any] = {
        "fit": "pad", "crop": 48, "zoom": 1.5, "mirror": True, "swap": True, "steps": 9, "seed": 2**64 - 1, "ema_decay": 0.5, "loss": "hinge",
        "label_smoothing": 0.25, "r1": 2.0, "r2": 3.0, "gp": 10.0, "roth": 0.1, "drift": 1e-3,
        "penalty_every": 4, "clip_weights": 0.01, "d_weight_decay": 1e-4, "spectral_norm": True,
        "minibatch_deviation": True, "instance_noise": 0.2, "instance_noise_share": 1.0,
        "diffaugment": "color,cutout", "ada": 0.5, "ada_target": 0.6, "ada_images": 1000, "ada_colour": 0.5,
        "ada_cutout": 1.0, "optimizer": "rmsprop", "g_learning_rate": 1e-3, "d_learning_rate": 1e-2,
        "beta1": 0.0, "beta2": 0.9, "decay_share": 0.25, "d_moves": 5, "skip_d_below": 0.1, "unroll": 5,
        "fakes": "reused", "clip_gradient": 2.0, "accumulate": 2, "batch_size": 2, "labels": False,
        "latents": "uniform", "latent": 8, "width": 4, "embedding": 2, "projection": 3, "count": 1, "rate": 2.5,
        "flag": True, "word": "y", "kind": "hard", "level": 2, "cut": 1.5, "top": 1,
    }  # fmt: skip
    config = make(given)
    assert config.flat() == given | {"system": "own", "resolution": 64, "channels": 3}
    assert Config.from_dict(config.to_dict()) == config


def test_a_system_may_choose_its_preset_by_the_data() -> None:
    class Tuned(Own):
        @classmethod
        def preset(cls, data: DataInfo) -> Options:
            return OwnOptions(batch_size=8 if data.height > 32 else 16, rate=0.1)

    assert make(kind=Tuned).options["batch_size"] == 8
    assert make(kind=Tuned, data=DATA).options["batch_size"] == 16
    assert make({"batch_size": 4}, Tuned).options["batch_size"] == 4
    assert make({"batch_size": 4}, Tuned).options["rate"] == 0.1


def test_the_average_of_a_short_run_forgets_faster() -> None:
    assert default_ema_decay(1) == default_ema_decay(1500) == 0.99
    assert default_ema_decay(3000) == pytest.approx(0.995)
    assert default_ema_decay(15_000) == default_ema_decay(10**6) == 0.999


def test_the_average_has_no_decay_of_its_own_unless_one_is_chosen() -> None:
    for steps in (100, 10**6):
        assert make(steps=steps).ema_decay is None
        assert make({"ema_decay": 0.7}, steps=steps).ema_decay == 0.7


def test_points_have_neither_resolution_nor_channels() -> None:
    config = make(data=DataInfo((2,), kind="points"), kind=OfPoints)
    assert config.resolution is None and config.channels is None
    assert Config.from_dict(config.to_dict()) == config


def test_data_of_another_kind_than_a_systems_is_refused() -> None:
    points, images = DataInfo((2,), kind="points"), PLAIN
    with pytest.raises(InputError, match=r"own cannot.*samples that are points.*It takes images"):
        make(data=points)
    with pytest.raises(InputError, match=r"samples that are images.*It takes points"):
        make(data=images, kind=OfPoints)

    class Tall(Own):
        @classmethod
        def preset(cls, data: DataInfo) -> Options:
            return OwnOptions(count=data.height)  # which points do not have

    with pytest.raises(InputError, match="It takes images"):
        make(data=points, kind=Tall)


WRONG: list[tuple[str, Any]] = [
    ("nothing", 1), ("loss", "magic"), ("loss", 3), ("steps", 0), ("steps", -1), ("steps", 10**9 + 1),
    ("steps", "many"), ("steps", 2.5), ("steps", True), ("seed", -1), ("seed", 2**64),
    ("seed", "x"), ("ema_decay", 1.0), ("ema_decay", -0.1), ("ema_decay", "high"),
    ("ema_decay", float("nan")), ("mirror", "perhaps"), ("mirror", 2), ("fit", "squash"),
    ("channels", 2), ("crop", 0), ("crop", "half"), ("crop", 10**6), ("zoom", 0.9), ("zoom", 4.1),
    ("zoom", float("nan")), ("zoom", "far"), ("swap", "perhaps"), ("resolution", 0), ("resolution", -8), ("resolution", "big"), ("resolution", 10**6),
    ("batch_size", 0), ("batch_size", -4), ("batch_size", 2.5), ("batch_size", "two"),
    ("batch_size", float("inf")), ("batch_size", None), ("batch_size", [4]), ("latent", 0),
    ("d_moves", 0), ("penalty_every", 0), ("g_learning_rate", 0.0), ("g_learning_rate", -1e-3),
    ("d_learning_rate", float("nan")), ("d_learning_rate", float("inf")), ("r1", -1.0), ("r2", float("inf")),
    ("r1", "strong"), ("beta1", 1.0), ("beta2", -0.1), ("decay_share", 1.5), ("labels", "maybe"),
    ("kind", "medium"), ("level", 3), ("level", "soft"), ("rate", 10**400), ("cut", "no"),
    ("flag", 7), ("word", None), ("label_smoothing", 0.5), ("gp", -1.0), ("roth", float("nan")), ("drift", -1e-9),
    ("clip_weights", -0.01), ("d_weight_decay", float("inf")), ("spectral_norm", "perhaps"),
    ("instance_noise", -1.0), ("instance_noise_share", 0.0), ("instance_noise_share", 1.01), ("ada", 1.01),
    ("ada_target", 1.0), ("ada_images", 0), ("ada_colour", 2.0), ("optimizer", "lion"), ("skip_d_below", -0.1),
    ("unroll", 101), ("unroll", -1), ("fakes", "old"), ("clip_gradient", -1.0), ("accumulate", 0),
    ("latents", "cauchy"), ("width", 0), ("embedding", 0), ("projection", 2**16),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_names_types_and_ranges_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        make({name: value})
    message = str(caught.value)
    assert name in message or str(value) in message
    assert caught.value.repair


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("d_moves", 0, "a number above 0"), ("r1", -1.0, "0 or more"), ("beta1", 1.0, "a number in [0, 1)"),
        ("ema_decay", 1.0, "a number in [0, 1)"), ("ada", 2.0, "a number in [0, 1]"), ("steps", 0, "1 to 1,000,000,000"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_answered_with_the_range(
    name: str, value: float, allowed: str
) -> None:
    with pytest.raises(InputError) as caught:
        make({name: value})
    assert caught.value.repair == f"Give {allowed}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("resolution", 0), ("resolution", -8), ("channels", 2), ("fit", "squash")],
)
def test_a_wrong_value_is_refused_before_an_image_is_decoded(
    name: str, value: Any, digit_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=name):
        plan(tiny_request(digit_folder, tmp_path / "run", {name: value}))
    assert not (tmp_path / "run").exists()


def test_an_unknown_loss_is_answered_with_all_of_them() -> None:
    with pytest.raises(InputError) as caught:
        make({"loss": "wgan"})
    assert all(name in str(caught.value) for name in LOSSES)


def test_settings_are_parsed_as_the_options_types_say() -> None:
    parsed = {
        "count=12": 12, "rate=1e-3": 1e-3, "flag=yes": True, "flag=False": False, "word=a=b": "a=b",
        "kind=hard": "hard", "g-learning-rate = 0.1": 0.1, "cut=2": 2.0, "top=3": 3, "labels=no": False,
        "batch_size= 4": 4,
    }  # fmt: skip
    for text, value in parsed.items():
        name = text.partition("=")[0].strip().replace("-", "_")
        assert parse_setting(Own, text) == (name, value)
        assert type(parse_setting(Own, text)[1]) is type(value)


@pytest.mark.parametrize(
    "text", ["count", "", "=3", "cuont=3", "count=x", "count=1.5", "kind=medium", "flag=2", "rate="]
)
def test_a_setting_that_cannot_be_read_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_setting(Own, text)
    assert any(
        part in caught.value.repair for part in ("penalty_every", "int", "soft", "bool", "float")
    )


def test_types_keep_their_value_exactly() -> None:
    assert check_type("x", 3, float) == 3.0 and isinstance(check_type("x", 3, float), float)
    assert check_type("x", 3.0, int) == 3 and isinstance(check_type("x", 3.0, int), int)
    assert check_type("x", None, int | None) is None
    with pytest.raises(InputError):
        check_type("x", None, int)


def test_a_conditional_system_needs_labels() -> None:
    cgan = load("cgan")[0]
    assert make_options(cgan, DATA, {}).labels
    with pytest.raises(InputError, match=r"cgan needs labels.*without classes.*--system dcgan"):
        make_options(cgan, PLAIN, {})
    with pytest.raises(InputError, match=r"cgan needs labels.*labels turned off"):
        make_options(cgan, DATA, {"labels": False})


def test_zooming_needs_windows() -> None:
    check_windows({})
    check_windows({"zoom": 1.0})
    check_windows({"zoom": 2.0, "crop": 8})
    with pytest.raises(InputError, match=r"--zoom 1\.5 without --crop.*Add --crop"):
        check_windows({"zoom": 1.5})


def test_the_resolution_is_that_of_the_prepared_images_and_not_of_their_windows() -> None:
    config = make({"crop": 24}, data=DataInfo((3, 24, 24)), resolution=64)
    assert (config.resolution, config.crop, config.zoom) == (64, 24, 1.0)
    assert Config.from_dict(config.to_dict()) == config


# Resuming.


def test_the_same_settings_resume() -> None:
    stored = make({"steps": 100, "r1": 1.0})
    assert resume_config(stored, {}, ()) == stored
    assert resume_config(stored, {"steps": 100, "r1": 1, "seed": 0, "fit": None}, ()) == stored


def test_every_difference_is_named() -> None:
    stored = make({"steps": 100})
    given: dict[str, Any] = {
        "steps": 50,
        "seed": 4,
        "r1": 2.0,
        "mirror": True,
        "loss": "hinge",
        "latent": 100,
    }
    with pytest.raises(CheckpointError) as caught:
        resume_config(stored, given, ())
    message = str(caught.value)
    for part in (
        "steps 100 (now 50)", "seed 0 (now 4)", "r1 0.0 (now 2.0)", "mirror False (now True)",
        "loss non-saturating (now hinge)", "--accept steps", "--accept seed", "--accept r1", "--force",
    ):  # fmt: skip
        assert part in message
    assert "latent" not in message
    with pytest.raises(CheckpointError, match="--accept g-learning-rate"):
        resume_config(stored, {"g_learning_rate": 1.0}, ())


def test_only_the_accepted_differences_are_taken() -> None:
    stored = make({"steps": 100})
    resumed = resume_config(stored, {"r1": 2.0, "seed": 4}, ("r1", "seed"))
    assert resumed == dataclasses.replace(stored, seed=4, options={**stored.options, "r1": 2.0})
    with pytest.raises(CheckpointError) as caught:
        resume_config(stored, {"r1": 2.0, "seed": 4}, ("r1",))
    assert "seed" in caught.value.seen and "r1" not in caught.value.seen


def test_steps_may_grow_but_not_shrink_unnamed() -> None:
    stored = make({"steps": 100})
    assert resume_config(stored, {"steps": 101}, ()).steps == 101
    with pytest.raises(CheckpointError, match=r"steps 100 \(now 99\)"):
        resume_config(stored, {"steps": 99}, ())
    assert resume_config(stored, {"steps": 99}, ("steps",)).steps == 99


def test_growing_steps_leave_a_chosen_decay_and_one_that_was_not_chosen_as_they_are() -> None:
    assert resume_config(make({"steps": 100}), {"steps": 10**6}, ()).ema_decay is None
    chosen = make({"steps": 100, "ema_decay": 0.7})
    assert resume_config(chosen, {"steps": 10**6}, ()).ema_decay == 0.7
    with pytest.raises(CheckpointError, match=r"ema_decay None \(now 0\.5\)"):
        resume_config(make(), {"ema_decay": 0.5}, ())
    assert resume_config(make(), {"ema_decay": 0.5}, ("ema_decay",)).ema_decay == 0.5


def test_an_accepted_value_must_still_be_a_possible_one() -> None:
    with pytest.raises(InputError, match="seed"):
        resume_config(make(), {"seed": -1}, ("seed",))


# Read from a checkpoint.


JUNK: dict[str, list[Any]] = {
    "system": [
        None,
        "x",
        3,
        [],
        {},
        {"name": 3},
        {"name": "a", "file": 1},
        {"name": "a", "path": "b"},
    ],
    "resolution": ["x", 0, -1, 2.5, [], True],
    "channels": ["x", 2, []],
    "fit": ["x", 1, []],
    "crop": ["x", 0, 2.5, []],
    "zoom": [None, "x", 0.5, 4.5, float("nan"), 2.0],  # the last without crop
    "mirror": [None, "x", 7, []],
    "swap": [None, "x", 7, []],
    "steps": [None, "x", 0, -1, {}],
    "seed": [None, "x", -1, 2**64],
    "ema_decay": ["x", 1.0, float("nan")],
    "options": [None, "x", 3, [1], {3: 1}, {"r1": []}, {"r1": torch.zeros(2)}],
}


@pytest.mark.parametrize("name", JUNK)
def test_a_damaged_configuration_is_refused(name: str) -> None:
    whole = make().to_dict()
    assert set(whole) == set(JUNK)
    for value in JUNK[name]:
        with pytest.raises(CheckpointError, match="configuration cannot be read"):
            Config.from_dict({**whole, name: value})
    with pytest.raises(CheckpointError, match="configuration cannot be read"):
        Config.from_dict({key: value for key, value in whole.items() if key != name})
    with pytest.raises(CheckpointError, match="configuration cannot be read"):
        Config.from_dict({**whole, "extra": 1})


def test_what_was_not_chosen_is_a_value_like_any_other() -> None:
    whole = make().to_dict()
    for name in ("resolution", "channels", "fit", "crop", "ema_decay"):
        assert Config.from_dict({**whole, name: None}).flat()[name] is None
