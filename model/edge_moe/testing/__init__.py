# SPDX-License-Identifier: Apache-2.0
"""Shared by tests and benches: cases, an independent reference, small models, builds of the C++, stand-ins.

These need only NumPy and the host package, and so also run without the model package:

- ``checkout``: where the checkout's files are
- ``cases``: layers and values that reach the ends of their ranges
- ``spec``: SPEC.md in plain Python integers, independent of golden
- ``samples``: bundles that are on disk with golden's results
- ``damage``: other values in bundles, with checksums that are right again
- ``scripted``: an accelerator that fails as told
- ``browser``: pages in chromium

The others need the model package:

- ``networks``: integer networks with random constants
- ``bundles``: such networks compiled, and compared with golden
- ``quant_models``: float models that are hard to quantise
- ``host_models``: one model in every form that a backend takes
- ``graphs``: configurations of networks that are exported, and damage to their graphs
- ``training``: a data set of two colours
- ``trees``: folders of data sets as users have them
- ``hls_build``: hls/Makefile, one build at a time
- ``hls_ops``: the C++ operators with golden's arguments
- ``csim``: the C simulation, and programs of single instructions on it
- ``instructions``: single instructions compared with golden
- ``hls_source``, ``hls_probe``: the C++'s own arrays, streams and multipliers
- ``vendor_tools``: stand-ins for the programs of the chip's vendor
- ``markdown_files``, ``source_messages``: the project's Markdown, and the messages of its sources
"""
