# SPDX-License-Identifier: Apache-2.0
"""The flow around the vendor's tools: interface, Tcl variables, checks of ports, reports."""
