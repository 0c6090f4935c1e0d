# SPDX-License-Identifier: Apache-2.0
"""README and pages of results: they are short, and figures in two places are equal."""

import json
import re
import tomllib

from edge_moe.testing.markdown_files import DOCUMENTS, ROOT

RESULTS = sorted((ROOT / "docs" / "results").glob("*.md"))


def rows(page: str, first: str) -> list[list[str]]:
    """Rows of the table whose heading begins with this text."""
    return next(table.rows for table in DOCUMENTS[page].tables if table.heading[0] == first)


def table(page: str, first: str) -> dict[str, list[str]]:
    """Those rows by their first cell."""
    return {row[0]: row[1:] for row in rows(page, first)}


def test_the_readme_is_short_and_leads_to_the_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(RESULTS) == 5
    for page in RESULTS:
        assert f"](docs/results/{page.name})" in text


def test_figures_of_the_readme_are_those_of_the_pages() -> None:
    readme = {first: cells[:3] for first, cells in table("README.md", "").items()}
    pages = table("docs/results/accuracy.md", "pretrained model, 200 validation scenes")
    widths = [pages["float32"], pages["8 bits (W8A8)"], pages["8 bits, experts 4 (`--expert-bits 4`)"]]
    for name, column in (
        ("weights, MB", 0),
        ("segmentation, mIoU % ↑", 1),
        ("depth, RMSE m ↓", 2),
        ("bundle of both tasks, MB", 3),
    ):
        assert readme[name] == [row[column] for row in widths], name
    bandwidth = tomllib.loads((ROOT / "docs/comparison.toml").read_text(encoding="utf-8"))["bandwidth"]
    cycles = [row["cycles"]["48"] for row in bandwidth[:2]]
    assert readme["cycles of a frame of one task"] == ["", *(f"{count:,}" for count in cycles)]
    assert readme["ms of a frame at 300 MHz"] == ["", *(f"{count / 300_000:.2f}" for count in cycles)]
    speed = table("docs/results/speed.md", "experts")
    assert speed["evenly used, 8 bits"][0].startswith(f"{cycles[0]:,} ")
    assert speed["evenly used, experts 4 bits"][0] == f"{cycles[1]:,}"


def test_metrics_are_those_that_the_command_wrote() -> None:
    metrics = json.loads((ROOT / "docs/results/pretrained.json").read_text(encoding="utf-8"))["metrics"]
    metric_rows = rows("docs/results/accuracy.md", "task")
    shown = {(task, re.sub(r"[*↑↓ ]", "", metric)): value for task, metric, value in metric_rows}
    assert set(shown) == {(task, metric) for task in metrics for metric in metrics[task]}
    for (task, metric), value in shown.items():
        exact = metrics[task][metric]
        wanted = f"{100 * exact:.2f} %" if value.endswith("%") else f"{exact:.4f}"
        assert value == wanted, metric


def test_operators_are_those_of_the_rtl_page() -> None:
    every = table("rtl/README.md", "operator")
    shown = table("docs/results/hardware.md", "operator")
    assert len(shown) == 10
    assert shown == {name: every[name] for name in shown}


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in citation
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
