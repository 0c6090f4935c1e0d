# SPDX-License-Identifier: Apache-2.0
"""Depths of the channels: a process that runs ahead never waits for those after it."""

import subprocess

import numpy as np
import pytest

from edge_moe.accelerator import load_accelerator
from edge_moe.codegen import generate
from edge_moe.codegen.design import Design
from edge_moe.compiler import weights
from edge_moe.testing.cases import int8, int16, random_ffn, random_linear
from edge_moe.testing.checkout import HLS
from edge_moe.testing.csim import Bench, build, csim, routing_bytes
from edge_moe_host.backends.csim_library import Csim, CsimError
from edge_moe_host.contract.encoding import encode
from edge_moe_host.contract.isa import Opcode
from edge_moe_host.contract.registers import Error, Status

MIXTURES = 50  # EXPERTS instructions that are decided while the reader of the program cannot look
WIDE, LAYERS = 1024, 8  # linears whose weights fill the FIFO and every channel in front of it
STORED = (64, 512)  # rows and channels of a result that keeps execute busy meanwhile


def crowded_program():
    """Program, weight image and the bytes of its result.

    STORE comes first: while its transfers leave, the program is read as far as channels have room. Then all
    EXPERTS say which experts have tokens, to a reader that waits for room before the weight FIFO.
    """
    rng, bench = np.random.default_rng(0), Bench()
    x, residual = bench.place_int8(int8(rng, 2, 32)), bench.place_int16(int16(rng, 2, 32))
    routing = bench.place(routing_bytes(np.zeros((2, 1), np.int64), np.full((2, 1), 9000, np.int16)))
    hidden, wide, out = (bench.reserve(size) for size in (64, 2 * WIDE, 2 * WIDE))
    table = bench.experts([random_ffn(rng, 32, 32)])
    layer = random_linear(rng, (WIDE, WIDE))
    block = bench.block(weights.linear_block(layer.weight, layer.bias, layer.multiplier, layer.bits))
    bench.emit(Opcode.STORE, src=0, rows=STORED[0], in_channels=STORED[1])
    for _ in range(MIXTURES):
        bench.emit(Opcode.EXPERTS, rows=2, in_channels=32, out_channels=32, hidden_channels=32, experts=1,
                   top_k=1, src=x, dst=residual, routing=routing, hidden=hidden, **table)  # fmt: skip
    for _ in range(LAYERS):
        bench.emit(Opcode.LINEAR, rows=2, in_channels=WIDE, out_channels=WIDE, weight_bits=layer.bits,
                   shift=layer.shift, src=wide, dst=out, **block)  # fmt: skip
    bench.emit(Opcode.END)
    program = np.frombuffer(b"".join(map(encode, bench.program)), np.uint8)
    return program, np.frombuffer(b"".join(bench.blocks), np.uint8), bench.image


def run(accelerator):
    """Registers, and how many instructions were executed."""
    executed = []
    program, words, image = crowded_program()
    output = np.zeros(STORED[0] * 2 * STORED[1], np.uint8)
    registers = accelerator.execute(
        program, words, image, output, watch=lambda *seen: executed.append(seen[0])
    )
    return registers, len(executed)


def test_masks_of_the_routing_find_room():
    registers, executed = run(csim())
    assert (registers.status, registers.error) == (Status.DONE, Error.NONE)
    assert executed == registers.position > MIXTURES + LAYERS


def test_with_less_room_nobody_could_go_on(tmp_path):
    """The same program on an accelerator with a smaller channel: a lack of depth is reported."""
    generate("zcu104", tmp_path)
    header = tmp_path / "edge_moe_design.hpp"
    text, depth = header.read_text(), f"ROUTED_AHEAD = {Design(load_accelerator('zcu104')).routed_ahead};"
    assert text.count(depth) == 1
    header.write_text(text.replace(depth, f"ROUTED_AHEAD = {MIXTURES - 2};"))
    build()  # says what is missing where nothing can be compiled
    sources = "".join(f'#include "{HLS / "src" / name}"\n' for name in ("edge_moe.cpp", "csim.cpp"))
    (tmp_path / "all.cpp").write_text(sources)
    command = ["g++", "-std=c++14", "-O2", "-fPIC", "-shared", f"-I{HLS / 'include'}", "-I."]
    command += ["all.cpp", "-o", "all.so"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=200)
    with pytest.raises(CsimError, match="deadlock: ") as caught:
        run(Csim(tmp_path / "all.so"))
    assert "fetch_program waits for room in 'blocks'" in str(caught.value)
    assert "execute waits for room in 'routed'" in str(caught.value)
