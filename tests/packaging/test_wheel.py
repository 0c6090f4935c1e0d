# SPDX-License-Identifier: Apache-2.0
"""The wheels, installed outside the checkout: every command finds what it needs in them."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from edge_moe.testing.checkout import BOARD, HLS, ROOT

PACKAGES = ("edge_moe", "edge_moe_host")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """As ``make wheel`` makes them, by package."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", out, ROOT, ROOT / "host"], check=True, timeout=300)
    return {path.name.partition("-")[0]: path for path in out.iterdir()}


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def kept(folder: Path) -> set[str]:
    """Files of a folder, without what Python compiled."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {str(path) for path in files if "__pycache__" not in path.parts}


def test_each_package_has_one_owner(wheels: dict[str, Path]) -> None:
    assert set(wheels) == set(PACKAGES)
    for package, wheel in wheels.items():
        assert {name.split("/")[0] for name in names(wheel)} == {package, f"{package}-0.1.0.dist-info"}
    with zipfile.ZipFile(wheels["edge_moe"]) as file:
        assert (
            "Requires-Dist: edge-moe-host==0.1.0\n" in file.read("edge_moe-0.1.0.dist-info/METADATA").decode()
        )


def test_what_is_outside_the_package_is_in_the_wheel(wheels: dict[str, Path]) -> None:
    shipped = {name for name in names(wheels["edge_moe"]) if name.startswith("edge_moe/shipped/")}
    assert shipped == {
        f"edge_moe/shipped/{folder.relative_to(ROOT)}/{name}"
        for folder in (HLS, BOARD)
        for name in kept(folder)
    }
    own = {
        f"edge_moe/{name}" for name in kept(ROOT / "model" / "edge_moe") if not name.startswith("testing/")
    }
    assert own <= names(wheels["edge_moe"])
    assert {f"edge_moe_host/{name}" for name in kept(ROOT / "host" / "edge_moe_host")} <= names(
        wheels["edge_moe_host"]
    )


def test_what_make_installs_is_within_the_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    host = tomllib.loads((ROOT / "host" / "pyproject.toml").read_text())["project"]
    locked = dict(line.lower().split("==") for line in (ROOT / "requirements.lock").read_text().splitlines())
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], *host["dependencies"]]
    assert len(wanted) > 20
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name == "edge-moe-host":
            assert requirement.specifier.contains(host["version"])
        else:
            assert requirement.specifier.contains(locked[requirement.name.lower()]), text


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheels. What they depend on is this one's, without the checkout's packages."""
    folder = tmp_path_factory.mktemp("elsewhere") / "an (environment)"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    python = folder / "bin" / "python"
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*command, *wheels.values()], check=True, timeout=120)
    (site,) = folder.glob("lib/*/site-packages")
    (site / "dependencies.pth").write_text(
        f"{sysconfig.get_path('purelib')}\n"
    )  # .pth files there are not read
    return folder


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of the environment, outside the checkout."""
    folder = installed.parent
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"EDGE_MOE_CACHE": str(folder / "the cache"), "OMP_NUM_THREADS": "1"}
    program = installed / "bin" / arguments[0]
    done = subprocess.run(
        [program, *arguments[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("model", "host", "hls", "board"):
        assert f"{ROOT / name}" not in done.stdout + done.stderr
    return done


def test_nothing_comes_from_the_checkout(installed: Path) -> None:
    code = (
        "import sys, edge_moe, edge_moe_host\n"
        "from edge_moe.places import BOARD, CHECKOUT, HLS\n"
        "print(CHECKOUT, edge_moe.__file__, edge_moe_host.__file__, HLS, BOARD, *sys.path, sep='\\n')"
    )
    checkout, *places = run(installed, "python", "-c", code).stdout.splitlines()
    assert checkout == "None"
    assert all(place.startswith(str(installed)) for place in places[:4])
    assert not set(places) & {str(ROOT), str(ROOT / "model"), str(ROOT / "host")}


@pytest.mark.slow
def test_pictures_on_both_backends(installed: Path) -> None:
    first = run(installed, "edge-moe", "run", "--pretrained", "--out", "golden")
    assert first.stdout.startswith("golden/street.depth.png\ngolden/street.semseg.png\n")
    assert ".new" not in first.stderr  # a folder's temporary name
    run(installed, "edge-moe", "run", "--pretrained", "--backend", "csim", "--out", "csim")
    for task in ("depth", "semseg"):
        golden, csim = (installed.parent / name / f"street.{task}.png" for name in ("golden", "csim"))
        assert golden.read_bytes() == csim.read_bytes()
    (library,) = (installed.parent / "the cache").glob("csim-*/libedge_moe_*.so")
    again = run(installed, "edge-moe", "run", "--pretrained", "--backend", "csim", "--out", "again")
    assert again.stderr == ""
    assert library.is_file()


@pytest.mark.slow
def test_the_demo(installed: Path) -> None:
    """All of it but training: mini's own is the same code everywhere."""
    done = run(installed, "edge-moe", "demo", "pretrained", "--count", "1", "--out", "demo")
    assert done.stdout == "demo/report.html\n"
    assert "pip install 'edge-moe-host[board,images]' into another environment" in done.stderr
    assert "all are equal" in done.stderr
    assert (installed.parent / "demo" / "report.html").stat().st_size > 100_000
