# SPDX-License-Identifier: Apache-2.0
"""Measured on the accelerator's C++: sizes of arrays and streams, products of each loop's iteration.

The preprocessed top (``hls_source``) is compiled with its pragmas turned into counters, and runs a small
program.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edge_moe.testing import hls_source
from edge_moe.testing.hls_source import STUBS, Array, Source

_WIDTHS = re.compile(r"product\(.*\bWA = (\d+); int WB = (\d+)")


@dataclass(frozen=True)
class Said:
    """``arrays``: (function, name) -> bits of an element, extents. ``streams``: type -> depth, bits.
    ``calls``: (loop's function, called function) -> the most in an iteration. ``numbers``: text -> value."""

    arrays: dict[tuple[str, str], tuple[int, tuple[int, ...]]]
    streams: dict[str, tuple[int, int]]
    calls: dict[tuple[str, str], int]
    numbers: dict[str, int]

    def products(self) -> dict[tuple[str, int, int], int]:
        """(loop's function, bits of the factors) -> how many."""
        found = {}
        for (loop, function), count in self.calls.items():
            if match := _WIDTHS.search(function):
                found[loop, int(match[1]), int(match[2])] = count
        return found

    def readers(self, function: str) -> dict[str, int]:
        """Loop's function -> the most calls, in one iteration, of the functions with this signature."""
        found: dict[str, int] = {}
        for (loop, called), count in self.calls.items():
            if f"edge_moe::{function}" in called:
                found[loop] = found.get(loop, 0) + count
        return found


def ask(source: Source, arrays: list[Array], streams: list[str], numbers: list[str], out: Path) -> Said:
    """Compile and run; everything is built in the folder ``out``."""
    text = re.sub(
        r"^#pragma HLS inline$", "::probe::call(__PRETTY_FUNCTION__);", source.whole, flags=re.MULTILINE
    )
    text = re.sub(r"^#pragma HLS pipeline .*$", "::probe::iteration(__func__);", text, flags=re.MULTILINE)
    lines = []
    for n, array in enumerate(arrays):
        lines += [f"typedef {array.type} array{n}{array.dimensions};"]
        lines += [f'::probe::array<array{n}>("{array.function}", "{array.name}");']
    lines += [f'::probe::stream("{kind}", static_cast<{kind}*>(nullptr));' for kind in streams]
    lines += [f'std::printf("number\\t{text}\\t%ld\\n", static_cast<long>({text}));' for text in numbers]
    parts = [text, (STUBS / "program.cpp").read_text()]
    parts += ["namespace edge_moe {\nvoid declared() {", *lines, "}\n}"]
    (out / "probe.cpp").write_text("\n".join(parts))
    program = out / "probe"
    flags = ["-std=c++14", "-O1", "-w", "-isystem", str(hls_source.ap_types())]
    subprocess.run(["g++", *flags, str(out / "probe.cpp"), "-o", str(program)], check=True, timeout=200)
    printed = subprocess.run([str(program)], check=True, capture_output=True, text=True, timeout=100).stdout
    said = Said({}, {}, {}, {})
    for line in printed.splitlines():
        kind, *words = line.split("\t")
        if kind == "array":
            said.arrays[words[0], words[1]] = int(words[2]), tuple(int(word) for word in words[3:])
        elif kind == "stream":
            said.streams[words[0]] = int(words[1]), int(words[2])
        elif kind == "calls":
            said.calls[words[0], words[1]] = int(words[2])
        else:
            said.numbers[words[0]] = int(words[1])
    return said
