# SPDX-License-Identifier: Apache-2.0
"""Estimates: cycles and waiting of a program, resources of a configuration."""
