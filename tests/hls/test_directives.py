# SPDX-License-Identifier: Apache-2.0
"""Pragmas as the tool sees them: its directives, its options, variables declared around them."""

import re
import subprocess

import pytest

from edge_moe.codegen import generate
from edge_moe.testing.checkout import ROOT
from edge_moe.testing.vendor_tools import synthesis_command
from edge_moe.vendor import tcl as vendor

# Directives of UG1399 that are in use, with their options; of some the values.
DIRECTIVES = {
    "inline": {"off"},
    "unroll": set(),
    "pipeline": {"II", "style"},
    "dataflow": set(),
    "loop_flatten": {"off"},
    "array_partition": {"variable", "type", "dim"},
    "array_reshape": {"variable", "type", "factor", "dim"},
    "bind_storage": {"variable", "type", "impl"},
    "dependence": {"variable", "type", "direction", "distance", "dependent"},
    "loop_tripcount": {"min", "max"},
    "interface": {
        "mode", "port", "offset", "bundle", "depth", "latency", "num_read_outstanding",
        "num_write_outstanding", "max_read_burst_length", "max_write_burst_length",
    },
}  # fmt: skip
VALUES = {
    "style": {"flp"},
    "impl": {"uram", "bram", "lutram"},
    "mode": {"m_axi", "s_axilite", "ap_ctrl_hs"},
    "direction": {"RAW"},
    "offset": {"slave"},
}
OPERATORS = {"inline", "unroll", "pipeline", "loop_flatten", "array_partition", "array_reshape", "dependence",
             "loop_tripcount"}  # fmt: skip
ACCELERATOR = set(DIRECTIVES) - {"array_reshape"}


@pytest.mark.parametrize(("sources", "names", "least"), [("ops", OPERATORS, 200), ("src", ACCELERATOR, 250)])
def test_directives(sources, names, least, tmp_path):
    generate("zcu104", tmp_path)
    paths = sorted({path for path in vendor.tops(ROOT / "hls").values() if path.parent.name == sources})
    unit = tmp_path / "unit.cpp"
    unit.write_text("".join(f'#include "{path}"\n' for path in paths))
    command = synthesis_command(unit, tmp_path, "-E")
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    scope, found = "", []
    for line in run.stdout.splitlines():
        if re.match(r"(inline|template|extern|static|void|\w+ \w+\()\b.*\(", line):
            scope = ""
        scope += line + "\n"
        pragma = re.match(r"\s*#pragma HLS (\w+) *(.*)", line)
        if pragma:
            found.append(pragma[1])
            check_directive(pragma[1], pragma[2], scope)
    assert set(found) == names
    assert len(found) > least


def check_directive(name, text, scope):
    """Options and values are known ones, no macro is left, and the variable is declared in the function."""
    options = dict(re.findall(r"(\w+) = ([^ ]+)", text))
    keys = options.keys() | ({"off"} if text.strip() == "off" else set())
    assert keys <= DIRECTIVES[name], (name, text)
    assert "HLS_" not in text, text
    for key, values in VALUES.items():
        assert options.get(key, next(iter(values))) in values, (name, text)
    variable = options.get("variable", options.get("port", "return"))
    if variable != "return":
        assert re.search(rf"\b{variable.split('.')[0]}\b\s*[;,)=\[({{]", scope), (name, text)
