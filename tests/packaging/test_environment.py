# SPDX-License-Identifier: Apache-2.0
"""``environment.sh``: it finds a suitable Python or says what it found, and leaves nothing half made."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from edge_moe.testing.checkout import ROOT

NEEDED = "Python 3.11, 3.12 or 3.13 with venv is needed: "
REMEDY = " Install one, or name one: make setup PYTHON=/usr/local/bin/python3.13.\n"


class Machine:
    """A machine with the programs of the system that the script needs, and stand-ins for Python."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.venv = folder, folder / "an (env) of 'mine' & $HOME"
        self.bin, self.log = folder / "bin", folder / "log"
        self.bin.mkdir()
        for tool in ("rm", "touch", "sleep", "mkdir", "cat", "ln"):
            (self.bin / tool).symlink_to(f"/bin/{tool}")

    def python(self, name: str, version: str, status: int = 0, pip: str = ":") -> Path:
        """A Python of this version, whose pip is ``pip``. ``status``: whether it suits."""
        path = self.bin / name if "/" not in name else self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"""#!/bin/sh
case $1 in -c) echo {version}; exit {status};; esac
echo "$0 $*" >> {self.log}
if [ "$2" = venv ]; then mkdir -p "$3/bin"; ln -s {path} "$3/bin/python"; else {pip}; fi
"""
        )
        path.chmod(0o755)
        return path

    def command(self, *arguments: str, **variables: str) -> dict[str, object]:
        environment = {"PATH": str(self.bin), "HOME": str(self.folder)} | variables
        return {
            "args": ["/bin/sh", str(ROOT / "environment.sh"), str(self.venv), *arguments],
            "env": environment,
            "stderr": subprocess.PIPE,
            "text": True,
        }

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(**self.command(*arguments, **variables), timeout=60, check=False)  # type: ignore[call-overload,no-any-return]

    def used(self) -> str:
        """The interpreter that made the environment."""
        return self.log.read_text().split()[0].rpartition("/")[2]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_users_own_python_comes_first(machine: Machine) -> None:
    machine.python("python3", "3.12")
    machine.python("python3.13", "3.13")
    assert machine.run("--editable", ".[dev]").returncode == 0
    assert machine.used() == "python3"
    assert machine.log.read_text().endswith("-m pip install --quiet --editable .[dev]\n")
    assert (machine.venv / ".ready").is_file()


@pytest.mark.parametrize(
    "name", ["python3.13", "python3.12", "python3.11", ".pyenv/versions/3.12.4/bin/python"]
)
def test_another_one_is_found(name: str, machine: Machine) -> None:
    machine.python("python3", "3.9", status=1)
    machine.python(name, "3.12")
    assert machine.run().returncode == 0
    assert machine.used() == name.rpartition("/")[2]


def test_what_is_found_but_too_old_or_incomplete_is_said(machine: Machine) -> None:
    machine.python("python3", "3.9", status=1)
    machine.python("python3.12", "3.12 without venv", status=1)
    run = machine.run()
    assert run.stderr == f"{NEEDED}'python3' is 3.9, 'python3.12' is 3.12 without venv.{REMEDY}"
    assert run.returncode == 1
    assert not machine.venv.exists()


def test_nothing_is_found(machine: Machine) -> None:
    assert machine.run().stderr == f"{NEEDED}there is no python3.{REMEDY}"


@pytest.mark.parametrize("named", ["no such", "it's", "$HOME/x"])
def test_a_named_one_is_taken_or_refused(named: str, machine: Machine) -> None:
    machine.python("python3", "3.12")
    assert machine.run(PYTHON=named).stderr == f"{NEEDED}'{named}' cannot be run.{REMEDY}"
    other = machine.python("other/python", "3.13")
    assert machine.run(PYTHON=str(other)).returncode == 0
    assert machine.log.read_text().startswith(f"{other} -m venv")


def test_a_failure_leaves_nothing(machine: Machine) -> None:
    machine.python("python3", "3.12", pip="echo no network >&2; exit 1")
    run = machine.run()
    assert (
        run.stderr
        == f"no network\n'{machine.venv}' could not be set up, see above: the same command tries again.\n"
    )
    assert run.returncode == 1
    assert not machine.venv.exists()


def test_a_failed_update_keeps_what_worked(machine: Machine) -> None:
    machine.python("python3", "3.12")
    machine.run()
    machine.python("python3", "3.12", pip="exit 1")
    before = (machine.venv / ".ready").stat().st_mtime_ns
    assert machine.run().returncode == 1
    assert (machine.venv / ".ready").stat().st_mtime_ns == before  # so that make tries again


def test_what_a_power_cut_left_is_replaced(machine: Machine) -> None:
    (machine.venv / "bin").mkdir(parents=True)
    (machine.venv / "bin" / "half").touch()
    machine.python("python3", "3.12")
    assert machine.run().returncode == 0
    assert not (machine.venv / "bin" / "half").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_leaves_nothing(number: signal.Signals, machine: Machine) -> None:
    machine.python("python3", "3.12", pip="exec sleep 60")
    with subprocess.Popen(**machine.command(), start_new_session=True) as process:  # type: ignore[call-overload]
        deadline = time.monotonic() + 30
        while not (machine.log.exists() and "pip" in machine.log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert machine.venv.exists()
        os.killpg(process.pid, number)
        process.communicate(timeout=30)
        assert process.returncode
    assert not machine.venv.exists()
