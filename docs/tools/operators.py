# SPDX-License-Identifier: Apache-2.0
"""Where each operator is: ``operators.py`` writes docs/operators.md, ``operators.py --check`` compares it.

``OPERATORS`` and ``PARTS`` are the only lists. A file or function has the operator's name unless they give
others.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs" / "operators.md"
HEADERS = ROOT / "hls/include/edge_moe"
GOLDEN = "host/edge_moe_host/golden"
EXPORT = "model/edge_moe/export/text"
COLUMNS = ("operator", "SPEC", "golden", "ONNX", "HLS header", "HLS top", "RTL", "bench", "tests")

INTRODUCTION = """# Where each operator is

An operator has one name in every language. `docs/tools/operators.py` writes this page from its list and the
files, and a test compares it. [Adding an operator](adding-an-operator.md) walks through the columns.

The section of the specification has the equations. *golden* is the function in the NumPy reference, *ONNX*
the function in `path.onnx`. An *HLS header* computes one slice or row, and an *HLS top* is a unit of
synthesis around it; the accelerator's own loops are in `hls/include/edge_moe/executor/`. A *bench* compares
the RTL module, the HLS top and golden in one simulation. *Tests* are the files with the operator's name in
their own name or in that of a function.

## Operators
"""
PARTS_TITLE = """
## Parts of the hardware

No part computes an operator of golden by itself.
"""

Names = tuple[str, ...]


@dataclass(frozen=True)
class Operator:
    """One row. None: the one file or function that has the operator's name; (): there is none."""

    name: str
    section: str  # of SPEC.md; "" where it has none
    golden: Names | None = None  # functions
    onnx: Names | None = None  # functions of path.onnx; the operator gate_logits is GateLogits there
    header: Names | None = None
    top: Names | None = None
    module: Names | None = None
    bench: Names | None = None


def _part(name: str, section: str, header: Names | None = None, top: Names | None = None) -> Operator:
    """A part of the hardware: no operator of golden and no function of a graph."""
    return Operator(name, section, golden=(), onnx=(), header=header, top=top)


LINEARS = ("linear", "linear_int16", "linear_residual", "linear_gelu")
OPERATORS = (
    Operator("requantise", "2"),
    Operator("rounding_shift", "2", header=("arithmetic",), top=("arithmetic",), bench=()),
    Operator("reciprocal", "3", header=("arithmetic",), top=("arithmetic",)),
    Operator("reciprocal_sqrt", "3", header=("arithmetic",), top=("arithmetic",)),
    Operator("patch_embedding", "4", module=(), bench=()),
    Operator("linear", "4", LINEARS, ("Linear", "LinearInt16", "LinearResidual", "LinearGelu")),
    Operator("residual_add", "4", onnx=("LinearResidual",)),
    Operator("gelu", "4"),
    Operator("layernorm", "4", onnx=("LayerNorm",)),
    Operator("softmax", "4", golden=("softmax_block",), onnx=("Attention",)),
    Operator("attention", "4"),
    Operator("gate_logits", "4"),
    Operator("route", "4"),
    Operator("experts", "4"),
    Operator("conv3x3", "4"),
    Operator("upsample2x", "4"),
    Operator("task_output", "4", ("task_output", "upsample_sums"),
             ("ClassMap", "PixelValues", "UpsampleSums"), header=(), top=(), module=(), bench=()),
)  # fmt: skip
PARTS = (
    _part("compute_unit", "9"),
    _part("weight_tile", "9"),
    _part("dual_dot", "13", header=("compute_unit",), top=()),
    _part("accumulators", "10", top=()),
    _part("expert_queues", "8", top=()),
    _part("weight_reader", "9", top=()),
    _part("fifo", "", header=(), top=()),
    _part("axi_lite_registers", "", header=(), top=()),
)


def problems() -> Iterator[str]:
    """One sentence for each name that leads nowhere and each file or function that has no row."""
    listed: set[str] = set()
    for operator in (*OPERATORS, *PARTS):
        for column, names in _places(operator).items():
            for label, place in names:
                listed |= {place, f"{place}:{label}"}
                if not place:
                    yield f"{operator.name}: there is no {column} '{label}'."
        if operator.section and operator.section not in _sections():
            yield f"{operator.name}: SPEC.md has no section {operator.section}."
        if operator in OPERATORS and not _tests(operator):
            yield f"{operator.name}: no test has its name."
    for place in _wanted():
        if place not in listed:
            yield f"{place} has no row."


def _places(operator: Operator) -> dict[str, list[tuple[str, str]]]:
    """Label and file of all that an operator has in each column; no file where there is none of that name."""
    name = operator.name

    def named(names: Names | None, own: str = name) -> Names:
        return (own,) if names is None else names

    capitals = "".join(word.capitalize() for word in name.split("_"))
    return {
        "golden": [(n, _defined(GOLDEN, rf"^def {n}\(", "[ao]*.py")) for n in named(operator.golden)],
        "ONNX": [(n, _defined(EXPORT, rf"^{n} [<(]", "*.onnxtxt")) for n in named(operator.onnx, capitals)],
        "HLS header": [(f"{n}.hpp", _header(n)) for n in named(operator.header)],
        "HLS top": [(f"{n}.cpp", _file(ROOT / f"hls/ops/{n}.cpp")) for n in named(operator.top)],
        "RTL": [(f"{n}.sv", _file(ROOT / f"rtl/{n}.sv")) for n in named(operator.module)],
        "bench": [(f"bench_{n}.py", _file(ROOT / f"sim/bench_{n}.py")) for n in named(operator.bench)],
    }


def _file(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_file() else ""


def _header(name: str) -> str:
    """That of operators/, or else the one of this name: an executor's may have the same."""
    own = HEADERS / "operators" / f"{name}.hpp"
    return _file(own) or next(map(_file, sorted(HEADERS.rglob(f"{name}.hpp"))), "")


def _defined(folder: str, pattern: str, files: str) -> str:
    """The file of a folder in which a line begins so."""
    for path in sorted((ROOT / folder).glob(files)):
        if re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE):
            return _file(path)
    return ""


def _tests(operator: Operator) -> list[str]:
    """Tests of golden, ONNX and C++ that have the operator's name, or a function test_NAME..."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text, file = path.read_text(encoding="utf-8"), _file(path)
        named = re.search(rf"^def test_{operator.name}[_(]", text, re.MULTILINE)
        if re.search(r"[/_](golden|export|hls|csim)[/_]", file) and (
            named or path.stem.endswith(f"_{operator.name}")
        ):
            found.append(file)
    return found


def _sections() -> dict[str, str]:
    """Anchor of each section of SPEC.md by its number."""
    text = (ROOT / "docs" / "SPEC.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (\d+)\. (.+)$", text, re.MULTILINE)
    return {
        number: re.sub(r"[^\w\- ]", "", f"{number} {title}".lower()).replace(" ", "-")
        for number, title in titles
    }


def _wanted() -> Iterator[str]:
    """Files and functions that must have a row: tops, benches, operators of golden, nodes of path.onnx."""
    for path in (*sorted((ROOT / "hls/ops").glob("*.cpp")), *sorted((ROOT / "sim").glob("bench_*.py"))):
        yield _file(path)
    golden = f"{GOLDEN}/operators.py"
    for name in re.findall(r"^def ([a-z]\w*)\(", (ROOT / golden).read_text(encoding="utf-8"), re.MULTILINE):
        yield f"{golden}:{name}"
    spec = (ROOT / "docs" / "SPEC.md").read_text(encoding="utf-8")
    nodes = re.search(r"^\| node \|.*?\n\n", spec, re.MULTILINE | re.DOTALL)
    for row in nodes[0].rstrip().splitlines()[2:] if nodes else []:
        for name in filter(None, row.split("|")[1].replace(" ", "").split(",")):
            yield f"{_defined(EXPORT, rf'^{name} [<(]', '*.onnxtxt')}:{name}"


def page() -> str:
    """Text of docs/operators.md."""
    return "\n".join([INTRODUCTION, *_table(OPERATORS), PARTS_TITLE, *_table(PARTS), ""])


def _table(operators: Sequence[Operator]) -> Iterator[str]:
    columns = [c for c in COLUMNS if operators is not PARTS or c not in ("golden", "ONNX")]
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    sections = _sections()
    for operator in operators:
        cells = {
            column: ", ".join(f"[`{label}`](../{place})" for label, place in names)
            for column, names in _places(operator).items()
        }
        cells["operator"] = f"`{operator.name}`"
        section = operator.section
        cells["SPEC"] = f"[{section}](SPEC.md#{sections.get(section, '')})" if section else ""
        cells["tests"] = ", ".join(
            f"[`{test.removeprefix('tests/')}`](../{test})" for test in _tests(operator)
        )
        yield f"| {' | '.join(cells[column] for column in columns)} |"


def main() -> int:
    """Write the page, or compare it; 1 when the list or the page is wrong."""
    if sys.argv[1:] not in ([], ["--check"]):
        print("usage: operators.py [--check]")
        return 2
    found = list(problems())
    if sys.argv[1:] and not (OUT.is_file() and OUT.read_text(encoding="utf-8") == page()):
        found.append(f"{OUT.name} is not what this script writes: run it without --check.")
    print("\n".join(found), end="\n" if found else "")
    if not sys.argv[1:] and not found:
        OUT.write_text(page(), encoding="utf-8")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
