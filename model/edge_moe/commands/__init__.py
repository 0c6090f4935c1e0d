# SPDX-License-Identifier: Apache-2.0
"""The subcommands of ``edge-moe``, one file each. Its docstring is the command's help, ``add_options`` adds
the command's options to a parser, and ``run`` runs it with the parsed ones and prints its result."""

from importlib import import_module

COMMANDS = {
    name.removesuffix("_weights"): import_module(f"{__name__}.{name}")
    for name in (
        *("info", "train", "eval", "show", "import_weights", "slim", "ablate", "quantise", "export"),
        *("compile", "inspect", "estimate", "resources", "run", "demo", "bench"),
    )
}
