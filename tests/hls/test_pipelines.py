# SPDX-License-Identifier: Apache-2.0
"""The pragmas' claims about arrays hold: distances, independence, one read and one write in an iteration.

A copy of the headers is compiled with arrays that watch every access (checked.hpp). A wrong distance
would give wrong hardware, and C simulation as such cannot see it.
"""

import ctypes
import re
import shutil
import subprocess

import numpy as np
import pytest

from edge_moe.codegen import generate
from edge_moe.testing import csim as csim_library
from edge_moe.testing import instructions
from edge_moe.testing.bundles import compile_network, small_config
from edge_moe.testing.checkout import HLS, TESTS
from edge_moe.testing.networks import random_images, random_network
from edge_moe_host.backends.csim_library import Csim, CsimError
from edge_moe_host.contract.isa import Epilogue

TYPES = {  # typedef -> element, size: arguments become references, variables arrays that watch
    "ScratchHalf": ("Half", "SCRATCH_BEATS"),
    "Sums": ("StoredSlice32", "ACCUMULATOR_PAIRS"),
    "Finished": ("StoredSlice16", "ACCUMULATOR_PAIRS"),
    "WideParameters": ("StoredPlane", "PARAMETER_TILES"),
    "NarrowParameters": ("StoredPlane", "PARAMETER_PAIRS"),
    "QueueTokens": ("uint16_t", "QUEUE_ENTRIES"),
    "QueueScores": ("int16_t", "QUEUE_ENTRIES"),
}
ARRAYS = ["stage_even", "stage_odd", "numerators0", "numerators1", "states0", "states1", "ring_even",
          "ring_odd", "norms", "seen", "high"]  # fmt: skip
UPSAMPLE = "HLS_PIPELINE\n{claims}    HLS_TRIPS(1, 4 * edge_moe::SCRATCH_BEATS)\n    const UpsampleTaps"
OTHERS = [  # file, old text, new text
    ("executor/gate.hpp", "int16_t scaled[ROUTE_TOKENS][config::max_experts] = {};",
     "Checked<int16_t> scaled[ROUTE_TOKENS];"),
    ("executor/patches.hpp", "typedef Transfer Bands[2][2][BAND_PAIRS];",
     "typedef Checked<Transfer> Bands[2][2];"),
    # reads beyond the last row, which nothing uses, may meet results; SPEC keeps rows and results apart
    ("executor/compute/compute.hpp", "HLS_INDEPENDENT(even)", ""),
    ("executor/compute/compute.hpp", "HLS_INDEPENDENT(odd)", ""),
    ("executor/upsample2x.hpp",
     UPSAMPLE.format(claims="    HLS_INDEPENDENT(even)\n    HLS_INDEPENDENT(odd)\n"),
     UPSAMPLE.format(claims="")),
    ("executor/patches.hpp", "  PATCH_STEPS:", "  ++checked::now().loop;\n  PATCH_STEPS:"),
    ("csim/tap.hpp", "inline void add(int iterations, int depth) {",
     "inline void add(int iterations, int depth) { ++checked::now().loop;"),
]  # fmt: skip
ELSEWHERE = [
    "shell/weight_reader.hpp",
    "shell/memory_movers.hpp",
    "shell/ports.hpp",
]  # loops of other processes


CONTROL = """
extern "C" uint64_t checks() { return edge_moe::checked::now().checks; }
extern "C" void say_more(const char* array, int distance) { edge_moe::checked::more()[array] = distance; }
"""


def instrument(folder):
    """A copy of the headers with arrays that watch."""
    include = folder / "include" / "edge_moe"
    shutil.copytree(HLS / "include" / "edge_moe", include)
    shutil.copy(TESTS / "hls" / "checked.hpp", include / "checked.hpp")
    names = "|".join(ARRAYS)
    replaced = dict.fromkeys([*TYPES, *ARRAYS], 0)
    for path in include.rglob("*.hpp"):
        file = str(path.relative_to(include))
        text = path.read_text()
        for name, (element, size) in TYPES.items():
            text = re.sub(
                rf"typedef {element} {name}\[{size}\];", f"typedef Checked<{element}>& {name};", text
            )
            text, count = re.subn(
                rf"^  {name} (\w+);", rf"  Checked<{element}> \1({size});", text, flags=re.M
            )
            replaced[name] += count
        for element, name, size in re.findall(rf"^  (\w+) ({names})\[([^\]]+)\];", text, re.M):
            text = text.replace(f"  {element} {name}[{size}];", f"  Checked<{element}> {name}({size});")
            replaced[name] += 1
        text = re.sub(rf"(?:const )?(\w+) ({names})\[[^\]]+\]([,)])", r"Checked<\1>& \2\3", text)
        text = re.sub(r"^  spoil\(.*\n", "", text, flags=re.M)
        if file in ELSEWHERE:
            text = text.replace("HLS_PIPELINE ", "").replace("HLS_PIPELINE\n", "\n")
        for changed, old, new in OTHERS:
            if file == changed:
                assert text.count(old) == 1, old
                text = text.replace(old, new)
        if file == "vendor.hpp":
            text += '#ifndef EDGE_MOE_VENDOR_PORTS\n#include "edge_moe/checked.hpp"\n#endif\n'
        path.write_text(text)
    assert all(replaced.values()), replaced


def build(folder):
    instrument(folder)
    generate("zcu104", folder)
    sources = "".join(f'#include "{HLS / "src" / name}"\n' for name in ("edge_moe.cpp", "csim.cpp"))
    (folder / "all.cpp").write_text(sources + CONTROL)
    command = ["g++", "-std=c++14", "-O1", "-fPIC", "-shared", "-Iinclude", "-I.", "all.cpp", "-o", "all.so"]
    subprocess.run(command, cwd=folder, check=True, timeout=200)
    return folder / "all.so"


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    return build(tmp_path_factory.mktemp("watched"))


def checks(library):
    function = ctypes.CDLL(str(library)).checks
    function.restype = ctypes.c_uint64
    return function()


def run_instructions(monkeypatch, library):
    """Instructions at the sizes where passes are shortest and arrays are reused soonest."""
    monkeypatch.setattr(csim_library, "csim", lambda: Csim(library))
    for epilogue in Epilogue:
        instructions.run_linear(1, 33, 40, epilogue)
        instructions.run_linear(2, 70, 100, epilogue, bits=2)
        instructions.run_linear(37, 70, 40, epilogue, bits=3)
    for keys, start, rows, heads, head in [(1, 0, 1, 1, 32), (70, 3, 5, 2, 64), (33, 0, 33, 3, 32)]:
        instructions.run_attention(keys, start, rows, heads, head)
    for rows, width, experts, top_k in [(1, 32, 1, 1), (19, 40, 2, 2), (9, 64, 17, 4)]:
        instructions.run_gate(rows, width, experts, top_k)
    for rows, channels in [(1, 20), (9, 32), (40, 96)]:
        instructions.run_layernorm(rows, channels)
    instructions.run_experts(np.array([[0, 1], [1, 2], [2, 0], [1, 0], [2, 1]]), 4)
    instructions.run_conv3x3(5, 7, 40, 33, 1, 3, -128)
    instructions.run_upsample2x(3, 5, 40)
    instructions.run_patches(16, 32, 8)


def test_instructions_keep_what_their_pragmas_say(watched, monkeypatch):
    run_instructions(monkeypatch, watched)
    assert checks(watched) > 5000


def test_a_network_keeps_what_the_pragmas_say(watched, tmp_path):
    bundle, _ = compile_network(random_network(small_config()), tmp_path, ["semseg"])
    image = random_images(small_config(), 1)[0]
    before = checks(watched)
    result = Csim(watched).run(bundle, "semseg", image)
    assert np.array_equal(result.raw, csim_library.csim().run(bundle, "semseg", image).raw)
    assert checks(watched) - before > 2500


@pytest.mark.parametrize(
    ("array", "more"),
    [("sums0", 1), ("sums1", 1), ("stage_even", 1), ("stage_odd", 1), ("numerators0", 1), ("numerators1", 1),
     ("states0", 1), ("states1", 1), ("scaled", 1), ("norms", 2), ("ring_even", 2), ("ring_odd", 2)],
)  # fmt: skip
def test_no_distance_could_be_greater(watched, monkeypatch, array, more):
    """The shortest passes come just as soon as the pragmas say (rows of LAYERNORM take a beat more)."""
    say_more = ctypes.CDLL(str(watched)).say_more
    say_more(array.encode(), more)
    try:
        with pytest.raises(CsimError, match=f"array {array} is read"):
            run_instructions(monkeypatch, watched)
    finally:
        say_more(array.encode(), 0)
