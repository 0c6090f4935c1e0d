# SPDX-License-Identifier: Apache-2.0
"""The README of the board: its options and files exist."""

import re

import demo

from edge_moe.testing.checkout import ROOT

FOLDER = ROOT / "board" / "zcu104"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_options_and_files() -> None:
    known = {option for option in demo.parser()._option_string_actions if option.startswith("--")}
    commands = re.findall(r"demo\.py([^#`\n]*)", TEXT)
    asked = {option for command in commands for option in re.findall(r"--\w+", command)}
    assert asked == known - {"--help", "--out"}
    for name in re.findall(r"(?<![\w/])([\w]+\.(?:py|sh|ipynb|png))\b", TEXT):
        assert name in ("my_program.py", "street_depth.png", "street_semseg.png") or (FOLDER / name).is_file()
