# SPDX-License-Identifier: Apache-2.0
"""Reports of Vitis HLS and Vivado: every figure is found, and other files are refused."""

import json
from pathlib import Path

import pytest

from edge_moe.accelerator import RESOURCES, load_accelerator, load_board
from edge_moe.estimate.inventory import inventory
from edge_moe.testing.vendor_tools import POWER, UTILIZATION, csynth_xml
from edge_moe.vendor import reports
from edge_moe.vendor.interface import Interface, accelerator_interface
from edge_moe.vendor.reports import (
    Loop,
    read_csynth,
    read_estimate,
    read_implementation,
    read_utilization,
    summary,
    table,
)
from edge_moe_host.errors import EdgeMoEError


@pytest.fixture(scope="module")
def interface() -> Interface:
    return accelerator_interface(load_accelerator("zcu104"), load_board("zcu104"))


@pytest.fixture
def csynth(interface: Interface, tmp_path: Path) -> Path:
    path = tmp_path / "csynth.xml"
    path.write_text(csynth_xml(interface))
    return path


@pytest.fixture
def implementation(tmp_path: Path) -> Path:
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "utilization.rpt").write_text(UTILIZATION)
    (folder / "power.rpt").write_text(POWER)
    (folder / "run.txt").write_text("clock_mhz 300\nwns_ns 0.012\nwhs_ns 0.010\n")
    return folder


def test_csynth(csynth: Path) -> None:
    found = read_csynth(csynth)
    assert (found.tool, found.part, found.top) == ("2022.2", "xczu7ev-ffvc1156-2-e", "edge_moe_accelerator")
    assert (found.target_ns, found.estimated_ns) == (3.33, 2.433)
    assert (found.best_cycles, found.worst_cycles) == (120, None)
    assert found.resources == {"LUT": 120000, "FF": 90000, "DSP": 1100, "BRAM_18K": 104, "URAM": 64}
    assert found.loops == (Loop("execute", "INNER", 2, 9), Loop("read_image", "READ_IMAGE", 1, None))


def test_implementation(implementation: Path) -> None:
    found = read_implementation(implementation)
    # 90.5 tiles are 181 halves
    assert found.resources == {"LUT": 101234, "FF": 150321, "DSP": 1071, "BRAM_18K": 181, "URAM": 64}
    assert (found.clock_mhz, found.wns_ns, found.power_w) == (300, 0.012, 6.318)


def test_utilization_without_a_column_that_later_versions_have(implementation: Path) -> None:
    path = implementation / "utilization.rpt"
    path.write_text(UTILIZATION.replace(" Prohibited |", "").replace("          0 |", ""))
    assert read_utilization(path)["URAM"] == 64


def test_the_table_has_every_figure(csynth: Path, implementation: Path) -> None:
    estimate = {"DSP": 1071, "URAM": 64, "BRAM_18K": 150}
    data = summary(read_csynth(csynth), estimate, load_board("zcu104"), read_implementation(implementation))
    assert data["resources"]["DSP"] == {
        "available": 1728, "estimated": 1071, "synthesised": 1100, "implemented": 1071,
    }  # fmt: skip
    assert data["resources"]["LUT"]["estimated"] is None
    assert [loop["name"] for loop in data["slow_loops"]] == ["INNER"]
    text = table(data)
    assert "| DSP | 1,728 | 1,071 (62.0 %) | 1,100 (63.7 %) | 1,071 (62.0 %) |" in text
    assert "| BRAM_18K | 624 | 150 (24.0 %) | 104 (16.7 %) | 181 (29.0 %) |" in text
    assert "| LUT | 230,400 | - | 120,000 (52.1 %) | 101,234 (43.9 %) |" in text
    assert "2.433 ns of 3.330 ns (synthesised); 2 pipelined loops, 1 of them with II > 1" in text
    assert "- execute: INNER has II = 2" in text
    assert "worst slack is +0.012 ns; 6.32 W" in text
    without = table(summary(read_csynth(csynth), {}, load_board("zcu104")))
    assert "| DSP | 1,728 | - | 1,100 (63.7 %) | - |" in without
    assert "slack" not in without


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("</profile>", "", "is not XML"),
        (
            "EstimatedClockPeriod",
            "Clock",
            "has no PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClock",
        ),
        ("<URAM>64</URAM>", "", "has no AreaEstimates/Resources/URAM"),
        ("<DSP>1100</DSP>", "<DSP>many</DSP>", "has a figure that is not a number"),
    ],
)
def test_what_is_no_csynth_report_is_refused(csynth: Path, before: str, after: str, message: str) -> None:
    csynth.write_text(csynth.read_text().replace(before, after))
    with pytest.raises(EdgeMoEError, match=message):
        read_csynth(csynth)


def test_incomplete_implementations_are_refused(implementation: Path) -> None:
    for name, text, message in (
        ("utilization.rpt", UTILIZATION.replace("| DSPs ", "| DPSs "), "has no row 'DSPs'"),
        ("power.rpt", "nothing", "is not a power report"),
        ("run.txt", "clock_mhz 300\n", "does not hold clock_mhz and wns_ns"),
        ("run.txt", "clock_mhz 300\nwns_ns none\n", "does not hold clock_mhz and wns_ns"),
    ):
        path = implementation / name
        kept = path.read_text()
        path.write_text(text)
        with pytest.raises(EdgeMoEError, match=message):
            read_implementation(implementation)
        path.unlink()
        with pytest.raises(EdgeMoEError, match="cannot read"):
            read_implementation(implementation)
        path.write_text(kept)
    assert read_implementation(implementation).power_w == 6.318


@pytest.mark.parametrize("text", ["[1]", "{", '{"DSP": "many"}', '{"PLL": 1}'])
def test_what_is_no_estimate_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "estimate.json"
    path.write_text(text)
    with pytest.raises(EdgeMoEError, match=r"is not JSON|is not an estimate"):
        read_estimate(path)


def test_the_command_writes_both_files(
    csynth: Path, implementation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate, out = tmp_path / "estimate.json", tmp_path / "out"
    estimate.write_text('{"DSP": 1071}')
    words = ["--csynth", str(csynth), "--implementation", str(implementation)]
    assert reports.main([*words, "--estimate", str(estimate), "--out", str(out)]) == 0
    assert (out / "report.md").read_text() == capsys.readouterr().out
    data = json.loads((out / "report.json").read_text())
    assert data["resources"].keys() == set(RESOURCES)
    assert data["resources"]["DSP"]["estimated"] == 1071
    assert data["implementation"]["clock_mhz"] == 300


def test_the_estimate_is_that_of_the_accelerator(csynth: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert reports.main(["--csynth", str(csynth), "--out", str(out)]) == 0
    resources = json.loads((out / "report.json").read_text())["resources"]
    totals = inventory(load_accelerator("zcu104")).totals()
    assert {name: figures["estimated"] for name, figures in resources.items()} == {
        "LUT": None,
        "FF": None,
    } | totals


def test_an_operator_has_no_estimate(csynth: Path, tmp_path: Path) -> None:
    csynth.write_text(
        csynth.read_text().replace("<TopModelName>edge_moe_accelerator<", "<TopModelName>softmax<")
    )
    out = tmp_path / "out"
    assert reports.main(["--csynth", str(csynth), "--out", str(out)]) == 0
    resources = json.loads((out / "report.json").read_text())["resources"]
    assert [figures["estimated"] for figures in resources.values()] == [None] * len(RESOURCES)


@pytest.mark.parametrize(
    ("part", "clock_ns", "message"),
    [("xczu9eg-ffvb1156-2-e", 0.0, "is for the part xczu9eg"), ("", 5.0, "is for a clock of 5.0 ns")],
)
def test_the_command_refuses_another_design(
    interface: Interface, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, clock_ns: float,
    message: str,
) -> None:  # fmt: skip
    path = tmp_path / "csynth.xml"
    path.write_text(csynth_xml(interface, part, clock_ns))
    assert reports.main(["--csynth", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
