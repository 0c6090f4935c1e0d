# SPDX-License-Identifier: Apache-2.0
"""The operator library under sanitizers, the bounded stream, and hls/Makefile's messages for bad input."""

import re
import subprocess

import pytest

from edge_moe.codegen import generate
from edge_moe.testing.checkout import HLS
from edge_moe.testing.hls_build import make, passed_tests, sanitizers
from edge_moe.testing.hls_ops import build

OPERATOR_TESTS = [f"hls/test_{name}.py" for name in ("arithmetic", "linear", "attention", "experts", "maps")]


def test_operators_under_address_and_undefined_behaviour_sanitizers():
    """The tests of every operator once more, in a process that starts with the sanitizer's run time."""
    build("sanitize")
    assert passed_tests(*OPERATOR_TESTS, timeout=300, EDGE_MOE_OPS="sanitize", **sanitizers()) >= 130


STREAM_PROGRAM = """
#include "edge_moe/csim/stream.hpp"
#include <cstdio>
#include <cstdlib>
// argv: written first, then read, then finish
int main(int, char** argv) {
  edge_moe::Stream<int, 4> stream("weights");
  int next = 0, expected = 0;
  try {
    for (int round = 0; round < 3; ++round) {
      for (int i = 0; i < std::atoi(argv[1]); ++i) stream.write(next++);
      for (int i = 0; i < std::atoi(argv[2]); ++i)
        if (stream.read() != expected++) return 3;
    }
    stream.finish();
  } catch (const edge_moe::StreamError& error) {
    std::puts(error.what());
    return 1;
  }
  return stream.empty() && !stream.full() ? 0 : 2;
}
"""


@pytest.fixture(scope="module")
def stream_program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    (folder / "stream.cpp").write_text(STREAM_PROGRAM)
    command = ["g++", "-std=c++14", "-Wall", "-Wextra", "-Werror", f"-I{HLS / 'include'}", "stream.cpp", "-o",
               "stream"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return folder / "stream"


@pytest.mark.parametrize(
    ("writes", "reads", "message"),
    [
        (4, 4, ""),
        (3, 3, ""),
        (5, 5, "stream 'weights': overflow, all 4 places are taken."),
        (2, 3, "stream 'weights': deadlock, read while empty after 2 elements."),
        (2, 1, "stream 'weights': leftovers, 3 elements were never read."),
    ],
)
def test_a_stream_reports_what_would_hang_or_be_lost(stream_program, writes, reads, message):
    run = subprocess.run(
        [stream_program, str(writes), str(reads)], capture_output=True, text=True, timeout=20
    )
    assert run.stdout.strip() == message
    assert run.returncode == (1 if message else 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ops", "VARIANT=O9"], "VARIANT=O9 is not one of O0 O2 O3 exact sanitize"),
        (
            ["ops", "CXX=no-such-compiler"],
            "'no-such-compiler' was not found: install g++, or name another: make -C hls csim CXX=clang++",
        ),
        (["headers", "ACCELERATOR=zcu999"], "error: unknown accelerator 'zcu999'"),
        (["headers", "ACCELERATOR=missing.toml"], "error: cannot read 'missing.toml'"),
        (["headers", "ACCELERATOR=my own.toml"], "ACCELERATOR='my own.toml' has a space"),
    ],
)
def test_makefile_says_what_is_wrong(arguments, sentence):
    run = make(*arguments)
    assert run.returncode != 0
    assert sentence in run.stdout + run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("name", ["config", "design", "isa", "opcodes", "tables"])
def test_headers_that_are_missing_come_back(name, tmp_path):
    """As after an interruption between two of them."""
    assert make("headers", f"BUILD={tmp_path}").returncode == 0
    missing = tmp_path / "generated" / f"edge_moe_{name}.hpp"
    assert len(list(missing.parent.glob("*.hpp"))) == 5
    text = missing.read_text()
    missing.unlink()
    assert make("headers", f"BUILD={tmp_path}").returncode == 0
    assert missing.read_text() == text
    assert "codegen" not in make("headers", f"BUILD={tmp_path}").stdout


def test_a_finished_build_is_left_alone():
    library = build("O3")
    assert make("ops").returncode == 0
    before = library.stat().st_mtime_ns
    run = make("ops")
    assert run.returncode == 0, run.stderr
    assert "g++" not in run.stdout
    assert library.stat().st_mtime_ns == before


@pytest.mark.parametrize("accelerator", ["zcu104", "zcu104_large"])
def test_operators_compile_for_every_accelerator(accelerator, tmp_path):
    """Limits differ, so do array bounds and static assertions: the syntax check sees them all."""
    generate(accelerator, tmp_path)
    sources = sorted((HLS / "ops").glob("*.cpp"))
    assert len(sources) >= 16
    (tmp_path / "all.cpp").write_text("".join(f'#include "{source}"\n' for source in sources))
    includes = [f"-I{folder}" for folder in (HLS / "include", HLS / "ops", tmp_path)]
    command = ["g++", "-std=c++14", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-label",
               *includes, "all.cpp"]  # fmt: skip
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_every_top_says_where_the_accelerator_schedules_it():
    """The first line after the licence names headers that exist."""
    headers = HLS / "include" / "edge_moe"
    paths = sorted((HLS / "ops").glob("*.cpp"))
    for path in paths:
        line = path.read_text().splitlines()[1]
        assert re.match(r"// Unit-synthesis tops?; the accelerator ", line), path.name
        named = re.findall(r"executor/[\w/]+\.hpp", line)
        assert named, path.name
        assert all((headers / name).is_file() for name in named), path.name
    assert len(paths) >= 16
