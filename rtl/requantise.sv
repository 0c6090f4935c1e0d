// SPDX-License-Identifier: Apache-2.0
// clip(rs(a m, n) + z, low, high) in every lane: int32 sums to activations. SPEC.md, section 2.
//
// A beat carries each lane's sum and multiplier; shift, limits and zero point are taken with the beat that is
// accepted, so the next layer's may follow at once. Stages: operands, product, product registered again (the
// multiplier's own registers), rounded, limited. The whole pipeline stops while the last stage is not taken.
`default_nettype none

module requantise #(
    parameter int LANES = edge_moe_pkg::TOKENS_PARALLEL * edge_moe_pkg::TILE_OUT
) (
    input wire clk,
    input wire rst,

    input wire        [5:0]  shift_i,  // 1 to 47
    input wire signed [15:0] low_i,
    input wire signed [15:0] high_i,
    input wire signed [7:0]  zero_point_i,

    // {multiplier [LANES] of 16 bits, not negative; a [LANES] of 32 bits}
    input  wire  [LANES*48-1:0] s_axis_a_tdata,
    input  wire                 s_axis_a_tvalid,
    output logic                s_axis_a_tready,
    input  wire                 s_axis_a_tlast,

    output logic [LANES*16-1:0] m_axis_y_tdata,
    output logic                m_axis_y_tvalid,
    input  wire                 m_axis_y_tready,
    output logic                m_axis_y_tlast
);

  localparam int STAGES = 5;
  localparam int PRODUCT = 48;  // |a m| < 2^46; 2 more bits for sign and rounding

  if (LANES < 1) begin : g_check
    $fatal(1, "requantise: LANES = %0d must be at least 1", LANES);
  end

  logic              enable;
  logic [STAGES-1:0] valid_q, last_q;
  assign enable = !valid_q[STAGES-1] || m_axis_y_tready;

  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else if (enable) valid_q <= {valid_q[STAGES-2:0], s_axis_a_tvalid};
    if (enable) last_q <= {last_q[STAGES-2:0], s_axis_a_tlast};
  end

  // What belongs to a whole beat travels beside it.
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
    logic signed [31:0]        a_q;
    logic signed [15:0]        m_q;
    logic signed [PRODUCT-1:0] product_q, product_again_q, rounded, rounded_q;
    logic signed [PRODUCT-1:0] shifted;
    logic signed [15:0]        y_q;

    rounding_shift #(
        .WIDTH(PRODUCT),
        .MAX_SHIFT(47)
    ) u_rounding_shift (
        .value_i(product_again_q),
        .shift_i(shift_q[2]),
        .value_o(rounded)
    );

    assign shifted = rounded_q + PRODUCT'(zero_point_q[3]);

    always_ff @(posedge clk) begin
      if (enable) begin
        a_q             <= $signed(s_axis_a_tdata[i*32+:32]);
        m_q             <= $signed(s_axis_a_tdata[LANES*32+i*16+:16]);
        product_q       <= a_q * m_q;
        product_again_q <= product_q;
        rounded_q       <= rounded;
        if (shifted < PRODUCT'(low_q[3])) y_q <= low_q[3];
        else if (shifted > PRODUCT'(high_q[3])) y_q <= high_q[3];
        else y_q <= shifted[15:0];
      end
    end

    assign m_axis_y_tdata[i*16+:16] = y_q;
  end

  assign s_axis_a_tready = enable;
  assign m_axis_y_tvalid = valid_q[STAGES-1];
  assign m_axis_y_tlast  = last_q[STAGES-1];

endmodule

`default_nettype wire
