# SPDX-License-Identifier: Apache-2.0
"""Every constant of the hardware that is not part of the accelerator's configuration.

These are queue depths, burst lengths, lags, pipeline depths and sizes derived from the configuration. C++
gets them as ``edge_moe_design.hpp``, SystemVerilog in its package; estimator and inventory import them. They
have the same names everywhere, in capitals in C++ and SystemVerilog.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from edge_moe.accelerator import AcceleratorConfig
from edge_moe_host.contract import layout
from edge_moe_host.errors import EdgeMoEError

MAP_ROWS = 2**19  # most rows of a map whose bytes an address of 32 bits counts
_SIDES = ("max_image_height", "max_image_width")


class Constant(NamedTuple):
    """One constant of a design: its name, its value, and its description."""

    name: str
    value: int
    doc: str


def _fixed(value: int, doc: str) -> int:
    constant: int = dataclasses.field(default=value, metadata={"doc": doc})
    return constant


class _Derived:
    """A constant that follows from the configuration and from other constants."""

    def __init__(self, doc: str, value: Callable[["Design"], int]) -> None:
        self.doc, self.value = doc, value

    def __get__(self, design: "Design", owner: type) -> int:
        return self.value(design)


def _ceil(value: int, unit: int) -> int:
    return -(-value // unit)


@dataclass(frozen=True)
class Design:
    """The constants of one accelerator: fields are the same for all accelerators, the rest is derived."""

    config: AcceleratorConfig

    # weights: three ports fetch bursts in turn, and their planes are merged in the weight FIFO
    weight_ports: int = _fixed(3, "ports that stream weights")
    port_bytes: int = _fixed(layout.OUTPUT_ALIGNMENT, "bytes of a transfer")
    burst_planes: int = _fixed(32, "planes of a burst")
    bursts_ahead: int = _fixed(3, "bursts that a port has requested: their data cover the memory's latency")
    blocks_ahead: int = _fixed(4, "weight blocks, and bursts of a port, that are known but not begun")
    fifo_uram_bytes: int = _fixed(512 * 1024, "smallest size of a weight FIFO in UltraRAM, in bytes")
    # program: read as far ahead as the weights of its instructions can be
    instructions_ahead: int = _fixed(64, "instructions read ahead: the FIFO holds no more of their weights")
    entries_ahead: int = _fixed(64, "entries of expert tables read ahead")
    lengths_ahead: int = _fixed(16, "lengths of weight blocks queued for the merge")
    counts_ahead: int = _fixed(2, "queued lengths of image and output")
    transfers_ahead: int = _fixed(32, "queued transfers of image and output")
    expert_bits: int = _fixed(64, "experts with a bit in one word of flags")
    # image and output
    request_transfers: int = _fixed(64, "transfers of a burst of image or output")
    requests_ahead: int = _fixed(8, "bursts of image or output in flight")
    record_requests: int = _fixed(2, "records of program or table in flight")
    colours: int = _fixed(3, "bytes of a pixel")
    # compute unit
    cascade: int = _fixed(8, "products that are summed before the two lanes of a DSP are separated")
    low_lane: int = _fixed(18, "bits of a DSP's low lane")
    weight_limit: int = _fixed(127, "largest magnitude of a weight")
    input_limit: int = _fixed(128, "largest magnitude of an activation")
    accumulator_lag: int = _fixed(8, "cycles after which a pass may use the same accumulators again")
    tap_side: int = _fixed(3, "side of a convolution's window")
    # LAYERNORM: a row passes once for its moments, and again from a ring when its scale is known
    norm_lag: int = _fixed(24, "cycles from a row's last slice to its first result")
    norm_ring: int = _fixed(64, "slices in the ring: those of a row and of the lag")
    norm_rows: int = _fixed(32, "rows whose scale is known but not yet used")
    layernorm_width: int = _fixed(1024, "most channels for which LayerNorm's sums fit")
    # route
    route_pairs: int = _fixed(4, "pairs of tokens that route sorts at a time")
    # cycles from a loop's first iteration to its result (II = 1), and before a loop nest begins
    norm_depth: int = _fixed(30, "scratch, moments or affine, scratch")
    move_depth: int = _fixed(12, "scratch, at most one product, scratch")
    setup_cycles: int = _fixed(8, "decoding an instruction, setting up a loop nest")
    # cosimulation
    weight_image_limit: int = _fixed(32 << 20, "bytes of the weight image that cosimulation allows for")

    # weights
    plane_bytes = _Derived(
        "bytes of a plane, which the weight FIFO gives per cycle", lambda d: d.config.fifo_read_bytes
    )
    transfers_per_plane = _Derived("transfers that make a plane", lambda d: d.plane_bytes // d.port_bytes)
    burst_transfers = _Derived(
        "transfers of a burst of weights", lambda d: d.burst_planes * d.transfers_per_plane
    )
    port_planes = _Derived(
        "planes of a port's FIFO: it receives its next burst while the merge reads another port",
        lambda d: 2 * d.burst_planes,
    )
    fifo_planes = _Derived("planes of the weight FIFO", lambda d: d.config.fifo_bytes // d.plane_bytes)
    planned_planes = _Derived(
        "planes that may be requested beyond those that fit the weight FIFO",
        lambda d: d.weight_ports * (d.blocks_ahead + d.bursts_ahead) * d.burst_planes,
    )
    memory_latency_limit = _Derived(
        "cycles of memory latency that the bursts of a port cover",
        lambda d: (d.bursts_ahead - 1) * d.burst_transfers,
    )
    record_transfers = _Derived("transfers of a record", lambda d: layout.BEAT // d.port_bytes)
    routed_ahead = _Derived(
        "instructions with experts done since the program's reader last looked: it never waits",
        lambda d: d.entries_ahead + 2,
    )
    # scratch memory and accumulators
    beat_bytes = _Derived(
        "bytes of a beat of the scratch memory: a slice of each row of a pair",
        lambda d: layout.PAIR * d.config.tile_in,
    )
    scratch_beats = _Derived("beats of the scratch memory", lambda d: d.config.scratch_bytes // d.beat_bytes)
    accumulator_pairs = _Derived(
        "pairs of rows that the accumulators hold", lambda d: d.config.accumulator_rows // layout.PAIR
    )
    parameter_tiles = _Derived(
        "tiles along the widest row, whose parameters are kept",
        lambda d: _ceil(max(d.config.max_channels, d.config.max_width), d.config.tile_out),
    )
    parameter_pairs = _Derived(
        "planes of 16-bit parameters: one for every two tiles", lambda d: _ceil(d.parameter_tiles, 2)
    )
    # attention
    compute_depth = _Derived(
        "cycles from the compute loop's first iteration to its result", lambda d: d.config.pipeline_cycles
    )
    softmax_lag = _Derived(
        "cycles between a query's logits and the use of its numerators", lambda d: d.config.pipeline_cycles
    )
    block_beats = _Derived("beats of one tile of K or of V", lambda d: d.config.key_block // layout.PAIR)
    stage_lag = _Derived(
        "cycle of a pass at which loading the next block's tiles begins",
        lambda d: d.softmax_lag - d.block_beats,
    )
    max_head_tiles = _Derived(
        "tiles along the widest head", lambda d: _ceil(d.config.max_head_dim, d.config.tile_in)
    )
    stage_beats = _Derived(
        "queued beats of K and V: those of two blocks",
        lambda d: 2 * 2 * d.max_head_tiles * d.block_beats,
    )
    query_pairs = _Derived("pairs of queries", lambda d: _ceil(d.config.max_tokens, layout.PAIR))
    # gate and experts
    route_tokens = _Derived("tokens that route sorts at a time", lambda d: layout.PAIR * d.route_pairs)
    queue_entries = _Derived(
        "even (or odd) tokens in all experts' queues",
        lambda d: d.query_pairs * d.config.max_top_k,
    )
    width_tiles = _Derived(
        "tiles along the residual stream", lambda d: _ceil(d.config.max_width, d.config.tile_out)
    )
    high_slices = _Derived(
        "slices of the high halves of the experts' sums", lambda d: d.config.max_tokens * d.width_tiles
    )
    high_bits = _Derived(
        "bits of a high half: the sum of a residual value and max_top_k int16 values, without its low 16",
        lambda d: 1 + ((1 + d.config.max_top_k) * 32768).bit_length() - 16,
    )
    # patches
    taps = _Derived("positions of a convolution's window", lambda d: d.tap_side**2)
    band_transfers = _Derived(
        "transfers of a band of patches, which need not begin with one",
        lambda d: d.config.max_patch_size * d.config.max_image_width * d.colours // d.port_bytes + 2,
    )
    band_pairs = _Derived(
        "places of a memory that keeps every other transfer of a band", lambda d: _ceil(d.band_transfers, 2)
    )
    max_segment = _Derived("bytes of a patch's line", lambda d: d.colours * d.config.max_patch_size)
    max_moves = _Derived(
        "moves of a patch: pieces of its lines that cross no transfer and no slice",
        lambda d: (
            d.config.max_patch_size
            * (_ceil(d.max_segment, d.port_bytes) + _ceil(d.max_segment, d.config.tile_in) + 1)
        ),
    )
    # cosimulation: elements of each port's array
    program_transfers = _Derived(
        "transfers of the longest program", lambda d: d.config.max_instructions * layout.BEAT // d.port_bytes
    )
    weight_image_transfers = _Derived(
        "transfers of the largest weight image", lambda d: d.weight_image_limit // d.port_bytes
    )
    image_transfers = _Derived(
        "transfers of the largest image",
        lambda d: d.config.max_image_height * d.config.max_image_width * d.colours // d.port_bytes,
    )
    output_transfers = _Derived(
        "transfers of the largest output", lambda d: d.config.scratch_bytes // d.port_bytes
    )

    def constants(self) -> list[Constant]:
        """All of them, fields first."""
        fixed = [
            Constant(spec.name, getattr(self, spec.name), spec.metadata["doc"])
            for spec in dataclasses.fields(self)
            if "doc" in spec.metadata
        ]
        return fixed + [
            Constant(name, getattr(self, name), member.doc)
            for name, member in vars(Design).items()
            if isinstance(member, _Derived)
        ]


def require_buildable(config: AcceleratorConfig) -> None:
    """EdgeMoEError for a configuration that cannot be built; the estimator takes any rate."""
    design = Design(config)
    port, ports = design.port_bytes, design.weight_ports
    latency, bits = design.memory_latency_limit, design.expert_bits
    for name, holds, rule in (
        ("io_bytes_per_cycle", config.io_bytes_per_cycle == port, f"a port has {port} bytes"),
        (
            "memory_bytes_per_cycle",
            config.memory_bytes_per_cycle == ports * port,
            f"weights come through {ports} ports, {ports * port} bytes",
        ),
        ("memory_latency", config.memory_latency <= latency, f"bursts cover {latency} cycles at most"),
        ("max_experts", config.max_experts <= bits, f"at most {bits}, a bit each"),
        (
            "pipeline_cycles",
            config.pipeline_cycles >= 2 * design.block_beats,
            f"at least {2 * design.block_beats}, in which a pass of attention loads two tiles",
        ),
        (
            "max_patch_size",
            config.max_patch_size * design.max_segment <= 256 * layout.TILE,
            "at most 52: a patch has at most 256 slices",
        ),
        ("max_map_rows", config.max_map_rows <= MAP_ROWS, f"at most {MAP_ROWS}: addresses have 32 bits"),
        ("accumulator_rows", config.accumulator_rows <= 2**22, f"at most {2**22}, for the C simulation"),
        *(
            (name, getattr(config, name) < 2**16, f"at most {2**16 - 1}: an instruction has 16 bits for it")
            for name in ("max_channels", "max_conv_channels", "max_head_dim", *_SIDES)
        ),
    ):
        if not holds:
            value = getattr(config, name)
            raise EdgeMoEError(f"accelerator.{name} = {value} cannot be built: {rule}.")
