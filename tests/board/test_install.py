# SPDX-License-Identifier: Apache-2.0
"""install.sh: its checks, a dry run, and a real installation into a fresh environment without network."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from make_wheel import make_wheel, project

from edge_moe.testing.checkout import ROOT

FOLDER = ROOT / "board" / "zcu104"
SECONDS = 100


@pytest.fixture(autouse=True)
def _no_packages_lent_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)


def install(*arguments: str, script: Path = FOLDER / "install.sh", **variables: str) -> tuple[int, str, str]:
    """Status, output and errors."""
    done = subprocess.run(
        ["sh", str(script), *arguments], capture_output=True, text=True, timeout=SECONDS,
        env={**os.environ, "PIP_NO_INPUT": "1", **variables},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def fake(folder: Path, name: str, says: str) -> Path:
    """A program of this name with a fixed output."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


class Fresh:
    """An empty environment, into which packages can be linked."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.python = str(folder / "bin" / "python")
        self.site = next(folder.glob("lib/python*/site-packages"))

    def lend(self, *packages: str) -> None:
        """Link packages of this environment, with their metadata."""
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            if path.name.split("-")[0].split(".")[0] in packages and not (self.site / path.name).exists():
                (self.site / path.name).symlink_to(path)

    def run(self, code: str, folder: Path) -> str:
        done = subprocess.run(
            [self.python, "-c", code], capture_output=True, text=True, cwd=folder, timeout=SECONDS
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def files(self) -> dict[str, bytes]:
        """The installed files, without pip's notes on their origin."""
        paths = [
            path for name in ("edge_moe_host", "edge_moe_host-*") for path in self.site.glob(f"{name}/**/*")
        ]
        return {
            path.relative_to(self.site).as_posix(): path.read_bytes()
            for path in paths
            if path.is_file() and path.suffix != ".pyc" and path.name not in ("direct_url.json", "RECORD")
        }  # fmt: skip


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    return Fresh(tmp_path_factory.mktemp("fresh"))


def test_it_installs_what_a_board_needs_and_nothing_else(fresh: Fresh, tmp_path: Path) -> None:
    """In order: missing things are named; a dry run changes nothing; a second run changes nothing."""
    status, printed, errors = install("--remote", PYTHON=fresh.python)
    assert (status, printed) == (1, "")
    assert errors == (
        f"install.sh: '{fresh.python}' has no pynq: use the Python of the PYNQ image (PYTHON=...).\n"
    )
    fresh.lend("pynq")
    status, printed, errors = install("--remote", PYTHON=fresh.python)
    assert (status, printed) == (1, "")
    assert "has no numpy: use" in errors
    fresh.lend("numpy")
    status, printed, errors = install("--remote", PYTHON=fresh.python)
    assert (status, printed) == (1, "")
    assert errors == f"install.sh: '{fresh.python}' has no pip: apt install python3-pip.\n"
    fresh.lend("pip")

    before = sorted(path.name for path in fresh.site.iterdir())
    status, printed, errors = install("--remote", "--dry-run", PYTHON=fresh.python)
    assert (status, errors) == (0, "")
    assert printed.endswith(f"would install edge_moe_host into {fresh.site}\n")
    assert "Pillow is missing: " in printed
    assert "OpenCV is missing: " in printed
    assert sorted(path.name for path in fresh.site.iterdir()) == before

    seen = []
    for _ in range(2):
        status, printed, errors = install(
            "--remote", PYTHON=fresh.python, PIP_INDEX_URL="http://127.0.0.1:9/"
        )
        assert (status, errors) == (0, "")
        assert f"installed edge_moe_host 0.1.0: {fresh.site / 'edge_moe_host'}\n" in printed
        seen.append(fresh.files())
    assert seen[0] == seen[1]
    added = {path.name for path in fresh.site.iterdir()} - set(before)
    assert added == {"edge_moe_host", "edge_moe_host-0.1.0.dist-info"}
    sources = {path.relative_to(ROOT / "host").as_posix(): path.read_bytes()
               for path in (ROOT / "host" / "edge_moe_host").rglob("*.py")}  # fmt: skip
    assert {name: seen[0][name] for name in sources} == sources
    assert {name for name in seen[0] if name.startswith("edge_moe_host/")} == set(sources)
    code = "import edge_moe_host.runtime.record, sys; print(edge_moe_host.__file__, 'torch' in sys.modules)"
    assert fresh.run(code, tmp_path) == f"{fresh.site / 'edge_moe_host' / '__init__.py'} False\n"
    assert install("--remote", "--dry-run", PYTHON=fresh.python)[0] == 0


def test_another_machine(tmp_path: Path) -> None:
    fake(tmp_path, "uname", "armv7l")
    status, printed, errors = install(
        "--dry-run", PYTHON=sys.executable, PATH=f"{tmp_path}:{os.environ['PATH']}"
    )
    assert (status, printed) == (1, "")
    refusal = "this machine is armv7l and a ZCU104 is aarch64: run this on the board, or --remote on a PC."
    assert errors == f"install.sh: {refusal}\n"


def test_a_board(tmp_path: Path) -> None:
    fake(tmp_path, "uname", "aarch64")
    status, printed, errors = install(
        "--dry-run", PYTHON=sys.executable, PATH=f"{tmp_path}:{os.environ['PATH']}"
    )
    assert (status, errors) == (0, "")
    found = re.escape(version("pynq"))
    assert re.match(rf"Python 3\.\d+\.\d+ on aarch64, pynq {found}, numpy 1\.\d+\.\d+: ", printed)


@pytest.mark.parametrize(
    ("python", "pynq", "numpy", "message"),
    [
        ("3.8.10", "2.7.0", "1.17.4", "3.8.10 and 3.10 is needed: use a PYNQ image of version 3 or later."),
        ("3.10.4", "2.7.0", "1.21.5", "pynq 2.7.0 is too old, 3.0 is needed: use a newer PYNQ image."),
        ("3.10.4", "3.0.1", "1.17.4", "numpy 1.17.4 is too old, 1.21 is needed: use a newer PYNQ image."),
    ],
)  # fmt: skip
def test_versions(python: str, pynq: str, numpy: str, message: str, tmp_path: Path) -> None:
    """A Python that claims these versions, and otherwise works as usual."""
    stand_in = tmp_path / "python"
    stand_in.write_text(
        "#!/bin/sh\n"
        f'case "$2" in *platform*) echo {python} ;; *"version(\'pynq\')"*) echo {pynq} ;;\n'
        f'*"version(\'numpy\')"*) echo {numpy} ;; *) exec "{sys.executable}" "$@" ;; esac\n'
    )
    stand_in.chmod(0o755)
    status, printed, errors = install("--remote", "--dry-run", PYTHON=str(stand_in))
    assert (status, printed) == (1, "")
    assert errors.startswith("install.sh: ")
    assert errors.endswith(f"{message}\n")
    assert errors.count("\n") == 1


def test_bad_use(tmp_path: Path) -> None:
    assert install("--fast") == (1, "", "install.sh: '--fast' is unknown: it takes --dry-run and --remote.\n")
    status, _, errors = install(PYTHON="no-such-python")
    expected = "install.sh: Python was not found ('no-such-python'): name one with PYTHON=...\n"
    assert (status, errors) == (1, expected)
    lonely = Path(shutil.copy(FOLDER / "install.sh", tmp_path))
    status, _, errors = install("--remote", script=lonely, PYTHON=sys.executable)
    assert status == 1
    assert errors.endswith("is missing: copy the folders host/ and board/ of the project side by side.\n")
    status, printed, _ = install("--help")
    assert status == 0
    assert printed.startswith("Installs edge_moe_host, and nothing else, ")


def test_the_wheel_is_the_same_each_time(tmp_path: Path) -> None:
    wheels = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        wheels.append(make_wheel(ROOT / "host", tmp_path / name))
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    facts = project(ROOT / "host")
    assert facts["name"] == "edge-moe-host"
    with zipfile.ZipFile(wheels[0]) as wheel:
        assert wheel.testzip() is None
        names = wheel.namelist()
        record = wheel.read(f"edge_moe_host-{facts['version']}.dist-info/RECORD").decode().splitlines()
    assert [line.split(",")[0] for line in record] == names
    assert len(names) == len(list((ROOT / "host" / "edge_moe_host").rglob("*.py"))) + 3


def test_a_folder_that_is_no_package(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "make_wheel.py"), str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    (tmp_path / "pyproject.toml").write_text('name = "edge-moe-host"\n')
    with pytest.raises(ValueError, match="has no version"):
        make_wheel(tmp_path, tmp_path)
