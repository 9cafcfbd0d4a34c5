"""A request becomes a plan: which system, which settings, which data; and what a resumed run may not change."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan.runtime.driver import Driver
from gan.runtime.errors import (
    CheckpointError,
    DatasetError,
    DeviceUnavailableError,
    GanError,
    InputError,
)
from gan.trainer.builtin import BUILTIN
from gan.trainer.checkpoint import Checkpoint
from gan.trainer.loop import train
from gan.trainer.request import choose_arrangement, choose_device, plan
from gan.trainer.system import System

from .conftest import OWN, Point, Run, content, own_request, tiny_request


def test_a_plan_writes_nothing(digit_folder: Path, tmp_path: Path) -> None:
    ready = plan(tiny_request(digit_folder, tmp_path / "run"))
    assert len(ready.data) == 48 and ready.checkpoint is None and ready.config.steps == 6
    assert ready.system.name == "cgan" and ready.device.type == "cpu"
    assert not (tmp_path / "run").exists()


def test_differences_are_refused_by_name_and_taken_when_accepted(run: Run) -> None:
    first = run()
    with pytest.raises(CheckpointError, match=r"loss non-saturating \(now hinge\).*--accept loss"):
        run({"loss": "hinge", "steps": 8})
    assert content(first)["progress"]["step"] == 6
    outcome = run({"loss": "hinge", "steps": 8}, accept=("loss",))
    assert outcome.config.options["loss"] == "hinge" and outcome.step == 8
    assert content(outcome)["config"]["options"]["loss"] == "hinge"
    with pytest.raises(CheckpointError, match=r"loss hinge \(now non-saturating\)"):
        run({"loss": "non-saturating", "steps": 8})
    assert run({"steps": None}).step == 8  # what is not said stays


def test_differences_can_be_accepted_as_they_are_written_on_the_command(run: Run) -> None:
    run()
    settings = ("g-learning-rate=0.5",)
    with pytest.raises(CheckpointError, match="--accept g-learning-rate"):
        run({"steps": 7}, settings=settings)
    outcome = run({"steps": 7}, settings=settings, accept=("g-learning-rate",))
    assert outcome.config.options["g_learning_rate"] == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("beta1", 2.0), ("seed", -1), ("loss", "magic"), ("nothing", 1)],
)
def test_an_accepted_difference_must_still_be_possible(run: Run, name: str, value: Any) -> None:
    first = run()
    before = first.folder.checkpoint.read_bytes()
    with pytest.raises(InputError):
        run({name: value, "steps": 8}, accept=(name,))
    assert first.folder.checkpoint.read_bytes() == before


def test_weights_of_another_size_do_not_fit_even_when_accepted(run: Run) -> None:
    run()
    with pytest.raises(CheckpointError, match="do not fit"):
        run({"width": 8, "steps": 8}, accept=("width",))


def test_workers_and_logging_are_free(run: Run) -> None:
    run()
    outcome = run({"steps": 7}, workers=7, sample_every=3, measure_every=2, checkpoint_every=5)
    assert outcome.step == 7


def test_other_data_is_refused_unless_accepted(digit_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "digits8"
    shutil.copytree(digit_folder, data)
    request = tiny_request(data, tmp_path / "run")
    train(request)
    more = dataclasses.replace(request, given={**request.given, "steps": 7})
    next(iter((data / "0").iterdir())).unlink()
    with pytest.raises(CheckpointError, match=r"other data.*47 images.*--accept data"):
        train(more)
    outcome = train(dataclasses.replace(more, accept=("data",)))
    assert outcome.step == 7 and content(outcome)["data"]["count"] == 47
    shutil.rmtree(data)
    with pytest.raises(DatasetError):
        train(more)


def test_a_damaged_checkpoint_is_an_error_and_stays(run: Run) -> None:
    first = run()
    first.folder.checkpoint.write_bytes(first.folder.checkpoint.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"not a readable checkpoint.*best\.pt"):
        run()
    assert len(first.folder.checkpoint.read_bytes()) == 5000


@pytest.mark.parametrize("minutes", [0, -1.0, float("nan"), float("inf"), 1e9])
def test_impossible_minutes_are_refused(digit_folder: Path, tmp_path: Path, minutes: float) -> None:
    with pytest.raises(InputError, match="minutes"):
        train(tiny_request(digit_folder, tmp_path / "run", {"steps": None}, minutes=minutes))
    assert not (tmp_path / "run").exists()


def test_labelled_data_trains_a_cgan_and_any_other_a_dcgan(
    digit_folder: Path, tmp_path: Path
) -> None:
    assert plan(tiny_request(digit_folder, tmp_path / "a")).system.name == "cgan"
    assert plan(tiny_request(digit_folder / "0", tmp_path / "b")).system.name == "dcgan"
    without = plan(tiny_request(digit_folder, tmp_path / "c", {"labels": False}))
    assert without.system.name == "dcgan" and without.system.classes == ()


def test_a_cgan_without_labels_is_refused(digit_folder: Path, tmp_path: Path) -> None:
    for data, given in ((digit_folder / "0", {}), (digit_folder, {"labels": False})):
        with pytest.raises(InputError, match=r"cgan needs labels.*--system dcgan"):
            train(tiny_request(data, tmp_path / "run", given, system="cgan"))


@pytest.mark.parametrize("accept", [(), ("system",)])
def test_another_system_never_resumes_a_run(run: Run, accept: tuple[str, ...]) -> None:
    run()
    with pytest.raises(CheckpointError, match="started with another system"):
        run({"steps": 8}, system="dcgan", accept=accept)


def test_a_system_of_ones_own_is_trained_recorded_and_resumed(
    digit_folder: Path, tmp_path: Path
) -> None:
    outcome = train(own_request(digit_folder, tmp_path))
    source = outcome.config.system
    assert (source.name, source.file) == ("linear", "my_gan.py") and source.sha256
    assert content(outcome)["config"]["system"] == dataclasses.asdict(source)
    assert b"discriminate" not in outcome.folder.checkpoint.read_bytes()  # no source code
    assert train(own_request(digit_folder, tmp_path, steps=6)).step == 6
    without = dataclasses.replace(own_request(digit_folder, tmp_path, steps=7), system=None)
    with pytest.raises(CheckpointError, match=r"Add --system my_gan\.py"):
        train(without)
    checkpoint = Checkpoint.load(outcome.folder.checkpoint)
    assert checkpoint.system(file=str(tmp_path / "my_gan.py")).name == "linear"
    with pytest.raises(CheckpointError, match="Add --system"):
        checkpoint.system()


def test_a_changed_file_is_refused_until_accepted_and_then_recorded(
    digit_folder: Path, tmp_path: Path
) -> None:
    train(own_request(digit_folder, tmp_path))
    changed = OWN + "\n# a better idea\n"
    with pytest.raises(CheckpointError, match=r"not the file.*--accept system"):
        train(own_request(digit_folder, tmp_path, changed, steps=5))
    accepted = train(own_request(digit_folder, tmp_path, changed, steps=5, accept=("system",)))
    assert accepted.step == 5
    assert train(own_request(digit_folder, tmp_path, changed, steps=6)).step == 6
    with pytest.raises(CheckpointError, match="not the file"):
        train(own_request(digit_folder, tmp_path, OWN, steps=7))


def test_a_file_with_the_name_of_a_built_in_system_is_not_taken_for_it(
    digit_folder: Path, tmp_path: Path
) -> None:
    given = {"steps": 4, "labels": False}
    request = tiny_request(digit_folder, tmp_path / "run", given, system="dcgan")
    train(request)
    text = 'from gan.trainer.systems.dcgan import DCGAN\nclass Mine(DCGAN):\n    name = "dcgan"\n'
    (tmp_path / "mine.py").write_text(text)
    more = {**request.given, "steps": 5}
    with pytest.raises(CheckpointError, match="started with another system"):
        train(dataclasses.replace(request, given=more, system=str(tmp_path / "mine.py")))


def test_a_file_that_cannot_be_loaded_is_an_error(digit_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"my_gan\.py failed while it was loaded.*SyntaxError"):
        train(own_request(digit_folder, tmp_path, "class Broken(:\n"))


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    yield


def test_a_device_is_chosen_or_refused_with_the_way_out(no_cuda: None) -> None:
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    for name in ("cuda", "cuda:0", "cuda:7"):
        with pytest.raises(DeviceUnavailableError, match=r"0 CUDA devices.*--device cpu"):
            choose_device(name)
    for name in ("tpu", "meta", "cuda:x", "", "cpu gpu"):
        with pytest.raises(InputError, match="auto, cpu, cuda or cuda:N"):
            choose_device(name)


@pytest.mark.parametrize(
    ("built", "driver", "repair"),
    [
        (None, Driver((13, 0), ("H100",)), "pip install --force-reinstall torch"),
        ("13.0", Driver(reason="libcuda.so.1: cannot open"), "Install the NVIDIA driver"),
        ("13.0", Driver((13, 0), (), "CUDA failure 100: no CUDA-capable device is detected"), "nvidia-smi -L"),
        ("13.0", Driver((12, 4), ("T4",)), "Update the NVIDIA driver"),
    ],
)  # fmt: skip
def test_what_keeps_torch_from_the_gpu_has_its_repair(
    no_cuda: None, monkeypatch: pytest.MonkeyPatch, built: str | None, driver: Driver, repair: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr("gan.trainer.request.ask_driver", lambda: driver)
    with pytest.raises(DeviceUnavailableError) as caught:
        choose_device("cuda")
    assert repair in caught.value.repair
    assert caught.value.repair.endswith("use --device cpu")


def test_cuda_is_taken_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(
        DeviceUnavailableError, match=r"2 CUDA devices\. Give one of: cuda:0, cuda:1\."
    ):
        choose_device("cuda:2")


def test_every_refusal_is_one_of_ours(digit_folder: Path, tmp_path: Path) -> None:
    requests = [
        tiny_request(tmp_path / "none", tmp_path / "run"),
        tiny_request(digit_folder, tmp_path / "run", {"resolution": 9}),
        tiny_request(digit_folder, tmp_path / "run", settings=("width",)),
        tiny_request(digit_folder, tmp_path / "run", system="none"),
        tiny_request(digit_folder, tmp_path / "run", device="tpu"),
    ]
    for request in requests:
        with pytest.raises(GanError) as caught:
            train(request)
        assert caught.value.repair
        assert not (tmp_path / "run").exists()


# Data with partners.


class Pairs(Point):
    name = "pairs"
    arrangements = ("pairs",)


class Sets(Point):
    name = "sets"
    arrangements = ("unpaired",)


class Masks(Point):
    name = "masks"
    arrangements = ("single", "unpaired")
    partner_channels = 1


@pytest.mark.parametrize(
    ("system", "without", "source"),
    [(Point, "single", None), (Pairs, "pairs", "pairs"), (Sets, "unpaired", "unpaired"),
     (Masks, "single", "unpaired")],
)  # fmt: skip
def test_a_system_and_a_source_decide_how_files_are_arranged(
    system: type[System], without: str, source: str | None
) -> None:
    assert choose_arrangement(system, "./photos") == without
    if source is None:
        with pytest.raises(InputError, match=r"point takes no source. --source ./edges.*single"):
            choose_arrangement(system, "./photos", "./edges")
    else:
        assert choose_arrangement(system, "./photos", "./edges") == source


@pytest.mark.parametrize(
    ("system", "fitting"),
    [(Point, {"digits", "stacked-digits", "shapes", "faces", "ring", "grid"}), (Pairs, {"edges", "persons"}),
     (Sets, {"warm-cold"}), (Masks, {"digits", "stacked-digits", "shapes", "faces", "ring", "grid"})],
)  # fmt: skip
def test_built_in_data_fit_a_system_or_are_refused_with_those_that_do(
    system: type[System], fitting: set[str]
) -> None:
    for name, known in BUILTIN.items():
        if name in fitting:
            assert choose_arrangement(system, name) == known.arrangement
            continue
        with pytest.raises(InputError) as caught:
            choose_arrangement(system, name)
        assert f"{system.name} cannot be trained on {name}" in str(caught.value)
        named = caught.value.repair.split("built-in data ")[1].split(";")[0]
        assert set(named.split(", ")) == {n for n in fitting if BUILTIN[n].kind in system.kinds}


PAIRED = OWN.replace('name = "linear"', 'name = "linear"\n    arrangements = ("pairs",)')
TILED = OWN.replace('name = "linear"', 'name = "linear"\n    fit = "tiles"')


def edges_of(folder: Path, to: Path) -> Path:
    """The same images upside down, under the same names."""
    for path in folder.rglob("*.png"):
        (to / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(
            to / path.relative_to(folder)
        )
    return to


def test_a_run_on_pairs_is_resumed_with_the_same_partners_only(
    digit_folder: Path, tmp_path: Path
) -> None:
    edges = edges_of(digit_folder, tmp_path / "edges")
    request = own_request(digit_folder, tmp_path, PAIRED, source=str(edges))
    ready = plan(request)
    assert ready.data.arrangement == "pairs" and ready.data.partners is not None
    assert np.array_equal(ready.data.samples[:, :, ::-1], ready.data.partners)
    assert ready.system.data.partner == (1, 8, 8) and ready.system.classes == ("0", "1", "2", "3")
    outcome = train(request)
    assert content(outcome)["data"]["info"]["partner"] == [1, 8, 8]
    assert Checkpoint.load(outcome.folder.checkpoint).data == ready.data.info
    more = dataclasses.replace(request, given={**request.given, "steps": 6})
    with pytest.raises(CheckpointError, match=r"swap False \(now True\)"):
        plan(dataclasses.replace(more, given={**more.given, "swap": True}))
    with pytest.raises(CheckpointError, match="other data"):
        shutil.copytree(edges, tmp_path / "others")
        shutil.copy(digit_folder / "0" / next((edges / "0").iterdir()).name, tmp_path / "x.png")
        (tmp_path / "x.png").replace(next((tmp_path / "others" / "0").iterdir()))
        plan(dataclasses.replace(more, source=str(tmp_path / "others")))
    assert train(more).step == 6


def test_a_run_of_swapped_pairs_keeps_them_swapped(digit_folder: Path, tmp_path: Path) -> None:
    edges = edges_of(digit_folder, tmp_path / "edges")
    request = own_request(digit_folder, tmp_path, PAIRED, source=str(edges))
    straight = plan(request).data
    request = dataclasses.replace(request, given={**request.given, "swap": True})
    swapped = plan(request).data
    assert straight.partners is not None and np.array_equal(swapped.samples, straight.partners)
    first = train(request)
    assert first.config.swap
    without = {name: value for name, value in request.given.items() if name != "swap"}
    again = plan(dataclasses.replace(request, given=without))
    assert again.config.swap and again.data.digest == content(first)["data"]["digest"]


def test_partners_have_the_channels_that_a_system_wants(digit_folder: Path, tmp_path: Path) -> None:
    coloured = tmp_path / "masks"
    coloured.mkdir()
    Image.new("RGB", (8, 8), "red").save(coloured / "a.png")
    sets = PAIRED.replace('("pairs",)', '("unpaired",)')
    for text, channels in ((sets, 3), (sets + "    partner_channels = 1\n", 1)):
        ready = plan(own_request(digit_folder, tmp_path, text, source=str(coloured)))
        assert ready.data.info.partner == (channels, 8, 8)


def test_a_system_that_needs_pairs_does_not_get_single_images(
    digit_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=r"halves of 4 x 8 pixels"):
        plan(own_request(digit_folder, tmp_path, PAIRED))
    with pytest.raises(InputError, match=r"linear cannot be trained on digits.*pairs.*edges"):
        plan(dataclasses.replace(own_request(digit_folder, tmp_path, PAIRED), data=None))
    with pytest.raises(InputError, match="linear takes no source"):
        plan(own_request(digit_folder, tmp_path, source=str(tmp_path)))


def test_a_systems_own_fit_is_used_where_the_user_gives_none(
    digit_folder: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.mkdir()
    Image.new("L", (20, 12), 9).save(large / "a.png")
    request = own_request(large, tmp_path, TILED)
    ready = plan(request)
    assert ready.config.fit == "tiles" and len(ready.data) == 3 * 2
    given = {**request.given, "fit": "crop"}
    assert len(plan(dataclasses.replace(request, given=given)).data) == 1
    train(request)
    assert plan(request).config.fit == "tiles"
    more = dataclasses.replace(request, given={**request.given, "steps": 6})
    assert train(more).step == 6
    with pytest.raises(CheckpointError, match=r"fit tiles \(now crop\)"):
        plan(dataclasses.replace(more, given={**more.given, "fit": "crop"}))
    built_in = plan(dataclasses.replace(request, data="digits", out=tmp_path / "b"))
    assert built_in.config.fit is None and len(built_in.data) == 7_000


def test_windows_leave_the_resolution_and_need_no_saying_again(
    digit_folder: Path, tmp_path: Path
) -> None:
    request = own_request(digit_folder, tmp_path)
    request = dataclasses.replace(request, given={**request.given, "resolution": 12, "crop": 8})
    outcome = train(request)
    assert (outcome.config.resolution, outcome.config.crop) == (12, 8)
    more = {"steps": 6, "batch_size": 4, "latent": 4}
    again = plan(dataclasses.replace(request, given=more))
    assert again.data.info.shape == (1, 8, 8) and again.data.samples.shape[-1] == 12
    with pytest.raises(CheckpointError, match=r"crop 8 \(now 6\)"):
        plan(dataclasses.replace(request, given={**more, "crop": 6}))
    with pytest.raises(CheckpointError, match=r"zoom 1\.0 \(now 1\.5\)"):
        plan(dataclasses.replace(request, given={**more, "zoom": 1.5}))
    assert train(dataclasses.replace(request, given=more)).step == 6


def test_zooming_without_windows_is_refused_before_an_image_is_decoded(
    digit_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--zoom 2 without --crop"):
        plan(tiny_request(digit_folder, tmp_path / "run", {"zoom": 2.0}))
    with pytest.raises(InputError, match="--crop 9, images of 8 pixels"):
        plan(tiny_request(digit_folder, tmp_path / "run", {"crop": 9}))
