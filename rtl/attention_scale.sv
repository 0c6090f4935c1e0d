// SPDX-License-Identifier: Apache-2.0
// Attention's sums become logits (dot products), or averages u = clip16(rs(A R, e + 1)) and from these results.
// SPEC.md, section 4, attention.
//
// A pair per cycle, without stops. Dot products pass beside the averages, so that one requantise serves both
// in the order in which they came. parameter_i and the shifts belong to the pair that came AVERAGE = 5 cycles
// earlier.
`default_nettype none

module attention_scale #(
    parameter int TOKENS = edge_moe_pkg::TOKENS_PARALLEL,
    parameter int TILE = edge_moe_pkg::KEY_BLOCK,
    parameter int WIDTH_A = 27,  // of a sum: at most this is one DSP48E2 in requantise_lane
    parameter int WIDTH_DOT = 22  // of it where it is a dot product
) (
    input wire clk,
    input wire rst,

    input wire                           valid_i,
    input wire                           values_i,   // averages of V, else dot products
    input wire [TOKENS*TILE*WIDTH_A-1:0] sum_i,
    input wire [TOKENS*24-1:0]           inverse_i,  // of S: {e [TOKENS] of 8 bits; R [TOKENS] of 16 bits}

    input wire [TILE*16+15:0] parameter_i,  // {logit multiplier of 16 bits; out multiplier [TILE] of 16}
    input wire [5:0]          logit_shift_i,
    input wire [5:0]          out_shift_i,

    output logic                      valid_o,
    output logic                      values_o,  // results of 8 bits, else logits
    output logic [TOKENS*TILE*16-1:0] scaled_o
);

  localparam int LANES = TOKENS * TILE;
  localparam int AVERAGE = 5;  // stages of requantise
  localparam int DROPPED = 15 - edge_moe_pkg::SUM_FRACTION - edge_moe_pkg::AVERAGE_FRACTION;

  if (WIDTH_DOT < 16 || WIDTH_DOT > WIDTH_A || WIDTH_A > 32) begin : g_check
    $fatal(1, "attention_scale: WIDTH_DOT = %0d must be from 16 to WIDTH_A = %0d, which is 32 at most",
           WIDTH_DOT, WIDTH_A);
  end

  // ---- averages
  logic [LANES*16-1:0] average;
  logic [TOKENS-1:0]   valid, values, unused_ready;

  for (genvar t = 0; t < TOKENS; t++) begin : g_average
    logic [TILE*(WIDTH_A+16)-1:0] operands;
    for (genvar i = 0; i < TILE; i++) begin : g_lane
      assign operands[i*WIDTH_A+:WIDTH_A]    = sum_i[(t*TILE+i)*WIDTH_A+:WIDTH_A];
      assign operands[TILE*WIDTH_A+i*16+:16] = inverse_i[t*16+:16];
    end
    requantise #(
        .LANES(TILE),
        .WIDTH(WIDTH_A)
    ) u_requantise (
        .clk,
        .rst,
        .shift_i(6'(inverse_i[TOKENS*16+t*8+:8]) + 6'(DROPPED)),
        .low_i(16'sh8000),
        .high_i(16'sh7fff),
        .zero_point_i('0),
        .s_axis_a_tdata(operands),
        .s_axis_a_tvalid(valid_i),
        .s_axis_a_tready(unused_ready[t]),
        .s_axis_a_tlast(values_i),
        .m_axis_y_tdata(average[t*TILE*16+:TILE*16]),
        .m_axis_y_tvalid(valid[t]),
        .m_axis_y_tready(1'b1),
        .m_axis_y_tlast(values[t])
    );
  end

  logic [LANES*WIDTH_DOT-1:0] dot_q[AVERAGE];
  always_ff @(posedge clk) begin
    for (int i = 0; i < LANES; i++) dot_q[0][i*WIDTH_DOT+:WIDTH_DOT] <= sum_i[i*WIDTH_A+:WIDTH_DOT];
    for (int s = 1; s < AVERAGE; s++) dot_q[s] <= dot_q[s-1];
  end

  // ---- results or logits
  logic [LANES*(WIDTH_DOT+16)-1:0] operands;
  logic result, unused_scale_ready;
  assign result = &values;  // of all tokens alike

  for (genvar i = 0; i < LANES; i++) begin : g_operand
    assign operands[i*WIDTH_DOT+:WIDTH_DOT] = result ? WIDTH_DOT'($signed(average[i*16+:16]))
                                                     : dot_q[AVERAGE-1][i*WIDTH_DOT+:WIDTH_DOT];
    assign operands[LANES*WIDTH_DOT+i*16+:16] = result ? parameter_i[i%TILE*16+:16] : parameter_i[TILE*16+:16];
  end
  requantise #(
      .LANES(LANES),
      .WIDTH(WIDTH_DOT)
  ) u_requantise (
      .clk,
      .rst,
      .shift_i(result ? out_shift_i : logit_shift_i),
      .low_i(result ? -16'sd127 : 16'sh8000),
      .high_i(result ? 16'sd127 : 16'sh7fff),
      .zero_point_i('0),
      .s_axis_a_tdata(operands),
      .s_axis_a_tvalid(&valid),
      .s_axis_a_tready(unused_scale_ready),
      .s_axis_a_tlast(result),
      .m_axis_y_tdata(scaled_o),
      .m_axis_y_tvalid(valid_o),
      .m_axis_y_tready(1'b1),
      .m_axis_y_tlast(values_o)
  );

endmodule

`default_nettype wire
