# SPDX-License-Identifier: Apache-2.0
"""tclsh through Python's tkinter, for machines without the program: tclsh.py SCRIPT ARGUMENTS."""

import os
import sys
import tkinter


def leave(status: str = "0") -> None:
    """Tcl's exit, which tkinter removes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(status))


interpreter = tkinter.Tcl()
interpreter.createcommand("exit", leave)
interpreter.setvar("argv0", sys.argv[1])
interpreter.setvar("argv", tuple(sys.argv[2:]))
try:
    interpreter.evalfile(sys.argv[1])
except tkinter.TclError as error:
    sys.exit(str(error))
