// SPDX-License-Identifier: Apache-2.0
// One tile of weights, TILE_OUT x TILE_IN of 8 bits in registers, filled by bit planes of the weight image or by
// vectors of K and V. SPEC.md, section 9.
//
// s_axis_w, load_i, bits_i: see compute_unit.sv. Planes: each bit of a weight is written once, by its own plane. The
// last plane is the sign and also writes the bits above it. Vectors are shifted in, from the tile's end to its
// beginning, so that they cost one more input for a bit's register and no decoder.
// tile_valid_o: the last element of a tile comes in this cycle or has come before. tile_o is this tile TILE_DELAY = 2
// cycles after tile_ready_i took it, and is certain in that cycle only: the next tile may follow.
// A tile's elements follow those of the previous tile without a bubble if that is taken as soon as it is valid.
`default_nettype none

module weight_tile #(
    parameter int TILE_IN = edge_moe_pkg::TILE_IN,
    parameter int TILE_OUT = edge_moe_pkg::TILE_OUT
) (
    input wire clk,
    input wire rst,

    input  wire  [1:0]                  load_i,  // 0 planes, 1 rows, 2 columns
    input  wire  [3:0]                  bits_i,  // planes of a tile, 2 to 8
    input  wire  [TILE_IN*TILE_OUT-1:0] s_axis_w_tdata,
    input  wire                         s_axis_w_tvalid,
    output logic                        s_axis_w_tready,

    output logic                          tile_valid_o,
    input  wire                           tile_ready_i,
    output logic [8*TILE_IN*TILE_OUT-1:0] tile_o  // plane by plane: bit p of weight n is [p * TILE_IN * TILE_OUT + n]
);

  localparam int WEIGHTS = TILE_IN * TILE_OUT;
  localparam int VECTORS = 2;  // in an element
  localparam logic [1:0] ROWS = 2'd1, COLUMNS = 2'd2;
  localparam int MOST = (TILE_IN > TILE_OUT ? TILE_IN : TILE_OUT) / VECTORS;  // elements; at least 8
  localparam int COUNT = $clog2(MOST);

  if (TILE_IN < 16 || TILE_OUT < 16 || TILE_IN % 2 != 0 || TILE_OUT % 2 != 0) begin : g_check
    $fatal(1, "weight_tile: TILE_IN = %0d and TILE_OUT = %0d must be even and at least 16", TILE_IN, TILE_OUT);
  end

  // The element that waits for its place.
  logic [WEIGHTS-1:0] waiting_q;
  logic               waiting_valid_q;
  logic [1:0]         load_q;
  logic [3:0]         bits_q;
  logic [COUNT-1:0]   count_q;  // number of earlier elements of this tile
  logic               full_q;   // a tile is complete and not taken
  logic               write, last;
  logic [COUNT-1:0]   last_count;

  always_comb begin
    case (load_q)
      ROWS:    last_count = COUNT'(TILE_OUT / VECTORS - 1);
      COLUMNS: last_count = COUNT'(TILE_IN / VECTORS - 1);
      default: last_count = COUNT'(bits_q) - COUNT'(1);
    endcase
  end

  assign write           = waiting_valid_q && !full_q;
  assign last            = count_q == last_count;
  assign s_axis_w_tready = !waiting_valid_q || write;
  assign tile_valid_o    = full_q || (write && last);

  always_ff @(posedge clk) begin
    if (rst) begin
      waiting_valid_q <= 1'b0;
      full_q          <= 1'b0;
      count_q         <= '0;
    end else begin
      if (s_axis_w_tready) waiting_valid_q <= s_axis_w_tvalid;
      if (write) count_q <= last ? '0 : count_q + COUNT'(1);
      full_q <= tile_valid_o && !tile_ready_i;
    end
    if (s_axis_w_tready) begin
      waiting_q <= s_axis_w_tdata;
      load_q    <= load_i;
      bits_q    <= bits_i;
    end
  end

  // A second copy of the element, with one enable for each bit of all weights: they reach many registers.
  logic [WEIGHTS-1:0] element_q;
  logic [7:0]         enable_q;
  logic               shift_q, columns_q;
  always_ff @(posedge clk) begin
    element_q <= waiting_q;
    shift_q   <= load_q == ROWS || load_q == COLUMNS;
    columns_q <= load_q == COLUMNS;
    for (int p = 0; p < 8; p++) begin
      enable_q[p] <= write && (load_q == ROWS || load_q == COLUMNS || 32'(count_q) == p ||
                               (last && 32'(count_q) < p));
    end
  end

  for (genvar p = 0; p < 8; p++) begin : g_plane
    logic [WEIGHTS-1:0] plane_q, rows, columns;
    always_comb begin
      rows = plane_q >> (VECTORS * TILE_IN);
      for (int j = 0; j < VECTORS * TILE_IN; j++) rows[WEIGHTS-VECTORS*TILE_IN+j] = element_q[8*j+p];
      columns = plane_q >> VECTORS;
      for (int out = 0; out < TILE_OUT; out++) begin
        for (int v = 0; v < VECTORS; v++) begin
          columns[out*TILE_IN+TILE_IN-VECTORS+v] = element_q[8*(v*TILE_OUT+out)+p];
        end
      end
    end
    always_ff @(posedge clk) begin
      if (enable_q[p]) plane_q <= !shift_q ? element_q : columns_q ? columns : rows;
    end
    assign tile_o[p*WEIGHTS+:WEIGHTS] = plane_q;
  end

endmodule

`default_nettype wire
