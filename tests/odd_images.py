"""The odd images and archives of the README's table: how each is made, and what is to become of it.

An answer is one of: used; skipped: REASON (training data), refused: REASON (the runtime); `DatasetError`: PART OF THE
MESSAGE; told of; left out.
"""

from __future__ import annotations

import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from gan.trainer import sources

from .trainer.conftest import encoded, picture, write_folder, write_zip

Pixels = NDArray[np.uint8]
SIZE = 16
ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE] * 15
SMOOTH = np.dstack([ROWS, COLUMNS, 225 - ROWS]).astype(np.uint8)  # [16, 16, 3], kind to JPEG
GREY = ROWS.astype(np.uint8)
HALF = np.broadcast_to(np.where(np.arange(SIZE) < 8, 255, 0), (SIZE, SIZE)).astype(np.uint8)
ON_WHITE = np.where(HALF[..., None] > 0, SMOOTH, 255).astype(np.uint8)
NO_FILE = "not a file, but a folder, a pipe or a device"
NEWER = "HEIC, AVIF or a film, which are not read"
ALPHA = "used, on white; with `--channels 4` as it is"
KEPT = "used, its alpha on the result"


@dataclass(frozen=True)
class OddFile:
    """Files of one kind: bytes, or what makes the file at a path.

    pixels: uint8 [H, W, 3], on white, where they are used; lossy: within a few steps.
    """

    what: str
    files: Mapping[str, bytes | Callable[[Path], object]]
    training: str
    runtime: str
    pixels: Pixels | None = None
    lossy: bool = False


def several(format: str, **options: Any) -> bytes:
    """The smooth picture, and after it a red one."""
    first, red = Image.fromarray(SMOOTH), Image.new("RGB", (SIZE, SIZE), "red")
    return encoded(first, format, save_all=True, append_images=[red], **options)


def with_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, bits: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]
) -> bytes:
    """By hand: rows are deflated bytes, each row led by a filter's number. extra: chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = b"".join(chunk(*more) for more in extra)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + body
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


def deflated(*pieces: tuple[bytes, int]) -> bytes:
    """Each piece so many times, without ever holding it all."""
    squeeze = zlib.compressobj(9)
    made = [squeeze.compress(piece) for piece, count in pieces for _ in range(count)]
    return b"".join(made) + squeeze.flush()


def deep_png(channels: int) -> bytes:
    """16 bits a channel: 257 times the 8-bit value, which Pillow reads but does not write."""
    values = GREY[..., None] if channels == 1 else SMOOTH
    rows = (values.astype(">u2") * 257).reshape(SIZE, -1)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    return png(SIZE, SIZE, 16, 0 if channels == 1 else 2, zlib.compress(raw))


def run_length_bmp(width: int, height: int) -> bytes:
    """A run-length BMP of 1 KB that moves on by 255 rows at a time."""
    moves = b"\0\2\xff\xff" * 4 + b"\0\1"
    start = 54 + 1024
    sizes = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(moves), 0, 0, 256, 0)
    return (
        b"BM" + struct.pack("<IHHI", start + len(moves), 0, 0, start) + sizes + bytes(1024) + moves
    )


def tiled(side: int) -> bytes:
    """A TIFF of 16 x 16 pixels in one deflated tile of so many a side."""
    data = zlib.compress(bytes(10_000))
    data += bytes(len(data) % 2)
    tags = {
        256: 16,
        257: 16,
        258: 8,
        259: 8,
        262: 1,
        277: 1,
        284: 1,
        322: side,
        323: side,
        324: 8,
        325: len(data),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(data))
        + data
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def many_scans(more: int, side: int = SIZE) -> bytes:
    """A progressive JPEG that goes over its pixels so many times more."""
    whole = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + scan * more + whole[-2:]


def swapped_profile() -> bytes:
    """sRGB's profile with the red and the green lamp exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", data, 128)
    places = {bytes(data[132 + 12 * i :][:4]): 136 + 12 * i for i in range(count)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    data[red : red + 8], data[green : green + 8] = data[green : green + 8], data[red : red + 8]
    return bytes(data)


def palette() -> Image.Image:
    """The left half one colour, the right half a transparent one."""
    made = Image.new("P", (SIZE, SIZE), 0)
    made.putpalette([10, 20, 30, 200, 100, 50])
    made.paste(1, (0, 0, 8, SIZE))
    return made


def claims(side: int) -> bytes:
    """A PNG of 70 bytes whose header claims so many pixels a side."""
    return png(side, side, 8, 2, zlib.compress(b""))


JPEG = encoded(SMOOTH, "JPEG", quality=95, subsampling=0)
NOISE = encoded(picture(0, size=64), "JPEG")
WIDE = np.zeros((SIZE, 20_000, 3), np.uint8)
WIDE[:, :9_904], WIDE[:, 9_904:10_096], WIDE[:, 10_096:] = (255, 0, 0), (0, 200, 0), (0, 0, 255)
BIG = (b"\0" * (1 << 20), 100)  # 100 MiB of zeros
UPRIGHT: dict[int, Callable[[Any], Any]] = {  # what was stored, of the upright image
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.rot90(a, -1),
}


def link_to(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def forbidden(path: Path) -> None:
    """Nobody may read it: the tests see to that for root too, by its name."""
    path.write_bytes(JPEG)
    path.chmod(0)


def used(
    what: str, files: Mapping[str, bytes], pixels: Pixels, how: str = "", *,
    lossy: bool = False, training: str = "", runtime: str = "",
) -> OddFile:  # fmt: skip
    answer = f"used{how}"
    return OddFile(what, files, training or answer, runtime or answer, pixels, lossy)


def bad(
    what: str,
    files: Mapping[str, bytes | Callable[[Path], object]],
    reason: str,
    runtime: str | None = None,
) -> OddFile:
    return OddFile(what, files, f"skipped: {reason}", f"refused: {runtime or reason}")


def odd_files() -> list[OddFile]:
    cmyk = Image.fromarray(SMOOTH).convert("CMYK")
    keyed = palette()
    colours = np.where(HALF[..., None] > 0, [200, 100, 50], 255).astype(np.uint8)
    grey_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(HALF)])
    return [
        used("progressive JPEG", {"a.jpg": encoded(SMOOTH, "JPEG", quality=95, subsampling=0, progressive=True)},
             SMOOTH, lossy=True),
        used("CMYK JPEG", {"a.jpg": encoded(cmyk, "JPEG", quality=95)}, SMOOTH, ", as RGB", lossy=True),
        used("a suffix of another of the formats read", {"jpeg.png": JPEG, "jpeg.gif": JPEG, "A.JFIF": JPEG},
             SMOOTH, ": the content counts", lossy=True),
        used("MPO, several pictures in one JPEG", {"a.jpg": several("MPO", quality=95, subsampling=0), "a.mpo": several("MPO", quality=95, subsampling=0)},
             SMOOTH, ", the first", lossy=True),
        used("animated GIF, WebP and PNG", {
            "a.gif": several("GIF"),
            "a.webp": several("WEBP", lossless=True), "a.png": several("PNG")},
            SMOOTH, ", the first frame", lossy=True),
        used("TIFF of several pages", {"a.tif": several("TIFF")}, SMOOTH, ", the first page"),
        used("16 bits a channel, grey", {"grey.png": deep_png(1)},
             np.repeat(GREY[..., None], 3, 2), ", scaled to 8"),
        used("16 bits a channel, RGB", {"rgb.png": deep_png(3)}, SMOOTH, ", scaled to 8"),
        used("palette with a transparent colour", {
            "a.png": encoded(keyed, transparency=0), "a.gif": encoded(keyed, "GIF", transparency=0)},
            colours, training=ALPHA, runtime=KEPT),
        used("grey with alpha", {"a.png": encoded(grey_alpha)},
             np.where(HALF[..., None] > 0, GREY[..., None], 255).repeat(3, 2).astype(np.uint8), training=ALPHA, runtime=KEPT),
        used("RGB with alpha", {"a.png": encoded(np.dstack([SMOOTH, HALF])), "a.webp": encoded(np.dstack([SMOOTH, HALF]), "WEBP", lossless=True, exact=True)},
             ON_WHITE, training=ALPHA, runtime=KEPT),
        used("EXIF orientation 1 to 8", {
            f"{way}.{kind}": encoded(np.ascontiguousarray(stored(SMOOTH)), format, exif=with_exif(way))
            for way, stored in UPRIGHT.items() for kind, format in (("png", "PNG"), ("tif", "TIFF"))},
            SMOOTH, ", turned upright"),
        used("damaged EXIF", {
            "a.jpg": encoded(SMOOTH, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0words"),
            "b.png": png(SIZE, SIZE, 8, 2, zlib.compress(b"".join(b"\0" + row.tobytes() for row in SMOOTH)), (b"eXIf", b"II*\0words"))},
            SMOOTH, ", as it lies", lossy=True),
        used("colour profile", {"a.png": encoded(SMOOTH, icc_profile=swapped_profile())},
             SMOOTH[..., [1, 0, 2]], ", converted to sRGB", lossy=True),
        used("colour profile that is damaged, of another kind of colour, or above 4 MiB", {
            "cut.png": encoded(SMOOTH, icc_profile=swapped_profile()[:200]),
            "zeros.jpg": encoded(SMOOTH, "JPEG", quality=95, subsampling=0, icc_profile=bytes(400)),
            "large.tif": encoded(SMOOTH, "TIFF", icc_profile=swapped_profile() + bytes(4 << 20))},
            SMOOTH, ", as sRGB", lossy=True),
        used("bytes after the image's end", {"a.jpg": JPEG + bytes(1000), "a.png": encoded(SMOOTH) + b"words"},
             SMOOTH, lossy=True),
        used("one pixel", {"a.png": encoded(np.full((1, 1, 3), 77, np.uint8))}, np.full((1, 1, 3), 77, np.uint8),
             training="used, enlarged"),
        used("20,000 pixels wide", {"a.png": encoded(WIDE), "a.jpg": encoded(WIDE, "JPEG", quality=95, subsampling=0)}, WIDE,
             lossy=True, training="used with `--fit`; without it `DatasetError`: is not square"),
        used("1 pixel whose data inflate to 100 MiB", {"a.png": png(1, 1, 8, 2, deflated((b"\0MMM", 1), BIG))},
             np.full((1, 1, 3), 77, np.uint8), ": no more is inflated than the size needs"),
        bad("truncated JPEG, PNG, GIF, WebP, TIFF", {
            "a.jpg": NOISE[: len(NOISE) // 2], "a.png": encoded(picture(0, 64))[:-6000],
            "a.gif": encoded(picture(0, 64), "GIF")[:2000], "a.webp": encoded(picture(0, 64), "WEBP")[:-500],
            "a.tif": encoded(picture(0, 64), "TIFF")[:-500]}, "damaged"),
        bad("0 bytes", {"a.png": b"", "a.jpg": b""}, "empty file"),
        bad("text, or a format that is not read, named .png", {
            "a.png": b"These are words.", "ppm.png": b"P6 16 16 255\n" + SMOOTH.tobytes(), "html.jpg": b"<!DOCTYPE html><p>404"}, "not an image"),
        bad("HEIC or AVIF named .jpg", {"a.jpg": encoded(SMOOTH, "AVIF"), "b.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"},
            NEWER),
        bad("a header that claims 30,000 x 30,000 pixels, or a tile of so many", {
            "a.png": claims(30_000), "a.bmp": run_length_bmp(30_000, 30_000), "tile.tif": tiled(30_000)},
            "more than 64000000 pixels", "more than 89000000 pixels"),
        bad("more than 100,000 pixels a side", {"a.bmp": run_length_bmp(60_000_000, 1), "a.png": png(100_001, 1, 8, 2, zlib.compress(bytes(300_004)))},
            "more than 100000 pixels a side"),
        bad("a JPEG of more than 200 scans", {"a.jpg": many_scans(201)}, "more than 200 scans"),
        bad("text or a profile in a PNG that inflates to 100 MiB", {
            "ztxt.png": png(1, 1, 8, 2, zlib.compress(b"\0abc"), (b"zTXt", b"a\0\0" + deflated(BIG))),
            "iccp.png": png(1, 1, 8, 2, zlib.compress(b"\0abc"), (b"iCCP", b"a\0\0" + deflated(BIG))),
            "itxt.png": png(1, 1, 8, 2, zlib.compress(b"\0abc"), (b"iTXt", b"a\0\1\0\0\0" + deflated(BIG)))}, "damaged"),
        bad("numbers that are not finite in a TIFF", {"a.tif": encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF")},
            "values that are not finite"),
        bad("a file that may not be read", {"forbidden.png": forbidden}, "Permission denied"),
        bad("a link to nothing", {"a.png": link_to("nowhere.png")}, "a link to nothing"),
        bad("links in a circle", {"a.png": link_to("a.png")}, "Too many levels of symbolic links"),
        bad("a pipe, or a link to a device", {"pipe.png": os.mkfifo, "zero.png": link_to("/dev/zero"), "null.png": link_to("/dev/null")},
            NO_FILE),
    ]  # fmt: skip


# Folders and archives.

GOOD = {f"good{i}.png": encoded(picture(i, SIZE)) for i in range(4)}
CLASSES = {f"{name}/{i}.png": encoded(picture(i, SIZE)) for name in ("cat", "dog") for i in (1, 2)}
SCRIPTS = (
    "\N{DOG FACE}\N{ZERO WIDTH JOINER}\N{CAT FACE}", "\u05db\u05dc\u05d1", "\u732b", "e\u0301\u0323", "\u0b95\u0bcd\u0bb7",
    "-rf", "--force", " space ", "a\\b", "$(x)", "*", "'", "%s", "x" * 255,
)  # fmt: skip
NOT_TEXT = ("two\nlines", "\x1b[31mred", os.fsdecode(b"caf\xe9"))


@dataclass(frozen=True)
class OddPlace:
    """A folder or a zip: made within a folder, the path to train on returned.

    kept: images that are used of it. classes: those it has. runtime: what `gan translate` does with it as IN; "" for
    zips, which it does not take.
    """

    what: str
    make: Callable[[Path], str]
    training: str
    runtime: str = ""
    kept: int = 4
    classes: tuple[str, ...] = ()


def folder(files: Mapping[str, bytes], *empty: str) -> Callable[[Path], str]:
    def make(root: Path) -> str:
        for name in empty:
            (root / "in" / name).mkdir(parents=True)
        return write_folder(root / "in", files)

    return make


def archive(files: Mapping[str, bytes], **options: Any) -> Callable[[Path], str]:
    return lambda root: write_zip(root / "in.zip", files, **options)


def altered(
    change: Callable[[bytearray], object], files: Mapping[str, bytes] = GOOD, **options: Any
) -> Callable[[Path], str]:
    """A zip whose bytes were changed after it was made."""

    def make(root: Path) -> str:
        path = Path(write_zip(root / "in.zip", files, **options))
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)
        return str(path)

    return make


def linked(root: Path) -> str:
    there = Path(write_folder(root / "there", CLASSES))
    (root / "in").mkdir()
    for name in ("cat", "dog"):
        (root / "in" / name).symlink_to(there / name)
    (there / "dog" / "back").symlink_to(root / "in")
    return str(root / "in")


def twice(root: Path) -> str:
    with zipfile.ZipFile(root / "in.zip", "w") as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            made.writestr("a.png", GOOD["good0.png"])
    return str(root / "in.zip")


def members(*infos: tuple[zipfile.ZipInfo, bytes]) -> Callable[[Path], str]:
    def make(root: Path) -> str:
        with zipfile.ZipFile(write_zip(root / "in.zip", GOOD), "a") as made:
            for info, data in infos:
                made.writestr(info, data)
        return str(root / "in.zip")

    return make


def link_member() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("link.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


def encrypt(data: bytearray) -> None:
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1


def lie_about_size(data: bytearray) -> None:
    """The last member says in both of its headers that it has 10 bytes."""
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.rindex(signature) + offset, 10)


def overlap(data: bytearray) -> None:
    """Every member is the first one's bytes."""
    start = data.index(b"PK\x01\x02")
    while start >= 0:
        struct.pack_into("<I", data, start + 42, 0)
        start = data.find(b"PK\x01\x02", start + 4)


def cut(data: bytearray) -> None:
    del data[len(data) // 2 :]


def zip64(**told: int) -> Callable[[bytearray], None]:
    """The end of a zip of zip64's kind, with lies."""

    def change(data: bytearray) -> None:
        start, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
        fields = {"disks": 1, "count": len(GOOD), "size": end - start, "offset": start, **told}
        record = struct.pack(
            "<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, fields["count"], fields["count"],
            fields["size"], fields["offset"],
        )  # fmt: skip
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, fields["disks"])
        data[end:end] = record + locator

    return change


def member64(data: bytearray) -> None:
    """The last member says by a zip64 field that it has 2^62 bytes."""
    start, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    struct.pack_into("<I", data, start + 24, 0xFFFFFFFF)
    extra = struct.pack("<HHQ", 1, 8, 1 << 62)
    struct.pack_into("<H", data, start + 30, len(extra))
    (length,) = struct.unpack_from("<H", data, start + 28)
    data[start + 46 + length : start + 46 + length] = extra
    end += len(extra)
    (size,) = struct.unpack_from("<I", data, end + 12)
    struct.pack_into("<I", data, end + 12, size + len(extra))


def vast_directory(root: Path) -> str:
    """A sparse file whose end says that 3 million members stand before it."""
    path, size = root / "in.zip", sources.MAX_DIRECTORY * 3
    with open(path, "wb") as file:
        file.write(b"PK")
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 9, 9, size - 100, 100, 0))
    return str(path)


def unflagged(root: Path) -> str:
    """A zip as macOS makes it: names in UTF-8, and nothing that says so."""
    names = [f"{name}/{i}.png" for name in ("caf\u00e9", "\u732b") for i in (1, 2)]
    path = Path(write_zip(root / "in.zip", {name: GOOD["good1.png"] for name in names}))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(signature)
        while start >= 0:
            data[start + offset + 1] &= ~8
            start = data.find(signature, start + 4)
    path.write_bytes(data)
    return str(path)


def odd_places() -> list[OddPlace]:
    bad = {f"bad{i}.png": b"words" for i in range(5)}
    noise = {f"{i}.png": encoded(picture(i, SIZE)) for i in range(2)}
    zeros = noise | {"zeros.bmp": bytes(10_000_000)}
    pets = ("cat", "dog")
    scripts = {f"{name}/{name[:251]}.png": data for name in SCRIPTS for data in [GOOD["good2.png"]]}
    error = "`DatasetError`: "
    passed = {"Thumbs.db": b"x", "desktop.ini": b"x", ".DS_Store": b"x", "notes.txt": b"x", ".hidden.png": b"x",
              "._good0.png": b"x", "__MACOSX/good0.png": b"x", "@eaDir/good0.png/thumb.jpg": b"x", ".cache/a.png": b"x"}  # fmt: skip
    return [
        OddPlace("a folder named x.png", folder({f"x.png/{n}": d for n, d in GOOD.items()}), "used, as a folder",
                 "used, as a folder"),
        OddPlace("an empty class folder", folder(CLASSES, "bird", "none/at/all"), "told of: no image in the folder",
                 "left out", classes=pets),
        OddPlace("a class without a usable image", folder({**CLASSES, "bird/1.png": b"words"}),
                 error + "classes without a usable image"),
        OddPlace("fewer good images than bad ones", folder({**GOOD, **bad}), error + "cannot be used",
                 "the good ones are written, the others named; exit code 1"),
        OddPlace("no usable image", folder(bad), error + "holds no usable image", "none is written, all named; exit code 1", kept=0),
        OddPlace("no image at all, or none of a format that is read", folder({"IMG_1.HEIC": b"x", "a.zip": b"x"}),
                 error + "holds no images", "refused: holds no image", kept=0),
        OddPlace("fewer images than a batch", folder(GOOD), "used, several times a batch", "used"),
        OddPlace("names in any script, of 255 bytes, with a dash in front, in quotes", folder(scripts), "used", "used", kept=len(SCRIPTS),
                 classes=SCRIPTS),
        OddPlace("names with line breaks or escape sequences, or that are not UTF-8", folder({f"{n}.png": GOOD["good3.png"] for n in NOT_TEXT} | {f"{n}2.png": b"" for n in NOT_TEXT}),
                 "used; shown with escapes", "used; shown with escapes", kept=len(NOT_TEXT)),
        OddPlace("such a name of a class", folder({f"{NOT_TEXT[2]}/1.png": GOOD["good3.png"], **CLASSES}), error + "The name of a class is not text", "used", kept=5),
        OddPlace("files that systems leave (`Thumbs.db`, `.DS_Store`, `__MACOSX`, `@eaDir`), hidden and other files", folder({**GOOD, **passed}),
                 "left out", "left out"),
        OddPlace("suffixes .heic, .avif, .svg, .psd, raw photographs, archives", folder({**GOOD, "a.HEIC": b"", "b.heic": b"", "c.zip": b"", "d.dng": b""}),
                 "told of: files of kinds that are not read", "told of: files of kinds that are not read"),
        OddPlace("a sub-folder that may not be listed", folder({**GOOD, "locked/1.png": GOOD["good1.png"]}), "told of: a folder that cannot be listed",
                 "named; exit code 1"),
        OddPlace("linked folders, in circles too", linked, "used, each real folder once", "used, each real folder once", classes=pets),
        OddPlace("a zip with `../`, absolute or drive names", archive({**GOOD, "../a.png": GOOD["good1.png"]}), error + "absolute or parent paths"),
        OddPlace("two members of one name", twice, error + "members of one name"),
        OddPlace("encrypted members", altered(encrypt), error + "encrypted members"),
        OddPlace("a member that inflates beyond 200:1", archive(zeros, compression=zipfile.ZIP_DEFLATED), error + "compression beyond 200:1"),
        OddPlace("members packed by bzip2 or LZMA, whose memory cannot be bounded", archive(noise, compression=zipfile.ZIP_LZMA), error + "a compression method other than deflate"),
        OddPlace("members that share their bytes", altered(overlap, {n: GOOD["good0.png"] for n in GOOD}), error + "members within each other"),
        OddPlace("more than 2,000,000 members, or 128 MiB of names", vast_directory, error + "too many members"),
        OddPlace("a zip in a zip", archive({**GOOD, "more.zip": b"PK"}), "told of: files of kinds that are not read"),
        OddPlace("a member whose header lies about its size", altered(lie_about_size, {**GOOD, "lie.png": GOOD["good1.png"]}), "skipped: damaged in the zip"),
        OddPlace("a link as a member", members((link_member(), b"/etc/passwd")), "skipped: a link in the zip"),
        OddPlace("a truncated zip", altered(cut), error + "it may have been cut short"),
        OddPlace("lies in zip64 fields: disks", altered(zip64(disks=9)), error + "cannot be read"),
        OddPlace("lies in zip64 fields: places", altered(zip64(offset=1 << 62)), error + "members within each other"),
        OddPlace("lies in zip64 fields: sizes", altered(member64), error + "a member beyond the size limit"),
        OddPlace("names with backslashes, as some packers of Windows write them", archive({n.replace("/", "\\"): d for n, d in CLASSES.items()}), "used, as folders", classes=pets),
        OddPlace("names in UTF-8 that are not marked so, as macOS writes them", unflagged, "used, as UTF-8", classes=("caf\u00e9", "\u732b")),
        OddPlace("members that are folders named x.png", members((zipfile.ZipInfo("x.png/"), b"")), "told of: no image in the folder"),
    ]  # fmt: skip
