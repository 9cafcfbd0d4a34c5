"""Image to image: sizes, alpha, masks, draws and tiles, against the graph run by a plain session on the whole image."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gan.runtime import Generator, InputError, ModelFileError
from gan.runtime.pictures import Picture, Source
from gan.runtime.tiles import Row, run_tiles
from gan.runtime.translator import Translator

from .conftest import bare_run, reference_inputs, watch_runs, with_metadata
from .translating import Translating, translating_model

Pixels = NDArray[np.uint8]
RNG = np.random.default_rng(0)


def noise(height: int, width: int, channels: int = 3) -> Pixels:
    return RNG.integers(0, 256, (height, width, channels), np.uint8)


def opened(data: bytes, **options: Any) -> Generator:
    return Generator(data, device="cpu", threads=1, **options)


def model(**about: Any) -> Generator:
    return opened(translating_model(**about))


def whole(about: Translating, image: Pixels, **more: NDArray[Any]) -> Pixels:
    """The reference: padded by numpy along both axes at once, run by a plain session, cropped."""
    height, width = image.shape[:2]
    unit = about.factor
    down, right = (max(unit * about.least, -(-n // unit) * unit) - n for n in (height, width))

    def fitted(array: Pixels) -> Pixels:
        for axis, extra in ((0, down), (1, right)):
            widths = [(0, 0)] * 3
            widths[axis] = (0, extra)
            array = np.pad(array, widths, "reflect" if extra < array.shape[axis] else "edge")
        return array[None]

    given = {"image": fitted(image)} | {
        name: fitted(array) if array.ndim == 3 else array for name, array in more.items()
    }
    if not about.uint8:
        given = {
            n: a.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1 if n == "image" else a
            for n, a in given.items()
        }
    made = bare_run(about.file, given)[0]
    if not about.uint8:
        made = np.rint(np.clip(made * 127.5 + 127.5, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
    return made[: height * about.scale, : width * about.scale]


# The generator called with pictures.


@pytest.mark.parametrize("uint8", [True, False])
@pytest.mark.parametrize(("factor", "scale"), [(1, 4), (4, 1), (4, 2), (1, 1)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (5, 9), (8, 16), (17, 6)])
def test_any_size_is_padded_run_and_cropped(
    factor: int, scale: int, height: int, width: int, uint8: bool
) -> None:
    about = Translating(factor=factor, scale=scale, uint8=uint8)
    image, generator = noise(height, width), opened(about.file)
    expected = whole(about, image)
    assert expected.shape == (height * scale, width * scale, 3)
    np.testing.assert_array_equal(generator.translate(image), expected)
    made = generator(image=image)["made"]
    if uint8:
        np.testing.assert_array_equal(made, expected[None])
    else:
        assert made.shape == (1, 3, height * scale, width * scale)
        np.testing.assert_allclose(made[0].transpose(1, 2, 0), expected / 127.5 - 1, atol=1 / 255)


def test_an_image_smaller_than_the_least_is_padded_up_to_it() -> None:
    about = Translating(factor=4, scale=1, least=3)
    image = noise(5, 12)
    np.testing.assert_array_equal(opened(about.file).translate(image), whole(about, image))


@pytest.mark.parametrize("uint8", [True, False])
def test_a_call_takes_an_image_in_many_forms(tmp_path: Path, uint8: bool) -> None:
    about = Translating(factor=2, uint8=uint8)
    generator = opened(about.file)
    image = noise(6, 9)
    Image.fromarray(image).save(tmp_path / "a.png")
    expected = generator(image=image[None])["made"]
    forms: list[Source | Sequence[Source]] = [
        image,
        [image],
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        (tmp_path / "a.png").read_bytes(),
        Image.fromarray(image),
        Picture(image),
        [tmp_path / "a.png"],
    ]
    for form in forms:
        np.testing.assert_array_equal(generator(image=form)["made"], expected)
    both: list[Source] = [image, tmp_path / "a.png"]
    two = generator(image=both)["made"]
    np.testing.assert_array_equal(two, np.concatenate([expected, expected]))
    grey = generator(image=image[:, :, 0])["made"]
    np.testing.assert_array_equal(grey, generator(image=np.dstack([image[:, :, 0]] * 3))["made"])


def test_a_float_file_takes_floats_as_ever() -> None:
    about = Translating(factor=2, uint8=False)
    x = RNG.uniform(-1, 1, (2, 3, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(
        opened(about.file)(image=x)["made"], bare_run(about.file, {"image": x})
    )
    x[1, 2, 3, 5] = np.nan
    with pytest.raises(InputError, match="not finite"):
        opened(about.file)(image=x)


def test_a_batch_of_any_size_is_the_images_one_by_one() -> None:
    generator = opened(translating_model(factor=4), micro_batch=2)
    images = RNG.integers(0, 256, (5, 7, 10, 3), np.uint8)
    made = generator(image=images)["made"]
    assert made.shape == images.shape
    for one, image in zip(made, images, strict=True):
        np.testing.assert_array_equal(one, generator.translate(image))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (noise(4, 4, 5), r"uint8 of shape \[4, 4, 5\]"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((2, 4, 4, 4), np.uint8), r"shape \[2, 4, 4, 4\]"),
        (np.zeros((1, 4, 4, 3), np.float32), "dtype float32"),
        (np.full((1, 4, 4, 3), 256), "values from 256"),
        ("nosuch.png", "nosuch.png cannot be read.*no such file"),
        ([noise(4, 4), noise(4, 5)], r"pictures of \(4, 4\) and \(4, 5\) pixels"),
        ([], "dtype float64"),
        (b"", "empty file"),
        (None, "dtype object"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_before_the_graph_runs(
    value: Any, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = model()
    watch_runs(monkeypatch, lambda _: pytest.fail("the graph was run"))
    with pytest.raises(InputError, match=why):
        generator(image=value)


def test_image_and_mask_of_different_sizes_are_refused_with_both() -> None:
    generator = model(mask=True)
    with pytest.raises(InputError, match="image 6 x 8 x 3 and mask 6 x 7 x 1"):
        generator(image=noise(6, 8), mask=noise(6, 7, 1))
    with pytest.raises(InputError, match="image 6 x 8 x 3 and mask 6 x 7 x 1"):
        generator.translate(noise(6, 8), mask=noise(6, 7, 1))
    padded_alike = model(mask=True, factor=4)  # both would be 8 x 8
    with pytest.raises(InputError, match="different sizes"):
        padded_alike(image=noise(6, 8), mask=noise(6, 7, 1))


def test_a_call_is_bounded_by_its_own_size_and_not_by_an_examples() -> None:
    generator = opened(translating_model(scale=2, factor=1), max_output_bytes=40_000)
    assert generator(image=noise(57, 57))["made"].nbytes == 114 * 114 * 3
    with pytest.raises(InputError, match="1 of 40368 bytes, the limit is 40000 bytes"):
        generator(image=noise(58, 58))
    with pytest.raises(InputError, match="2 of 20172 bytes"):
        generator(image=np.stack([noise(41, 41)] * 2))
    with pytest.raises(InputError, match="2 of 20172 bytes"):
        generator(image=np.stack([noise(41, 41)] * 2))
    assert len(generator(image=np.stack([noise(40, 40)] * 2))["made"]) == 2


def test_an_output_of_another_size_than_its_axes_say_is_the_files_fault() -> None:
    lie = Translating(scale=1)
    signature = lie.signature
    signature["outputs"][0]["shape"] = ["2*h", "2*w", 3]
    liar = opened(with_metadata(lie.file, signature=signature))
    for call in (lambda: liar(image=noise(4, 4)), lambda: liar.translate(noise(4, 4))):
        with pytest.raises(ModelFileError, match="Output made is not what the signature says"):
            call()


# translate


def test_alpha_is_kept_and_grows_with_the_image() -> None:
    generator = model(scale=2)
    rgba = noise(6, 9, 4)
    made = generator.translate(rgba)
    np.testing.assert_array_equal(made[..., :3], generator.translate(rgba[..., :3]))
    large = Image.fromarray(rgba[..., 3]).resize((18, 12), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(made[..., 3], np.asarray(large))
    same = model().translate(rgba)
    np.testing.assert_array_equal(same[..., 3], rgba[..., 3])


def test_grey_with_alpha_becomes_rgba_and_without_stays_grey() -> None:
    generator = model(channels=1, made=1)
    grey = noise(6, 9, 1)
    expected = generator.translate(grey)
    assert expected.shape == (6, 9, 1)
    made = generator.translate(np.dstack([grey, noise(6, 9, 1)]))
    assert made.shape == (6, 9, 4)
    for channel in range(3):
        np.testing.assert_array_equal(made[..., channel], expected[..., 0])


def test_a_model_of_four_channels_gets_alpha_and_gives_its_own() -> None:
    about = Translating(channels=4, made=4)
    rgba = noise(5, 5, 4)
    np.testing.assert_array_equal(opened(about.file).translate(rgba), whole(about, rgba))
    opaque = np.dstack([rgba[..., :3], np.full((5, 5), 255, np.uint8)])
    expected = whole(about, opaque)
    np.testing.assert_array_equal(opened(about.file).translate(rgba[..., :3]), expected)


@pytest.mark.parametrize("uint8", [True, False])
def test_a_mask_is_an_image_of_its_own(tmp_path: Path, uint8: bool) -> None:
    generator = model(mask=True, factor=2, uint8=uint8)
    image, mask = noise(6, 9), noise(6, 9, 1)
    expected = generator.translate(image, mask=np.where(mask > 127, 255, 0).astype(np.uint8))
    np.testing.assert_array_equal(generator.translate(image, mask=mask), expected)
    np.testing.assert_array_equal(generator.translate(image, mask=mask[..., 0] > 127), expected)
    Image.fromarray(mask[..., 0]).save(tmp_path / "m.png")
    np.testing.assert_array_equal(generator.translate(image, mask=tmp_path / "m.png"), expected)
    assert (generator.translate(image, mask=255 - mask) != expected).any()


def test_a_mask_is_wanted_or_refused_as_the_model_says() -> None:
    with pytest.raises(InputError, match="mask is missing"):
        model(mask=True).translate(noise(4, 4))
    with pytest.raises(InputError, match="A mask was given"):
        model().translate(noise(4, 4), mask=noise(4, 4, 1))


def test_label_and_latent_are_drawn_from_the_seed_or_given() -> None:
    about = Translating(label=True, latent=True)
    generator, image = opened(about.file), noise(5, 6)
    drawn = {**about.signature, "inputs": about.signature["inputs"][1:]}
    for seed in (0, 7):
        inputs = reference_inputs(drawn, seed, [0])
        expected = whole(about, image, **inputs)
        np.testing.assert_array_equal(generator.translate(image, seed=seed), expected)
        inputs["label"][:] = 1
        expected = whole(about, image, **inputs)
        for label in (1, "night"):
            made = generator.translate(image, seed=seed, label=label)
            np.testing.assert_array_equal(made, expected)
    assert (generator.translate(image, seed=0) != generator.translate(image, seed=7)).any()
    with pytest.raises(InputError, match="one of: dusk, night"):
        generator.translate(image, label="dawn")
    with pytest.raises(InputError, match="no classes"):
        model().translate(image, label=1)
    for wrong in (-1, 2**64, 1.5, True, "0"):
        with pytest.raises(InputError, match="seed was refused"):
            generator.translate(image, seed=wrong)  # type: ignore[arg-type]


def test_a_model_of_one_size_says_so_and_takes_others_resized() -> None:
    about = Translating(size=(8, 6), mask=True, scale=2)
    generator = opened(about.file)
    image, mask = noise(20, 30), noise(10, 10, 1)
    with pytest.raises(InputError, match=r"30 x 20 pixels. Give 6 x 8 \(width x height\)"):
        generator.translate(image, mask=mask)
    with pytest.raises(InputError, match=r"Give uint8 \[batch, 8, 6, 3\]"):
        generator(image=image, mask=mask)
    made = generator.translate(image, mask=mask, resize=True)
    small = np.asarray(Image.fromarray(image).resize((6, 8), Image.Resampling.LANCZOS))
    hole = np.asarray(Image.fromarray(mask[..., 0]).resize((6, 8), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(
        made, bare_run(about.file, {"image": small[None], "mask": hole[None, :, :, None]})[0]
    )
    with pytest.raises(InputError, match="images of 8 x 6 pixels only"):
        generator.translate(image, mask=mask, tile=8, resize=True)
    fits = noise(8, 6)
    np.testing.assert_array_equal(
        generator.translate(fits, mask=fits[..., 0]),
        generator.translate(fits, mask=fits[..., 0], resize=True),
    )


def test_a_model_that_takes_no_image_is_sampled(labelled: bytes) -> None:
    with pytest.raises(
        InputError, match=r"translates no image.*takes z, label.*generator.sample\(\)"
    ):
        opened(labelled).translate(noise(4, 4))


def test_a_model_that_takes_an_image_is_not_sampled() -> None:
    with pytest.raises(
        InputError, match=r"Input image cannot be drawn.*gan translate MODEL IN OUT"
    ):
        model().sample(1, seed=0)


def test_a_model_that_saw_the_alpha_decides_what_becomes_of_it() -> None:
    assert model(channels=4, made=3).translate(noise(4, 4, 4)).shape == (4, 4, 3)


def test_inputs_larger_than_the_output_are_bounded_too() -> None:
    generator = opened(translating_model(channels=4, made=1), max_output_bytes=20_000)
    assert generator(image=noise(70, 70, 4))["made"].nbytes == 4_900
    with pytest.raises(InputError, match="1 of 20164 bytes"):
        generator(image=noise(71, 71, 4))


# Tiles


STEPS = [
    Translating(factor=1, scale=4),
    Translating(factor=4, scale=1, padding="reflect", least=2),
    Translating(factor=2, scale=2, padding="edge"),
    Translating(factor=1, scale=4, uint8=False),
    Translating(factor=4, scale=1, mask=True, latent=True),
    Translating(factor=4, scale=1, mask=True, uint8=False, padding="reflect", least=2),
]


def off(a: Pixels, b: Pixels) -> int:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize("about", STEPS)
@pytest.mark.parametrize(
    ("height", "width", "tile"),
    [(61, 83, 16), (50, 97, 23), (12, 130, 32), (40, 40, 64), (65, 33, 8)],
)
def test_tiles_give_the_whole_images_result(
    about: Translating, height: int, width: int, tile: int
) -> None:
    generator, image = opened(about.file), noise(height, width)
    mask = noise(height, width, 1) if about.mask else None
    expected = generator.translate(image, mask=mask)
    for overlap in (None, about.radius, about.radius + 7):
        made = generator.translate(image, tile=tile, overlap=overlap, mask=mask)
        assert off(made, expected) <= 1


@pytest.mark.parametrize("about", STEPS[:4])
def test_the_radius_is_needed(about: Translating) -> None:
    """A radius that is much too small shows: so the test above can fail."""
    generator, image = opened(about.file), noise(61, 83)
    exact = generator.translate(image)
    assert off(generator.translate(image, tile=16, overlap=0), exact) > 1


def test_a_small_overlap_is_blended_and_comes_near() -> None:
    about = Translating(factor=2, scale=2)
    generator = opened(about.file)
    y, x = np.mgrid[:90, :120]
    image = np.dstack(
        [(127 + 120 * np.sin(y / 9 + k) * np.cos(x / 11)).astype(np.uint8) for k in range(3)]
    )
    exact = generator.translate(image).astype(int)
    errors = []
    for overlap in (0, 2, 4):
        made = generator.translate(image, tile=32, overlap=overlap).astype(int)
        errors.append(np.abs(made - exact).mean())
        untouched = np.abs(made - exact)[92:100, 92:100]  # deep in a tile
        assert untouched.max() <= 1
    assert errors[0] > errors[1] > errors[2]


def test_the_seam_is_a_straight_ramp_and_rows_do_not_matter() -> None:
    rows, columns = Row(4, 4, 0, 1, True), Row(12, 6, 2, 1, True)
    canvas = np.zeros((4, 12, 1), np.uint8)
    values = iter((0, 81))

    def run(y: tuple[int, int], x: tuple[int, int]) -> Pixels:
        return np.full((y[1] - y[0], x[1] - x[0], 1), next(values), np.uint8)

    made = run_tiles(rows, columns, canvas, run)
    assert made[0, :, 0].tolist() == [0] * 4 + [10, 30, 51, 71] + [81] * 4
    assert (made == made[:1]).all()


@pytest.mark.parametrize("length", [*range(1, 40), 100])
@pytest.mark.parametrize(("tile", "context"), [(1, 0), (1, 3), (7, 2), (8, 8), (16, 40)])
def test_tiles_cover_a_row_and_windows_hold_their_tile_with_its_context(
    length: int, tile: int, context: int
) -> None:
    covered = 0
    for (begin, end), (first, last) in Row(length, tile, context, 2, False).windows():
        assert begin == covered and begin < end <= begin + tile
        assert 0 <= first <= max(0, begin - context) and last == min(length, end + context)
        assert last - first >= min(tile, length)
        covered = end
    assert covered == length


def test_memory_is_the_canvas_and_one_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of numpy's arrays; of a run inside onnxruntime the size of its window is what counts."""
    about = Translating(factor=1, scale=4)
    generator, image = opened(about.file), noise(400, 600)
    windows = []
    watch_runs(monkeypatch, lambda inputs: windows.append(inputs["image"].shape))
    tracemalloc.start()
    try:
        made = generator.translate(image, tile=64)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    side = 64 + 2 * about.radius
    assert max(h for _, h, _, _ in windows) <= side and max(w for _, _, w, _ in windows) <= side
    assert len(windows) == 7 * 10
    one_tile = (4 * side) ** 2 * 3
    assert made.nbytes < peak < made.nbytes + 20 * one_tile


@pytest.mark.parametrize("tile", [0, -5, 7, 1.5, True, "64", 2**21])
def test_a_tile_that_is_too_small_or_no_number_is_refused(tile: Any) -> None:
    with pytest.raises(InputError, match=r"The tile was refused.*from 8 to"):
        model(factor=4, least=2).translate(noise(9, 9), tile=tile)


@pytest.mark.parametrize("overlap", [-1, 1.5, True, "4"])
def test_an_overlap_that_is_no_number_of_pixels_is_refused(overlap: Any) -> None:
    with pytest.raises(InputError, match="The overlap was refused"):
        model().translate(noise(9, 9), tile=8, overlap=overlap)
    with pytest.raises(InputError, match=r"An overlap was given. no tile"):
        model().translate(noise(9, 9), overlap=4)


def test_a_model_that_reads_the_whole_image_is_not_run_in_tiles() -> None:
    with pytest.raises(InputError, match=r"cannot be run in tiles.*norms"):
        model(bounded=False).translate(noise(9, 9), tile=8)


def test_an_image_too_large_for_one_run_says_that_tiles_are_the_way() -> None:
    data = translating_model(scale=1, uint8=False)
    generator = opened(data, max_output_bytes=60_000)
    image = noise(100, 100)
    with pytest.raises(
        InputError, match=r"1 of 120000 bytes, the limit is 60000.*tile=512, --tile 512"
    ):
        generator.translate(image)
    assert off(generator.translate(image, tile=32), opened(data).translate(image)) <= 1
    with pytest.raises(InputError, match="1 of 120000 bytes"):
        generator.translate(image, tile=100)
    with pytest.raises(InputError, match="The result has 90000 bytes"):
        generator.translate(noise(100, 300), tile=32)
    unbounded = opened(translating_model(bounded=False, uint8=False), max_output_bytes=60_000)
    with pytest.raises(InputError) as caught:
        unbounded.translate(image)
    assert "tile" not in str(caught.value)


def test_a_run_that_fails_for_want_of_memory_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = model()

    def broken(_: object) -> None:
        raise ModelFileError("onnxruntime failed", seen="out of memory", repair="There is none")

    watch_runs(monkeypatch, broken)
    with pytest.raises(ModelFileError, match=r"out of memory. Run it in tiles \(tile=512"):
        generator.translate(noise(4, 4))


def test_options_are_checked_before_any_picture_is_read() -> None:
    with pytest.raises(InputError, match="The tile was refused"):
        Translator(model(), tile=0)
    with pytest.raises(InputError, match="label was refused"):
        model(label=True).translate("nosuch.png", label="dawn")
