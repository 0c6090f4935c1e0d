# SPDX-License-Identifier: Apache-2.0
"""Evaluation: metrics per task, the loop that applies them, reports and pictures."""
