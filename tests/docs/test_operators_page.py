# SPDX-License-Identifier: Apache-2.0
"""The page of operators is its script's output, and the guide to adding one names existing things."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_moe.testing.checkout import ROOT, load_script

SCRIPT = ROOT / "docs" / "tools" / "operators.py"
GUIDE = (ROOT / "docs" / "adding-an-operator.md").read_text(encoding="utf-8")


@pytest.fixture
def script() -> Any:
    return load_script(SCRIPT)


def change(script: Any, which: str, **changes: Any) -> None:
    """Change one operator of the list."""
    script.OPERATORS = tuple(
        dataclasses.replace(operator, **changes) if operator.name == which else operator
        for operator in script.OPERATORS
    )


def test_the_page_is_what_the_script_writes() -> None:
    found = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_a_changed_page_is_seen(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script.OUT = tmp_path / "operators.md"
    monkeypatch.setattr(sys, "argv", ["operators.py"])
    assert script.main() == 0
    monkeypatch.setattr(sys, "argv", ["operators.py", "--check"])
    assert script.main() == 0
    script.OUT.write_text(script.OUT.read_text().replace("bench_route.py", "bench_gate.py", 1))
    assert script.main() == 1
    assert "operators.md is not what this script writes" in capsys.readouterr().out


def test_everything_has_a_row_and_every_name_exists(script: Any) -> None:
    assert list(script.problems()) == []
    places = list(script._wanted())
    assert len(places) == len(set(places)) >= 65  # tops, benches, functions of golden, nodes
    rows = len(script.OPERATORS) + len(script.PARTS)
    assert len(re.findall(r"^\| `", script.page(), re.MULTILINE)) == rows >= 25


def test_what_has_no_row_is_named(script: Any) -> None:
    script.OPERATORS = tuple(operator for operator in script.OPERATORS if operator.name != "gelu")
    export = "model/edge_moe/export/text"
    assert set(script.problems()) == {
        "hls/ops/gelu.cpp has no row.",
        "sim/bench_gelu.py has no row.",
        "host/edge_moe_host/golden/operators.py:gelu has no row.",
    }
    change(script, "route", onnx=("Attention",))
    assert f"{export}/moe.onnxtxt:Route has no row." in script.problems()


@pytest.mark.parametrize("column", ["golden", "onnx", "header", "top", "module", "bench"])
def test_a_name_that_does_not_exist_is_named(script: Any, column: str) -> None:
    change(script, "requantise", **{column: ("requantise", "dither")})
    found = [sentence for sentence in script.problems() if sentence.startswith("requantise: there is no")]
    assert any("dither" in sentence for sentence in found)


def test_a_section_and_tests_that_do_not_exist_are_named(script: Any) -> None:
    change(script, "route", section="14")
    assert "route: SPEC.md has no section 14." in script.problems()
    change(script, "route", name="dither", golden=("route",), onnx=("Route",))
    assert "dither: no test has its name." in script.problems()


# The guide

ROWS = [
    (cells[0].strip("`"), re.findall(r"`([^`]+)`", cells[1]))
    for line in GUIDE.splitlines()
    if line.startswith("| `")
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
]
EXCERPTS = re.findall(r"^<!-- from (\S+) -->\n```\w+\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("file", "names"), ROWS)
def test_files_of_the_guide_hold_what_it_says(file: str, names: list[str]) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert names
    for name in names:
        assert name in text, f"{file} does not have {name}"


def test_code_of_the_guide_is_the_source_s() -> None:
    assert len(ROWS) >= 25
    assert len(EXCERPTS) >= 2
    for file, text in EXCERPTS:
        assert text in (ROOT / file).read_text(encoding="utf-8"), f"{file} has other code now"


def test_commands_of_the_guide_select_tests() -> None:
    commands = re.findall(r"^\.venv/bin/pytest (\S+)(?: -k (\w+))?$", GUIDE, re.MULTILINE)
    assert len(commands) >= 8
    for folder, name in commands:
        tests = [path.read_text(encoding="utf-8") for path in (ROOT / folder).glob("test_*.py")]
        assert any(re.search(rf"^def test_{name}", text, re.MULTILINE) for text in tests), (folder, name)
