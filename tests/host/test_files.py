# SPDX-License-Identifier: Apache-2.0
import errno
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
