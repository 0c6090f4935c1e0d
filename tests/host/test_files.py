# SPDX-License-Identifier: Apache-2.0
import errno
import os
from pathlib import Path

import pytest

from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import replacing, write_text


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
