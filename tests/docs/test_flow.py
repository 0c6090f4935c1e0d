# SPDX-License-Identifier: Apache-2.0
"""The picture of the flow is what its script writes, and says in words what it shows."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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

    # widths of boxes by their middle; a box comes right before its two lines
    boxes = {}
    for rect in picture.iter(f"{SVG}rect"):
        x, width = (float(rect.get(key, "nan")) for key in ("x", "width"))
        if rect.get("class") in ("step", "compared", "open"):
            boxes[f"{x + width / 2:g}", rect.get("y")] = width
    lines = [text for text in picture.iter(f"{SVG}text") if text.get("class") in ("name", "text")]
    compared = 0
    for text in lines:
        place = next((box for box in boxes if box[0] == text.get("x") and
                      0 < float(text.get("y", "nan")) - float(box[1] or "nan") < 60), None)  # fmt: skip
        if place is None:  # the note below
            continue
        bold = text.get("class") == "name"
        font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
        upper = float(place[1] or "nan") < 100
        size = (14 if upper else 11.5) if bold else 11.5
        drawn = TextPath((0, 0), text.text, size=size, prop=font).get_extents().width
        assert drawn <= boxes[place] - 2 * MARGIN, text.text
        compared += 1
    assert compared == 2 * len(boxes) == 24
