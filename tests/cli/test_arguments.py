# SPDX-License-Identifier: Apache-2.0
"""Arguments of the command: they may come in any order, and are checked before anything is loaded."""

import argparse
import io
import sys
from pathlib import Path

import pytest

from edge_moe.cache import cache_folder
from edge_moe.cli import build_parser, main
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.runtime import record


@pytest.mark.parametrize(
    "words",
    [
        "run bundle --backend csim a.png --task depth",
        "run --backend csim bundle a.png --task depth",
        "run --task depth bundle --backend=csim -- a.png",
        "run bundle a.png --task depth --backend csim",
    ],
)
def test_options_may_come_anywhere(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bundle", "a.png"):
        Path(name).touch()
    args = build_parser().parse_args(words.split())
    assert (args.paths, args.backend, args.tasks) == ([Path("bundle"), Path("a.png")], "csim", ["depth"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rnu bundle", "(did you mean 'run'?)"),
        (
            "eval x.pt --tsak depth",
            "unrecognized arguments: --tsak depth (did you mean '--task'?): edge-moe eval --help",
        ),
        ("quantise x.pt --out a.int.npz --rounding gtpq", "none of nearest, gptq (did you mean 'gptq'?)"),
        ("info m3vit_smal_nyud", "(did you mean 'm3vit_small_nyud'?)"),
        ("resources --accelerator zcu105", "(did you mean 'zcu10"),
        ("info mini --set model.embed_dimm=3", "(did you mean 'embed_dim'?)"),
        ("info mini --set model.routing=multigate", "(did you mean 'multi_gate'?)"),
        ("info mini --set model.tasks={semsge=7}", "(did you mean 'semseg'?)"),
        ("eval pretrained --data sceens", "(did you mean 'scenes'?)"),
        ("eval pretrained --data cityscape:folder", "(did you mean 'cityscapes:DIR'?)"),
        ("import m3vit a.png --out x.pt --task semsge=3", "(did you mean 'semseg'?)"),
        ("run folder a.png --backend goldn", "(did you mean 'golden'?)"),
        ("run --pretrained a.png --backend goldn", "(did you mean 'golden'?)"),
        ("eval pretrained --task semsge", "(did you mean 'semseg'?)"),
        ("export pretrained --task semsge --out new", "(did you mean 'semseg'?)"),
        ("export x.pt --task=", "--task: '' has an empty name"),
        ("eval x.pt --task semseg,", "--task: 'semseg,' has an empty name"),
        ("eval x.pt --limit 0", "--limit: 0 is not allowed: it must be at least 1"),
        ("export x.pt --verify-images -3", "--verify-images: -3 is not allowed"),
        ("show x.pt a.png --every two", "--every: 'two' is no whole number"),
        ("ablate mini --seeds 0", "--seeds: 0 is not allowed"),
        ("quantise x.pt --out=", "--out: the path is empty"),
        ("eval  --limit 3", "required: checkpoint: edge-moe eval --help lists what there is."),
        ("quantise x.pt --out model.npz", "'model.npz' must end in .int.npz"),
        ("eval x.pt --usage usage.xyz", "'usage.xyz' must end in .png"),
        ("eval x.pt --json folder", "'folder' is a folder: give a file's name"),
        ("eval x.pt --json .", "'.' is a folder: give a file's name"),
        ("estimate folder --plot plot.txt", "must end in .svg or .png or .pdf"),
        ("show x.pt a.png --out a.png/b", "a.png' exists and is not a folder"),
        ("compile a.png --out a.png", "a.png' exists and is not a folder"),
        ("compile none.onnx --out b", "cannot read 'none.onnx'"),
        ("show x.pt none.png", "'none.png' does not exist"),
        ("run folder none.png", "'none.png' does not exist"),
        ("run folder a.png", "folder 'folder' is no bundle, as it has no manifest.json"),
        ("export x.pt --percentile 99", "--percentile has no effect without --observer percentile"),
        ("export x.pt --expert-bits 4 --average-expert-bits 5", "--expert-bits has no effect beside"),
        ("quantise x.pt --out m.int.npz --limit 3", "--limit has no effect without --evaluate"),
        ("compile a.png --out b --verify-images 3", "--verify-images has no effect without --data"),
        ("compile a.png --out b --no-verify --images a.png", "no effect beside --no-verify"),
        ("show x.pt a.png --count 3", "--count has no effect without --data"),
        ("show x.pt --data scenes --every 3", "--every has no effect beside --data"),
    ],
)
def test_bad_arguments_are_one_sentence_before_any_work(
    words: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").touch()
    Path("folder").mkdir()
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert message in err
    assert (err.count("\n"), err.startswith("edge-moe: ")) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "folder"]


def test_every_option_has_a_help_text_and_shows_its_default() -> None:
    commands = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    for name, parser in commands.items():
        for action in parser._actions:
            assert action.help, f"{name} {action.dest}"
    shown = " ".join(commands["ablate"].format_help().split())
    for default in ("(default: runs/ablation)", "(default: 3)", "(default: scenes)"):
        assert default in shown
    assert "None" not in shown


def test_a_path_that_the_system_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path), "x" * 5000]) == 2
    err = capsys.readouterr().err
    assert "File name too long" in err
    assert len(err) < 400


def test_names_that_the_terminal_cannot_show_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr("edge_moe.commands.info.run", lambda _: print("straße \udcff"))
    assert main(["info", "mini"]) == 0
    terminal.flush()
    assert terminal.buffer.getvalue() == b"stra\\xdfe \\udcff\n"  # type: ignore[attr-defined]


def test_a_user_without_a_home_has_no_cache(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("EDGE_MOE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() is None
    monkeypatch.setenv("EDGE_MOE_CACHE", "~nosuch/x")
    assert main(["run", "--pretrained"]) == 2
    assert capsys.readouterr().err.startswith("edge-moe: cannot read '~nosuch/x': ")


def test_what_the_recorder_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        record.main([])
    assert capsys.readouterr().err.endswith("required: backend, bundle, images, out\n")


def test_parsers_raise_the_base_error() -> None:
    with pytest.raises(EdgeMoEError, match="required: COMMAND"):
        build_parser().parse_args([])
