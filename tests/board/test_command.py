# SPDX-License-Identifier: Apache-2.0
"""The commands of the board's folder: without packages, and with bad arguments, they say one sentence."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from simulated import SimulatedDevice

from edge_moe.testing.checkout import ROOT
from edge_moe.testing.samples import Sample

FOLDER = ROOT / "board" / "zcu104"
PICTURE = str(FOLDER / "street.png")
REMEDY = r": on a board run install\.sh, .*; on a PC run 'make \.venv-board/\.ready' .*\n"


def run(script: str, *arguments: str, options: tuple[str, ...] = (), **variables: str) -> str:
    """What a command that must end with status 2 and print nothing else says."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    done = subprocess.run(
        [sys.executable, *options, str(FOLDER / script), *arguments],
        capture_output=True, text=True, timeout=100, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("script", ["demo.py", "soak.py", "simulated_server.py"])
def test_without_any_package(script: str) -> None:
    said = run(script, "--help", options=("-S",))
    assert re.fullmatch(script.removesuffix(".py") + r": No module named '\w+'" + REMEDY, said)


@pytest.mark.parametrize("script", ["demo.py", "soak.py", "simulated_server.py"])
def test_without_pynq(script: str, small: Sample, tmp_path: Path) -> None:
    (tmp_path / "pynq.py").write_text("raise ImportError(\"No module named 'pynq'\")\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "host")])
    arguments = [str(small.path), PICTURE] if script == "demo.py" else []
    said = run(script, *arguments, *["--simulated"] * bool(arguments), PYTHONPATH=path)
    assert re.fullmatch(script.removesuffix(".py") + r": No module named '(pynq|grpc)'" + REMEDY, said)
    if arguments:
        said = run(script, *arguments, PYTHONPATH=path)
        assert said.startswith(
            "demo: backend 'pynq' cannot be loaded: No module named 'pynq'; it comes with "
        )
        assert "'make .venv-board/.ready'" in said


@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("soak.py", ["--frames", "0"], "argument --frames: '0' is not a number of frames: give 1 or more"),
        (
            "soak.py",
            ["--frames", "1e3"],
            "argument --frames: '1e3' is not a number of frames: give 1 or more",
        ),
        ("soak.py", ["--seed", "-1"], "argument --seed: '-1' is not a seed: give 0 or more"),
        ("soak.py", ["--start", "77"], "--start 77 is not a multiple of 50 below --frames 10000"),
        (
            "soak.py",
            ["--start", "50", "--frames", "50"],
            "--start 50 is not a multiple of 50 below --frames 50",
        ),
        ("simulated_server.py", ["--port", "-1"], "argument --port: '-1' is not a port: give 0 to 65535"),
        (
            "simulated_server.py",
            ["--port", "99999"],
            "argument --port: '99999' is not a port: give 0 to 65535",
        ),
        ("make_wheel.py", [], "the following arguments are required: HOST_FOLDER, OUT_FOLDER"),
        ("make_wheel.py", ["no", "out"], "'no/pyproject.toml' cannot be used: No such file or directory"),
    ],
)
def test_bad_arguments(script: str, arguments: list[str], says: str) -> None:
    if script == "simulated_server.py":
        pytest.importorskip("pynq.remote", reason="pynq has no PYNQ.remote before 3.1")
    assert (
        run(script, *arguments, PYTHONPATH=str(ROOT / "host"))
        == f"{script.removesuffix('.py')}: {says}; see --help.\n"
    )


def test_a_port_that_another_server_has(serve) -> None:
    device = SimulatedDevice("first")
    server, port = serve(device)
    try:
        said = run("simulated_server.py", "--port", str(port), PYTHONPATH=str(ROOT / "host"))
    finally:
        server.stop(None).wait(10)
        device.close()
    assert said.startswith(f"simulated_server: port {port} is taken, or not allowed: ")
