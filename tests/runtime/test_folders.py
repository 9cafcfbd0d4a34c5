"""What a folder holds by its names: images in order, what is not read, what is empty; names that are safe to show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gan.runtime.folders import Listing, first_of, is_hidden, suffix
from gan.runtime.text import legible


def listing(root: Path, *names: str) -> Listing:
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"")
    return Listing.of(root)


def test_images_come_in_the_order_of_their_whole_names(tmp_path: Path) -> None:
    found = listing(
        tmp_path, "b.png", "a/z.JPG", "a/b/c.tiff", "B.webp", "a-.gif", "notes.txt", "png"
    )
    assert found.images == ["B.webp", "a-.gif", "a/b/c.tiff", "a/z.JPG", "b.png"]
    assert not found.foreign and not found.empty and not found.notes()


def test_what_is_not_read_is_counted_by_suffix(tmp_path: Path) -> None:
    found = listing(tmp_path, "a.HEIC", "b.heic", "c/d.zip", "e.txt", ".f.heic", "g.png")
    assert found.images == ["g.png"] and found.foreign == {".heic": 2, ".zip": 1}
    assert found.notes() == [
        "Skipped c: no image in the folder",
        "Skipped files of kinds that are not read: 2 x .heic, 1 x .zip (convert or unpack them)",
    ]


def test_of_empty_folders_the_topmost_are_told_of(tmp_path: Path) -> None:
    found = listing(
        tmp_path,
        "a/1.png",
        "a/none/",
        "b/c/d/",
        "b/notes.txt",
        ".git/x/",
        "@eaDir/x/",
        "e/f/1.png",
        "e/g/h/",
    )
    assert found.empty == ["a/none", "b", "e/g"]
    assert Listing.of_names(["a/1.png"], ["a/", "b/", "b/c/", ".d/"]).empty == ["b"]


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        (".a.png", True), ("a/.b/c.png", True), ("__MACOSX/a.png", True), ("a/@eaDir/b.png", True),
        ("$RECYCLE.BIN/a.png", True), ("a.png", False), ("./a.png", False), ("../a.png", False),
        ("a..b.png", False), ("_MACOSX/a.png", False), ("eaDir@/a.png", False),
    ],
)  # fmt: skip
def test_what_systems_hide_or_leave_behind_is_hidden(name: str, hidden: bool) -> None:
    assert is_hidden(name) is hidden


@pytest.mark.parametrize(
    ("name", "end"),
    [("a.PNG", ".png"), ("a.tar.gz", ".gz"), ("a", ""), ("a.b/c", ""), (".png", ""), ("a.", ".")],
)
def test_a_suffix_is_that_of_the_last_part(name: str, end: str) -> None:
    assert suffix(name) == end


def test_a_folder_that_cannot_be_listed_is_kept_and_the_top_one_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing(tmp_path, "a/1.png", "locked/2.png")
    scandir = os.scandir

    def scanned(path: str | Path = ".") -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scanned)
    found = Listing.of(tmp_path)
    assert found.images == ["a/1.png"] and len(found.unread) == 1
    assert "Permission denied" in found.notes()[0] and "locked" in found.notes()[0]
    with pytest.raises(PermissionError):
        Listing.of(tmp_path / "locked")
    with pytest.raises(FileNotFoundError):
        Listing.of(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_listed_is_not_called_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_a_folder_that_cannot_be_listed_is_kept_and_the_top_one_raises(tmp_path, monkeypatch)
    assert Listing.of(tmp_path).empty == []


def test_links_are_followed_each_real_folder_once(tmp_path: Path) -> None:
    listing(tmp_path / "there", "1.png")
    (tmp_path / "here").mkdir()
    for name in ("a", "b"):
        (tmp_path / "here" / name).symlink_to(tmp_path / "there")
    (tmp_path / "there" / "up").symlink_to(tmp_path / "here")
    assert len(Listing.of(tmp_path / "here").images) == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("caf\u00e9 \u732b \u05db\u05dc\u05d1.png", "caf\u00e9 \u732b \u05db\u05dc\u05d1.png"),
        ("\U0001f468\u200d\U0001f469.png", "\U0001f468\u200d\U0001f469.png"),
        ("a\u00a0b\u3000c", "a\u00a0b\u3000c"),
        ("two\nlines\ttab\r", r"two\nlines\ttab\r"),
        ("\x1b[2J\x9b", r"\u001b[2J\u009b"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
        ("a\u2028b", r"a\u2028b"),
        ("gnp.\u202eexe", r"gnp.\u202eexe"),
    ],
)
def test_names_are_shown_in_any_script_and_do_nothing_to_a_terminal(name: str, shown: str) -> None:
    assert legible(name) == shown == legible(shown)
    assert first_of([name]) == shown and first_of([name, "b", "c"]) == f"{shown} and 2 more"
