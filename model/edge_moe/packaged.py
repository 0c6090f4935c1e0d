# SPDX-License-Identifier: Apache-2.0
"""The packaged weights, and their bundle: quantised, exported and compiled at its first use, and kept.

The bundle is stored in the cache folder under a name that depends on all its inputs.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from edge_moe import __version__
from edge_moe.accelerator import load_accelerator
from edge_moe.cache import cache_folder
from edge_moe_host.contract.bundle import Bundle, load_bundle
from edge_moe_host.contract.isa import ISA_VERSION
from edge_moe_host.contract.manifest import FORMAT_VERSION
from edge_moe_host.errors import BundleError, EdgeMoEError
from edge_moe_host.files import replacing_folder

ACCELERATOR = "zcu104"
PRETRAINED = "pretrained"
_LOG = logging.getLogger(__name__)


def pretrained_checkpoint() -> Path:
    """The packaged weights of the tiny model."""
    return Path(str(resources.files("edge_moe") / "pretrained" / "m3vit_tiny_cityscapes.pt"))


def find_checkpoint(text: str | Path) -> Path:
    """The path of a checkpoint: a file, ``pretrained``, or the best (else the last) in a run's folder."""
    if str(text) == PRETRAINED:
        return pretrained_checkpoint()
    from edge_moe.checkpoint import BEST, LAST

    path = Path(text)
    return next((path / name for name in (BEST, LAST) if os.path.isfile(path / name)), path)


@dataclass(frozen=True)
class PackagedModel:
    """The bundle, and the folder of the graphs that it was compiled from."""

    bundle: Bundle
    graphs: Path

    def options(self, backend: str) -> dict[str, str | int]:
        """Options that a backend needs besides the bundle."""
        needed: dict[str, dict[str, str | int]] = {
            "onnx": {"graphs": str(self.graphs)},
            "torch": {"checkpoint": PRETRAINED},
        }
        return needed.get(backend, {})


@contextlib.contextmanager
def packaged_model(checkpoint: Path | None = None) -> Iterator[PackagedModel]:
    """All tasks of the packaged model (or of another checkpoint), for the zcu104.

    It is made now if the cache folder lacks it or has a damaged one; with ``EDGE_MOE_CACHE=off`` it lasts
    as long as the context. Raises EdgeMoEError when it cannot be made.
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
    with replacing_folder(folder) as temporary:
        _make(source, temporary)
    _LOG.info("kept in '%s'", folder)
    return _read(folder)


def _make(source: Path, folder: Path) -> None:
    """FOLDER/graphs and FOLDER/bundle, both verified."""
    from edge_moe.compiler.verify import compile_verified
    from edge_moe.export.files import PATH_FILE
    from edge_moe.export.source import export_source

    _LOG.info("first use of '%s': it is quantised, exported and compiled; later uses start at once", source)
    place = f"{folder}{os.sep}"  # temporary
    _LOG.info(export_source(source, None, folder / "graphs").replace(place, ""))
    paths = sorted((folder / "graphs").glob(f"*/{PATH_FILE}"))
    _LOG.info(compile_verified(paths, ACCELERATOR, folder / "bundle").replace(place, ""))


def _read(folder: Path) -> PackagedModel:
    return PackagedModel(load_bundle(folder / "bundle"), folder / "graphs")
