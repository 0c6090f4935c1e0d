# SPDX-License-Identifier: Apache-2.0
"""The picture of the flow is what its script writes, and says in words what it shows."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from edge_moe.testing.checkout import ROOT

SCRIPT = ROOT / "docs" / "tools" / "flow.py"
SVG = "{http://www.w3.org/2000/svg}"
MARGIN = 4  # pixels between a text and the edge of its box


def check(script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)


def test_the_picture_is_what_the_script_writes() -> None:
    found = check()
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_a_changed_picture_is_seen(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    copy = tmp_path / "tools" / "flow.py"
    copy.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    assert check(copy).returncode == 1  # there is no picture
    assert subprocess.run([sys.executable, copy]).returncode == 0
    assert check(copy).returncode == 0
    picture = tmp_path / "flow.svg"
    picture.write_text(
        picture.read_text(encoding="utf-8").replace("Quantise", "Quantize", 1), encoding="utf-8"
    )
    found = check(copy)
    assert found.returncode == 1
    assert "flow.svg is not what this script writes" in found.stdout


@pytest.fixture(scope="module")
def picture() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "docs" / "flow.svg").getroot()


def test_the_words_name_everything_that_is_shown(picture: ElementTree.Element) -> None:
    ids = {element.get("id"): element.text or "" for element in picture if element.get("id")}
    assert picture.get("aria-labelledby") == "title desc"
    assert ids["title"] == "The flow of Edge-MoE"
    names = [text.text or "" for text in picture.iter(f"{SVG}text") if text.get("class") in ("name", "label")]
    assert len(names) == 14
    assert [name for name in names if name not in ids["desc"]] == []


def test_texts_stay_in_their_boxes(picture: ElementTree.Element) -> None:
    """By the widths of DejaVu Sans, which is wider than the fonts that browsers prefer."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    boxes = [
        tuple(float(rect.get(key, "nan")) for key in ("x", "y", "width", "height"))
        for rect in picture.iter(f"{SVG}rect")
        if rect.get("class") in ("step", "compared", "open")
    ]
    compared = 0
    for text in picture.iter(f"{SVG}text"):
        x, y = (float(text.get(key, "nan")) for key in ("x", "y"))
        for left, top, width, height in boxes:
            if left < x < left + width and top < y < top + height:
                bold = text.get("class") == "name"
                size = 14 if bold and top < 100 else 11.5
                font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
                drawn = TextPath((0, 0), text.text, size=size, prop=font).get_extents().width
                assert drawn <= width - 2 * MARGIN, text.text
                compared += 1
    assert compared == 2 * len(boxes) == 24
