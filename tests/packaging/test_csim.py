# SPDX-License-Identifier: Apache-2.0
"""The C simulation that is compiled at its first use: kept by its contents, whole or not at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_moe.accelerator import load_accelerator
from edge_moe.codegen import csim
from edge_moe.testing.checkout import ROOT
from edge_moe_host.config import to_dict
from edge_moe_host.errors import EdgeMoEError

ZCU104 = to_dict(load_accelerator("zcu104"))
BUILD = f"from edge_moe.codegen import csim; print(csim.build_library({ZCU104!r}))"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a (cache) of 'mine' & $HOME"
    monkeypatch.setenv("EDGE_MOE_CACHE", str(folder))
    return folder


def compiler(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> Path:
    """A stand-in for g++; the file beside it gets a line for each compilation."""
    path, log = folder / "compiler", folder / "compiled"
    start = '#!/bin/sh\n[ "$1" = --version ] && { echo stand-in; exit; }\nfor last; do :; done\n'
    path.write_text(f'{start}echo >> "{log}"\n{body}\n')
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    return log


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_it_is_compiled_once_for_each_content(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = compiler(monkeypatch, tmp_path, 'echo library > "$last"')
    first = csim.build_library(ZCU104)
    assert first == csim.build_library(ZCU104)
    assert first.name == f"libedge_moe_{load_accelerator('zcu104').hash()}.so"
    assert set(files(cache)) == {first, first.with_suffix(".json")}
    assert log.read_text() == "\n"
    other = csim.build_library({**ZCU104, "clock_mhz": 250})
    monkeypatch.setattr(csim, "FLAGS", (*csim.FLAGS, "-g"))
    assert len({first, other, csim.build_library(ZCU104)}) == 3
    assert first.parent != other.parent


def test_its_board_is_beside_it(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(monkeypatch, tmp_path, 'echo library > "$last"')
    library = csim.build_library(ZCU104)
    assert '"control_address"' in library.with_suffix(".json").read_text()
    other = csim.build_library({**ZCU104, "max_tokens": 280})
    assert not other.with_suffix(".json").exists()


def test_without_a_cache_it_lasts_as_long_as_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler(monkeypatch, tmp_path, 'echo library > "$last"')
    environment = os.environ | {"EDGE_MOE_CACHE": "off", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", f"{BUILD.replace('print', 'assert ').replace(')))', ')).is_file()')}"]
    subprocess.run(command, check=True, env=environment, timeout=60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compiled", "compiler"]


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (
            'echo half > "$last"; echo "x.hpp:3:1: error: no such type" >&2; exit 1',
            "x.hpp:3:1: error: no such type",
        ),
        ("kill -9 $$", "it says nothing"),
    ],
)
def test_a_compiler_that_fails(
    body: str, match: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler(monkeypatch, tmp_path, body)
    with pytest.raises(EdgeMoEError, match=rf"' could not compile the C simulation: {match}\.\Z"):
        csim.build_library(ZCU104)
    assert [path.suffix for path in files(cache)] == [".json"]


def test_a_missing_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        EdgeMoEError, match=r"\Acannot run 'no-such-compiler' for .*: install g\+\+, or name "
    ):
        csim.build_library(ZCU104)
    assert not cache.exists()


def test_missing_headers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csim, "find_spec", lambda name: None)
    with pytest.raises(EdgeMoEError, match=r"ap_int\.h was not found.*: pip install hls4ml\.\Z"):
        csim.build_library(ZCU104)


def test_ctrl_c_leaves_nothing(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = compiler(monkeypatch, tmp_path, 'echo half > "$last"; sleep 60')
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", BUILD], env=environment, start_new_session=True, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 60
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert [path.suffix for path in files(cache)] in ([".json"], [])
    assert {path.name for path in tmp_path.iterdir()} == {"compiled", "compiler", cache.name}


def test_two_processes_at_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both compile, and each finds a whole library whoever comes last."""
    log = compiler(
        monkeypatch,
        tmp_path,
        f'while [ "$(wc -l < {tmp_path}/compiled)" -lt 2 ]; do sleep 0.05; done; echo library > "$last"',
    )
    both = [
        subprocess.Popen([sys.executable, "-c", BUILD], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    printed = {process.communicate(timeout=120)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert log.read_text() == "\n\n"
    (library,) = (path for path in files(cache) if path.suffix == ".so")
    assert len(files(cache)) == 2
    assert printed == {f"{library}\n"}
    assert library.read_text() == "library\n"


def test_it_is_compiled_as_the_makefile_does() -> None:
    makefile, csim_mk = ((ROOT / "hls" / name).read_text() for name in ("Makefile", "csim.mk"))
    assert "-std=c++14 -fPIC" in makefile
    assert "CXXFLAGS_O3 := -O3" in makefile
    assert csim.FLAGS[:4] == ("-std=c++14", "-fPIC", "-O3", "-shared")
    assert f"CSIM_SOURCES := {' '.join(csim.SOURCES)}\n" in csim_mk
