#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests on Python 3.10, NumPy 1 and pynq 3.0, as boards have them, where that Python is installed.
#   python310.sh VENV JOBS NAME TESTS...      run in the checkout; build/python310_NAME.txt has the outcome in one line
set -eu
venv=$1 jobs=$2 name=$3
shift 3
mkdir -p build
say() { echo "Tests of $name on Python 3.10: $*" > "build/python310_$name.txt"; cat "build/python310_$name.txt"; }

if [ ! -e "$venv/.ready" ] || [ requirements-host.txt -nt "$venv/.ready" ]; then
  python=
  for candidate in python3.10 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python3.10; do
    if "$candidate" -c 'import venv' 2> /dev/null; then python=$candidate; break; fi
  done
  if [ -z "$python" ]; then say "not run, as there is no python3.10."; exit 0; fi
  if ! { "$python" -m venv "$venv" && "$venv/bin/pip" install --quiet --requirement requirements-host.txt; }; then
    say "not run, as $venv could not be set up (see above)."; exit 0
  fi
  touch "$venv/.ready"
fi
export PYTHONPATH="$PWD/host"  # the environment has only what others made, and tests start programs of their own
if "$venv/bin/pytest" -n "$jobs" --dist loadscope "$@"; then
  say "passed."
else
  status=$?
  say "failed."
  exit $status
fi
