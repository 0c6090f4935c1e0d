# SPDX-License-Identifier: Apache-2.0
"""Keeps what Verilator compiles into every simulation: ``python compile_once.py FOLDER c++ ... FILE.cpp``.

An object of a source of Verilator's own is kept in FOLDER under a hash of all that it depends on, and copied
the next time. Everything else is compiled as it is asked for, cocotb's main program too: it includes the
header of the simulated module, whose size differs.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Exit status of the compiler, or 0 when the object was there."""
    folder, command = Path(sys.argv[1]), sys.argv[2:]
    source = Path(command[-1])
    if "-o" not in command or source.parent.name != "include" or source.suffix != ".cpp":
        return subprocess.run(command, check=False).returncode
    target = Path(command[command.index("-o") + 1])
    kept = folder / f"{target.stem}-{key(command)}.o"
    if not kept.exists():
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
        temporary = kept.with_suffix(f".{os.getpid()}")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, temporary)
        os.replace(temporary, kept)
    shutil.copyfile(kept, target)
    return 0


def key(command: list[str]) -> str:
    """Hash of the command, the compiler's version, and all of Verilator's sources: one says its version."""
    version = subprocess.run([command[0], "--version"], capture_output=True, check=False).stdout
    digest = hashlib.sha256("\0".join(command).encode() + version)
    include = Path(command[-1]).parent
    for path in sorted([*include.rglob("*.cpp"), *include.rglob("*.[ch]")]):
        digest.update(str(path.relative_to(include)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
