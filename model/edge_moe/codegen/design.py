# SPDX-License-Identifier: Apache-2.0
"""Every constant of the hardware that is not a choice of the accelerator's configuration.

Queue depths, burst lengths, lags, pipeline depths and the sizes that follow from the configuration. C++ gets
them as ``edge_moe_design.hpp``, SystemVerilog in its package; estimator and inventory import them. They have
the same names everywhere, in capitals in C++ and SystemVerilog.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from edge_moe.accelerator import AcceleratorConfig
from edge_moe_host.contract import layout


class Constant(NamedTuple):
    """One constant of a design: its name, its value, and what it is."""

    name: str
    value: int
    doc: str


def _fixed(value: int, doc: str) -> int:
    constant: int = dataclasses.field(default=value, metadata={"doc": doc})
    return constant


def _ceil(value: int, unit: int) -> int:
    return -(-value // unit)


@dataclass(frozen=True)
class Design:
    """The constants of one accelerator: fields are the same for all of them, properties follow from it."""

    config: AcceleratorConfig

    # weights: three ports fetch bursts in turn, and their planes come together in the weight FIFO
    weight_ports: int = _fixed(3, "ports that stream weights")
    port_bytes: int = _fixed(layout.OUTPUT_ALIGNMENT, "bytes of a transfer")
    burst_planes: int = _fixed(32, "planes of a burst")
    bursts_ahead: int = _fixed(3, "bursts that a port has requested: their data cover the memory's latency")
    blocks_ahead: int = _fixed(4, "weight blocks, and bursts of a port, that are known and not begun")
    fifo_uram_bytes: int = _fixed(512 * 1024, "bytes from which on the weight FIFO belongs in UltraRAM")
    # program: read ahead as far as the weights of its instructions can be
    instructions_ahead: int = _fixed(64, "instructions read ahead: the FIFO holds no more of their weights")
    entries_ahead: int = _fixed(64, "entries of expert tables read ahead")
    lengths_ahead: int = _fixed(16, "lengths of weight blocks on their way to the merge")
    counts_ahead: int = _fixed(2, "lengths of image and output on their way")
    transfers_ahead: int = _fixed(32, "transfers of image and output on their way")
    expert_bits: int = _fixed(64, "experts that one word of flags has a bit for")
    # image and output
    request_transfers: int = _fixed(64, "transfers of a burst of image or output")
    requests_ahead: int = _fixed(8, "bursts of image or output on their way")
    record_requests: int = _fixed(2, "records of program or table on their way")
    colours: int = _fixed(3, "bytes of a pixel")
    # compute unit
    cascade: int = _fixed(8, "products that are summed before the two lanes of a DSP are separated")
    low_lane: int = _fixed(18, "bits of a DSP's low lane")
    weight_limit: int = _fixed(127, "largest magnitude of a weight")
    input_limit: int = _fixed(128, "largest magnitude of an activation")
    accumulator_lag: int = _fixed(8, "cycles after which a pass may come back to the same accumulators")
    tap_side: int = _fixed(3, "side of a convolution's window")
    # LAYERNORM: a row passes for its moments, and again from a ring when its scale is known
    norm_lag: int = _fixed(24, "cycles from a row's last slice to its first result")
    norm_ring: int = _fixed(64, "slices that the ring holds: a row's, and those of the lag")
    norm_rows: int = _fixed(32, "rows whose scale is known and not used up")
    layernorm_width: int = _fixed(1024, "channels up to which LayerNorm's sums fit their widths")
    # route
    route_pairs: int = _fixed(4, "pairs of tokens that route sorts at a time")
    # cycles from a loop's first iteration to its result (II = 1), and before a loop nest begins
    norm_depth: int = _fixed(30, "scratch, moments or affine, scratch")
    move_depth: int = _fixed(12, "scratch, at most one product, scratch")
    setup_cycles: int = _fixed(8, "decoding an instruction, setting up a loop nest")
    # cosimulation
    weight_image_limit: int = _fixed(32 << 20, "bytes of the weight image that cosimulation allows for")

    # weights

    @property
    def plane_bytes(self) -> int:
        """bytes of a plane: what the weight FIFO gives in a cycle"""
        return self.config.fifo_read_bytes

    @property
    def transfers_per_plane(self) -> int:
        """transfers that make a plane"""
        return self.plane_bytes // self.port_bytes

    @property
    def burst_transfers(self) -> int:
        """transfers of a burst of weights"""
        return self.burst_planes * self.transfers_per_plane

    @property
    def port_planes(self) -> int:
        """planes of a port's FIFO: it fills its next burst while the merge is at another port's"""
        return 2 * self.burst_planes

    @property
    def fifo_planes(self) -> int:
        """planes of the weight FIFO"""
        return self.config.fifo_bytes // self.plane_bytes

    @property
    def planned_planes(self) -> int:
        """planes that may be requested beyond those that fit the weight FIFO"""
        return self.weight_ports * (self.blocks_ahead + self.bursts_ahead) * self.burst_planes

    @property
    def memory_latency_limit(self) -> int:
        """cycles of memory latency that the bursts of a port cover"""
        return (self.bursts_ahead - 1) * self.burst_transfers

    @property
    def record_transfers(self) -> int:
        """transfers of a record"""
        return layout.BEAT // self.port_bytes

    @property
    def routed_ahead(self) -> int:
        """instructions with experts done since the program's reader last looked: execute never waits"""
        return self.entries_ahead + 2

    # scratch memory and accumulators

    @property
    def beat_bytes(self) -> int:
        """bytes of a beat of the scratch memory: a slice of each row of a pair"""
        return layout.PAIR * self.config.tile_in

    @property
    def scratch_beats(self) -> int:
        """beats of the scratch memory"""
        return self.config.scratch_bytes // self.beat_bytes

    @property
    def accumulator_pairs(self) -> int:
        """pairs of rows that the accumulators hold"""
        return self.config.accumulator_rows // layout.PAIR

    @property
    def parameter_tiles(self) -> int:
        """tiles along the widest row, whose parameters are kept"""
        return _ceil(max(self.config.max_channels, self.config.max_width), self.config.tile_out)

    @property
    def parameter_pairs(self) -> int:
        """planes of 16-bit parameters: one for every two tiles"""
        return _ceil(self.parameter_tiles, 2)

    # attention

    @property
    def compute_depth(self) -> int:
        """cycles from the compute loop's first iteration to its result"""
        return self.config.pipeline_cycles

    @property
    def softmax_lag(self) -> int:
        """cycles between a query's logits and the use of its numerators"""
        return self.config.pipeline_cycles

    @property
    def block_beats(self) -> int:
        """beats of one tile of K or of V"""
        return self.config.key_block // layout.PAIR

    @property
    def stage_lag(self) -> int:
        """cycle of a pass from which on the tiles of the next block are loaded"""
        return self.softmax_lag - self.block_beats

    @property
    def max_head_tiles(self) -> int:
        """tiles along the widest head"""
        return _ceil(self.config.max_head_dim, self.config.tile_in)

    @property
    def stage_beats(self) -> int:
        """beats of K and V on their way into tiles: of two blocks"""
        return 2 * 2 * self.max_head_tiles * self.block_beats

    @property
    def query_pairs(self) -> int:
        """pairs of queries"""
        return _ceil(self.config.max_tokens, layout.PAIR)

    # gate and experts

    @property
    def route_tokens(self) -> int:
        """tokens that route sorts at a time"""
        return layout.PAIR * self.route_pairs

    @property
    def queue_entries(self) -> int:
        """tokens of all experts' queues, of even or of odd number"""
        return self.query_pairs * self.config.max_top_k

    @property
    def width_tiles(self) -> int:
        """tiles along the residual stream"""
        return _ceil(self.config.max_width, self.config.tile_out)

    @property
    def high_slices(self) -> int:
        """slices of the high halves of the experts' sums"""
        return self.config.max_tokens * self.width_tiles

    @property
    def high_bits(self) -> int:
        """bits of a high half: the sum of a residual value and max_top_k int16 values, without its low 16"""
        return 1 + ((1 + self.config.max_top_k) * 32768).bit_length() - 16

    # patches

    @property
    def taps(self) -> int:
        """positions of a convolution's window"""
        return self.tap_side**2

    @property
    def band_transfers(self) -> int:
        """transfers of a band of patches, which need not begin with one"""
        bytes_ = self.config.max_patch_size * self.config.max_image_width * self.colours
        return bytes_ // self.port_bytes + 2

    @property
    def band_pairs(self) -> int:
        """places of a memory that keeps every other transfer of a band"""
        return _ceil(self.band_transfers, 2)

    @property
    def max_segment(self) -> int:
        """bytes of a patch's line"""
        return self.colours * self.config.max_patch_size

    @property
    def max_moves(self) -> int:
        """moves of a patch: pieces of its lines that cross no transfer and no slice"""
        pieces = _ceil(self.max_segment, self.port_bytes) + _ceil(self.max_segment, self.config.tile_in)
        return self.config.max_patch_size * (pieces + 1)

    # cosimulation: elements of each port's array

    @property
    def program_transfers(self) -> int:
        """transfers of the longest program"""
        return self.config.max_instructions * layout.BEAT // self.port_bytes

    @property
    def weight_image_transfers(self) -> int:
        """transfers of the largest weight image"""
        return self.weight_image_limit // self.port_bytes

    @property
    def image_transfers(self) -> int:
        """transfers of the largest image"""
        return self.config.max_image_height * self.config.max_image_width * self.colours // self.port_bytes

    @property
    def output_transfers(self) -> int:
        """transfers of the largest output"""
        return self.config.scratch_bytes // self.port_bytes

    def constants(self) -> list[Constant]:
        """All of them, fields first."""
        fixed = [
            Constant(spec.name, getattr(self, spec.name), spec.metadata["doc"])
            for spec in dataclasses.fields(self)
            if "doc" in spec.metadata
        ]
        return fixed + [
            Constant(name, getattr(self, name), str(member.__doc__))
            for name, member in vars(Design).items()
            if isinstance(member, property)
        ]
