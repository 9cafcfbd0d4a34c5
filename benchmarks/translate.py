"""Trains tiny versions of the systems that take an image, exports them, and scores the ONNX files.

All outputs come from the runtime, on images that were not trained on. Super-resolution learns from photographs that
scikit-image ships. Look at the sheets: input, output and truth side by side.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import numpy as np
import torch
from judge import Judge, channels_first, classify, to_tensor, train_judge
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from trials import Row, Trial, main

from gan.export import export
from gan.runtime import Generator, search
from gan.runtime.files import sibling
from gan.runtime.images import grid, save
from gan.trainer.degrade import reduce
from gan.trainer.faces import faces
from gan.trainer.metrics import psnr
from gan.trainer.shapes import edges, warm_cold

Pixels = NDArray[np.uint8]
COUNT, ROWS = 200, 8


def last(pixels: Pixels) -> Pixels:
    """uint8 [N, H, W, C], as the runtime has them, of [N, C, H, W]."""
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def sheet(path: Path, *columns: Pixels) -> None:
    """Columns of images [N, H, W, C] beside one another, ROWS rows, twice; smaller ones are enlarged."""
    size = max(c.shape[1] for c in columns)
    shown = []
    for column in columns:
        times = size // column.shape[1]
        large = column[: 2 * ROWS].repeat(times, 1).repeat(times, 2)
        shown.append(np.broadcast_to(large, (*large.shape[:3], 3)))
    images = np.stack(shown, 1).reshape(-1, size, size, 3)
    save(grid(images.repeat(3, 1).repeat(3, 2), 2 * len(columns)), path)


def decibels(a: Pixels, b: Pixels) -> float:
    return psnr(to_tensor(a), to_tensor(b))


def paired(generator: Generator, folder: Path) -> list[Row]:
    given, truth = (last(x) for x in edges(COUNT, 32, seed=1))
    made = generator(image=given)["translated"]
    mean = np.broadcast_to(np.rint(truth.mean(0)).astype(np.uint8), truth.shape)
    sheet(folder / "sheet.png", given, made, truth)
    reached, base = decibels(made, truth), decibels(mean, truth)
    return [
        Row("PSNR, dB", reached, None, (">=", 24)),
        Row("PSNR above the mean image, dB", reached - base, None, (">=", 6)),
    ]


def unpaired(generator: Generator, folder: Path) -> list[Row]:
    a, _, cover = warm_cold(COUNT, 16, seed=1)
    back = Generator(sibling(folder / "model.onnx", "b2a"), device="cpu")
    given = last(a)
    made = generator(image=given)["translated"]
    again = back(image=made)["translated"]
    sheet(folder / "sheet.png", given, made, again)
    inside = cover.astype(np.float64)[:, 0, :, :, None] / cover.max()
    colour = (made * inside).sum((1, 2)) / inside.sum((1, 2))
    bright, mask = made.max(3) > 0.4 * 255, inside[..., 0] > 0.5
    iou = (bright & mask).sum((1, 2)) / (bright | mask).sum((1, 2))
    return [
        Row("share of cold hues", float((colour[:, 2] > colour[:, 0]).mean()), None, (">=", 0.9)),
        Row("mask IoU with the source", float(iou.mean()), None, (">=", 0.8)),
        Row("L1 of a to b to a", l1(again, given), None, ("<=", 0.08)),
    ]


def l1(a: Pixels, b: Pixels) -> float:
    """In [-1, 1]."""
    return float(np.abs(a.astype(np.float64) - b).mean() / 127.5)


SCALE, PATCH = 4, 48


def photographs() -> str:
    """A folder of photographs at half their size, to train on."""
    folder = Path("runs/bench-translate/photographs")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("astronaut", "chelsea", "rocket"):
        halved(photograph(name)).save(folder / f"{name}.png")
    return str(folder)


def photograph(name: str) -> Pixels:
    from skimage import data

    pixels: Pixels = getattr(data, name)()
    return pixels


def halved(pixels: Pixels) -> Image.Image:
    image = Image.fromarray(pixels[..., :3])
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)


def held_out() -> Tensor:
    """Patches [N, 3, PATCH, PATCH] of a photograph that is not trained on."""
    image = (
        torch.from_numpy(np.array(halved(photograph("coffee")))).permute(2, 0, 1).float() / 127.5
        - 1
    )
    step = PATCH + PATCH // 3
    patches = image.unfold(1, PATCH, step).unfold(2, PATCH, step)  # (3, rows, columns, P, P)
    return patches.permute(1, 2, 0, 3, 4).reshape(-1, 3, PATCH, PATCH).contiguous()


def pixels_of(x: Tensor) -> Pixels:
    return last((x * 127.5 + 127.5).round().clamp(0, 255).byte().numpy())


def sharpness(images: Pixels) -> float:
    """Energy of the gradient along a row."""
    return float(np.abs(np.diff(images.astype(np.float64), axis=2)).mean())


def enlarged(generator: Generator, folder: Path) -> list[Row]:
    truth = held_out()
    small = reduce(truth, SCALE)
    bicubic = pixels_of(interpolate(small, scale_factor=SCALE, mode="bicubic"))
    export(folder / "kept.pt", folder / "content.onnx", overwrite=True)
    given, real = pixels_of(small), pixels_of(truth)
    content = Generator(folder / "content.onnx", device="cpu")(image=given)["enlarged"]
    made = generator(image=given)["enlarged"]
    sheet(folder / "sheet.png", given, bicubic, content, made, real)
    base, first, second = (decibels(x, real) for x in (bicubic, content, made))
    sharp = [sharpness(x) / sharpness(real) for x in (bicubic, content, made)]
    return [
        Row("bicubic: PSNR, dB", base, None, None),
        Row("content stage: PSNR above bicubic, dB", first - base, None, (">=", 0.3)),
        Row("adversarial stage: PSNR lost, dB", first - second, None, ("<=", 2)),
        Row("gradient energy, bicubic / truth", sharp[0], None, None),
        Row("gradient energy, content / truth", sharp[1], None, None),
        Row("gradient energy, both stages / truth", sharp[2], None, None),
        Row("the same, distance from 1: gain", abs(sharp[1] - 1) - abs(sharp[2] - 1), None, (">=", 0)),
    ]  # fmt: skip


def holes(count: int, size: int) -> Pixels:
    """Square holes of 3/8 of a side, anywhere but at the border: uint8 [count, size, size, 1]."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, size, size, 1), np.uint8)
    side = 3 * size // 8
    for mask, (i, j) in zip(masks, rng.integers(size // 8, size // 2 + 1, (count, 2)), strict=True):
        mask[i : i + side, j : j + side] = 255
    return masks


def filled(generator: Generator, folder: Path) -> list[Row]:
    truth, mask = last(faces(COUNT, 32, seed=1)[0]), holes(COUNT, 32)
    made = generator(image=truth, mask=mask)["filled"]
    hole = np.broadcast_to(mask > 127, truth.shape)
    known = np.where(hole, 0, truth).sum((1, 2)) / (~hole).sum((1, 2))
    mean = np.where(hole, np.rint(known)[:, None, None], truth).astype(np.uint8)
    sheet(folder / "sheet.png", np.where(hole, 128, truth).astype(np.uint8), made, truth)
    ours, base = l1(made[hole], truth[hole]), l1(mean[hole], truth[hole])
    return [
        Row("hole L1 / that of the mean fill", ours / base, None, ("<=", 0.5)),
        Row("hole L1", ours, None, None),
        Row("known bytes changed", float((made[~hole] != truth[~hole]).sum()), None, ("<=", 0)),
    ]


AGES, GALLERY, FACES = 4, 40, 80


@cache
def age_judge() -> Judge:
    x, y, _ = faces(6_000, 32, seed=3)
    return train_judge(to_tensor(x), torch.from_numpy(y), shift=1)


@cache
def identity_judge(steps: int = 2_500) -> nn.Module:
    """Faces -> the 8 numbers of their identities, whatever the age; not the model's own embedder."""
    torch.manual_seed(0)
    judge = Judge(3, 32, 8)
    x, _, identity = faces(20_000, 32, seed=4)
    wanted = torch.from_numpy(identity).float()
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (64,))
        loss = (judge(to_tensor(x[rows.numpy()])) - wanted[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


def judged(images: Pixels) -> Tensor:
    """The identities of faces [N, 8], by the independent judge."""
    judge = identity_judge()
    with torch.no_grad():
        return judge(to_tensor(channels_first(images)))


def top1(images: Tensor, gallery: Tensor) -> float:
    """Share of faces [N, D] whose nearest in a gallery of GALLERY is their own."""
    pairs = zip(images.split(GALLERY), gallery.split(GALLERY), strict=True)
    own = [torch.cdist(a, b).argmin(1) == torch.arange(len(a)) for a, b in pairs]
    return float(torch.cat(own).float().mean())


def aged(generator: Generator, folder: Path) -> list[Row]:
    judge = age_judge()

    def age_share(images: Pixels, ages: NDArray[np.int64]) -> float:
        right = classify(judge, to_tensor(channels_first(images))) == torch.from_numpy(ages)
        return float(right.float().mean())

    x, own, identity = faces(FACES, 32, seed=1)
    target = (own + 2) % AGES
    truth = last(faces(FACES, 32, seed=2, age=target, identity=identity)[0])
    path = folder / "model.onnx"
    encode, embed, age = (
        Generator(sibling(path, name), device="cpu") for name in ("encode", "embed", "age")
    )
    given = last(x)
    start = encode(image=given)["z"]
    begin = time.perf_counter()
    found = search(encode, generator, embed, given, label=own.tolist())
    seconds = (time.perf_counter() - begin) / FACES
    made = {
        "random z": generator.sample(FACES, seed=5, label=target.tolist()),
        "encoder": generator(z=start, label=target)["face"],
        "latent search": generator(z=found.z, label=target)["face"],
        "one shot": age(image=given, label=target)["face"],
    }
    sheet(folder / "sheet.png", given, *list(made.values())[1:], truth)
    asked = np.arange(2 * COUNT) % AGES
    drawn = generator.sample(2 * COUNT, seed=0, label=asked.tolist())

    def embedded(images: Pixels) -> Tensor:
        return torch.from_numpy(embed(image=images)["embedding"])

    same = {name: top1(embedded(images), embedded(truth)) for name, images in made.items()}
    real = top1(embedded(given), embedded(truth))
    bars = {"latent search": (">=", 0.5)}
    rows = [Row("conditional: the age asked for", age_share(drawn, asked), None, (">=", 0.85))]
    rows += [Row(f"top-1 of {GALLERY}, {n}", v, real, bars.get(n)) for n, v in same.items()]
    gain = same["latent search"] - same["encoder"]
    rows.append(Row("the search above its encoder", gain, None, (">=", 0.2)))
    real = top1(judged(given), judged(truth))
    for name, images in made.items():
        rows.append(Row(f"  by the judge, {name}", top1(judged(images), judged(truth)), real, None))
    rows += [Row(f"  target age, {n}", age_share(y, target), None, None) for n, y in made.items()]
    return [*rows, Row("seconds a search", seconds, None, None)]


TRIALS = {
    "pix2pix": Trial(
        "pix2pix", "edges", 600, paired,
        {"width": 24, "downs": 3, "up": "resize", "d_width": 32, "d_layers": 1, "l1": 20.0, "batch_size": 16,
         "dropout": 0.0, "g_learning_rate": 1e-3, "d_learning_rate": 1e-3},
    ),
    "cyclegan": Trial(
        "cyclegan", "warm-cold", 1_500, unpaired,
        {"width": 12, "downs": 1, "blocks": 2, "up": "resize", "residual": True, "d_width": 16, "d_layers": 1,
         "d_norm": "batch", "batch_size": 8, "g_learning_rate": 2e-3, "d_learning_rate": 1e-3, "identity": 2.0,
         "beta2": 0.99},
    ),
    "srgan": Trial(
        "srgan", photographs, 3_000, enlarged,
        {"resolution": 96, "crop": 48, "mirror": True, "width": 24, "blocks": 3, "batch_size": 8,
         "g_learning_rate": 1e-3, "d_learning_rate": 1e-3, "content_share": 0.75, "adversarial_rate": 0.2, "decay_share": 0.5,
         "adversarial": 2e-3, "d_width": 16},
        keep=0.75,
    ),
    "inpainting": Trial(
        "inpainting", "faces", 800, filled,
        {"generator": "unet", "downs": 3, "width": 24, "d_width": 24, "r1": 0.5, "penalty_every": 8,
         "g_learning_rate": 1e-3, "d_learning_rate": 1e-3},
    ),
    "face-aging": Trial(
        "face-aging", "persons", 3_000, aged,
        {"width": 24, "latent": 32, "e_width": 16, "embedded": 64, "batch_size": 32, "r1": 0.5, "penalty_every": 8,
         "beta1": 0.0, "beta2": 0.99, "g_learning_rate": 1e-3, "d_learning_rate": 1e-3,
         "minibatch_deviation": True, "gan_share": 0.7, "embedder_share": 0.12},
    ),
}  # fmt: skip

if __name__ == "__main__":
    main(TRIALS, __doc__, Path("runs/bench-translate"))
