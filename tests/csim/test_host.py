# SPDX-License-Identifier: Apache-2.0
"""The host's side of the C simulation: errors in one sentence, the register map, the C++'s error codes."""

import re
import subprocess
import tomllib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest

from edge_moe.accelerator import load_accelerator
from edge_moe.codegen import write_headers
from edge_moe.testing.bundles import compile_network, small_accelerator, small_bundle, small_config
from edge_moe.testing.checkout import ROOT
from edge_moe.testing.csim import build, csim
from edge_moe.testing.hls_build import make
from edge_moe.testing.networks import random_images, random_network
from edge_moe_host.backends import csim_library
from edge_moe_host.backends.csim_library import Csim, library_path, open_csim, program_bytes
from edge_moe_host.contract import registers
from edge_moe_host.contract.bundle import Bundle
from edge_moe_host.contract.isa import ISA_VERSION
from edge_moe_host.contract.registers import REGISTERS, Error, Status, describe
from edge_moe_host.errors import BundleError, DeviceStoppedError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("host"), tasks={"depth": 1})


@pytest.fixture
def image() -> np.ndarray:
    picture: np.ndarray = random_images(small_config(), 1)[0]
    return picture


def refused(match: str) -> "pytest.RaisesExc[BundleError]":
    return pytest.raises(BundleError, match=match)


def test_a_frame(bundle: Bundle, image: np.ndarray) -> None:
    build("O3")
    run = open_csim(bundle).run(bundle, "depth", image)
    out = bundle.task("depth").entry.output
    assert run.raw.dtype == np.int16
    assert run.raw.shape == (out.height * out.width, out.channels)
    assert run.cycles > 0
    assert run.instruction_cycles == ()
    assert run.tensors == {}


def test_identity() -> None:
    identity = csim("O3").identity
    assert f"{identity.config_id:016x}" == load_accelerator("zcu104").hash()
    assert (identity.version, identity.status, identity.error) == (ISA_VERSION, Status.DONE, Error.NONE)
    assert identity.cycles == 0


@pytest.fixture
def other(tmp_path: Path) -> Bundle:
    """For an accelerator that has not been built."""
    network = random_network(small_config(tasks={"depth": 1}))
    bundle, _ = compile_network(network, tmp_path, accelerator=small_accelerator(max_tokens=280))
    assert not library_path(bundle.manifest.accelerator.hash).exists()
    return bundle


def builders(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    monkeypatch.setattr(csim_library, "entry_points", lambda group: EntryPoints(entries))


def test_a_missing_library_in_a_checkout(other: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    builders(monkeypatch)
    command = f"make -C {ROOT}/hls csim ACCELERATOR=zcu104"
    with refused(rf"is missing: {command} builds it, with .* another accelerator in place of zcu104\.\Z"):
        open_csim(other)


def test_a_missing_library_of_a_wheel(other: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builders(monkeypatch)
    monkeypatch.setattr(csim_library, "BUILD", tmp_path / "lib" / "build" / "hls")
    with refused(r"is missing: pip install edge-moe, which builds it at its first use\.\Z"):
        open_csim(other)


def test_a_missing_library_is_built_where_edge_moe_is_installed(
    other: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The builder that the package declares gets the bundle's own accelerator."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
        csim_library.BUILDERS
    ]
    builders(monkeypatch, *(EntryPoint(*item, csim_library.BUILDERS) for item in declared.items()))
    asked = []

    def build_library(fields: Mapping[str, object]) -> Path:
        asked.append(fields)
        return build("O3")

    monkeypatch.setattr("edge_moe.codegen.csim.build_library", build_library)
    with refused("is of the accelerator configuration"):
        open_csim(other)
    assert asked == [other.manifest.accelerator.config]


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / "libedge_moe.so"
    path.write_text("not a library")
    with refused("is no C simulation of the accelerator: .*\\.\\Z"):
        Csim(path)


def test_a_library_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "libother.so"
    subprocess.run(["g++", "-shared", "-x", "c++", "/dev/null", "-o", str(path)], check=True, timeout=60)
    with refused("is no C simulation of the accelerator: .*edge_moe_csim_run\\.\\Z"):
        Csim(path)


def test_a_bundle_for_another_accelerator(tmp_path: Path, image: np.ndarray) -> None:
    network = random_network(small_config(tasks={"depth": 1}))
    accelerator = small_accelerator(max_tokens=280)
    other, _ = compile_network(network, tmp_path, accelerator=accelerator)
    with refused(f"was compiled for {accelerator.hash()}: build or compile again"):
        csim("O3").run(other, "depth", image)


def test_another_task_or_image(bundle: Bundle, image: np.ndarray) -> None:
    with refused("task 'semseg' is not in"):
        csim("O3").run(bundle, "semseg", image)
    for wrong in (image[:-1], image.astype(np.int16), image[None]):
        with refused(re.escape("task 'depth' takes uint8 [16, 32, 3].")):
            csim("O3").run(bundle, "depth", wrong)


def test_a_stopped_program(bundle: Bundle, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checked bundle does not stop; a bundle whose program changed in memory does."""
    simulation = csim("O3")
    execute = simulation.execute

    def damaged(program: np.ndarray, *arguments: np.ndarray, **options: object) -> object:
        program = program.copy()
        program[3 * 64 + 5] ^= 1
        return execute(program, *arguments, **options)

    monkeypatch.setattr(simulation, "execute", damaged)
    with pytest.raises(
        DeviceStoppedError, match="stopped at instruction 3: its checksum does not match"
    ) as caught:
        simulation.run(bundle, "depth", image)
    assert str(caught.value).endswith(".")


def test_what_a_watcher_raises_is_not_lost(bundle: Bundle, image: np.ndarray) -> None:
    def watch(index: int, *_: object) -> None:
        raise ArithmeticError(f"at {index}")

    program = program_bytes(bundle.task("depth"))
    with pytest.raises(ArithmeticError, match="at 0"):
        csim("O3").execute(program, bundle.weights, image, np.zeros(4096, np.uint8), watch=watch)


def test_every_error_is_described() -> None:
    for error in Error:
        text = describe(error, 7)
        assert text.startswith("stopped at instruction 7: ")
        assert "\n" not in text
        assert ("no error" in text) == (error == Error.NONE)
    assert describe(99, 0) == "stopped at instruction 0: unknown error code 99"


def test_registers_do_not_overlap() -> None:
    used: set[int] = set()
    for register in REGISTERS.values():
        words = set(range(register.offset, register.offset + register.bits // 8, 4))
        assert not words & used, register.name
        used |= words
    assert max(used) + 4 == registers.SIZE <= 256


def test_registers_are_the_arguments_of_the_top() -> None:
    text = (ROOT / "hls" / "src" / "edge_moe.cpp").read_text()
    arguments = re.search(r'extern "C" void edge_moe_accelerator\((.*?)\) \{', text, re.DOTALL)
    assert arguments is not None
    expected = []
    for argument in arguments[1].split(","):
        kind, name = argument.strip().rsplit(None, 1)
        output = kind.endswith("*") and not kind.startswith("const") and "Transfer" not in kind
        wide = "Transfer" in kind or kind == "BurstPort" or "64" in kind
        expected.append((name, 64 if wide else 32, "r" if output else "rw"))
    found = [
        (register.name, register.bits, register.access)
        for register in REGISTERS.values()
        if register.offset >= registers.FIRST_ARGUMENT and not register.name.endswith("_ctrl")
    ]
    assert found == expected


def test_offsets_as_vitis_hls_gives_them() -> None:
    """The pattern of generated drivers: 64-bit inputs are 12 bytes apart, 32-bit ones 8; an output of 32 bits
    takes 16 bytes with its flag in the second word, one of 64 bits 24 with its flag in the third."""
    offsets = {name: register.offset for name, register in REGISTERS.items()}
    assert offsets["ap_ctrl"] == 0
    assert offsets["program"] == 0x10
    assert offsets["tables"] == 0x1C
    assert offsets["output"] == 0x58
    assert offsets["program_offset"] == 0x64
    assert offsets["program_records"] == 0x6C
    assert offsets["config_id"] == 0x8C
    assert offsets["config_id_ctrl"] == 0x94
    assert offsets["version"] == 0xA4
    assert offsets["version_ctrl"] == 0xA8
    assert offsets["status"] == 0xB4
    assert offsets["cycles"] == 0xE4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["VARIANT=O9"], "VARIANT=O9 is not one of O0 O2 O3 exact sanitize"),
        (
            ["CXX=no-such-compiler"],
            "'no-such-compiler' was not found: install g++, or name another: make -C hls csim CXX=clang++",
        ),
        (["ACCELERATOR=zcu999"], "error: unknown accelerator 'zcu999'"),
    ],
)
def test_the_makefile_says_what_is_wrong(arguments: list[str], sentence: str) -> None:
    run = make("csim", *arguments)
    assert run.returncode != 0
    assert sentence in run.stdout + run.stderr
    assert "Traceback" not in run.stderr


CHANNEL_PROGRAM = """
#include "edge_moe/shell/region.hpp"
#include <cstdio>
#include <cstdlib>
using edge_moe::Channel;
// A writer sends argv[1] numbers down `forward`; a reader takes argv[2] and answers every argv[3]-th.
int main(int, char** argv) {
  const int sent = std::atoi(argv[1]), taken = std::atoi(argv[2]), answers = std::atoi(argv[3]);
  Channel<int, 4> forward("forward");
  Channel<int, 2> back("back");
  int sum = 0;
  try {
    EDGE_MOE_REGION
    EDGE_MOE_PROCESS("writer",
                     for (int i = 0; i < sent; ++i) forward.write(i); for (int i = 0; i < sent / answers; ++i)
                         sum += back.read())
    EDGE_MOE_PROCESS("reader", for (int i = 0; i < taken; ++i) {
      const int value = forward.read();
      if (value == 77) throw std::runtime_error("seventy-seven.");
      if (i % answers == answers - 1) back.write(value);
    })
    EDGE_MOE_RUN
    forward.finish();
    back.finish();
  } catch (const std::exception& error) {
    std::puts(error.what());
    return 1;
  }
  std::printf("%d\\n", sum);
  return 0;
}
"""


@pytest.fixture(scope="module")
def channel_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("channel")
    (folder / "channel.cpp").write_text(CHANNEL_PROGRAM)
    write_headers(load_accelerator("zcu104"), folder)
    command = ["g++", "-std=c++14", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'hls' / 'include'}", "-I."]
    command += ["channel.cpp", "-o", "channel"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return folder / "channel"


@pytest.mark.parametrize(
    ("sent", "taken", "answers", "message"),
    [
        (50, 50, 50, "49"),  # more than the channel holds: the writer waits for the reader
        (12, 12, 6, "16"),
        (3, 4, 3, "deadlock: reader waits for data from 'forward'."),
        (20, 20, 5, "deadlock: writer waits for room in 'forward'; reader waits for room in 'back'."),
        (4, 2, 100, "stream 'forward': leftovers, 2 elements were never read."),
        (90, 90, 90, "reader: seventy-seven."),
    ],
)
def test_processes(channel_program: Path, sent: int, taken: int, answers: int, message: str) -> None:
    run = subprocess.run(
        [channel_program, str(sent), str(taken), str(answers)], capture_output=True, text=True, timeout=20
    )
    assert run.stdout.strip() == message


def test_benchmark(tmp_path: Path) -> None:
    from edge_moe.bench.csim import benchmark_csim, csim_table

    network = random_network(small_config())
    row = benchmark_csim("small", network, random_images(network.config, 1)[0], "depth", repeats=3)
    assert (row.model, row.task) == ("small", "depth")
    assert row.milliseconds > 0
    assert row.ratio > 0
    assert row.cycles > 0
    assert csim_table([row]).splitlines()[-1].startswith("| small | depth |")
