# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, and questions to the file system that end in one sentence."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from edge_moe_host.errors import EdgeMoEError, reason


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` when the block ends well.

    Missing parent folders are made. Raises EdgeMoEError when the file cannot be written; an older
    file at ``path`` is then untouched and the temporary one is removed. ``durable``: return once the file
    survives a power cut; a cache that can be rebuilt need not wait for that.
    """
    path = _named(path)
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
        kept = "; the previous one is kept" if os.path.isfile(path) else ""
        raise EdgeMoEError(f"cannot write '{path}': {error.strerror or error}{kept}.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; it takes the place of ``path`` when the block ends well.

    Raises EdgeMoEError when the folder cannot be written; an older one at ``path`` is then untouched.
    """
    path = _named(path)
    temporary, old = (path.with_name(f".{path.name}.{os.getpid()}.{part}") for part in ("new", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        if os.path.lexists(path):
            path.rename(old)
        temporary.rename(path)
    except OSError as error:
        if os.path.lexists(old) and not os.path.lexists(path):
            old.rename(path)
        raise EdgeMoEError(f"cannot write '{path}': {error.strerror or error}.") from None
    finally:
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def _named(path: Path) -> Path:
    path = Path(path)
    if path.name in ("", ".."):
        raise EdgeMoEError(f"cannot write '{path}': it has no name of its own, which a new folder would get.")
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        # a new file would take the place of a device
        raise EdgeMoEError(f"cannot write '{path}': it is neither a file nor a folder.")
    return path


def _sync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


Kind = Literal["file", "folder", "other", ""]
_SHOWN = 200  # characters of a path in a message


def kind(path: Path | str, error: type[EdgeMoEError] = EdgeMoEError) -> Kind:
    """What is at ``path``: "file", "folder", "other" (a device or pipe), or "" for nothing.

    ``error`` where the system does not say: in a folder that may not be entered, for a name that is too long.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as failure:  # ValueError: of a zero byte
        raise unreadable(path, failure, error) from None
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def visible(folder: Path | str, error: type[EdgeMoEError] = EdgeMoEError) -> list[Path]:
    """What a folder holds, sorted by name, without hidden files (as ``._NAME`` of a Mac)."""
    try:
        return sorted(path for path in Path(folder).iterdir() if not path.name.startswith("."))
    except (OSError, ValueError) as failure:
        raise unreadable(folder, failure, error) from None


def unreadable(
    path: Path | str, failure: Exception, error: type[EdgeMoEError] = EdgeMoEError
) -> EdgeMoEError:
    """``error`` with the system's reason; a very long path is shortened."""
    text = str(path)
    shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 2 :]}"
    return error(f"cannot read {shown!r}: {getattr(failure, 'strerror', None) or reason(failure)}.")


def at_home(path: Path | str, error: type[EdgeMoEError] = EdgeMoEError) -> Path:
    """``path`` with ``~`` and ``~USER`` replaced. ``error`` where there is no such user or no home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as failure:
        raise unreadable(path, failure, error) from None


def read_text(path: Path | str, error: type[EdgeMoEError] = EdgeMoEError) -> str:
    """A UTF-8 file's text without its byte order mark. ``error`` for one that cannot be read or decoded."""
    try:
        return read_bytes(Path(path), error).decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise error(
            f"'{path}' is not UTF-8 text (byte {failure.start}): save it with the encoding UTF-8."
        ) from None


def read_bytes(path: Path, error: type[EdgeMoEError] = EdgeMoEError) -> bytes:
    """A file's bytes. ``error`` when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as failure:
        raise unreadable(path, failure, error) from None


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
