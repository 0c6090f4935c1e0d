# SPDX-License-Identifier: Apache-2.0
"""Where ``hls/`` and ``board/`` are: at the top of a checkout, or within the package as a wheel has it."""

from pathlib import Path

_SHIPPED = Path(__file__).parent / "shipped"
CHECKOUT = None if _SHIPPED.is_dir() else Path(__file__).parents[2]
PROJECT = CHECKOUT or _SHIPPED
HLS = PROJECT / "hls"
BOARD = PROJECT / "board" / "zcu104"
EXAMPLE_PICTURE = BOARD / "street.png"


def make_text(text: str) -> str:
    """Text as the value of a variable on make's command line."""
    return text.replace("$", "$$")
