# SPDX-License-Identifier: Apache-2.0
"""Every command of the guides works when pasted: the blocks of a page run in order in a clone of its own.

A block without language has commands. ``<!-- run -->`` before a block of Python has it run, and
``<!-- run NAME -->`` also writes it to that file; ``<!-- file NAME -->`` writes only.
A command runs unless a list below names it.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from edge_moe.checkpoint import save_checkpoint
from edge_moe.config import load_preset
from edge_moe.nn import build_model
from edge_moe.testing.markdown_files import DOCUMENTS, ROOT
from edge_moe_host.config import to_dict

# Commands that no test runs, by reason: regular expressions of their beginnings.
NOT_RUN = {
    "needs the network": (
        "make setup", "make docs", r"\S*pip install", "pre-commit install", "podman",
        "edge-moe run --pretrained$", "EDGE_MOE_DEVICE=.*jupyter",
    ),
    "needs Vitis HLS or Vivado, or what they write": (
        "make -C hls csynth", "make -C hls rtl", "make -C board/zcu104 ", "make -C sim DUT=hls",
    ),
    "needs a board": ("ssh", "scp", "cd /home/xilinx", "./install.sh", "python3 ", "PYTHON=python3"),
    "is the tests themselves": ("make test",),
    "takes hours, or a machine without other work": ("make ablation", "make pretrained", "make bench"),
    "serves until it is stopped; tests/board starts it": (".*simulated_server.py",),
    "needs published weights and data sets; tests/importers and tests/data make such files": (
        "edge-moe import ", "edge-moe (eval|export) m3vit.pt", "edge-moe train m3vit_(small|base)_nyud",
        "edge-moe slim runs/small", "edge-moe quantise m3vit.pt",
    ),
}  # fmt: skip

# Commands that take longer run in `make test-slow`. Elsewhere a small model's files replace their --out.
SLOW = (
    r"\S*edge-moe export (pretrained|runs/t197)", "edge-moe train mini --data scenes",
    "edge-moe train --resume", "edge-moe train m3vit_tiny", r"\S*edge-moe run --pretrained", "make demo",
    "make soak", "make -C sim", "make -C rtl", "make -C hls csim ACCELERATOR=", r"\S*python .*soak.py",
)  # fmt: skip

# Tests of the project that a page names: they are collected, and so exist.
PYTEST = ".venv/bin/pytest "

SHARED = ("model/edge_moe/pretrained", "build/hls", "build/hls.lock", ".venv", ".venv-board")
SMALL = [
    "model.image_size=[32,64]", "model.embed_dim=32", "model.depth=2", "model.head_channels=16",
    "model.num_experts=4", "train.train_images=8", "train.val_images=3",
]  # fmt: skip


def steps(name: str) -> Iterator[tuple[str, str]]:
    """Kind (``shell``, or the mark) and text of each command and marked block of a page."""
    for language, text, mark in DOCUMENTS[name].steps:
        if language in ("", "bash", "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                yield "shell", " ".join(re.sub(r"\s#\s.*", "", line).split())
        elif mark:
            yield mark, text


def named(command: str, patterns: Iterable[str]) -> bool:
    return any(re.match(pattern, command) for pattern in patterns)


NOT_RUN_AT_ALL = [pattern for patterns in NOT_RUN.values() for pattern in patterns]
COMMANDS = {
    name: [text for kind, text in steps(name) if kind == "shell" and not named(text, NOT_RUN_AT_ALL)]
    for name in DOCUMENTS
}
PAGES = [name for name in DOCUMENTS if COMMANDS[name] or any(kind != "shell" for kind, _ in steps(name))]
LONG_PAGES = ("docs/data.md", "docs/commands.md", "docs/adding-an-operator.md")  # a minute or more as a whole
SLOW_PAGES = [
    name for name in PAGES if name in LONG_PAGES or any(named(command, SLOW) for command in COMMANDS[name])
]


@pytest.fixture(scope="module")
def given(surroundings: Path) -> Path:
    """What the reader has: pictures, a video, a program, and the results of a model that is small."""
    with Image.open(surroundings / "photo.jpg") as photo:
        frame = np.asarray(photo)[:, :, ::-1]
    video = cv2.VideoWriter(
        str(surroundings / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, frame.shape[1::-1]
    )
    for _ in range(2):
        video.write(frame)
    video.release()
    text = (ROOT / "model/edge_moe/presets/mini.toml").read_text()
    for old, new in (("semseg = 7\ndepth = 1", "semseg = 3"), ("batch_size = 16", "batch_size = 2")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (surroundings / "orchard.toml").write_text(text)
    (surroundings / "my_program.py").write_text("import edge_moe_host\n")
    preset = load_preset("mini", SMALL)
    torch.manual_seed(0)
    checkpoint = {
        "preset": to_dict(preset),
        "data": "scenes",
        "model": build_model(preset.model).state_dict(),
    }
    for name in ("last.pt", "best.pt"):
        save_checkpoint(surroundings / "run" / name, checkpoint)
    return surroundings


def clone(folder: Path) -> None:
    """The checkout without what it builds; environments, compiled C++ and packaged weights are shared."""
    lines = (ROOT / ".gitignore").read_text().splitlines()
    built = {ROOT / line.strip("/") for line in lines if line.startswith("/")} | {ROOT / SHARED[0]}
    anywhere = shutil.ignore_patterns(*(line.strip("/") for line in lines if line[0] != "/"), ".git")

    def ignore(place: str, names: list[str]) -> set[str]:
        return anywhere(place, names) | {name for name in names if Path(place) / name in built}

    shutil.copytree(ROOT, folder, ignore=ignore, dirs_exist_ok=True)
    (ROOT / "build" / "hls").mkdir(parents=True, exist_ok=True)
    (folder / "build").mkdir()  # a true folder: yosys leaves its own through no link
    for name in SHARED:
        (folder / name).symlink_to(ROOT / name)
    for path in (folder / "pyproject.toml", folder / "host/pyproject.toml", *folder.glob("requirements*")):
        os.utime(path, (0, 0))  # else make would set up the environments again


def provide(folder: Path, given: Path, name: str) -> None:
    """In the place of a result that a command did not make: ``exportN``, ``runs/NAME``."""
    source = given / ("run" if name.startswith("runs/") else re.sub(r"\d+$", "", name))
    shutil.copytree(source, folder / name, dirs_exist_ok=True)


def run_page(name: str, folder: Path, given: Path, slow: bool) -> None:
    """Run a page in a clone, which is the current folder."""
    clone(folder)
    made = {word for text in COMMANDS[name] for word in re.findall(r"--out (\S+)", text)}
    for entry in given.iterdir():
        if entry.name not in made and entry.name != "run":
            (folder / entry.name).symlink_to(entry)
    (folder / "DIR").symlink_to(
        folder / "orchard"
    )  # docs/data.md calls it DIR, as the reader chooses its place
    environment = os.environ | {
        "PATH": f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{folder / 'model'}:{folder / 'host'}",
        "OMP_NUM_THREADS": "1",
    }
    names: dict[str, Any] = {"__name__": "guide"}
    for kind, text in steps(name):
        if kind.startswith("run"):
            exec(compile(text, name, "exec"), names)
            for file in kind.split()[1:]:
                (folder / file).write_text(text)
        elif kind.startswith("file "):
            (folder / kind.removeprefix("file ")).write_text(text)
        elif text not in COMMANDS[name]:
            continue
        elif named(text, SLOW) and not slow:
            for out in re.findall(r"--out (export\d*|runs/\S+)", text):
                provide(folder, given, out)
        else:
            collected = " --collect-only -q -p no:cacheprovider" if named(text, [PYTEST]) else ""
            done = subprocess.run(
                ["bash", "-c", text + collected], env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{name}: {text}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"


@pytest.mark.parametrize("name", [name for name in PAGES if name not in LONG_PAGES])
def test_page_runs(name: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(name, tmp_path, given, slow=False)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", SLOW_PAGES)
def test_whole_page_runs(name: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(name, tmp_path, given, slow=True)


def test_lists_name_commands_of_the_guides() -> None:
    """No entry is left of a command that is gone, and most commands run."""
    commands = [text for name in DOCUMENTS for kind, text in steps(name) if kind == "shell"]
    for pattern in (*NOT_RUN_AT_ALL, *SLOW, PYTEST):
        assert any(re.match(pattern, command) for command in commands), pattern
    run = [command for name in PAGES for command in COMMANDS[name]]
    assert len(run) >= 60
    assert set(LONG_PAGES) <= set(PAGES)
    assert sum(not named(command, SLOW) for command in run) >= 40


def test_python_of_the_readme_runs() -> None:
    assert [mark for language, _, mark in DOCUMENTS["README.md"].steps if language == "python"] == ["run"]
