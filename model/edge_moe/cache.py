# SPDX-License-Identifier: Apache-2.0
"""The folder for results that are made once and kept."""

import os
from pathlib import Path

from edge_moe_host.files import at_home


def cache_folder() -> Path | None:
    """Folder for results made once and kept: rendered scenes (0.3 MB each at 128x256), the packaged bundle.

    ``$EDGE_MOE_CACHE``, by default ``edge-moe`` in the user's cache folder; ``off`` keeps nothing, and so
    does a user without a home.
    """
    named = os.environ.get("EDGE_MOE_CACHE", "")
    if named:
        return None if named == "off" else at_home(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-moe"
    except RuntimeError:  # a user without a home
        return None
