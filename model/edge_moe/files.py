# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all, and the folder of what can be made again."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from edge_moe.errors import EdgeMoEError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` when the block ends well.

    Missing parent folders are made. Raises EdgeMoEError when the file cannot be written; an older
    file at ``path`` is then untouched and the temporary one is gone.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)  # make the rename itself survive a power cut
    except OSError as error:
        kept = "; the previous one is kept" if path.is_file() else ""
        raise EdgeMoEError(f"cannot write '{path}': {error.strerror or error}{kept}.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cache_folder() -> Path | None:
    """Folder of what is made once and kept: rendered scenes (0.3 MB each at 128x256), the packaged bundle.

    ``$EDGE_MOE_CACHE``, by default ``edge-moe`` in the user's cache folder; ``off`` keeps nothing.
    """
    named = os.environ.get("EDGE_MOE_CACHE", "")
    if named:
        return None if named == "off" else Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-moe"
