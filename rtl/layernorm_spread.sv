// SPDX-License-Identifier: Apache-2.0
// V = D Q - T^2 + epsilon, exact. SPEC.md, section 4, layernorm.
//
// LATENCY = 6 stages without control. A product wider than a multiplier is made from two or three:
// Q = 2^24 Qh + Ql, T = 2^17 Th + Tl.
`default_nettype none

module layernorm_spread #(
    parameter int MAX_WIDTH = edge_moe_pkg::MAX_WIDTH,
    // D Q, T^2 <= 2^30 MAX_WIDTH^2; epsilon < 2^32
    parameter int WIDTH = (2 * $clog2(MAX_WIDTH) + 32 + 7) / 8 * 8
) (
    input  wire                                   clk,
    input  wire signed [16+$clog2(MAX_WIDTH)-1:0] total_i,
    input  wire        [31+$clog2(MAX_WIDTH)-1:0] squares_i,
    input  wire        [$clog2(MAX_WIDTH+1)-1:0]  channels_i,
    input  wire        [31:0]                     epsilon_i,
    output logic       [WIDTH-1:0]                spread_o
);

  localparam int HIGH_T = $clog2(MAX_WIDTH);  // bits of T above its 17 lowest, sign and one more
  localparam int HIGH_Q = 7 + $clog2(MAX_WIDTH);

  if (MAX_WIDTH < 2 || MAX_WIDTH > 1024) begin : g_check
    $fatal(1, "layernorm_spread: MAX_WIDTH = %0d must be from 2 to 1024", MAX_WIDTH);
  end

  logic signed [HIGH_T-1:0] high_q;
  logic signed [17:0] low_q;
  logic [HIGH_Q-1:0] squares_high_q;
  logic [23:0] squares_low_q;
  logic [$clog2(MAX_WIDTH+1)-1:0] channels_q;
  logic [31:0] epsilon_q[4];

  // every product twice: the multiplier's own registers
  logic signed [2*HIGH_T-1:0] hh_q[2];
  logic signed [HIGH_T+17:0] hl_q[2];
  logic signed [35:0] ll_q[2];
  logic [WIDTH-25:0] dh_q[2];
  logic [WIDTH-1:0] dl_q[2];
  logic [WIDTH-1:0] square_q[2], scaled_q, raised_q, spread_q;

  always_ff @(posedge clk) begin
    high_q         <= HIGH_T'(total_i >>> 17);
    low_q          <= $signed({1'b0, total_i[16:0]});
    squares_high_q <= HIGH_Q'(squares_i >> 24);
    squares_low_q  <= squares_i[23:0];
    channels_q     <= channels_i;
    epsilon_q[0]   <= epsilon_i;
    for (int i = 1; i < 4; i++) epsilon_q[i] <= epsilon_q[i-1];

    hh_q[0] <= high_q * high_q;
    hl_q[0] <= high_q * low_q;
    ll_q[0] <= low_q * low_q;
    dh_q[0] <= channels_q * squares_high_q;
    dl_q[0] <= WIDTH'(channels_q * squares_low_q);
    hh_q[1] <= hh_q[0];
    hl_q[1] <= hl_q[0];
    ll_q[1] <= ll_q[0];
    dh_q[1] <= dh_q[0];
    dl_q[1] <= dl_q[0];

    square_q[0] <= (WIDTH'(hh_q[1]) << 34 | WIDTH'(unsigned'(ll_q[1][33:0]))) + (WIDTH'(hl_q[1]) << 18);
    scaled_q    <= ({dh_q[1], 24'd0}) + dl_q[1];
    square_q[1] <= square_q[0];
    raised_q    <= scaled_q + WIDTH'(epsilon_q[3]);
    spread_q    <= raised_q - square_q[1];
  end
  assign spread_o = spread_q;

endmodule

`default_nettype wire
