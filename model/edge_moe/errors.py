# SPDX-License-Identifier: Apache-2.0
"""The one exception type whose message is meant for the person at the command line."""


class EdgeMoEError(Exception):
    """Bad input: one sentence that says what is wrong, where, and what to do.

    ``edge-moe`` prints it without a traceback and exits with status 2.
    """
