# SPDX-License-Identifier: Apache-2.0
"""The integer reference in NumPy, which every executor matches bit for bit. SPEC.md, sections 2 to 4."""
