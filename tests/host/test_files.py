# SPDX-License-Identifier: Apache-2.0
import errno
import os
from pathlib import Path

import pytest

from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import (
    at_home,
    kind,
    read_bytes,
    read_text,
    replacing,
    replacing_folder,
    visible,
    write_text,
)


def test_writes_and_makes_folders(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "höhe\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "höhe\n".encode()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "b.txt"
    write_text(path, "old")

    def full(self: Path, *_: object, **__: object) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(EdgeMoEError, match=r"b\.txt': No space left on device; the previous one is kept"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]
    with pytest.raises(EdgeMoEError, match=r"new\.txt': No space left on device\.$"):
        write_text(tmp_path / "new.txt", "new")


@pytest.mark.parametrize("place", [".", "", "..", "/"])
@pytest.mark.parametrize("writer", [replacing, replacing_folder])
def test_a_place_without_a_name_of_its_own_is_refused(tmp_path, monkeypatch, place, writer):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgeMoEError, match="has no name of its own"), writer(Path(place)):
        pytest.fail("it was written to")
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for write in (replacing, replacing_folder):
        with (
            pytest.raises(EdgeMoEError, match=r"pipe': it is neither a file nor a folder\.$"),
            write(tmp_path / "pipe"),
        ):
            pass
    assert (tmp_path / "pipe").is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("durable", [True, False])
def test_what_must_last_is_on_the_disk_before_and_after_it_gets_its_name(tmp_path, monkeypatch, durable):
    path, synced = tmp_path / "b.txt", []

    def fsync(handle: int) -> None:
        synced.append((os.path.sameopenfile(handle, folder), path.exists()))

    folder = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(path, durable=durable) as temporary:
        temporary.write_text("all of it")
    os.close(folder)
    assert synced == ([(False, False), (True, True)] if durable else [])


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupted() -> None:
        with replacing(tmp_path / "c.bin") as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(EdgeMoEError, match="cannot write"):
        write_text(tmp_path / "x" / "y.txt", "")


def test_asks_the_file_system(tmp_path):
    write_text(tmp_path / "a.txt", "a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loose").symlink_to("nowhere")
    at = ("a.txt", ".", "pipe", "none", "loose", "a.txt/under")
    assert [kind(tmp_path / name) for name in at] == ["file", "folder", "other", "", "", ""]
    write_text(tmp_path / "._a.txt", "of a Mac")
    (tmp_path / ".hidden").mkdir()
    assert [path.name for path in visible(tmp_path)] == ["a.txt", "loose", "pipe"]


@pytest.mark.parametrize("ask", [kind, visible, read_bytes, read_text])
def test_what_the_system_refuses_is_a_sentence(ask, tmp_path, monkeypatch):
    with pytest.raises(EdgeMoEError, match="File name too long") as caught:
        ask(tmp_path / ("x" * 5000))
    assert len(str(caught.value)) < 300
    with pytest.raises(EdgeMoEError, match="null byte"):
        ask(tmp_path / "a\0b")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in (
        "os.stat",
        "os.listdir",
        "os.scandir",
        "io.open",
        "pathlib.Path.iterdir",
        "pathlib.Path.open",
    ):
        monkeypatch.setattr(name, refuse)
    with pytest.raises(EdgeMoEError, match=r"locked/a': Permission denied\.$"):
        ask(Path("locked/a"))


def test_a_name_of_nobody_is_a_sentence():
    with pytest.raises(EdgeMoEError, match="cannot read '~nosuchuser/x'"):
        at_home("~nosuchuser/x")


def test_text_is_utf8_with_or_without_a_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("höhe", encoding="utf-8-sig")
    assert read_text(path) == "höhe"
    for encoding in ("latin-1", "utf-16"):
        path.write_text("höhe", encoding=encoding)
        with pytest.raises(EdgeMoEError, match=r"not UTF-8 text \(byte \d\): save it"):
            read_text(path)
