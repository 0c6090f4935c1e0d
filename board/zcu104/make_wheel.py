# SPDX-License-Identifier: Apache-2.0
"""Makes a wheel of the host package with only Python's own library.

    python make_wheel.py HOST_FOLDER OUT_FOLDER      # prints the wheel's path

Boards have a setuptools older than pyproject.toml, mostly no ``wheel``, and no network to fetch newer ones.
The package is pure Python: its wheel is a zip file with three more text files, the same bytes each time.
"""

import base64
import hashlib
import re
import sys
import zipfile
from pathlib import Path

from command import Parser

PACKAGE = "edge_moe_host"
_TIME = (1980, 1, 1, 0, 0, 0)  # of every entry
_WHEEL = "Wheel-Version: 1.0\nGenerator: edge_moe_host\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def project(host: Path) -> dict[str, str]:
    """Name, version and required Python from pyproject.toml, for which Python 3.10 has no reader."""
    text = (host / "pyproject.toml").read_text("utf-8")
    found = {}
    for key in ("name", "version", "requires-python"):
        match = re.search(rf'^{key} = "([^"]+)"$', text, re.MULTILINE)
        if match is None:
            raise ValueError(f"'{host / 'pyproject.toml'}' has no {key}")
        found[key] = match[1]
    return found


def make_wheel(host: Path, out: Path) -> Path:
    """Write the wheel; returns its path."""
    facts = project(host)
    about = f"{PACKAGE}-{facts['version']}.dist-info"
    sources = sorted((host / PACKAGE).rglob("*.py"))
    if not sources:
        raise ValueError(f"'{host / PACKAGE}' has no Python files")
    files = {path.relative_to(host).as_posix(): path.read_bytes() for path in sources}
    files[f"{about}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {facts['name']}\nVersion: {facts['version']}\n"
        f"Requires-Python: {facts['requires-python']}\nRequires-Dist: numpy\n"
    ).encode()
    files[f"{about}/WHEEL"] = _WHEEL.encode()
    files[f"{about}/RECORD"] = _record(files, f"{about}/RECORD").encode()
    path = out / f"{PACKAGE}-{facts['version']}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o100644 << 16
            wheel.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


def _record(files: dict[str, bytes], own: str) -> str:
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    return "".join(lines) + f"{own},,\n"


def main() -> int:
    """The command at the top of this file."""
    parser = Parser(prog="make_wheel", description=__doc__.splitlines()[0])
    parser.add_argument("host", type=Path, metavar="HOST_FOLDER", help="the project's folder host/")
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER", help="a folder that exists")
    args = parser.parse_args()
    try:
        print(make_wheel(args.host, args.out))
    except OSError as error:
        parser.error(f"'{error.filename}' cannot be used: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
