# SPDX-License-Identifier: Apache-2.0
"""Bundles opened by the library and the command line: the reader's errors as this package's."""

from pathlib import Path

from edge_moe.errors import EdgeMoEError
from edge_moe_host.bundle import Bundle, TaskProgram, load_bundle
from edge_moe_host.errors import BundleError


def open_bundle(path: Path) -> Bundle:
    """Read a bundle; EdgeMoEError when it is not valid."""
    try:
        return load_bundle(Path(path))
    except BundleError as error:
        raise EdgeMoEError(str(error)) from None


def task_of(bundle: Bundle, task: str) -> TaskProgram:
    """A task's program; EdgeMoEError for a task that the bundle does not have."""
    try:
        return bundle.task(task)
    except BundleError as error:
        raise EdgeMoEError(str(error)) from None
