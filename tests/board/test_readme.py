# SPDX-License-Identifier: Apache-2.0
"""The README of the board: its options and files exist."""

import re
import subprocess
import sys
from pathlib import Path

import demo

from edge_moe.testing.checkout import ROOT
from edge_moe.testing.samples import Sample

FOLDER = ROOT / "board" / "zcu104"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_options_and_files() -> None:
    known = {option for option in demo.parser()._option_string_actions if option.startswith("--")}
    commands = re.findall(r"demo\.py([^#`\n]*)", TEXT)
    asked = {option for command in commands for option in re.findall(r"--\w+", command)}
    assert asked == known - {"--help", "--out"}
    for name in re.findall(r"(?<![\w/])([\w]+\.(?:py|sh|ipynb|png))\b", TEXT):
        assert name in ("my_program.py", "street_depth.png", "street_semseg.png") or (FOLDER / name).is_file()


def test_the_commands_of_the_simulated_board(small: Sample, tmp_path: Path) -> None:
    """They make what the demo takes, and the demo runs as it is written."""
    section = TEXT[TEXT.index("## The simulated board") :]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)[1]
    *_, compiled, run = block.splitlines()
    bundle = compiled.split("--out ")[1]
    words = run.split()
    assert (words[0], words.count(bundle)) == (".venv-board/bin/python", 1)
    words = [str(small.path) if word == bundle else word for word in words[1:]]
    done = subprocess.run(
        [sys.executable, *words, "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {f"street_{task}.png" for task in small.tasks}
