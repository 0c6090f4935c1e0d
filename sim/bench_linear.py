# SPDX-License-Identifier: Apache-2.0
"""linear.sv against golden's linears and the HLS kernel: odd rows, parts of tiles, stalls; utilisation."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from edge_moe.compiler.weights import linear_block
from edge_moe.testing.hls_ops import PADDING, pad_rows
from edge_moe_host.contract.isa import Epilogue, Opcode
from edge_moe_host.golden.operators import FFN, Linear, linear, linear_gelu, linear_int16
from sim.declaration import Operator
from sim.estimated import steps
from sim.tb import STALLS, TB, cover, equal, measured, record

OPERATOR = Operator(
    "linear",
    kernels=("linear",),
    variants=({}, {"READ_LATENCY": 5, "ROWS": 64}),
    least=100_000,
    illegal=(({"READ_LATENCY": 13}, "READ_LATENCY = 13 must be 1 to 12"),),
)

GOLDEN = {Epilogue.REQUANTISE: linear, Epilogue.INT16: linear_int16, Epilogue.GELU: linear_gelu}
LIMITS = {Epilogue.REQUANTISE: (-127, 127), Epilogue.INT16: (-32768, 32767), Epilogue.GELU: (-128, 127)}
SPREAD = {Epilogue.REQUANTISE: 80, Epilogue.INT16: 16_000, Epilogue.GELU: 2_000}  # of results
LATENCY = 30  # start, pipeline until the last result


class Activations:
    """The memory of activations: what was read comes ``READ_LATENCY`` cycles later, otherwise nonsense."""

    def __init__(self, dut):
        self.dut, self.beats = dut, {}
        cocotb.start_soon(self._run(int(dut.READ_LATENCY.value)))

    def store(self, base, x, rng):
        """Rows int8 [rows, channels] from beat ``base`` on; what must not matter is not 0."""
        self.beats.clear()
        padded = pad_rows(x, PADDING)
        if len(padded) % 2:
            padded = np.concatenate([padded, rng.integers(-128, 128, padded[:1].shape).astype(np.int8)])
        pairs = padded.reshape(len(padded) // 2, 2, -1, 32).swapaxes(1, 2)
        for n, beat in enumerate(pairs.reshape(-1, 64)):
            self.beats[base + n] = int.from_bytes(beat.tobytes(), "little")

    async def _run(self, latency):
        nonsense = int.from_bytes(b"\x5a" * 64, "little")
        coming = [None] * latency
        while True:
            await RisingEdge(self.dut.clk)
            coming.append(self.beats[int(self.dut.x_address_o.value)] if self.dut.x_read_o.value else None)
            coming.pop(0)
            self.dut.x_data_i.value = nonsense if coming[0] is None else coming[0]


def random_layer(rng, fan_in, out, bits, spread):
    """A layer whose results before saturation have about this standard deviation."""
    limit = 2 ** (bits - 1) - 1
    weight = rng.integers(-limit, limit + 1, (out, fan_in)).astype(np.int8)
    sums = 74 * np.sqrt(fan_in * (limit**2 + limit) / 3)  # of inputs over all of int8
    bias = rng.normal(0, sums, out).astype(np.int32)
    shift = int(np.log2(20_000 * sums / spread))  # multipliers of about 10,000 to 20,000
    multiplier = (2**shift * spread / sums * rng.uniform(0.5, 1.5, out)).astype(np.int16)
    return Linear(weight, bias, multiplier, shift, bits)


async def run(tb, memory, x, layer, epilogue, ffn):
    """One layer; returns int16 [rows, out] and the cycles from the start to the last result."""
    dut, (rows, fan_in), out = tb.dut, x.shape, len(layer.weight)
    out_tiles = -(-out // 32)
    base = int(tb.rng.integers(0, 1000))
    memory.store(base, x, tb.rng)
    low, high = LIMITS[epilogue]
    gelu = epilogue == Epilogue.GELU
    scalars = {"rows": rows, "in_tiles": -(-fan_in // 32), "out_tiles": out_tiles, "bits": layer.bits,
               "x_base": base, "shift": layer.shift, "low": low, "high": high, "gelu": gelu,
               "multiplier2": ffn.gelu_multiplier, "shift2": ffn.gelu_shift,
               "zero_point": ffn.zero_point if gelu else 0}  # fmt: skip
    for name, value in scalars.items():
        getattr(dut, f"{name}_i").value = value
    block = np.frombuffer(linear_block(layer.weight, layer.bias, layer.multiplier, layer.bits), np.uint8)
    await tb.send("w", block)
    dut.start_valid_i.value = 1
    await RisingEdge(dut.clk)
    for _ in range(100_000):
        if dut.start_ready_o.value:
            break
        await RisingEdge(dut.clk)
    else:
        raise AssertionError("the layer was not taken")
    began = tb.cycle
    dut.start_valid_i.value = 0
    for name in scalars:
        getattr(dut, f"{name}_i").value = 1  # taken at the start
    result = []
    for tile in range(out_tiles):
        frame = await tb.receive("y", "<i2", (-(-rows // 2) * 2, 32))
        result.append(frame[:rows])
        if tile < out_tiles - 1:
            await tb.cycles(2)
            assert not dut.start_ready_o.value, "another layer may start in the middle of this one"
    return np.concatenate(result, axis=1)[:, :out], tb.last_arrival - began


async def check(tb, memory, rows, fan_in, out, bits=8, epilogue=Epilogue.REQUANTISE):
    x = tb.rng.integers(-128, 128, (rows, fan_in)).astype(np.int8)
    for _ in range(20):  # after GELU a zero point near an end leaves few different results
        layer = random_layer(tb.rng, fan_in, out, bits, SPREAD[epilogue])
        ffn = FFN(layer, int(tb.rng.integers(8_000, 32_768)), 18, int(tb.rng.integers(-128, 128)), layer)
        golden = GOLDEN[epilogue](x, ffn if epilogue == Epilogue.GELU else layer)
        if varied := len(np.unique(golden)) > min(20, golden.size // 10):
            break
    assert varied, "most results are alike"
    got, cycles = await run(tb, memory, x, layer, epilogue, ffn)
    hls = await tb.kernel("linear", x, layer, epilogue, None, ffn)
    equal(f"{rows} x {fan_in} x {out}, {bits} bits, {epilogue.name}", got, golden, hls)
    tb.saw("rows", rows), tb.saw("bits", bits)
    tb.saw("rest of a tile in", fan_in % 32), tb.saw("rest of a tile out", out % 32)
    tb.seen["epilogue"].add(epilogue)
    return cycles


async def start(dut):
    tb = TB(dut)
    tb.source("w"), tb.sink("y")
    memory = Activations(dut)
    await tb.reset(start_valid_i=0)
    return tb, memory


@cocotb.test()
async def sizes(dut):
    """One row, odd rows, channels that fill no tile, every width of weights; stalls."""
    tb, memory = await start(dut)
    shapes = [(1, 7, 7), (1, 100, 33), (2, 33, 100), (3, 64, 96), (7, 100, 33), (17, 7, 100), (33, 33, 7)]
    epilogues = (Epilogue.REQUANTISE, Epilogue.INT16, Epilogue.GELU)
    for turn, (idle, back) in enumerate(STALLS):
        tb.stall(idle, back)
        for n, shape in enumerate(shapes):
            await check(tb, memory, *shape, bits=2 + (n + turn) % 7, epilogue=epilogues[(n + turn) % 3])
        await tb.silent("y")
    for _ in range(6):
        rows, fan_in, out = (int(tb.rng.integers(1, most)) for most in (60, 130, 130))
        await check(tb, memory, rows, fan_in, out, int(tb.rng.integers(2, 9)))
    tb.cover_stalls()
    cover("one row, odd rows, even rows", tb.seen["rows"] >= {1, 2, 3, 7})
    cover(
        "whole tiles and parts",
        min(map(len, (tb.seen["rest of a tile in"], tb.seen["rest of a tile out"]))) > 2,
    )
    cover("weights of 2 to 8 bits", tb.seen["bits"] == set(range(2, 9)))
    cover("every epilogue", tb.seen["epilogue"] == set(GOLDEN))


@cocotb.test()
async def utilisation(dut):
    """129 x 192 x 768: products in 95 % of the cycles at least, tile changes and drain included."""
    tb, memory = await start(dut)
    rows = min(129, int(dut.ROWS.value))
    cycles = await check(tb, memory, rows, 192, 768)
    model = steps(Opcode.LINEAR, rows=rows, in_channels=192, out_channels=768, weight_bits=8)
    measured(f"{rows} x 192 x 768", cycles, model, LATENCY)
    share = rows / 2 * 6 * 24 / cycles
    record(
        "cycles",
        {"what": f"utilisation {share:.2%}", "cycles": cycles, "model": model, "latency": LATENCY},
    )
    assert share >= 0.95, f"utilisation {share:.2%}"


@cocotb.test()
async def short_passes(dut):
    """16 rows take 8 cycles a tile, as long as a tile of 8 bits takes to load."""
    tb, memory = await start(dut)
    cycles = await check(tb, memory, 16, 192, 160)
    model = steps(Opcode.LINEAR, rows=16, in_channels=192, out_channels=160, weight_bits=8)
    measured("16 x 192 x 160", cycles, model, LATENCY)
