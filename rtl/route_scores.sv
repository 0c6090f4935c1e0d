// SPDX-License-Identifier: Apache-2.0
// Scores of a pair of tokens' best experts: min(32767, rs(P R, j)), (R, j) = reciprocal of the sum.
// SPEC.md, section 4, gate. LATENCY = 9 cycles, a pair per cycle, without stops.
`default_nettype none

module route_scores #(
    parameter int TOKENS = edge_moe_pkg::TOKENS_PARALLEL,
    parameter int MAX_EXPERTS = edge_moe_pkg::MAX_EXPERTS,
    parameter int MAX_TOP_K = edge_moe_pkg::MAX_TOP_K,
    parameter int EXPERT = $clog2(MAX_EXPERTS)
) (
    input wire clk,
    input wire rst,

    input wire                                     valid_i,
    input wire                                     last_i,
    input wire [TOKENS*MAX_TOP_K*(16+EXPERT)-1:0]  best_i,  // route_lane's
    input wire [TOKENS*(16+EXPERT)-1:0]            sum_i,

    output logic                                    valid_o,
    output logic                                    last_o,
    output logic [TOKENS*MAX_TOP_K*(16+EXPERT)-1:0] best_o  // scores in place of the numerators
);

  localparam int SUM = 16 + EXPERT;
  localparam int BEST = MAX_TOP_K * (16 + EXPERT);
  localparam int INVERSE = 5;  // stages of reciprocal
  localparam int STAGES = INVERSE + 4;  // product twice, rounded, limited
  localparam int MAX_SCORE = 32767;

  logic [STAGES-1:0] valid_q, last_q;
  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else valid_q <= {valid_q[STAGES-2:0], valid_i};
    last_q <= {last_q[STAGES-2:0], last_i};
  end
  assign valid_o = valid_q[STAGES-1];
  assign last_o  = last_q[STAGES-1];

  logic [TOKENS*BEST-1:0] best_q[STAGES];
  always_ff @(posedge clk) for (int i = 0; i < STAGES; i++) best_q[i] <= i == 0 ? best_i : best_q[i-1];

  logic [TOKENS*32-1:0] sums;
  // verilator lint_off UNUSEDSIGNAL
  logic [TOKENS*24-1:0] inverse;  // {j [TOKENS] of 8 bits, R [TOKENS] of 16 bits}
  // verilator lint_on UNUSEDSIGNAL
  for (genvar t = 0; t < TOKENS; t++) begin : g_sum
    assign sums[t*32+:32] = 32'(sum_i[t*SUM+:SUM]);
  end
  // verilator lint_off PINCONNECTEMPTY
  reciprocal #(
      .LANES(TOKENS),
      .WIDTH(SUM)
  ) u_reciprocal (
      .clk,
      .rst,
      .s_axis_v_tdata(sums),
      .s_axis_v_tvalid(valid_i),
      .s_axis_v_tready(),
      .s_axis_v_tlast(1'b0),
      .m_axis_r_tdata(inverse),
      .m_axis_r_tvalid(),
      .m_axis_r_tready(1'b1),
      .m_axis_r_tlast()
  );
  // verilator lint_on PINCONNECTEMPTY

  for (genvar t = 0; t < TOKENS; t++) begin : g_token
    logic [4:0] shift_q[2];
    always_ff @(posedge clk) begin
      shift_q[0] <= inverse[TOKENS*16+t*8+:5];
      shift_q[1] <= shift_q[0];
    end

    logic signed [15:0] inverse_value;
    assign inverse_value = $signed(inverse[t*16+:16]);
    for (genvar i = 0; i < MAX_TOP_K; i++) begin : g_choice
      localparam int AT = t * BEST + MAX_TOP_K * EXPERT + i * 16;  // of a numerator or score
      logic [15:0] score_q;
      logic signed [31:0] product_q, product_again_q, rounded, rounded_q;
      rounding_shift #(
          .WIDTH(32),
          .MAX_SHIFT(31)
      ) u_rounding_shift (
          .value_i(product_again_q),
          .shift_i(shift_q[1]),
          .value_o(rounded)
      );
      always_ff @(posedge clk) begin
        product_q       <= $signed(best_q[INVERSE-1][AT+:16]) * inverse_value;
        product_again_q <= product_q;
        rounded_q       <= rounded;
        score_q         <= rounded_q > 32'(MAX_SCORE) ? 16'(MAX_SCORE) : rounded_q[15:0];
      end
      assign best_o[AT+:16] = score_q;
      assign best_o[t*BEST+i*EXPERT+:EXPERT] = best_q[STAGES-1][t*BEST+i*EXPERT+:EXPERT];
    end
  end

endmodule

`default_nettype wire
