// SPDX-License-Identifier: Apache-2.0
// Two dot products of eight weights, with tokens 0 and 1, in one cascade of eight DSP48E2.
// SPEC.md, section 4.
//
// Both tokens meet the same weight, so one 27 x 18 multiplier forms both products:
//   (x1 2^18 + x0) w = (x1 w) 2^18 + x0 w.
// |x1 2^18 + x0| <= 2^25 + 2^7 has 27 bits. Eight products of the low lane sum to at most 8 * 127 * 128 = 130,048
// < 2^17 in magnitude. The cascade starts from 2^17, so its low 18 bits are never negative and never carry into the
// high lane: bits [17:0] are the low sum + 2^17, which is the low sum with its top bit inverted, and the bits above
// are the high sum. With a weight of -128, or nine products, this would break. rtl/formal/dual_dot.sby proves it.
//
// Multiplier k adds its product one cycle after multiplier k - 1: x_i and swap_i of position k come k cycles after
// those of position 0. low_o and high_o are valid COUNT + 2 cycles after position 0 of x_i.
// take_i: w_i becomes the waiting weight of every position. swap_i[k]: position k multiplies with its waiting weight,
// beginning with the x_i of this cycle. (DSP48E2: A1 = x, B1 waits and B2 multiplies, M, P.)
`default_nettype none

module dual_dot #(
    parameter int COUNT = edge_moe_pkg::CASCADE
) (
    input wire clk,

    input wire [8*COUNT-1:0] w_i,  // plane by plane: bit p of weight k is [p * COUNT + k]
    input wire               take_i,
    input wire [COUNT-1:0]   swap_i,

    input wire [COUNT*27-1:0] x_i,  // x1 2^18 + x0

    output logic signed [17:0] low_o,
    output logic signed [17:0] high_o
);

  /* verilator no_inline_module */  // the simulation has this code once, not 128 times

  localparam int LOW_LANE = edge_moe_pkg::LOW_LANE;
  localparam int SUM = LOW_LANE + 18;  // the high lane's sum has the low lane's magnitude
  localparam logic signed [SUM-1:0] START = SUM'(1) << (LOW_LANE - 1);

  if (COUNT < 1 || COUNT > 8) begin : g_check
    $fatal(1, "dual_dot: COUNT = %0d must be 1 to 8, or the lanes cannot be told apart", COUNT);
  end

  logic signed [7:0]     waiting_q[COUNT];
  logic signed [7:0]     w_q[COUNT];
  logic signed [26:0]    x_q[COUNT];
  logic signed [34:0]    product_q[COUNT];
  logic signed [SUM-1:0] sum_q[COUNT];

  always_ff @(posedge clk) begin
    for (int k = 0; k < COUNT; k++) begin
      if (take_i) for (int p = 0; p < 8; p++) waiting_q[k][p] <= w_i[p*COUNT+k];
      if (swap_i[k]) w_q[k] <= waiting_q[k];
      x_q[k]       <= $signed(x_i[k*27+:27]);
      product_q[k] <= x_q[k] * w_q[k];
      sum_q[k]     <= SUM'(product_q[k]) + (k == 0 ? START : sum_q[k-1]);
    end
  end

  assign low_o  = $signed({~sum_q[COUNT-1][LOW_LANE-1], sum_q[COUNT-1][LOW_LANE-2:0]});
  assign high_o = sum_q[COUNT-1][SUM-1:LOW_LANE];

endmodule

`default_nettype wire
