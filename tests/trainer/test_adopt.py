"""Adopting weights: published networks, rebuilt independently (published.py), give the same images as ours afterwards."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan.runtime.errors import CheckpointError, GanError, InputError
from gan.trainer import systems
from gan.trainer.adopt import Adopted, adopt, known
from gan.trainer.checkpoint import Checkpoint
from gan.trainer.loop import train
from gan.trainer.parts import DataInfo
from gan.trainer.request import Request
from gan.trainer.system import build_on_meta, parameter_count

from .published import (
    MIDDLE,
    FlatResNet,
    NestedUNet,
    NormMaker,
    Tutorial,
    Upscaler,
    affine_instance,
    batch,
    instance,
    no_norm,
    old_naming,
    randomised,
    tracked_instance,
)


def saved(content: Any, folder: Path) -> Path:
    path = folder / "weights.pth"
    torch.save(content, path)
    return path


def adopted(content: Any, folder: Path, **more: Any) -> tuple[Adopted, nn.Module, Checkpoint]:
    """What was recognised in a file of this content, the averaged network, and the checkpoint."""
    found = adopt(saved(content, folder), folder / "model.pt", overwrite=True, **more)
    checkpoint = Checkpoint.load(folder / "model.pt")
    return found, checkpoint.averaged_networks(checkpoint.system())[found.network], checkpoint


@torch.no_grad()
def difference(
    ours: nn.Module, theirs: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> float:
    """The largest difference of two networks, on two inputs in [-1, 1], as a share of the output's size; the output
    must vary."""
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(5)) * 2 - 1
    truth = theirs(x)
    assert truth.std() > 0.1
    return float((ours(x) - truth).abs().max() / max(truth.abs().max().item(), 1.0))


def refusal(content: Any, folder: Path, **more: Any) -> GanError:
    """The error that a file of this content meets; nothing is written."""
    with pytest.raises(GanError) as caught:
        adopt(saved(content, folder), folder / "model.pt", **more)
    assert [path.name for path in folder.iterdir()] == ["weights.pth"]
    assert caught.value.failed and caught.value.seen and caught.value.repair
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return caught.value


# Each family gives the same images


NORMS: list[tuple[NormMaker, str]] = [
    (batch, "batch"), (instance, "instance"), (tracked_instance, "instance"),
    (affine_instance, "affine-instance"), (no_norm, "none"),
]  # fmt: skip


@pytest.mark.parametrize(("norm", "name"), NORMS)
@pytest.mark.parametrize(("levels", "size"), [(5, "unet_32"), (7, "unet_128"), (8, "unet_256")])
def test_the_unets(levels: int, size: str, norm: NormMaker, name: str, tmp_path: Path) -> None:
    theirs: nn.Module = randomised(NestedUNet(levels, 3, norm, c_in=1, c_out=3, dropout=True))
    found, ours, checkpoint = adopted(theirs.state_dict(), tmp_path)
    if (
        norm is tracked_instance
    ):  # whose code tests in train mode, so that an image's own statistics count
        theirs = _without_tracking(theirs)
    assert found.title.startswith(f"{size} of the CycleGAN and pix2pix code, ")
    assert difference(ours, theirs, (1, 2**levels, 2 ** (levels + 1))) < 1e-5
    assert checkpoint.config.options["norm"] == name
    assert (checkpoint.data.channels, checkpoint.data.partner) == (3, (1, 256, 256))


@pytest.mark.parametrize(("norm", "name"), NORMS)
@pytest.mark.parametrize(("blocks", "dropout"), [(9, False), (6, True), (1, False)])
def test_the_resnets(
    blocks: int, dropout: bool, norm: NormMaker, name: str, tmp_path: Path
) -> None:
    theirs: nn.Module = randomised(FlatResNet(blocks, 4, norm, c_in=3, c_out=1, dropout=dropout))
    found, ours, checkpoint = adopted(theirs.state_dict(), tmp_path)
    if norm is tracked_instance:
        theirs = _without_tracking(theirs)
    assert found.title.startswith(f"resnet_{blocks}blocks of the CycleGAN and pix2pix code, ")
    assert difference(ours, theirs, (3, 12, 20)) < 1e-5
    assert checkpoint.config.options["norm"] == name and checkpoint.data.channels == 1


def _without_tracking(network: nn.Module) -> nn.Module:
    for part in network.modules():
        if isinstance(part, nn.InstanceNorm2d):
            part.track_running_stats, part.running_mean, part.running_var = False, None, None
    return network


@pytest.mark.parametrize(
    ("c", "base", "size", "widths"),
    [
        ((32, 16, 8, 4, 3), 4, 64, ""),
        ((16, 8, 4, 1), 4, 32, ""),
        ((64, 32, 16, 8, 4, 3), 4, 128, ""),
        ((16, 8, 1), 7, 28, ""),
        ((20, 9, 9, 5, 3), 4, 64, "20,9,9,5"),
        ((4, 8, 4), 5, 20, "4,8"),
    ],
)
def test_the_tutorials(
    c: tuple[int, ...], base: int, size: int, widths: str, tmp_path: Path
) -> None:
    theirs = randomised(Tutorial(11, c, base))
    found, ours, checkpoint = adopted(theirs.state_dict(), tmp_path)
    assert found.title == f"generator of the DCGAN tutorial, {size} pixels"
    x = torch.randn(4, 11)
    with torch.no_grad():
        assert theirs(x).std() > 0.1 and (ours(x) - theirs(x)).abs().max() < 1e-5
    assert checkpoint.data == DataInfo((c[-1], size, size))
    assert checkpoint.config.options["widths"] == widths


def _from_0_to_1(theirs: Upscaler) -> Callable[[Tensor], Tensor]:
    """The published network takes and gives 0 to 1."""
    return lambda x: theirs((x + 1) / 2) * 2 - 1


@pytest.mark.parametrize(("unshuffle", "scale"), [(1, 4), (2, 2), (4, 1)])
def test_the_upscalers_of_the_new_naming(unshuffle: int, scale: int, tmp_path: Path) -> None:
    theirs = randomised(Upscaler(6, 2, 3, unshuffle=unshuffle))
    found, ours, checkpoint = adopted(theirs.state_dict(), tmp_path)
    assert found.title.endswith(f"body.N.rdbN), times {scale}")
    assert difference(ours, _from_0_to_1(theirs), (3, 8, 12)) < 1e-5
    assert checkpoint.config.options["d_width"] == 6
    (graph,) = checkpoint.system().graphs().values()
    multiple = unshuffle * scale
    assert graph.inputs[0].shape[1] == ("h" if unshuffle == 1 else f"{unshuffle}*h")
    assert graph.outputs[0].shape[1] == f"{multiple}*h"


@pytest.mark.parametrize(("ups", "scale"), [(2, 4), (1, 2)])
def test_the_upscalers_of_the_naming_between(ups: int, scale: int, tmp_path: Path) -> None:
    theirs = randomised(Upscaler(6, 3, 2, names=MIDDLE, ups=ups, channels=1))
    found, ours, checkpoint = adopted(theirs.state_dict(), tmp_path)
    assert found.title.endswith(f"RRDB_trunk.N.RDBN), times {scale}")
    assert difference(ours, _from_0_to_1(theirs), (1, 6, 9)) < 1e-5
    assert checkpoint.config.options["blocks"] == 3 and checkpoint.data.channels == 1


@pytest.mark.parametrize(("ups", "scale"), [(0, 1), (1, 2), (2, 4), (3, 8)])
def test_the_upscalers_of_the_old_naming(ups: int, scale: int, tmp_path: Path) -> None:
    theirs = randomised(Upscaler(6, 2, 3, ups=ups))
    found, ours, _ = adopted(old_naming(theirs), tmp_path)
    assert found.title.endswith(f"model.N, sub.N.RDBN), times {scale}")
    assert difference(ours, _from_0_to_1(theirs), (3, 6, 9)) < 1e-5


@pytest.mark.parametrize(
    ("system", "options", "data", "parameters"),
    [
        ("pix2pix", {"generator": "unet", "downs": 8}, 256, 54_413_955),
        ("pix2pix", {"generator": "unet", "downs": 7}, 128, 41_828_995),
        ("pix2pix", {"generator": "resnet", "downs": 2, "norm": "instance"}, 256, 11_378_179),
        ("srgan", {"generator": "rrdb", "blocks": 23}, 128, 16_697_987),
        ("dcgan", {}, 64, 3_576_704),
    ],
)
def test_the_published_sizes(
    system: str, options: Mapping[str, Any], data: int, parameters: int
) -> None:
    kind, _ = systems.load(system)
    partner = (3, data, data) if system == "pix2pix" else None
    info = DataInfo((3, data, data), arrangement="pairs" if partner else "single", partner=partner)
    preset = dataclasses.replace(kind.preset(info), **options)
    assert parameter_count(build_on_meta(kind(preset, info))["G"]) == parameters


# Statistics of the image


@pytest.mark.parametrize("make", [lambda: NestedUNet(5, 3, batch), lambda: FlatResNet(2, 4, batch)])
def test_batch_norm_by_the_images_statistics_is_their_test_in_train_mode(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    theirs = randomised(make())
    found, ours, _ = adopted(theirs.state_dict(), tmp_path, image_statistics=True)
    assert found.title.endswith("batch norm by the image's statistics")
    theirs.train()
    shape = (3, 64, 32)

    def one_by_one(x: Tensor) -> Tensor:
        return torch.cat([theirs(row[None]) for row in x])

    assert difference(ours, one_by_one, shape) < 1e-5
    assert difference(ours, theirs.eval(), shape) > 1e-3


@pytest.mark.parametrize("network", [NestedUNet(5, 2, instance), Tutorial(3, (4, 2, 1))])
def test_they_are_refused_where_there_is_nothing_to_replace(
    network: nn.Module, tmp_path: Path
) -> None:
    error = refusal(network.state_dict(), tmp_path, image_statistics=True)
    assert isinstance(error, InputError) and "--statistics" in error.repair


# Where in the file


TUTORIAL = randomised(Tutorial(5, (6, 3, 1)))
STATE = TUTORIAL.state_dict()


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"state_dict": STATE}, "state_dict"),
        ({"epoch": 3, "netG": STATE, "netD": {"main.0.weight": torch.ones(2, 2)}}, "netG"),
        ({"model": {"generator": STATE}}, "model/generator"),
        ({"params": STATE, "params_ema": STATE}, "params_ema"),
        ({"g": STATE, "g_EMA": STATE}, "g_EMA"),
        ({f"module.{name}": t for name, t in STATE.items()}, ""),
        ({"G": {f"module._orig_mod.{name}": t for name, t in STATE.items()}}, "G"),
        ({f"_orig_mod.module.{name}": t for name, t in STATE.items()}, ""),
        ({"state_dict": {f"net.{name}": t for name, t in STATE.items()}}, "state_dict/net"),
        ({"d.out.weight": torch.ones(3), **{f"g.{n}": t for n, t in STATE.items()}}, "g"),
        ({**STATE, "step": 3, "names": ["a"]}, ""),
    ],
)
def test_the_state_dict_is_found(content: Any, key: str, tmp_path: Path) -> None:
    found, ours, _ = adopted(content, tmp_path)
    assert found.key == key
    z = torch.randn(3, 5)
    assert torch.equal(ours(z), TUTORIAL(z))


def test_one_of_several_must_be_chosen(tmp_path: Path) -> None:
    second = randomised(Tutorial(5, (6, 3, 1)), seed=1)
    content = {"G_A": STATE, "G_B": second.state_dict()}
    error = refusal(content, tmp_path)
    assert "'G_A', 'G_B'" in error.seen and "--key" in error.repair
    assert "'G_A', 'G_B'" in refusal(content, tmp_path, key="G").seen
    found, ours, _ = adopted(content, tmp_path, key="G_B")
    z = torch.randn(3, 5)
    assert found.key == "G_B" and torch.equal(ours(z), second(z))
    ema = {"params": STATE, "params_ema": second.state_dict()}
    assert torch.equal(adopted(ema, tmp_path, key="params")[1](z), TUTORIAL(z))


# What is not recognised


def test_the_nearest_is_named_with_its_first_difference(tmp_path: Path) -> None:
    state = dict(STATE)
    state["main.3.weight"] = torch.ones(6, 3, 3, 3)
    error = refusal(state, tmp_path)
    assert isinstance(error, CheckpointError)
    assert error.seen == (
        "Nearest is generator of the DCGAN tutorial, 16 pixels, "
        "but main.3.weight is [6, 3, 3, 3], not [6, 3, 4, 4]"
    )
    for _, _, layout in known():
        assert layout.title.format("N") in error.repair
    del state["main.4.bias"]
    seen = refusal({"netG": state}, tmp_path).seen
    assert "(at 'netG')" in seen and seen.endswith("not [6, 3, 4, 4], and 1 other difference")
    del state["main.4.weight"]
    assert refusal(state, tmp_path).seen.endswith(", and 2 other differences")
    del state["main.4.running_mean"], state["main.3.weight"]
    state = {**STATE, "main.8.weight": torch.ones(2)}
    assert refusal(state, tmp_path).seen.endswith("but 'main.8.weight' [2] is one too many")
    state = {n: t for n, t in STATE.items() if n != "main.1.running_var"}
    assert refusal(state, tmp_path).seen.endswith("but main.1.running_var [6] is missing")


def test_the_nearest_is_the_one_with_the_fewest_differences(tmp_path: Path) -> None:
    state = NestedUNet(6, 2, batch).state_dict()
    state["model.model.0.bias"] = torch.ones(2)
    assert (
        "Nearest is unet_64"
        in refusal({"d": {"main.0.weight": torch.ones(1)}, "g": state}, tmp_path).seen
    )
    state = Upscaler(
        4, 1, 2, names=MIDDLE, ups=1, unshuffle=4
    ).state_dict()  # it would make them smaller
    assert "conv_first.weight is [4, 48, 3, 3], not [4, 3, 3, 3]" in refusal(state, tmp_path).seen
    far = {name: tensor.flatten() for name, tensor in Upscaler(4, 2, 2).state_dict().items()}
    near = {name: tensor for name, tensor in STATE.items() if name != "main.1.bias"}
    assert "DCGAN tutorial" in refusal({"g": far, "h": near}, tmp_path).seen
    state = Upscaler(4, 2, 2).state_dict() | {"body.0.rdb1.conv1x1.weight": torch.ones(4)}
    seen = refusal(state, tmp_path).seen
    assert (
        "Nearest is RRDBNet" in seen and "'body.0.rdb1.conv1x1.weight' [4] is one too many" in seen
    )


@pytest.mark.parametrize(
    "content",
    [{}, [], 3, torch.ones(3), {"a": 1}, {"weight": torch.ones(2)}, {3: torch.ones(2)}, [STATE]],
)
def test_what_resembles_nothing_is_refused(content: Any, tmp_path: Path) -> None:
    error = refusal(content, tmp_path)
    assert "was not recognised" in error.failed and "DCGAN" in error.repair
    assert error.seen == "No name in it is of a layout that is known"


def test_batch_norm_after_a_convolution_with_a_bias_is_no_guess_of_ours(tmp_path: Path) -> None:
    """It is batch norm or instance norm with both, and the images differ."""
    state = FlatResNet(1, 2, batch).state_dict()
    state |= {name: torch.ones(2) for name in ("model.1.bias",)}
    assert "'model.1.bias' [2] is one too many" in refusal(state, tmp_path).seen


def test_images_of_other_channels_are_refused(tmp_path: Path) -> None:
    for c_in, c_out in ((2, 3), (3, 5)):
        state = FlatResNet(1, 2, instance, c_in=c_in, c_out=c_out).state_dict()
        assert f"{({c_in, c_out} - {3}).pop()} channels" in refusal(state, tmp_path).seen


# Hostile and damaged files


def test_kinds_of_numbers(tmp_path: Path) -> None:
    z = torch.randn(3, 5)
    for kind, limit in ((torch.float16, 1e-2), (torch.bfloat16, 1e-1), (torch.float64, 1e-6)):
        state = {n: t.to(kind) if t.is_floating_point() else t for n, t in STATE.items()}
        _, ours, checkpoint = adopted(state, tmp_path)
        assert (ours(z) - TUTORIAL(z)).abs().max() < limit
        for tensor in checkpoint.content["averaged"]["G"].values():
            assert tensor.dtype in (torch.float32, torch.int64) and tensor.is_contiguous()
    transposed = {n: t.mT.contiguous().mT if t.ndim == 4 else t for n, t in STATE.items()}
    assert torch.equal(adopted(transposed, tmp_path)[1](z), TUTORIAL(z))
    parameters = {n: nn.Parameter(t) if t.is_floating_point() else t for n, t in STATE.items()}
    assert torch.equal(adopted(parameters, tmp_path)[1](z), TUTORIAL(z))
    counted = {n: t for n, t in STATE.items() if "num_batches" not in n}  # as torch 0.4 saved them
    assert torch.equal(adopted(counted, tmp_path)[1](z), TUTORIAL(z))


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.full((6, 3, 4, 4), float("nan")), "NaN or infinity"),
        (torch.full((6, 3, 4, 4), float("inf")), "NaN or infinity"),
        (torch.full((6, 3, 4, 4), 1e300, dtype=torch.float64), "NaN or infinity"),
        (torch.ones(6, 3, 4, 4, dtype=torch.int64), "torch.int64"),
        (torch.ones(6, 3, 4, 4, dtype=torch.bool), "torch.bool"),
        (torch.ones(6, 3, 4, 4, dtype=torch.complex64), "torch.complex64"),
        (torch.ones(6, 3, 4, 4, device="meta"), "without values"),
        (torch.ones(6, 3, 4, 4).to_sparse(), "sparse"),
    ],
)
def test_weights_that_are_no_numbers_are_refused_by_name(
    tensor: Tensor, said: str, tmp_path: Path
) -> None:
    error = refusal({**STATE, "main.3.weight": tensor}, tmp_path)
    assert "main.3.weight" in error.failed and said in error.seen


def test_tensors_that_say_they_are_huge_take_no_memory(tmp_path: Path) -> None:
    w = 30_000
    state = {
        "main.0.weight": torch.zeros(1).expand(w, w, 4, 4),
        "main.1.weight": torch.zeros(1).expand(w), "main.1.bias": torch.zeros(1).expand(w),
        "main.1.running_mean": torch.zeros(1).expand(w), "main.1.running_var": torch.zeros(1).expand(w),
        "main.3.weight": torch.zeros(1).expand(w, 3, 4, 4),
    }  # fmt: skip
    error = refusal(state, tmp_path)
    assert "bytes of numbers in a file of" in error.seen
    for shape in ((2**30, 2**30, 2, 1), (0, 3, 4, 4), (2**61,), ()):
        refusal(
            {**STATE, "main.0.weight": torch.zeros(1).as_strided(shape, (0,) * len(shape))},
            tmp_path,
        )


def test_names_without_end_are_refused_soon(tmp_path: Path) -> None:
    one = torch.ones(1, 1, 4, 4)
    state = {f"main.{3 * i}.weight": one for i in range(3000)}
    assert (
        "Nearest is generator of the DCGAN tutorial, 1024 pixels" in refusal(state, tmp_path).seen
    )
    state = {f"model.{i}.conv_block.1.weight": one for i in range(3000)}
    assert "resnet_64blocks" in refusal(state, tmp_path).seen
    nested: dict[str, Any] = {"weight": one}
    for depth in range(1, 51):
        nested = {f"net{i}": nested for i in range(2)}
        if depth in (12, 50):
            expected = "was not recognised" if depth == 12 else "was refused"
            assert expected in refusal(nested, tmp_path).failed


def test_only_the_first_hundred_entries_are_looked_at(tmp_path: Path) -> None:
    others = {f"n{i}": {"main.0.weight": torch.ones(1)} for i in range(100)}
    assert "was not recognised" in refusal({**others, "g": STATE}, tmp_path).failed
    del others["n0"]
    assert adopted({**others, "g": STATE}, tmp_path)[0].key == "g"


@pytest.mark.parametrize(
    "network",
    [TUTORIAL, NestedUNet(5, 1, instance), FlatResNet(1, 1, batch), Upscaler(2, 1, 1),
     Upscaler(2, 1, 1, unshuffle=4)],
)  # fmt: skip
@pytest.mark.parametrize("length", [0, 2**16 + 1, 2**31])
def test_sizes_without_sense_are_differences(
    network: nn.Module, length: int, tmp_path: Path
) -> None:
    """In any axis of the first, the second and the last layer, and in all of one."""
    state = network.state_dict()
    names = [name for name, tensor in state.items() if tensor.ndim == 4]
    for name in (names[0], names[1], names[-1]):
        for axis in range(4):
            shape = [length if i == axis else n for i, n in enumerate(state[name].shape)]
            bad = torch.zeros(1).as_strided(shape, (0, 0, 0, 0))
            assert "was not recognised" in refusal({**state, name: bad}, tmp_path).failed


class Harmful:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_code_in_the_file_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal({"netG": STATE, "x": Harmful()}, tmp_path)
    assert "could run code" in error.seen and "state_dict()" in error.repair
    assert capsys.readouterr().out == ""
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(CheckpointError):
        adopt(path, tmp_path / "model.pt")
    assert capsys.readouterr().out == ""


def test_other_files_are_refused(tmp_path: Path) -> None:
    path, target = tmp_path / "weights.pth", tmp_path / "model.pt"
    whole = saved(STATE, tmp_path).read_bytes()
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(whole)) as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr("archive/zeros", bytes(10**6))
    for data, said in (
        (b"", "cut short"),
        (b"abc", "cut short"),
        (whole[:-100], "cut short"),
        (whole[: len(whole) // 2], "cut short"),
        (packed.getvalue(), "unpack"),
        ((20).to_bytes(8, "little") + b'{"w": {"dtype": "F32"', "torch.save"),
    ):
        path.write_bytes(data)
        with pytest.raises(CheckpointError) as caught:
            adopt(path, target)
        assert said in caught.value.seen, caught.value
    with pytest.raises(CheckpointError, match="Check the path"):
        adopt(tmp_path / "none.pth", target)
    with pytest.raises(CheckpointError, match="cannot be read"):
        adopt(tmp_path, target)
    assert not target.exists()


def test_files_of_old_torch_and_of_other_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, z = tmp_path / "weights.pth", torch.randn(3, 5)
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    for tag in ("cpu", "cuda:3", "mps"):
        if tag != "cpu":
            monkeypatch.setattr(torch.serialization, "location_tag", lambda storage, tag=tag: tag)
            torch.save(STATE, path)
            assert tag.encode() in path.read_bytes()
        adopt(path, tmp_path / "model.pt", overwrite=True)
        checkpoint = Checkpoint.load(tmp_path / "model.pt")
        assert torch.equal(checkpoint.averaged_networks(checkpoint.system())["G"](z), TUTORIAL(z))


def test_a_checkpoint_of_ours_is_told_apart(tmp_path: Path) -> None:
    adopted(STATE, tmp_path)
    with pytest.raises(CheckpointError, match="already"):
        adopt(tmp_path / "model.pt", tmp_path / "other.pt")
    assert not (tmp_path / "other.pt").exists()


# The checkpoint


def test_nothing_is_overwritten_unasked_and_never_the_weights(tmp_path: Path) -> None:
    weights, target = saved(STATE, tmp_path), tmp_path / "model.pt"
    before = weights.read_bytes()
    target.write_bytes(b"mine")
    with pytest.raises(InputError, match="--force"):
        adopt(weights, target)
    assert target.read_bytes() == b"mine"
    with pytest.raises(InputError, match="own file"):
        adopt(weights, weights, overwrite=True)
    with pytest.raises(InputError, match="no folder"):
        adopt(weights, tmp_path / "none" / "model.pt")
    adopt(weights, target, overwrite=True)
    assert weights.read_bytes() == before and Checkpoint.load(target).step == 0


def test_the_checkpoint_says_where_the_weights_come_from_but_no_path(tmp_path: Path) -> None:
    found, _, checkpoint = adopted(STATE, tmp_path)
    digest = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    data = checkpoint.content["data"]
    assert found.sha256 == data["digest"] == digest
    assert data["name"] == "adopted: generator of the DCGAN tutorial, 16 pixels"
    assert str(tmp_path).encode() not in (tmp_path / "model.pt").read_bytes()
    assert found.system == checkpoint.config.system.name == "dcgan"
    assert found.parameters == sum(p.numel() for p in TUTORIAL.parameters())
    assert not checkpoint.finished


def test_the_same_file_gives_the_same_checkpoint_and_leaves_the_random_state(
    tmp_path: Path,
) -> None:
    weights, contents = saved(STATE, tmp_path), []
    for _ in range(2):
        torch.rand(3)
        before = torch.random.get_rng_state()
        adopt(weights, tmp_path / "model.pt", overwrite=True)
        contents.append((tmp_path / "model.pt").read_bytes())
        assert torch.equal(torch.random.get_rng_state(), before)
    assert contents[0] == contents[1]


def test_it_can_be_trained_on(tmp_path: Path, digit_folder: Path) -> None:
    theirs = randomised(Tutorial(5, (6, 3, 1), base=7))
    run = tmp_path / "run"
    run.mkdir()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    adopt(tmp_path / "weights.pth", run / "model.pt")
    request = Request(
        data=str(digit_folder), system="dcgan", out=run, accept=("data", "steps", "batch_size"),
        given={"steps": 1, "batch_size": 4}, threads=1,
    )  # fmt: skip
    outcome = train(request)
    assert outcome.finished and outcome.step == 1
    after = Checkpoint.load(run / "model.pt")
    moved = after.content["networks"]["G"]["layers.0.weight"] - theirs.main[0].weight
    assert 0 < moved.abs().max() < 1e-3


def test_subclasses_of_a_system_do_not_inherit_its_layouts() -> None:
    names = [kind.name for kind, _, _ in known()]
    assert sorted(set(names)) == ["dcgan", "pix2pix", "srgan"] and len(names) == 6
