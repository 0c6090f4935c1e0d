# SPDX-License-Identifier: Apache-2.0
"""The accelerator at every optimisation level, with every intermediate at its width on the chip, under
sanitizers, and as an HLS tool sees it: all give the same integers."""

import ctypes
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edge_moe.codegen import generate
from edge_moe.testing.bundles import compile_network, small_accelerator, small_config
from edge_moe.testing.checkout import HLS
from edge_moe.testing.csim import build, csim
from edge_moe.testing.hls_build import make, passed_tests, sanitizers
from edge_moe.testing.hls_source import ap_types
from edge_moe.testing.networks import random_images, random_network
from edge_moe_host.backends.csim_library import program_bytes
from edge_moe_host.contract.bundle import Bundle
from edge_moe_host.contract.registers import Error
from edge_moe_host.runtime.accelerator import Accelerator

SANITIZED = ["csim/test_golden.py", "csim/test_instructions.py", "csim/test_program.py"]

# Stand-ins for the tool's headers. Processes run one after the other, as calls do: streams have no bounds.
HLS_STREAM = """
#pragma once
#include <deque>
namespace hls {
template <typename T, int DEPTH>
class stream {
 public:
  explicit stream(const char*) {}
  bool empty() const { return items.empty(); }
  void write(const T& value) { items.push_back(value); }
  T read() {
    if (items.empty()) return T();  // a mask of the routing that comes too late
    T value = items.front();
    items.pop_front();
    return value;
  }
 private:
  std::deque<T> items;
};
}
"""
HLS_BURST_MAXI = """
#pragma once
#include <cstddef>
#include <deque>
namespace hls {
template <typename T>
class burst_maxi {
 public:
  burst_maxi(const T* memory) : memory(memory) {}
  void read_request(std::size_t offset, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) asked.push_back(offset + i);
  }
  T read() {
    const std::size_t at = asked.front();
    asked.pop_front();
    return memory[at];
  }
 private:
  const T* memory;
  std::deque<std::size_t> asked;
};
}
"""
# The arbitrary-precision headers of the simulation refuse the macro, so they come before it.
SYNTHESIS_RUN = """
#include <ap_int.h>
#define __SYNTHESIS__ 1
#include "src/edge_moe.cpp"
using edge_moe::Transfer;
extern "C" uint32_t synthesis_run(const Transfer* program, uint32_t records, const Transfer* weights,
                                  uint32_t weight_beats, const Transfer* image, uint32_t image_bytes,
                                  Transfer* output, uint32_t output_bytes, uint32_t* error) {
  uint64_t config_id = 0;
  uint32_t version = 0, status = 0, position = 0, cycles = 0;
  edge_moe_accelerator(program, weights, weights, weights, weights, image, output, 0, records, weight_beats,
                     image_bytes, output_bytes, &config_id, &version, &status, error, &position, &cycles);
  return status;
}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A network small enough for simulated widths: 2 tokens."""
    config = small_config(image_size=(8, 16), cls_token=False, tasks={"semseg": 5})
    result, _ = compile_network(random_network(config), tmp_path_factory.mktemp("builds"))
    return result


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    picture: np.ndarray = random_images(small_config(image_size=(8, 16)), 1)[0]
    return picture


@pytest.mark.parametrize("variant", ["O0", "O2", "exact"])
def test_builds_agree(bundle: Bundle, image: np.ndarray, variant: str) -> None:
    expected = csim("O3").run(bundle, "semseg", image, trace=True)
    actual = csim(variant).run(bundle, "semseg", image, trace=True)
    assert actual.instruction_cycles == expected.instruction_cycles
    assert actual.tensors.keys() == expected.tensors.keys()
    values = 0
    for name, value in expected.tensors.items():
        np.testing.assert_array_equal(actual.tensors[name], value, err_msg=name)
        values += value.size
    assert values > 2000
    np.testing.assert_array_equal(actual.raw, expected.raw)


def test_address_and_undefined_behaviour_sanitizers() -> None:
    """Networks, instructions and damaged programs once more, in a process that starts with the run time."""
    build("sanitize")
    tests = ["-k", "not large", *SANITIZED]
    assert passed_tests(*tests, EDGE_MOE_CSIM="sanitize", **sanitizers()) >= 190


def test_memories_that_no_chip_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest scratch memory, and 200 MiB of sums: the stacks of the simulation are large enough."""
    monkeypatch.setenv("EDGE_MOE_CACHE", str(tmp_path / "cache"))
    huge = small_accelerator(scratch_bytes=2**26, accumulator_rows=2**20, max_patch_size=52)
    network = random_network(small_config())
    compile_network(network, tmp_path, accelerator=huge)
    picture = random_images(network.config, 1)[0]
    raw = {}
    for backend in ("golden", "csim"):
        with Accelerator.open(backend, tmp_path / "bundle") as acc:
            raw[backend] = acc.run(picture, "depth").raw
    assert np.array_equal(raw["golden"], raw["csim"])


@pytest.mark.slow
def test_every_instruction_with_simulated_widths() -> None:
    """The tests of single instructions once more, on the build whose intermediates wrap at their widths."""
    assert passed_tests("csim/test_instructions.py", EDGE_MOE_CSIM="exact") >= 95


def compile_synthesis(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """The top as an HLS tool sees it, in a folder with the stand-ins."""
    generate("zcu104", folder)
    (folder / "hls_stream.h").write_text(HLS_STREAM)
    (folder / "hls_burst_maxi.h").write_text(HLS_BURST_MAXI)
    (folder / "synthesis.cpp").write_text(SYNTHESIS_RUN)
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-label", "-Wno-unknown-pragmas",
                "-Wno-unused-parameter", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # fmt: skip
    includes = [f"-I{folder}", f"-I{HLS}", f"-I{HLS / 'include'}", "-isystem", str(ap_types())]
    command = ["g++", "-std=c++14", *warnings, *includes, *flags, "synthesis.cpp"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_what_synthesis_sees(bundle: Bundle, image: np.ndarray, tmp_path: Path) -> None:
    """With the tool's macro defined nothing of the simulation is left, and the result is the same."""
    run = compile_synthesis(tmp_path, "-O1", "-fPIC", "-shared", "-o", "synthesis.so")
    assert run.returncode == 0, run.stderr
    expected = csim("O3").run(bundle, "semseg", image).raw
    library = ctypes.CDLL(str(tmp_path / "synthesis.so"))
    program, out = program_bytes(bundle.task("semseg")), bundle.task("semseg").entry.output
    output = np.zeros((len(expected), out.row_bytes), np.uint8)
    error = ctypes.c_uint32(99)
    buffers = [program.copy(), bundle.weights.copy(), image.copy(), output]
    addresses = [ctypes.c_void_p(buffer.ctypes.data) for buffer in buffers]
    status = library.synthesis_run(
        addresses[0], len(program) // 64, addresses[1], len(bundle.weights) // 64, addresses[2], image.nbytes,
        addresses[3], output.nbytes, ctypes.byref(error),
    )  # fmt: skip
    assert (status, error.value) == (1, Error.NONE)
    np.testing.assert_array_equal(output.view("<i2")[:, : out.channels], expected)


def test_the_interface_has_a_port_for_every_argument() -> None:
    text = (HLS / "src" / "edge_moe.cpp").read_text()
    arguments = re.search(r'extern "C" void edge_moe_accelerator\((.*?)\) \{', text, re.DOTALL)
    assert arguments is not None
    names = [argument.split()[-1].lstrip("*") for argument in arguments[1].split(",")]
    ports = re.findall(r"HLS_(?:READS|WRITES|STREAMS|REGISTER)\((\w+)", text)
    assert ports == names


def test_a_finished_build_is_left_alone() -> None:
    library = build("O3")
    before = library.with_name("zcu104").joinpath("csim_O3", "libedge_moe.so").stat().st_mtime_ns
    run = make("csim", "VARIANT=O3")
    assert run.returncode == 0
    assert "g++" not in run.stdout
    assert library.with_name("zcu104").joinpath("csim_O3", "libedge_moe.so").stat().st_mtime_ns == before


def test_the_library_is_named_by_its_configuration() -> None:
    library = build("O3")
    assert library.name == f"libedge_moe_{csim('O3').identity.config_id:016x}.so"


@pytest.mark.parametrize("accelerator", ["zcu104", "zcu104_large"])
def test_the_top_compiles_for_every_accelerator(accelerator: str, tmp_path: Path) -> None:
    """Limits differ, so do array bounds and static assertions: the syntax check sees them all."""
    generate(accelerator, tmp_path)
    command = ["g++", "-std=c++14", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-label",
               f"-I{HLS / 'include'}", f"-I{tmp_path}", str(HLS / "src" / "edge_moe.cpp")]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
