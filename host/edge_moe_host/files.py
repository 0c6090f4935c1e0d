# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edge_moe_host.errors import EdgeMoEError


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` when the block ends well.

    Missing parent folders are made. Raises EdgeMoEError when the file cannot be written; an older
    file at ``path`` is then untouched and the temporary one is removed. ``durable``: return once the file
    survives a power cut; a cache that can be rebuilt need not wait for that.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _sync(temporary)
        os.replace(temporary, path)
        if durable:
            _sync(path.parent)  # the rename itself
    except OSError as error:
        kept = "; the previous one is kept" if path.is_file() else ""
        raise EdgeMoEError(f"cannot write '{path}': {error.strerror or error}{kept}.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; it takes the place of ``path`` when the block ends well.

    Raises EdgeMoEError when the folder cannot be written; an older one at ``path`` is then untouched.
    """
    path = Path(path)
    temporary, old = (path.with_name(f".{path.name}.{os.getpid()}.{part}") for part in ("new", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise EdgeMoEError(f"cannot write '{path}': {error.strerror or error}.") from None
    finally:
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_bytes(path: Path, error: type[EdgeMoEError] = EdgeMoEError) -> bytes:
    """A file's bytes. ``error`` when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as failure:
        raise error(f"cannot read '{path}': {failure.strerror or failure}.") from None


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
