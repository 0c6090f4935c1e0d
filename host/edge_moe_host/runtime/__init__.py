# SPDX-License-Identifier: Apache-2.0
"""Running pictures on an accelerator: one interface to every backend, streams, results, drawing."""
