# SPDX-License-Identifier: Apache-2.0
"""The accelerator on a board: its registers, devices, lock and power sensors."""
