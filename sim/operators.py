# SPDX-License-Identifier: Apache-2.0
"""Which modules are simulated and mapped: sources, parameters, what their benches must have covered."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_moe_host.errors import EdgeMoEError

RTL = Path(__file__).parents[1] / "rtl"


@dataclass(frozen=True)
class Operator:
    """One module and its bench ``sim/bench_NAME.py``.

    ``uses``: modules below it. ``hls``: kernels of hls/ops that the bench calls, by default the one of its
    name. ``variants``: parameter sets to build and run. ``least``: values that the bench compares at the
    default parameters, at least. ``cases``: what it must say that it covered.
    ``illegal``: parameters that elaboration must refuse, and what it must say.
    """

    name: str
    uses: tuple[str, ...] = ()
    variants: tuple[dict[str, int], ...] = ({},)
    hls: tuple[str, ...] = ()
    least: int = 1
    cases: tuple[str, ...] = ()
    illegal: tuple[tuple[dict[str, int], str], ...] = field(default=())

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels that may stand in as Verilog."""
        return self.hls or (self.name,)

    def sources(self, package: Path) -> list[Path]:
        """The package, the modules below, and the module."""
        return [package, *(RTL / f"{name}.sv" for name in (*self.uses, self.name))]


OPERATORS = (
    Operator(
        "requantise",
        uses=("rounding_shift", "requantise_lane"),
        variants=({}, {"LANES": 3}, {"LANES": 8, "WIDTH": 27}),
        least=20_000,
        cases=("idle", "back-pressure", "saturation low", "saturation high"),
        illegal=(
            ({"LANES": 0}, "LANES = 0 must be at least 1"),
            ({"WIDTH": 33}, "WIDTH = 33 from 16 to 32"),
        ),
    ),
    Operator(
        "gelu",
        uses=("table_rom",),
        variants=({}, {"LANES": 3}),
        least=131_072,
        cases=("every int16", "idle", "back-pressure"),
        illegal=(({"LANES": 0}, "LANES = 0 must be at least 1"),),
    ),
    Operator(
        "residual_add",
        variants=({}, {"LANES": 3}),
        least=40_000,
        cases=("idle", "back-pressure", "saturation low", "saturation high", "late residual", "late update"),
        illegal=(({"LANES": 0}, "LANES = 0 must be at least 1"),),
    ),
    Operator(
        "reciprocal",
        uses=("table_rom", "leading_one"),
        variants=({}, {"LANES": 1, "WIDTH": 27}),
        least=80_000,
        cases=("idle", "back-pressure", "every entry", "smallest and largest argument"),
        illegal=(
            ({"LANES": 3}, "LANES = 3 must be 1 or 2"),
            ({"WIDTH": 10}, "WIDTH = 10 must lie in [12, 32]"),
            ({"WIDTH": 33}, "WIDTH = 33 must lie in [12, 32]"),
        ),
    ),
    Operator(
        "softmax",
        uses=("numerator",),
        variants=({}, {"TOKENS": 1}),
        least=150_000,
        cases=(
            "idle",
            "back-pressure",
            "every distance to M",
            "every numerator",
            "every M",
            "one key",
            "one row",
            "odd rows",
            "part of a block",
            "rise beyond 31",
            "all equal",
            "one hot key",
            "most keys",
            "most rows",
        ),
        illegal=(({"KEYS": 24}, "KEYS = 24 must be 16, 32, 48 or 64"), ({"TOKENS": 0}, "TOKENS = 0")),
    ),
    Operator(
        "attention",
        uses=(
            "fifo",
            "table_rom",
            "leading_one",
            "reciprocal",
            "rounding_shift",
            "requantise_lane",
            "requantise",
            "numerator",
            "softmax",
            "weight_tile",
            "dual_dot",
            "compute_unit",
            "attention_order",
            "attention_accumulate",
            "attention_scale",
            "attention_feed",
        ),
        variants=({}, {"MAX_HEADS": 2, "MAX_HEAD_DIM": 96, "MAX_TOKENS": 70}),
        least=180_000,
        cases=(
            "idle",
            "back-pressure",
            "jobs back to back",
            "one token",
            "odd tokens",
            "part of a block",
            "one tile",
            "largest head",
            "most tokens",
            "most heads",
            "fewer queries than keys",
            "logits saturate",
            "all equal",
            "rising M",
            "falling logits",
            "one hot key",
            "results saturate",
            "few pairs",
            "late parameters",
        ),
        illegal=(({"MAX_HEAD_DIM": 40}, "MAX_HEAD_DIM = 40 must be a multiple of 32"),),
    ),
    Operator(
        "reciprocal_sqrt",
        uses=("leading_one", "table_rom"),
        variants=({}, {"WIDTH": 48}),
        least=100_000,
        cases=("idle", "back-pressure", "every mantissa", "every exponent", "shorter than a mantissa"),
        illegal=(({"WIDTH": 52}, "WIDTH = 52 must be whole bytes and more than 11 bits"),),
    ),
    Operator(
        "layernorm",
        uses=(
            "leading_one",
            "table_rom",
            "rounding_shift",
            "adder_tree",
            "reciprocal_sqrt",
            "layernorm_moments",
            "layernorm_spread",
            "layernorm_channels",
        ),
        variants=({}, {"MAX_WIDTH": 1024}, {"LANES": 6, "MAX_WIDTH": 64}),
        least=150_000,
        cases=(
            "idle",
            "back-pressure",
            "one row",
            "odd rows",
            "width that fills no beat",
            "largest width",
            "constant row",
            "extreme row",
            "gamma and beta corners",
            "saturation low",
            "saturation high",
            "largest V",
            "two layers at once",
        ),
        illegal=(
            ({"MAX_WIDTH": 2048}, "MAX_WIDTH = 2048 must be from LANES = 32"),
            ({"LANES": 64, "MAX_WIDTH": 32}, "MAX_WIDTH = 32 must be from LANES = 64"),
        ),
    ),
    Operator(
        "dual_dot",
        variants=({}, {"COUNT": 3}),
        least=20_000,
        cases=("every pair of operands in both lanes", "largest and smallest sums", "standing weights"),
        illegal=(({"COUNT": 9}, "COUNT = 9 must be 1 to 8"),),
    ),
    Operator(
        "compute_unit",
        uses=("fifo", "weight_tile", "dual_dot"),
        variants=({}, {"TILE_IN": 16, "TILE_OUT": 18}),
        least=100_000,
        cases=(
            "idle",
            "back-pressure",
            "planes of 2 to 8 bits",
            "rows",
            "columns",
            "pass of one beat",
            "largest and smallest sums",
            "pass without a tile",
            "no bubble between tiles",
        ),
        illegal=(
            ({"TOKENS": 1}, "TOKENS = 1 must be 2"),
            ({"TILE_IN": 20}, "TILE_IN = 20 a multiple of 8"),
        ),
    ),
    Operator(
        "fifo",
        variants=({}, {"WIDTH": 16, "DEPTH": 5}, {"WIDTH": 24, "DEPTH": 65}, {"WIDTH": 8, "DEPTH": 64}),
        least=3_000_000,
        cases=("idle", "back-pressure", "full", "empty"),
        illegal=(
            ({"DEPTH": 1}, "DEPTH = 1 must be at least 2"),
            ({"STAGES": 4}, "STAGES = 4 must be 1, 2 or 3"),
        ),
    ),
    Operator(
        "weight_reader",
        uses=("fifo",),
        variants=(
            {},
            {"DATA_WIDTH": 32, "MAX_BURST": 4, "OUTSTANDING": 3, "DEPTH": 9},
            {"MAX_BURST": 256, "DEPTH": 1024},
        ),
        least=50_000,
        cases=(
            "idle",
            "back-pressure",
            "random latency",
            "4 KiB",
            "empty block",
            "address of 64 bits",
            "SLVERR",
            "DECERR",
        ),
        illegal=(
            ({"MAX_BURST": 48}, "MAX_BURST = 48 must be a power of 2"),
            ({"DATA_WIDTH": 256, "MAX_BURST": 256}, "8192 bytes, more than 4096"),
            ({"OUTSTANDING": 1}, "OUTSTANDING = 1 must be at least 2"),
            ({"DEPTH": 32}, "DEPTH = 32 must hold a burst"),
        ),
    ),
    Operator(
        "experts",
        variants=({}, {"LANES": 8, "MAX_WIDTH": 64, "MAX_TOKENS": 40, "MAX_TOP_K": 8}),
        least=100_000,
        cases=(
            "idle",
            "back-pressure",
            "one token",
            "odd rows",
            "width that fills no tile",
            "all tokens on one expert",
            "empty expert",
            "top-1 to the most",
            "same token in following beats",
            "saturation low",
            "saturation high",
            "opposite experts",
        ),
        illegal=(
            ({"MAX_TOP_K": 9}, "MAX_TOP_K = 9 must be from 1 to 8"),
            ({"MAX_TOKENS": 40000}, "at most 32768"),
        ),
    ),
    Operator(
        "gate_logits",
        variants=({}, {"EXPERTS": 3}),
        least=40_000,
        cases=(
            "idle",
            "back-pressure",
            "one token",
            "odd rows",
            "2, 8, 16, 32 experts",
            "experts that fill no tile",
            "every weight",
            "both ends of int32",
        ),
        illegal=(({"EXPERTS": 0}, "EXPERTS = 0 must be at least 1"),),
    ),
    Operator(
        "expert_queues",
        variants=({}, {"MAX_EXPERTS": 5, "MAX_TOKENS": 9, "MAX_TOP_K": 5}),
        least=10_000,
        cases=(
            "idle",
            "back-pressure",
            "one token",
            "odd rows",
            "all tokens on one expert",
            "empty experts",
            "top-1 to the most",
            "2, 8, 16, 32 experts",
            "most tokens",
            "routes that are left out",
        ),
        illegal=(
            ({"MAX_TOP_K": 9}, "MAX_TOP_K = 9 must be from 1 to SLOTS = 8"),
            ({"MAX_EXPERTS": 1}, "at least 2"),
        ),
    ),
    Operator(
        "axi_lite_registers",
        least=1000,
        cases=(
            "idle",
            "back-pressure",
            "bytes",
            "addresses that hold nothing",
            "read-only registers",
            "restart",
            "every interrupt",
            "every flag",
            "event while it is read",
            "reads beside writes",
        ),
        illegal=(({"ADDRESS_WIDTH": 7}, "ADDRESS_WIDTH = 7 must reach all 236 bytes"),),
    ),
    Operator(
        "conv3x3",
        uses=("fifo",),
        variants=({}, {"TILE_IN": 8, "MAX_PIXELS": 100}),
        least=150_000,
        cases=(
            "idle",
            "back-pressure",
            "one pixel",
            "one line",
            "one column",
            "odd sides",
            "several tiles",
            "both pads",
            "some lines",
            "jobs one behind the other",
            "last word",
        ),
        illegal=(({"HALF": 8}, "HALF = 8 must be whole bytes"),),
    ),
    Operator(
        "weight_tile",
        variants=({}, {"TILE_IN": 16, "TILE_OUT": 18}),
        least=30_000,
        cases=("planes of 2 to 8 bits", "rows", "columns", "idle", "a tile waits"),
        illegal=(({"TILE_IN": 8}, "TILE_IN = 8 and TILE_OUT = 32 must be even and at least 16"),),
    ),
    Operator(
        "accumulators",
        variants=({}, {"TILE_OUT": 3, "ROWS": 80}),
        least=60_000,
        cases=(
            "idle",
            "back-pressure",
            "rows that come again at once",
            "one tile of inputs",
            "every word",
            "biases come late",
            "results wait, passes do not",
        ),
        illegal=(({"ROWS": 7}, "ROWS = 7 must be a multiple of TOKENS = 2"),),
    ),
    Operator(
        "linear",
        uses=(
            "fifo",
            "weight_tile",
            "dual_dot",
            "compute_unit",
            "accumulators",
            "rounding_shift",
            "requantise_lane",
            "requantise",
            "table_rom",
            "gelu",
            "linear_epilogue",
        ),
        variants=({}, {"READ_LATENCY": 5, "ROWS": 64}),
        least=100_000,
        cases=(
            "idle",
            "back-pressure",
            "one row",
            "odd rows",
            "parts of tiles",
            "weights of 2 to 8 bits",
            "129 x 192 x 768",
            "GELU",
        ),
        illegal=(({"READ_LATENCY": 13}, "READ_LATENCY = 13 must be 1 to 12"),),
    ),
    Operator(
        "route",
        uses=(
            "table_rom",
            "leading_one",
            "rounding_shift",
            "requantise_lane",
            "reciprocal",
            "fifo",
            "route_lane",
            "route_scores",
        ),
        variants=({}, {"LOGITS": 8, "PAIRS": 2, "MAX_EXPERTS": 20, "MAX_TOP_K": 8}),
        least=15_000,
        cases=(
            "idle",
            "back-pressure",
            "one token",
            "odd rows",
            "top-1 to the most",
            "2, 8, 16, 32 experts",
            "experts that fill no tile",
            "ties",
            "all equal",
            "both ends of int32",
            "largest score",
            "every shift",
        ),
        illegal=(
            ({"MAX_TOP_K": 9}, "MAX_TOP_K = 9 must be from 1 to SLOTS = 8"),
            ({"PAIRS": 3}, "PAIRS = 3 must be 2, 4, 8 or 16"),
            ({"MAX_EXPERTS": 65}, "MAX_EXPERTS = 65 must be from 2 to 64"),
        ),
    ),
    Operator(
        "upsample2x",
        variants=({}, {"LANES": 3, "MAX_PIXELS": 64}),
        least=400_000,
        cases=(
            "idle",
            "back-pressure",
            "one pixel",
            "one line",
            "one column",
            "odd sides",
            "maps behind each other",
            "late pixels",
            "extremes",
            "largest map",
        ),
        illegal=(
            ({"LANES": 0}, "LANES = 0 must be at least 1"),
            ({"MAX_PIXELS": 2}, "MAX_PIXELS = 2 must be at least 4"),
        ),
    ),
)
BY_NAME = {operator.name: operator for operator in OPERATORS}


def choose(names: Sequence[str]) -> list[Operator]:
    """Operators by name, all of them for no name. EdgeMoEError for an unknown one."""
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise EdgeMoEError(f"there is no operator '{unknown[0]}': known are {', '.join(BY_NAME)}.")
    return [BY_NAME[name] for name in names] or list(OPERATORS)
