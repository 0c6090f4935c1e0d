# SPDX-License-Identifier: Apache-2.0
"""The packaged model as a bundle: quantised, exported and compiled at its first use, and kept.

It lies in the cache folder under a name that depends on everything it was made of.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_moe import __version__
from edge_moe.backends import PRETRAINED, pretrained_checkpoint
from edge_moe.compiler.accelerator import load_accelerator
from edge_moe.errors import EdgeMoEError
from edge_moe.files import cache_folder
from edge_moe_host.bundle import Bundle, load_bundle
from edge_moe_host.errors import BundleError
from edge_moe_host.isa import ISA_VERSION
from edge_moe_host.manifest import FORMAT_VERSION

ACCELERATOR = "zcu104"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackagedModel:
    """The bundle, and the folder of the graphs that it was compiled from."""

    bundle: Bundle
    graphs: Path

    def options(self, backend: str) -> dict[str, str | int]:
        """What a backend needs beside the bundle."""
        needed: dict[str, dict[str, str | int]] = {
            "onnx": {"graphs": str(self.graphs)},
            "torch": {"checkpoint": PRETRAINED},
        }
        return needed.get(backend, {})


@contextlib.contextmanager
def packaged_model(checkpoint: Path | None = None) -> Iterator[PackagedModel]:
    """All tasks of the packaged model (or of another checkpoint), for the zcu104.

    Made now when it is not in the cache folder, or damaged there; with ``EDGE_MOE_CACHE=off`` it lasts as
    long as the context. Raises EdgeMoEError when it cannot be made.
    """
    source = checkpoint or pretrained_checkpoint()
    cache = cache_folder()
    if cache is not None:
        yield _kept(source, cache / f"bundle-{_key(source)}")
        return
    with tempfile.TemporaryDirectory(prefix="edge-moe-") as folder:
        _make(source, Path(folder))
        yield _read(Path(folder))


def _key(source: Path) -> str:
    """Hash of the checkpoint's bytes and of all versions that the result depends on."""
    versions = (__version__, FORMAT_VERSION, ISA_VERSION, load_accelerator(ACCELERATOR).hash())
    digest = hashlib.sha256(repr(versions).encode())
    try:
        digest.update(source.read_bytes())
    except OSError as error:
        raise EdgeMoEError(f"cannot read '{source}': {error.strerror or error}.") from None
    return digest.hexdigest()[:16]


def _kept(source: Path, folder: Path) -> PackagedModel:
    if folder.is_dir():
        try:
            return _read(folder)
        except BundleError as error:
            _LOG.info("%s It is made again.", error)
            shutil.rmtree(folder, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        _make(source, temporary)
        with contextlib.suppress(OSError):  # another process was quicker: its result is the same
            temporary.rename(folder)
        return _read(folder)
    except OSError as error:
        raise EdgeMoEError(f"cannot write '{folder}': {error.strerror or error}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make(source: Path, folder: Path) -> None:
    """FOLDER/graphs and FOLDER/bundle, both verified."""
    from edge_moe.compiler.command import compile_command
    from edge_moe.export.command import PATH_FILE
    from edge_moe.export.source import export_source

    _LOG.info("first use of '%s': it is quantised, exported and compiled; later uses start at once", source)
    _LOG.info(export_source(source, None, folder / "graphs"))
    paths = sorted((folder / "graphs").glob(f"*/{PATH_FILE}"))
    _LOG.info(compile_command(paths, ACCELERATOR, folder / "bundle"))


def _read(folder: Path) -> PackagedModel:
    return PackagedModel(load_bundle(folder / "bundle"), folder / "graphs")
