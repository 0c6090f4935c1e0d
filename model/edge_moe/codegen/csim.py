# SPDX-License-Identifier: Apache-2.0
"""The C simulation of any accelerator, compiled at its first use.

It is kept in the cache folder under a hash of all that it is made from. In a checkout ``make -C hls csim``
builds it too, for the simulated board and the tests.
"""

import atexit
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_moe.accelerator import (
    AcceleratorConfig,
    has_board,
    load_accelerator,
    load_board,
)
from edge_moe.cache import cache_folder
from edge_moe.codegen import BOARD_FILE, write_headers
from edge_moe.places import HLS
from edge_moe.settings import packaged_names
from edge_moe_host.config import from_dict
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import replacing, write_text

FLAGS = ("-std=c++14", "-fPIC", "-O3", "-shared", "-w")  # hls/Makefile has them too
SOURCES = ("src/edge_moe.cpp", "src/csim.cpp")  # one translation unit, as in hls/csim.mk
_LOG = logging.getLogger(__name__)


def build_library(fields: Mapping[str, Any]) -> Path:
    """The library of an accelerator, whose configuration a bundle's manifest has as plain data.

    A packaged accelerator's board is described beside it. Raises EdgeMoEError when it cannot be compiled.
    """
    accelerator: AcceleratorConfig = from_dict(AcceleratorConfig, fields)
    packaged = [
        name
        for name in packaged_names("accelerators")
        if load_accelerator(name) == accelerator and has_board(name)
    ]
    board = load_board(packaged[0]) if packaged else None
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    with tempfile.TemporaryDirectory(prefix="edge-moe-") as generated:
        headers = write_headers(accelerator, Path(generated), board)
        types = _ap_types()
        version = _run([*compiler, "--version"])
        sources = [path for folder in ("include", "src") for path in (HLS / folder).rglob("*.[ch]pp")]
        digest = hashlib.sha256(repr((version, FLAGS, SOURCES)).encode())
        for path in [*sorted(sources), *sorted(types.rglob("*.h")), *headers]:
            digest.update(path.read_bytes())
        cache = cache_folder()
        if cache is None:  # for as long as this process
            cache = Path(tempfile.mkdtemp(prefix="edge-moe-"))
            atexit.register(shutil.rmtree, cache, ignore_errors=True)
        library = cache / f"csim-{digest.hexdigest()[:16]}" / f"libedge_moe_{accelerator.hash()}.so"
        if library.is_file():
            return library
        _LOG.info("first use of the C simulation: %s compiles it, which takes some seconds", compiler[0])
        if board:
            write_text(
                library.with_suffix(".json"), (Path(generated) / BOARD_FILE).read_text(encoding="utf-8")
            )
        whole = Path(generated) / "csim.cpp"
        write_text(whole, "".join(f'#include "{name}"\n' for name in SOURCES))
        with replacing(library, durable=False) as temporary:
            folders = [f"-I{HLS}", f"-I{HLS / 'include'}", f"-I{generated}", f"-isystem{types}"]
            _run([*compiler, *FLAGS, *folders, str(whole), "-o", str(temporary)])
    return library


def _ap_types() -> Path:
    """Folder of the arbitrary-precision headers, which come with hls4ml; finding them needs no import."""
    spec = find_spec("hls4ml")
    places = (spec.submodule_search_locations or []) if spec else []
    for place in places:
        if (folder := Path(place) / "templates" / "vivado" / "ap_types").is_dir():
            return folder
    raise EdgeMoEError("ap_int.h was not found, which the C simulation needs: pip install hls4ml.")


def _run(command: list[str]) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise EdgeMoEError(
            f"cannot run '{command[0]}' for the C simulation ({error.strerror}): install g++, or name "
            "another compiler with CXX=clang++."
        ) from None
    if run.returncode:
        lines = run.stderr.splitlines() or ["it says nothing"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise EdgeMoEError(f"'{command[0]}' could not compile the C simulation: {reason}.")
    return run.stdout
