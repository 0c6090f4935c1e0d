# SPDX-License-Identifier: Apache-2.0
"""Benches of the SystemVerilog operators: ``python -m sim.run`` from the project's folder."""
