# SPDX-License-Identifier: Apache-2.0
"""The subcommands of ``edge-moe``, one file each: ``NAME``, ``HELP``, ``add_options`` and ``run``."""

from types import ModuleType

from edge_moe.commands import (
    ablate,
    bench,
    compile,
    demo,
    estimate,
    eval,
    export,
    import_weights,
    info,
    inspect,
    quantise,
    resources,
    run,
    show,
    slim,
    train,
)

COMMANDS: tuple[ModuleType, ...] = (
    info, train, eval, show, import_weights, slim, ablate, quantise, export, compile, inspect,
    estimate, resources, run, demo, bench,
)  # fmt: skip
