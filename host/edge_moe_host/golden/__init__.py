# SPDX-License-Identifier: Apache-2.0
"""The integer reference: what every bit of the accelerator means, in NumPy. SPEC.md, sections 2 to 4."""
