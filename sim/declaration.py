# SPDX-License-Identifier: Apache-2.0
"""What a bench declares of its operator: ``OPERATOR = Operator(...)`` in ``sim/bench_NAME.py``."""

import argparse
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_moe_host.errors import EdgeMoEError

ROOT = Path(__file__).parents[1]
RTL = ROOT / "rtl"


@dataclass(frozen=True)
class Operator:
    """The module ``rtl/NAME.sv`` and how it is simulated.

    ``kernels``: kernels of hls/ops that the bench calls. ``variants``: parameter sets to build and run.
    ``least``: values that the bench compares at the default parameters, at least.
    ``illegal``: parameters that elaboration must refuse, and what it must say.
    """

    name: str
    kernels: tuple[str, ...] = ()
    variants: tuple[dict[str, int], ...] = ({},)
    least: int = 1
    illegal: tuple[tuple[dict[str, int], str], ...] = ()

    @property
    def source(self) -> Path:
        """The module's file; those of the modules in it are beside it."""
        return RTL / f"{self.name}.sv"


def jobs(text: str) -> int:
    """How many to run at a time, from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def require_path(tool: str, signs: str = r"[^\w./+@=:,~-]", path: Path = ROOT) -> None:
    """EdgeMoEError if the project's path has one of the signs, which a tool's own scripts cannot take."""
    if re.search(signs, str(path)):
        raise EdgeMoEError(
            f"the path '{path}' has a space or another sign that {tool}'s scripts and make interpret: "
            "move the project to a folder without it."
        )


def known() -> list[str]:
    """Names of all operators that have a bench."""
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def choose(names: Sequence[str]) -> list[Operator]:
    """Operators by name, all of them for no name. EdgeMoEError for an unknown one."""
    unknown = [name for name in names if name not in known()]
    if unknown:
        raise EdgeMoEError(f"there is no operator '{unknown[0]}': known are {', '.join(known())}.")
    return [importlib.import_module(f"sim.bench_{name}").OPERATOR for name in names or known()]
