// SPDX-License-Identifier: Apache-2.0
// clip(rs(a m, n) + z, low, high) in every lane: int32 sums to activations. SPEC.md, section 2.
//
// An element carries each lane's sum and multiplier; shift, limits and zero point are taken with the element that is
// accepted, so the next layer's may follow at once. The whole pipeline stops while its last stage is not taken.
`default_nettype none

module requantise #(
    parameter int LANES = edge_moe_pkg::TOKENS_PARALLEL * edge_moe_pkg::TILE_OUT,
    parameter int WIDTH = 32  // of a sum
) (
    input wire clk,
    input wire rst,

    input wire        [5:0]  shift_i,  // 1 to 47
    input wire signed [15:0] low_i,
    input wire signed [15:0] high_i,
    input wire signed [7:0]  zero_point_i,

    // {multiplier [LANES] of 16 bits, not negative; a [LANES] of WIDTH bits}
    input  wire  [LANES*(WIDTH+16)-1:0] s_axis_a_tdata,
    input  wire                 s_axis_a_tvalid,
    output logic                s_axis_a_tready,
    input  wire                 s_axis_a_tlast,

    output logic [LANES*16-1:0] m_axis_y_tdata,
    output logic                m_axis_y_tvalid,
    input  wire                 m_axis_y_tready,
    output logic                m_axis_y_tlast
);

  localparam int STAGES = 5;  // of requantise_lane

  if (LANES < 1 || WIDTH < 16 || WIDTH > 32) begin : g_check
    $fatal(1, "requantise: LANES = %0d must be at least 1, and WIDTH = %0d from 16 to 32", LANES, WIDTH);
  end

  logic              enable;
  logic [STAGES-1:0] valid_q, last_q;
  assign enable = !valid_q[STAGES-1] || m_axis_y_tready;

  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else if (enable) valid_q <= {valid_q[STAGES-2:0], s_axis_a_tvalid};
    if (enable) last_q <= {last_q[STAGES-2:0], s_axis_a_tlast};
  end

  // Values of a whole element travel beside it.
  logic        [5:0]  shift_q[3];
  logic signed [15:0] low_q[4];
  logic signed [15:0] high_q[4];
  logic signed [7:0]  zero_point_q[4];
  always_ff @(posedge clk) begin
    if (enable) begin
      shift_q[0]      <= shift_i;
      low_q[0]        <= low_i;
      high_q[0]       <= high_i;
      zero_point_q[0] <= zero_point_i;
      for (int i = 1; i < 3; i++) shift_q[i] <= shift_q[i-1];
      for (int i = 1; i < 4; i++) begin
        low_q[i]        <= low_q[i-1];
        high_q[i]       <= high_q[i-1];
        zero_point_q[i] <= zero_point_q[i-1];
      end
    end
  end

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    requantise_lane #(
        .WIDTH(WIDTH)
    ) u_lane (
        .clk(clk),
        .enable_i(enable),
        .a_i(s_axis_a_tdata[i*WIDTH+:WIDTH]),
        .multiplier_i(s_axis_a_tdata[LANES*WIDTH+i*16+:16]),
        .shift_i(shift_q[2]),
        .low_i(low_q[3]),
        .high_i(high_q[3]),
        .zero_point_i(zero_point_q[3]),
        .y_o(m_axis_y_tdata[i*16+:16])
    );
  end

  assign s_axis_a_tready = enable;
  assign m_axis_y_tvalid = valid_q[STAGES-1];
  assign m_axis_y_tlast  = last_q[STAGES-1];

endmodule

`default_nettype wire
