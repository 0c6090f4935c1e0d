# SPDX-License-Identifier: Apache-2.0
"""Synthesis and proofs of the SystemVerilog operators: ``python -m rtl.synth``, ``python -m rtl.prove``."""
