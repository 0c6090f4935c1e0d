// SPDX-License-Identifier: Apache-2.0
// a = sum w x + b over a tile of outputs: the sums of each pass over a tile of inputs are added to those of the
// passes before. int32, one memory entry per pair of rows. SPEC.md, section 4.
//
// s_axis_y: sums of the compute unit. A pass ends with tlast; its elements are at most ROWS / 2 pairs of rows, from
//   pair 0 on. Both flags are taken with each pair. first_i: this is the first pass of a tile of outputs and starts
//   from the biases. finish_i: this is the last one, so its sums leave by m_axis_a instead of being kept.
// s_axis_bias: {b [TILE_OUT] int32}, one for each tile of outputs, taken at the end of its first pass. Results
//   of the tile before may wait for it.
// m_axis_a: finished sums {token 1 [TILE_OUT] int32, token 0 [TILE_OUT] int32}, LATENCY = 3 cycles later, tlast at
//   the end of the pass.
//
// Stages: memory read, its output register, sum, which is written or leaves. A pair waits while the sum of its rows
// is still on its way, which happens only in passes of fewer than four pairs.
`default_nettype none

module accumulators #(
    parameter int TILE_OUT = edge_moe_pkg::TILE_OUT,
    parameter int TOKENS = edge_moe_pkg::TOKENS_PARALLEL,
    parameter int ROWS = edge_moe_pkg::ACCUMULATOR_ROWS
) (
    input wire clk,
    input wire rst,

    input  wire                          first_i,
    input  wire                          finish_i,
    input  wire  [TOKENS*TILE_OUT*32-1:0] s_axis_y_tdata,
    input  wire                          s_axis_y_tvalid,
    output logic                         s_axis_y_tready,
    input  wire                          s_axis_y_tlast,

    input  wire  [TILE_OUT*32-1:0] s_axis_bias_tdata,
    input  wire                    s_axis_bias_tvalid,
    output logic                   s_axis_bias_tready,

    output logic [TOKENS*TILE_OUT*32-1:0] m_axis_a_tdata,
    output logic                          m_axis_a_tvalid,
    input  wire                           m_axis_a_tready,
    output logic                          m_axis_a_tlast
);

  localparam int LANES = TOKENS * TILE_OUT;
  localparam int PAIRS = ROWS / TOKENS;
  localparam int ADDRESS = $clog2(PAIRS);
  localparam int STAGES = 3;

  if (ROWS % TOKENS != 0 || PAIRS < 2) begin : g_check
    $fatal(1, "accumulators: ROWS = %0d must be a multiple of TOKENS = %0d, at least 2 of them", ROWS, TOKENS);
  end

  logic [STAGES-1:0]  valid_q, finish_q, last_q;
  logic [1:0]         first_q;
  logic [ADDRESS-1:0] address_q, addresses_q[STAGES];
  logic               enable, hazard, bias_missing, blocked, accept;

  always_comb begin
    hazard = 1'b0;
    for (int i = 0; i < STAGES; i++) begin
      if (valid_q[i] && !finish_q[i] && addresses_q[i] == address_q) hazard = !first_i;
    end
  end

  assign bias_missing       = valid_q[1] && first_q[1] && !s_axis_bias_tvalid;
  assign blocked            = valid_q[2] && finish_q[2] && !m_axis_a_tready;
  assign enable             = !bias_missing && !blocked;
  assign s_axis_y_tready    = enable && !hazard;
  assign accept             = s_axis_y_tvalid && s_axis_y_tready;
  assign s_axis_bias_tready = enable && valid_q[1] && first_q[1] && last_q[1];

  always_ff @(posedge clk) begin
    if (rst) begin
      valid_q   <= '0;
      address_q <= '0;
    end else begin
      if (enable) valid_q <= {valid_q[STAGES-2:0], accept};
      if (accept) address_q <= s_axis_y_tlast ? '0 : address_q + ADDRESS'(1);
    end
    if (enable) begin
      first_q        <= {first_q[0], first_i};
      finish_q       <= {finish_q[STAGES-2:0], finish_i};
      last_q         <= {last_q[STAGES-2:0], s_axis_y_tlast};
      addresses_q[0] <= address_q;
      for (int i = 1; i < STAGES; i++) addresses_q[i] <= addresses_q[i-1];
    end
  end

  (* ram_style = "block" *) logic [LANES*32-1:0] memory[PAIRS];
  logic [LANES*32-1:0] read_q, kept_q, y_q, y_again_q, sum_q;
  always_ff @(posedge clk) begin
    if (enable && valid_q[2] && !finish_q[2]) memory[addresses_q[2]] <= sum_q;
    if (enable) read_q <= memory[address_q];
  end

  always_ff @(posedge clk) begin
    if (enable) begin
      kept_q    <= read_q;
      y_q       <= s_axis_y_tdata;
      y_again_q <= y_q;
      for (int i = 0; i < LANES; i++) begin
        sum_q[i*32+:32] <= y_again_q[i*32+:32] +
            (first_q[1] ? s_axis_bias_tdata[i%TILE_OUT*32+:32] : kept_q[i*32+:32]);
      end
    end
  end

  assign m_axis_a_tdata  = sum_q;
  assign m_axis_a_tvalid = valid_q[2] && finish_q[2] && !bias_missing;
  assign m_axis_a_tlast  = last_q[2];

endmodule

`default_nettype wire
