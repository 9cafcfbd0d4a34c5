"""Which images belong together: single ones, pairs by name, the halves of one file, or two sets of their own.

In a pair the sample comes first, then its partner, the image that it is to be made from.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from PIL import Image

from ..runtime.errors import DatasetError
from ..runtime.folders import first_of
from ..runtime.text import legible
from .decode import channels_of, decode, size_of
from .sources import Item, Source, below_the_top


@dataclass(frozen=True)
class Look:
    """What a file's header tells: channels (1 or 3), and the upright image's size."""

    channels: int
    width: int
    height: int


class Images(ABC):
    """Images that are read one by one, each together with its partner where it has one.

    noun: what one is called. sides: images in one. of: what a size is of. unlike: what is wrong where the sides
    differ in size, and the repair.
    """

    noun: ClassVar[str] = "pairs"
    sides: ClassVar[int] = 2
    of: ClassVar[str] = ""
    unlike: ClassVar[tuple[str, str]] = ("", "")
    place: Path
    names: list[str]

    @abstractmethod
    def look(self, number: int) -> list[Look]:
        """What the headers tell of each side. Raises `ImageRefused`."""

    @abstractmethod
    def decode(self, number: int, channels: Sequence[int]) -> list[Image.Image]:
        """Each side with so many channels. Raises `ImageRefused`."""


class Single(Images):
    """Each file is a sample."""

    noun, sides = "images", 1

    def __init__(self, source: Source) -> None:
        self._source, self.place = source, source.place
        self.names = [legible(item.name) for item in source.items]

    def look(self, number: int) -> list[Look]:
        return [_look(self._source, self._source.items[number])]

    def decode(self, number: int, channels: Sequence[int]) -> list[Image.Image]:
        return [decode(self._source.read(self._source.items[number]), channels[0])]


class Matched(Images):
    """Two sources whose files pair up by name: samples, and their partners."""

    unlike = (
        "The two images of a pair differ in size",
        "Give pairs of one size: they are cut and resized alike",
    )

    def __init__(self, samples: Source, partners: Source) -> None:
        self._sources, self._pairs = (samples, partners), match(samples, partners)
        self.place = samples.place
        self.names = [shown(samples, item) for item, _ in self._pairs]

    def look(self, number: int) -> list[Look]:
        pair = zip(self._sources, self._pairs[number], strict=True)
        return [_look(source, item) for source, item in pair]

    def decode(self, number: int, channels: Sequence[int]) -> list[Image.Image]:
        pair = zip(self._sources, self._pairs[number], channels, strict=True)
        return [decode(source.read(item), count) for source, item, count in pair]


class Halves(Images):
    """Each file is a pair side by side: the left half is the partner, the right half the sample, unless swapped."""

    of = "halves of "
    unlike = (
        "An image of two halves has an odd width",
        "Give pairs side by side, or the images that samples are made from with --source",
    )

    def __init__(self, source: Source, *, swap: bool) -> None:
        self._source, self._swap, self.place = source, swap, source.place
        self.names = [legible(item.name) for item in source.items]

    def look(self, number: int) -> list[Look]:
        whole = _look(self._source, self._source.items[number])
        left = whole.width // 2
        return [Look(whole.channels, w, whole.height) for w in (whole.width - left, left)]

    def decode(self, number: int, channels: Sequence[int]) -> list[Image.Image]:
        data = self._source.read(self._source.items[number])
        whole = {count: decode(data, count) for count in set(channels)}
        width, height = whole[channels[0]].size
        right, left = (width // 2, 0, width, height), (0, 0, width // 2, height)
        boxes = (left, right) if self._swap else (right, left)
        return [whole[count].crop(box) for count, box in zip(channels, boxes, strict=True)]


class Part:
    """Some of a source's images, without classes."""

    def __init__(self, whole: Source, items: list[Item], name: str) -> None:
        self.place, self.items, self._whole = whole.place / name, items, whole
        self.classes: tuple[str, ...] = ()
        self.notes = whole.notes

    def read(self, item: Item) -> bytes:
        return self._whole.read(item)


def domains(source: Source) -> tuple[Source, Source]:
    """The two sets in the two first-level folders, in natural order: the first is made into the second.

    trainA and trainB may have testA and testB beside them, which are left alone. Raises `DatasetError`.
    """
    folders = source.classes
    if {"traina", "trainb"} <= {name.lower() for name in folders}:
        folders = tuple(name for name in folders if not name.lower().startswith("test"))
    if len(folders) != 2:
        few = ", ".join(folders[:4]) + (", ..." if len(folders) > 4 else "")
        raise DatasetError(
            f"{source.place} does not hold two sets of images",
            seen=f"{len(folders)} first-level folders: {few}"
            if folders
            else "images that are not in two or more first-level folders",
            repair="Give a folder of two such as trainA and trainB, the second made from the first; or give the second "
            "as data and the first with --source",
        )
    sets = {name: list[Item]() for name in folders}
    for item in source.items:
        name = source.classes[item.label or 0]
        if name in sets:
            sets[name].append(item)
    first, second = (Part(source, sets[name], name) for name in folders)
    return first, second


def match(samples: Source, partners: Source) -> list[tuple[Item, Item]]:
    """Pairs of one name below the top, whatever its suffix and case. Raises `DatasetError` for one without its other."""
    keys = _by_name(samples), _by_name(partners)
    alone = [shown(samples, item) for key, item in keys[0].items() if key not in keys[1]]
    alone += [shown(partners, item) for key, item in keys[1].items() if key not in keys[0]]
    if alone:
        raise DatasetError(
            f"There is no other image of the pair for {first_of(alone)}",
            seen=f"{len(samples.items)} images in {samples.place}, {len(partners.items)} in {partners.place}",
            repair="Give both images of a pair the same name, such as edges/1.png and photos/1.jpg",
        )
    return [(item, keys[1][key]) for key, item in keys[0].items()]


def shown(source: Source, item: Item) -> str:
    return legible((source.place / item.name).as_posix())


def apart(first: Path, second: Path) -> None:
    """Raise `DatasetError` where one is the other, or lies within it."""
    a, b = first.resolve(), second.resolve()
    within = (a in b.parents and b.is_dir()) or (b in a.parents and a.is_dir())
    if a == b or within:
        raise DatasetError(
            "The data and their source are not apart",
            seen=f"{first} and {second}",
            repair="Give two folders or zips, neither within the other",
        )


def _by_name(source: Source) -> dict[str, Item]:
    found = dict[str, Item]()
    below = below_the_top([item.name for item in source.items])
    for item, parts in zip(source.items, below, strict=True):
        name = PurePosixPath(*parts).with_suffix("").as_posix()
        key = unicodedata.normalize("NFC", name).casefold()
        if key in found:
            raise DatasetError(
                f"Two images of {source.place} have one name",
                seen=f"{legible(found[key].name)} and {legible(item.name)}; suffix and case do not tell pairs apart",
                repair="Rename or remove one",
            )
        found[key] = item
    return found


def _look(source: Source, item: Item) -> Look:
    data = source.read(item)
    return Look(channels_of(data), *size_of(data))
