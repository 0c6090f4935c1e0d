# SPDX-License-Identifier: Apache-2.0
"""Measure speeds in one run: CPU references, C simulation, host, experts, renderer."""

import argparse

from edge_moe.packaged import pretrained_checkpoint


def add_options(parser: argparse.ArgumentParser) -> None:
    del parser  # it takes none


def run(args: argparse.Namespace) -> None:
    del args
    from edge_moe.bench.csim import benchmark_csim_models, csim_table
    from edge_moe.bench.dispatch import benchmark_dispatch, dispatch_table
    from edge_moe.bench.host import benchmark_host, host_table
    from edge_moe.bench.reference import benchmark_checkpoint, reference_table
    from edge_moe.bench.rendering import benchmark_rendering, rendering_table

    checkpoint = pretrained_checkpoint()
    tables = (
        lambda: reference_table(benchmark_checkpoint(checkpoint)),
        lambda: csim_table(benchmark_csim_models(checkpoint)),
        lambda: host_table(benchmark_host()),
        lambda: dispatch_table(benchmark_dispatch()),
        lambda: rendering_table(benchmark_rendering()),
    )
    for number, table in enumerate(tables):
        print(*([""] if number else []), table(), sep="\n", flush=True)
