# SPDX-License-Identifier: Apache-2.0
"""The folder for results that are made once and kept."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """Folder for results made once and kept: rendered scenes (0.3 MB each at 128x256), the packaged bundle.

    ``$EDGE_MOE_CACHE``, by default ``edge-moe`` in the user's cache folder; ``off`` keeps nothing.
    """
    named = os.environ.get("EDGE_MOE_CACHE", "")
    if named:
        return None if named == "off" else Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-moe"
