# SPDX-License-Identifier: Apache-2.0
"""Files of the checkout that tests use and that are in no package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[3]
HLS = ROOT / "hls"
TESTS = ROOT / "tests"
BOARD = ROOT / "board" / "zcu104"


def load_script(path: Path) -> ModuleType:
    """A script as a module of its own name, loaded anew; its ``main`` is not run."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
