# SPDX-License-Identifier: Apache-2.0
"""The operator library under sanitizers, the bounded stream, and what hls/Makefile says of bad input."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_moe.codegen import generate
from hls_ops import ROOT, build

HLS = ROOT / "hls"
TESTS = ROOT / "tests"
OPERATOR_TESTS = ["test_hls_arithmetic.py", "test_hls_linear.py", "test_hls_attention.py",
                  "test_hls_experts.py", "test_hls_maps.py"]  # fmt: skip


def test_operators_under_address_and_undefined_behaviour_sanitizers():
    """The tests of every operator once more, in a process that starts with the sanitizer's run time."""
    build("sanitize")
    runtime = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "EDGE_MOE_OPS": "sanitize",
    }
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", *OPERATOR_TESTS],
        cwd=TESTS, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
    passed = int(run.stdout.rsplit(" passed", 1)[0].rsplit(maxsplit=1)[-1])
    assert passed >= 130


STREAM_PROGRAM = """
#include "edge_moe/stream.hpp"
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
  return stream.empty() && !stream.full() && stream.size() == 0 ? 0 : 2;
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


def make(*arguments):
    command = ["make", "-C", str(HLS), "--no-print-directory", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ops", "VARIANT=O9"], "VARIANT=O9 is not one of O0 O2 O3 exact sanitize"),
        (
            ["ops", "CXX=no-such-compiler"],
            "'no-such-compiler' was not found: install g++ or say make CXX=...",
        ),
        (["headers", "ACCELERATOR=zcu999"], "error: unknown accelerator 'zcu999'"),
        (["headers", "ACCELERATOR=missing.toml"], "error: cannot read accelerator file 'missing.toml'"),
    ],
)
def test_makefile_says_what_is_wrong(arguments, sentence):
    run = make(*arguments)
    assert run.returncode != 0
    assert sentence in run.stdout + run.stderr
    assert "Traceback" not in run.stderr


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


# ------------------------------------------------------------------ as an HLS tool sees it

HLS_STREAM = """
namespace hls {
template <typename T, int DEPTH>
class stream {
 public:
  explicit stream(const char*) {}
  T read();
  void write(const T&);
};
}
"""
# the vendor's own ap_int is built into its compiler: here the simulation's stands in
AP_INT = "#pragma once\n#undef __SYNTHESIS__\n#include_next <ap_int.h>\n#define __SYNTHESIS__ 1\n"
USES_STREAM = """
#include "edge_moe/stream.hpp"
int pass(int value) {
  edge_moe::Stream<int, 8> stream("pass");
  stream.write(value);
  return stream.read();
}
"""
# Directives of UG1399 that are in use, with their options.
DIRECTIVES = {
    "inline": set(),
    "unroll": set(),
    "pipeline": {"II"},
    "loop_flatten": {"off"},
    "array_partition": {"variable", "type", "dim"},
    "array_reshape": {"variable", "type", "factor", "dim"},
    "dependence": {"variable", "type", "dependent"},
    "loop_tripcount": {"min", "max"},
}


@pytest.fixture(scope="module")
def synthesis(tmp_path_factory):
    """The compiler's command line with __SYNTHESIS__, in a folder with all operators in one file."""
    folder = tmp_path_factory.mktemp("synthesis")
    generate("zcu104", folder)
    (folder / "hls_stream.h").write_text(HLS_STREAM)
    (folder / "ap_int.h").write_text(AP_INT)
    sources = "".join(f'#include "{source}"\n' for source in sorted((HLS / "ops").glob("*.cpp")))
    (folder / "all.cpp").write_text(sources + USES_STREAM)
    spec = find_spec("hls4ml")
    assert spec is not None
    types = Path(spec.submodule_search_locations[0]) / "templates" / "vivado" / "ap_types"
    includes = [f"-I{path}" for path in (folder, HLS / "include", HLS / "ops")]
    return folder, ["g++", "-std=c++14", "-D__SYNTHESIS__", *includes, "-isystem", str(types), "all.cpp"]


def test_synthesis_sees_correct_cpp(synthesis):
    folder, command = synthesis
    flags = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-label", "-Wno-unknown-pragmas"]
    run = subprocess.run([*command, *flags], cwd=folder, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-3000:]


def test_pragmas_are_directives_that_the_tool_knows(synthesis):
    """Name, options, and that something of the variable's name is declared."""
    folder, command = synthesis
    run = subprocess.run([*command, "-E"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    pragmas = re.findall(r"#pragma HLS (\w+) *(.*)", run.stdout)
    assert {name for name, _ in pragmas} == set(DIRECTIVES)
    assert len(pragmas) > 200
    source = "".join(path.read_text() for path in [*HLS.glob("ops/*"), *HLS.glob("include/edge_moe/*.hpp")])
    for name, options in set(pragmas):
        keys = set(re.findall(r"(\w+) =", options)) | ({"off"} if options.strip() == "off" else set())
        assert keys <= DIRECTIVES[name], (name, options)
        variable = re.search(r"variable = ([\w.]+)", options)
        if variable:
            *owner, member = variable.group(1).split(".")
            assert re.search(rf"[\w>&*] {member}(\[|,|\)| =|;)", source), options
            assert all(re.search(rf"[\w>&] {part}( =|;)", source) for part in owner), options
