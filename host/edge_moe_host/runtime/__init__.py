# SPDX-License-Identifier: Apache-2.0
"""Pictures through an accelerator: one interface to every backend, streams, results, drawing."""
