# SPDX-License-Identifier: Apache-2.0
"""Comparisons behind the figures in the README: each a command that anyone can run again."""
