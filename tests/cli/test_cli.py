# SPDX-License-Identifier: Apache-2.0
"""Exit status and messages of the command; the tests of the library check the commands' results."""

import ast
import subprocess
import sys

import pytest

from edge_moe.cli import main
from edge_moe.testing.checkout import ROOT


def test_info_prints_a_row_per_task(capsys):
    assert main(["info", "mini", "--set", "model.routing=single_gate"]) == 0
    out = capsys.readouterr().out
    assert "routing single_gate" in out
    assert "semseg" in out
    assert "depth" in out


def test_info_needs_no_torch():
    code = (
        "import sys; from edge_moe.cli import main; main(['info', 'mini']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "maxi"], "unknown preset 'maxi'"),
        (["train", "mini", "--set", "train.speed=9"], "unknown key 'train.speed'"),
        (["train", "mini", "--data", "imagenet"], "unknown data specification 'imagenet'"),
        (["eval", "nowhere.pt"], "checkpoint 'nowhere.pt' does not exist"),
        (["show", "nowhere.pt"], "give pictures (files, folders, videos) or --data SPEC, one of them."),
        (["show", "nowhere.pt", "."], "checkpoint 'nowhere.pt' does not exist"),
        (["slim", "nowhere.pt", "out.pt"], "checkpoint 'nowhere.pt' does not exist"),
        (["import", "m3vit", "nowhere.pth", "--out", "out.pt"], "nowhere.pth"),
        (["import", "edge-moe-bin", "nowhere", "--out", "out.pt"], "nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("edge-moe: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.rglob("*.pt"))


def test_progress_bars_are_for_terminals() -> None:
    """``disable=None`` hides a bar where stderr is a file; a flag may hide it always."""
    calls = [
        (path.name, node)
        for package in ("model/edge_moe", "host/edge_moe_host")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "tqdm"
    ]
    assert len(calls) >= 6
    for name, call in calls:
        disable = next(ast.unparse(word.value) for word in call.keywords if word.arg == "disable")
        assert disable == "None" or disable == "not progress or None", f"{name}: {disable}"


def test_output_to_a_full_disk_is_one_sentence() -> None:
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "edge_moe", "info", "mini"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (run.returncode, run.stderr) == (2, "edge-moe: the system refuses: No space left on device.\n")
