# SPDX-License-Identifier: Apache-2.0
"""``python -m edge_moe``."""

import sys

from edge_moe.cli import main

sys.exit(main())
