# SPDX-License-Identifier: Apache-2.0
"""The comparison's tables follow from its data, and this project's rows from its models."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge_moe.demo.published import PUBLISHED
from edge_moe.testing.checkout import ROOT, load_script

SCRIPT = ROOT / "docs" / "tools" / "comparison.py"
DATA = tomllib.loads((ROOT / "docs" / "comparison.toml").read_text(encoding="utf-8"))
SYSTEMS: list[dict[str, Any]] = DATA["system"]
OURS = [row for row in SYSTEMS if row["name"] == "this project"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(SCRIPT)


def edge_moe(*words: str) -> str:
    command = [sys.executable, "-m", "edge_moe", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_page_has_the_tables() -> None:
    found = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_another_figure_is_seen(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    for name in ("tools/comparison.py", "comparison.md", "comparison.toml"):
        (tmp_path / name).write_text((ROOT / "docs" / name).read_text(encoding="utf-8"), encoding="utf-8")
    data = tmp_path / "comparison.toml"
    data.write_text(data.read_text(encoding="utf-8").replace("ms = 34.64", "ms = 34.63"), encoding="utf-8")
    copy = tmp_path / "tools" / "comparison.py"
    found = subprocess.run([sys.executable, copy, "--check"], capture_output=True, text=True)
    assert found.returncode == 1
    assert "comparison.md has other tables" in found.stdout
    assert subprocess.run([sys.executable, copy]).returncode == 0
    assert subprocess.run([sys.executable, copy, "--check"]).returncode == 0
    assert "34.63 P" in (tmp_path / "comparison.md").read_text(encoding="utf-8")


def test_columns_are_computed(script: ModuleType) -> None:
    row = {"name": "a", "known": "paper", "device": "b", "model": "c", "gmac": 2.0, "ms": 4, "mhz": 250,
           "known_gmac": "arithmetic", "dsp": 1000, "kluts": 100, "watts": 5}  # fmt: skip
    assert script.cells(row) == ["a", "b", "", "c", "", "2.0 C", "4 P", "250", "500", "2.00", "5 P", "0.020",
                                 "250 P", "1,000 P", "100 P", ""]  # fmt: skip
    from_throughput = {"name": "a", "known": "repository", "device": "b", "model": "c", "gmac_per_s": 300,
                       "fps": 60, "mhz": 100, "kluts": 10, "luts_multiply": True}  # fmt: skip
    assert script.cells(from_throughput)[5:10] == ["5.00", "", "60 R", "300 R", "300 a kLUT"]
    cycles = {"name": "a", "known": "model", "device": "b", "model": "c", "cycles": 600_000, "mhz": 300}
    assert script.cells(cycles)[5:10] == ["", "2.00 E", "500", "", ""]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"wats": 3}, "unknown field 'wats'"), ({"known_dsp": "rumour"}, "how its figures are known")],
)
def test_wrong_data_is_refused(script: ModuleType, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        script.tables({"system": [SYSTEMS[0] | change], "bandwidth": []})


def test_the_papers_on_m3vit_compute_197_tokens(script: ModuleType) -> None:
    """Their own GOPS times their latency."""
    stated = {"Edge-MoE accelerator": 36, "UbiMoE": 49, "CoQMoE": 193}  # GMAC/s, half of the papers' GOPS
    for row in SYSTEMS:
        if row["name"] in stated:
            assert round(script.gmac_per_second(row)) == pytest.approx(stated.pop(row["name"]), abs=1)
    assert not stated


def test_the_demo_s_report_has_the_same_figures() -> None:
    fields = ("name", "device", "bits", "tokens", "mhz", "ms", "watts", "dsp")
    wanted = [row for row in SYSTEMS if "ms" in row and re.search("M3ViT|experts", row["model"])]
    assert [
        (p.system, p.device, p.precision, p.tokens, p.clock_mhz, p.milliseconds, p.watts, p.dsp)
        for p in PUBLISHED
    ] == [tuple(map(row.get, fields)) for row in wanted]
    assert all(row["source"] in p.source for p, row in zip(PUBLISHED, wanted, strict=True))


def test_resources_are_those_of_the_estimate(tmp_path: Path) -> None:
    out = tmp_path / "estimate.json"
    edge_moe("resources", "--accelerator", "zcu104", "--json", str(out))
    totals = json.loads(out.read_text())
    assert len(OURS) == 5
    for row in OURS:
        assert (row["dsp"], 2 * row["bram36"]) == (totals["DSP"], totals["BRAM_18K"])


@pytest.mark.parametrize(("tokens", "options"), [(129, ()), (197, ("--set", "model.image_size=[224, 224]"))])
def test_work_is_that_of_the_preset(tokens: int, options: tuple[str, ...]) -> None:
    lines = edge_moe("info", "m3vit_tiny_cityscapes", *options).splitlines()
    assert f"{tokens} tokens" in lines[0]
    encoder, semseg, depth = (
        next(float(line.split()[column]) for line in lines if line.startswith(task))
        for task, column in (("semseg", 2), ("semseg", 4), ("depth", 4))
    )
    found = {row["gmac"] for row in OURS if row["tokens"] == tokens}
    assert found == ({encoder, semseg, depth} if tokens == 129 else {encoder, semseg})


def test_bandwidth_of_the_preset_is_that_of_the_rows() -> None:
    whole = {row["tokens"]: row["cycles"] for row in OURS if row["model"].endswith("encoder and semseg head")}
    widths = {row["frame"]: row["cycles"] for row in DATA["bandwidth"]}
    assert {tokens: widths[f"{tokens} tokens, 8 bits"]["48"] for tokens in (129, 197)} == whole
