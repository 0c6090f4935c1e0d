# SPDX-License-Identifier: Apache-2.0
"""What a bundle is: instructions, memory layout, programs, manifest, weights, registers. SPEC.md, 7 to 11."""
