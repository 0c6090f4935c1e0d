# SPDX-License-Identifier: Apache-2.0
"""Generated headers follow the contents of an accelerator's file and of its board, not their times."""

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

from edge_moe.accelerator import load_accelerator
from edge_moe.testing.checkout import ROOT

ACCELERATORS = resources.files("edge_moe") / "accelerators"


def headers(accelerator: Path, build: Path) -> tuple[str, dict]:
    """Text of the configuration's header, and the board, that ``make headers`` leaves in ``build``."""
    command = ["make", "-C", str(ROOT / "hls"), "headers", f"ACCELERATOR={accelerator}", f"BUILD={build}"]
    subprocess.run([*command, f"PYTHON={sys.executable}"], check=True, capture_output=True, timeout=120)
    generated = build / "generated"
    board = json.loads((generated / "edge_moe_board.json").read_text())
    return (generated / "edge_moe_config.hpp").read_text(), board


def test_another_file_of_the_same_name_and_an_edited_board(tmp_path: Path) -> None:
    text = (ACCELERATORS / "zcu104.toml").read_text()
    first, second = tmp_path / "a" / "mine.toml", tmp_path / "b" / "mine.toml"
    for path in (first, second):
        path.parent.mkdir()
        (path.parent / "board.toml").write_text((ACCELERATORS / "boards" / "zcu104.toml").read_text())
        path.write_text(text.replace('board = "zcu104"', f'board = "{path.parent / "board.toml"}"'))
    second.write_text(second.read_text().replace("fifo_bytes = 1572864", "fifo_bytes = 1048576"))
    os.utime(second, (0, 0))  # older than what was generated before
    build = tmp_path / "build"
    for path in (first, second, first):
        config, board = headers(path, build)
        assert f"0x{load_accelerator(str(path)).hash()}u" in config
        assert board["control_address"] == 0xA0000000
    edited = first.parent / "board.toml"
    edited.write_text(edited.read_text().replace("0xA0000000", "0xB0000000"))
    os.utime(edited, (0, 0))
    assert headers(first, build)[1]["control_address"] == 0xB0000000
