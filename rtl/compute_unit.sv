// SPDX-License-Identifier: Apache-2.0
// The only array of multipliers: y[token][out] = sum over in of w[out][in] x[token][in], for a tile of weights that
// stays and two tokens per cycle. It forms every product of the model. SPEC.md, section 4.
//
// Each output has TILE_IN / 8 cascades (dual_dot.sv) of eight DSP48E2, each of which forms the products of one
// weight with both tokens. There are three places for a tile: the shadow registers, which take it in pieces
// (weight_tile.sv); after them, in every DSP, one register where a whole tile waits and one that multiplies.
//
// s_axis_w: a tile, in one of three forms. load_i and bits_i belong to each element and stay the same in a tile.
//   load_i = 0, planes:  bits_i (2 to 8) planes, from bit 0 on; bit 32 out + in of a plane is a bit of weight
//                        [out][in], as in the weight image (SPEC.md, section 9).
//   load_i = 1, rows:    TILE_OUT / 2 pairs, pair i = {weight[2i+1][TILE_IN], weight[2i][TILE_IN]} of 8 bits in
//                        the low bits, the rest of the element is ignored: a tile made of K.
//   load_i = 2, columns: TILE_IN / 2 pairs, pair i = {weight[TILE_OUT][2i+1], weight[TILE_OUT][2i]} likewise: a
//                        tile made of V.
//   A tile always has all its elements; vectors that do not exist may hold anything but -128, as no weight is -128.
//   Two tiles may be loaded ahead of the one that multiplies: tready stays low for a third.
// s_axis_x: a pair = {token 1 [TILE_IN] int8, token 0 [TILE_IN] int8}. A pass, the pairs that meet the same tile,
//   ends with tlast; the first pair of the next pass waits until the next tile is there, or else follows at once.
//   Passes begin at least 8 cycles (a cascade) apart, as a DSP keeps no third tile.
// m_axis_y: a pair = {token 1 [TILE_OUT] int32, token 0 [TILE_OUT] int32} for each pair of x, in order, tlast as
//   in x, 16 cycles later.
//
// Nothing in the array stops: 1,024 DSPs with a common enable would be a net that no clock of 300 MHz likes.
// A pair of x is taken only if the FIFO of results has room for it and for all pairs on their way.
`default_nettype none

module compute_unit #(
    parameter int TILE_IN = edge_moe_pkg::TILE_IN,
    parameter int TILE_OUT = edge_moe_pkg::TILE_OUT,
    parameter int TOKENS = edge_moe_pkg::TOKENS_PARALLEL
) (
    input wire clk,
    input wire rst,

    input  wire  [1:0]                  load_i,
    input  wire  [3:0]                  bits_i,
    input  wire  [TILE_IN*TILE_OUT-1:0] s_axis_w_tdata,
    input  wire                         s_axis_w_tvalid,
    output logic                        s_axis_w_tready,

    input  wire  [TOKENS*TILE_IN*8-1:0] s_axis_x_tdata,
    input  wire                         s_axis_x_tvalid,
    output logic                        s_axis_x_tready,
    input  wire                         s_axis_x_tlast,

    output logic [TOKENS*TILE_OUT*32-1:0] m_axis_y_tdata,
    output logic                          m_axis_y_tvalid,
    input  wire                           m_axis_y_tready,
    output logic                          m_axis_y_tlast
);

  localparam int CASCADE = edge_moe_pkg::CASCADE;   // multipliers whose sums stay packed
  localparam int PACKED = 27;   // x1 2^18 + x0
  localparam int LANE = edge_moe_pkg::LOW_LANE;     // sum of a cascade in a lane
  localparam int CASCADES = TILE_IN / CASCADE;
  localparam int SUM = LANE + $clog2(CASCADES);
  localparam int INPUT = 3;     // registers of x before the first multiplier
  localparam int STAGES = INPUT + CASCADE + 3;  // until y_q: x, product, CASCADE sums, tree
  localparam int FIFO = 32;     // pairs; more than STAGES and the FIFO's and the credit's own 4 cycles
  localparam int WEIGHTS = TILE_IN * TILE_OUT;

  if (TOKENS != 2 || TILE_IN % CASCADE != 0 || CASCADES > 8) begin : g_check
    $fatal(1, "compute_unit: TOKENS = %0d must be 2, and TILE_IN = %0d a multiple of 8 up to 64", TOKENS, TILE_IN);
  end

  // -- weights: shadow, then waiting in every multiplier until the pass before has left the cascade

  logic [8*WEIGHTS-1:0] tile;
  logic                 tile_valid, take;
  logic                 waiting_q;  // a tile waits in the multipliers
  logic [2:0]           leaving_q;  // cycles until the last multiplier has taken over the one that waited
  logic                 first_q;    // the next pair of x begins a pass
  logic                 accept, begins;
  logic [1:0]           take_q;     // tile_o comes two cycles after it was taken

  weight_tile #(
      .TILE_IN (TILE_IN),
      .TILE_OUT(TILE_OUT)
  ) u_weight_tile (
      .clk,
      .rst,
      .load_i,
      .bits_i,
      .s_axis_w_tdata,
      .s_axis_w_tvalid,
      .s_axis_w_tready,
      .tile_valid_o(tile_valid),
      .tile_ready_i(take),
      .tile_o      (tile)
  );

  assign take   = tile_valid && !waiting_q && leaving_q == '0;
  assign begins = accept && first_q;

  // -- x: room for its result, and a tile

  logic [$clog2(FIFO+1)-1:0] credit_q;
  logic                      leaves;  // a pair of y
  assign s_axis_x_tready = credit_q != '0 && (!first_q || waiting_q || take);
  assign accept          = s_axis_x_tvalid && s_axis_x_tready;
  assign leaves          = m_axis_y_tvalid && m_axis_y_tready;

  logic [STAGES-1:0] valid_q, last_q;
  logic [INPUT+CASCADE-2:0] swap_q;
  always_ff @(posedge clk) begin
    if (rst) begin
      waiting_q <= 1'b0;
      leaving_q <= '0;
      first_q   <= 1'b1;
      take_q    <= '0;
      credit_q  <= $clog2(FIFO + 1)'(FIFO);
      valid_q   <= '0;
      swap_q    <= '0;
    end else begin
      waiting_q <= (waiting_q || take) && !begins;
      leaving_q <= begins ? 3'(CASCADE - 1) : leaving_q - 3'(leaving_q != '0);
      if (accept) first_q <= s_axis_x_tlast;
      take_q   <= {take_q[0], take};
      credit_q <= credit_q + $clog2(FIFO + 1)'(leaves) - $clog2(FIFO + 1)'(accept);
      valid_q  <= {valid_q[STAGES-2:0], accept};
      swap_q   <= {swap_q[INPUT+CASCADE-3:0], begins};
    end
    last_q <= {last_q[STAGES-2:0], s_axis_x_tlast};
  end

  // Each input is packed, registered to reach TILE_OUT multipliers, and delayed by its place in the cascade.
  logic [TOKENS*TILE_IN*8-1:0] x_q;
  logic [TILE_IN*PACKED-1:0]   x_late;  // as the multipliers see it
  always_ff @(posedge clk) x_q <= s_axis_x_tdata;

  logic [PACKED-1:0] packed_q[TILE_IN], fanned_q[TILE_IN];
  always_ff @(posedge clk) begin
    for (int i = 0; i < TILE_IN; i++) begin
      packed_q[i] <= PACKED'($signed({x_q[(TILE_IN+i)*8+:8], LANE'(0)})) + PACKED'($signed(x_q[i*8+:8]));
      fanned_q[i] <= packed_q[i];
    end
  end
  for (genvar i = 0; i < TILE_IN; i++) begin : g_input
    if (i % CASCADE == 0) begin : g_first
      assign x_late[i*PACKED+:PACKED] = fanned_q[i];
    end else begin : g_late
      logic [i%CASCADE*PACKED-1:0] late_q;
      always_ff @(posedge clk) late_q <= (late_q << PACKED) | (i % CASCADE * PACKED)'(fanned_q[i]);
      assign x_late[i*PACKED+:PACKED] = late_q[i%CASCADE*PACKED-1-:PACKED];
    end
  end

  // -- products: TILE_OUT x CASCADES cascades of 8, then a tree for each output and token

  logic signed [LANE-1:0] low [TILE_OUT*CASCADES];  // token 0
  logic signed [LANE-1:0] high[TILE_OUT*CASCADES];  // token 1
  for (genvar out = 0; out < TILE_OUT; out++) begin : g_output
    for (genvar c = 0; c < CASCADES; c++) begin : g_cascade
      logic [8*CASCADE-1:0] w;
      for (genvar p = 0; p < 8; p++) begin : g_plane
        assign w[p*CASCADE+:CASCADE] = tile[p*WEIGHTS+out*TILE_IN+c*CASCADE+:CASCADE];
      end
      dual_dot #(
          .COUNT(CASCADE)
      ) u_dual_dot (
          .clk,
          .w_i   (w),
          .take_i(take_q[1]),
          .swap_i(swap_q[INPUT-1+:CASCADE]),
          .x_i   (x_late[c*CASCADE*PACKED+:CASCADE*PACKED]),
          .low_o (low[out*CASCADES+c]),
          .high_o(high[out*CASCADES+c])
      );
    end
  end

  logic [TOKENS*TILE_OUT*SUM-1:0] y_q;
  for (genvar out = 0; out < TILE_OUT; out++) begin : g_tree
    logic signed [SUM-1:0] low_sum, high_sum;
    always_comb begin
      low_sum  = '0;
      high_sum = '0;
      for (int c = 0; c < CASCADES; c++) begin
        low_sum  += SUM'(low[out*CASCADES+c]);
        high_sum += SUM'(high[out*CASCADES+c]);
      end
    end
    always_ff @(posedge clk) begin
      y_q[out*SUM+:SUM]            <= low_sum;
      y_q[(TILE_OUT+out)*SUM+:SUM] <= high_sum;
    end
  end

  // -- results: credits guarantee that there is always room

  logic [TOKENS*TILE_OUT*SUM-1:0] y;
  logic                           unused_ready;
  logic [$clog2(FIFO+4)-1:0]      unused_count;
  fifo #(
      .WIDTH(TOKENS * TILE_OUT * SUM + 1),
      .DEPTH(FIFO)
  ) u_fifo (
      .clk,
      .rst,
      .s_axis_data_tdata ({last_q[STAGES-1], y_q}),
      .s_axis_data_tvalid(valid_q[STAGES-1]),
      .s_axis_data_tready(unused_ready),
      .m_axis_data_tdata ({m_axis_y_tlast, y}),
      .m_axis_data_tvalid(m_axis_y_tvalid),
      .m_axis_data_tready(m_axis_y_tready),
      .count_o           (unused_count)
  );
  for (genvar lane = 0; lane < TOKENS * TILE_OUT; lane++) begin : g_lane
    assign m_axis_y_tdata[lane*32+:32] = 32'($signed(y[lane*SUM+:SUM]));
  end

endmodule

`default_nettype wire
