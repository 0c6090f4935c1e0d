#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs edge_moe_host, and nothing else, into the Python of a board's PYNQ image; a second time it replaces it.
#   sudo ./install.sh [--dry-run]     on the board (PYNQ 3, Python 3.10 or later); nothing is downloaded
#   ./install.sh --remote             on a PC that reaches a board over PYNQ.remote
# PYTHON=... names another Python than the image's.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
host=$here/../../host
image_python=/usr/local/share/pynq-venv/bin/python3
dry_run=false
remote=false

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

for argument in "$@"; do
    case $argument in
        --dry-run) dry_run=true ;;
        --remote) remote=true ;;
        -h | --help)
            sed -n '3,6s/^# *//p' "$0"
            exit 0
            ;;
        *) fail "'$argument' is unknown: it takes --dry-run and --remote." ;;
    esac
done

# The image's environment has pynq; PYTHON or an active environment selects another Python.
if [ -z "${PYTHON:-}" ]; then
    if [ -x "$image_python" ]; then PYTHON=$image_python; else PYTHON=python3; fi
fi
command -v "$PYTHON" > /dev/null || fail "Python was not found ('$PYTHON'): name one with PYTHON=..."
[ -f "$host/pyproject.toml" ] ||
    fail "'$host' is missing: copy the folders host/ and board/ of the project side by side."

# Version of an installed package, or nothing.
version_of() {
    "$PYTHON" -c "
from importlib.metadata import PackageNotFoundError, version
try:
    print(version('$1'))
except PackageNotFoundError:
    pass"
}

# at_least VERSION MAJOR MINOR
at_least() {
    "$PYTHON" -c "
import re, sys
found = [int(number) for number in re.findall(r'\d+', sys.argv[1])[:2]]
sys.exit(found < [int(number) for number in sys.argv[2:]])" "$1" "$2" "$3"
}

python_version=$("$PYTHON" -c 'import platform; print(platform.python_version())')
at_least "$python_version" 3 10 ||
    fail "'$PYTHON' is Python $python_version and 3.10 is needed: use a PYNQ image of version 3 or later."

machine=$(uname -m)
if [ "$remote" = false ] && [ "$machine" != aarch64 ]; then
    fail "this machine is $machine and a ZCU104 is aarch64: run this on the board, or --remote on a PC."
fi

pynq_version=$(version_of pynq)
[ -n "$pynq_version" ] || fail "'$PYTHON' has no pynq: use the Python of the PYNQ image (PYTHON=...)."
at_least "$pynq_version" 3 0 || fail "pynq $pynq_version is too old, 3.0 is needed: use a newer PYNQ image."

numpy_version=$(version_of numpy)
[ -n "$numpy_version" ] || fail "'$PYTHON' has no numpy: use the Python of the PYNQ image (PYTHON=...)."
at_least "$numpy_version" 1 21 ||
    fail "numpy $numpy_version is too old, 1.21 is needed: use a newer PYNQ image."

pip_version=$(version_of pip)
[ -n "$pip_version" ] || fail "'$PYTHON' has no pip: apt install python3-pip."

site=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
[ -w "$site" ] || fail "'$site' cannot be written by this user: run this as root (sudo ./install.sh)."

echo "Python $python_version on $machine, pynq $pynq_version, numpy $numpy_version: $PYTHON"
"$PYTHON" -c 'import PIL' 2> /dev/null ||
    echo "Pillow is missing: pictures can be neither read nor written, arrays can."
"$PYTHON" -c 'import cv2' 2> /dev/null || echo "OpenCV is missing: videos and cameras cannot be read."

if [ "$dry_run" = true ]; then
    echo "would install edge_moe_host into $site"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wheel=$("$PYTHON" "$here/make_wheel.py" "$host" "$work")
PIP_DISABLE_PIP_VERSION_CHECK=1 "$PYTHON" -m pip install --quiet --no-index --no-deps --force-reinstall "$wheel" ||
    fail "pip could not install '$wheel' into '$site'."
installed=$(cd / && "$PYTHON" -c 'import edge_moe_host, edge_moe_host.runtime.accelerator; print(edge_moe_host.__file__)')
echo "installed edge_moe_host $(version_of edge-moe-host): $(dirname "$installed")"
echo "next: $PYTHON $here/demo.py BUNDLE $here/street.png"
