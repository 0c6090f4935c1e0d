# SPDX-License-Identifier: Apache-2.0
"""A checkout in a folder of any name: hls/ builds there, and what make cannot do is one sentence."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_moe.places import make_text
from edge_moe.testing.checkout import ROOT
from edge_moe_host.errors import EdgeMoEError
from rtl import prove
from sim import declaration, run

NAMES = ["my tree", "a (b)", "this & that", "it's", "$HOME", "a (b) & 'c' $d"]


@pytest.fixture
def checkout(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what hls/ needs, in a folder of the given name; its ap_int.h is there too."""
    folder: Path = tmp_path / request.param
    skip = shutil.ignore_patterns("__pycache__", "pretrained", "testing", "*.pt")
    for name in ("hls", "host", "model"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    types = folder / "site" / "hls4ml" / "templates" / "vivado" / "ap_types"
    types.mkdir(parents=True)
    (types / "ap_int.h").touch()
    (types.parents[2] / "__init__.py").touch()
    (folder / "python").symlink_to(sys.executable)
    return folder


@pytest.mark.parametrize("checkout", NAMES, indirect=True)
def test_the_c_simulation_builds_in_any_folder(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler is a stand-in, which must find the header and write the library."""
    compiler = checkout.parent / "compiler"
    compiler.write_text(
        '#!/bin/sh\nwhile [ "$1" ]; do case $1 in -isystem) types=$2;; -o) out=$2;; esac; shift; done\n'
        '[ -f "$types/ap_int.h" ] && echo library > "$out"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(checkout / "site"))
    command = ["make", "-C", str(checkout / "hls"), "csim", f"CXX={compiler}"]
    command += [f"PYTHON={make_text(str(checkout / 'python'))}"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    (library,) = (checkout / "build" / "hls").glob("libedge_moe_*.so")
    assert library.read_text() == "library\n"
    assert library.with_suffix(".json").is_file()
    assert [path.name for path in checkout.parent.iterdir() if path != compiler] == [checkout.name]


@pytest.mark.parametrize("name", ["my(1)", "it's", "a&b"])
def test_an_accelerators_name_that_make_cannot_take(name: str, tmp_path: Path) -> None:
    file = tmp_path / f"{name}.toml"
    shutil.copy(ROOT / "model" / "edge_moe" / "accelerators" / "zcu104.toml", file)
    command = ["make", "-C", str(ROOT / "hls"), "--no-print-directory", "headers", f"ACCELERATOR={file}"]
    made = subprocess.run(
        [*command, f"PYTHON={make_text(sys.executable)}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    place = f"../build/hls/{name}"
    assert made.stdout == f"make cannot build in '{place}': name it with letters, digits, _ and - only\n"
    assert not (ROOT / "build" / "hls" / name).exists()


@pytest.mark.parametrize("name", NAMES)
def test_simulators_refuse_a_path_that_their_scripts_cannot_take(name: str) -> None:
    with pytest.raises(EdgeMoEError, match=r"has a space or another sign that Verilator's scripts and make"):
        declaration.require_path("Verilator", path=Path("/home/me") / name)
    declaration.require_path("Verilator", path=Path("/home/me/größe_2.0/edge-moe+x"))


@pytest.mark.parametrize("module", [run, prove])
@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_jobs_that_is_none(module: object, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        module.main(["--jobs", text])  # type: ignore[attr-defined]
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(f"'{text}' is not a whole number of at least 1\n")
