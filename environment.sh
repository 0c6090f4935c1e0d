#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes or updates an environment in the checkout, whole or not at all: environment.sh FOLDER PIP_ARGUMENT...
# PYTHON names the interpreter. Without it the first suitable one is taken, the user's own python3 before others.
set -eu
folder=$1
shift

python= found=
# Takes the candidate if it can be used; remembers what it is otherwise.
examine() {
  [ -z "$python" ] || return 0
  if what=$("$1" -c 'import sys
found = "%d.%d" % sys.version_info[:2]
try: import ensurepip, venv
except ImportError: found += " without venv"
print(found)
sys.exit(found not in ("3.11", "3.12", "3.13"))' 2> /dev/null); then python=$1
  elif [ -n "$what" ]; then found="$found, '$1' is $what"; fi
}

if [ -n "${PYTHON:-}" ]; then
  examine "$PYTHON"
  nothing=", '$PYTHON' cannot be run"
else
  for name in python3 python3.13 python3.12 python3.11; do examine "$name"; done
  for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[123]*/bin/python; do examine "$path"; done
  nothing=", there is no python3"
fi
if [ -z "$python" ]; then
  found=${found:-$nothing}
  found=${found#, }
  echo "Python 3.11, 3.12 or 3.13 with venv is needed: $found. Install one, or name one: make setup PYTHON=/usr/local/bin/python3.13." >&2
  exit 1
fi

[ -e "$folder/.ready" ] || {
  rm -rf "$folder"
  trap '[ -e "$folder/.ready" ] || rm -rf "$folder"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  "$python" -m venv "$folder"
}
"$folder/bin/python" -m pip install --quiet "$@" || {
  echo "'$folder' could not be set up, see above: the same command tries again." >&2
  exit 1
}
touch "$folder/.ready"
