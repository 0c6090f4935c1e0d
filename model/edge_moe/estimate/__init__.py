# SPDX-License-Identifier: Apache-2.0
"""What an accelerator takes: cycles and waiting of a program, resources of a configuration."""
