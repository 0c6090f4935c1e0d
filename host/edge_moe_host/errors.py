# SPDX-License-Identifier: Apache-2.0
"""The one exception type of the host runtime whose message is meant for its user."""


class BundleError(ValueError):
    """A bundle that cannot be used: one sentence that says which, what is wrong, and what to do."""
