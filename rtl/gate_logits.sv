// SPDX-License-Identifier: Apache-2.0
// Logits of a tile of experts from the sums of their weights' two halves: 128 high + low + bias. SPEC.md,
// section 4.
//
// A tile of the gate has EXPERTS rows of high halves, then EXPERTS rows of low ones, so the compute unit's
// sums for a token are {low [EXPERTS], high [EXPERTS]}. bias_i is taken with each pair. Sums are modulo
// 2^32: checked networks do not overflow. LATENCY = 3 cycles; the whole pipeline stops while the last
// stage is not taken.
`default_nettype none

module gate_logits #(
    parameter int TOKENS = edge_moe_pkg::TOKENS_PARALLEL,
    parameter int EXPERTS = edge_moe_pkg::TILE_OUT / 2
) (
    input wire clk,
    input wire rst,

    input wire [EXPERTS*32-1:0] bias_i,

    // token 0 in the lowest bits: {low [EXPERTS], high [EXPERTS]} of 32 bits
    input  wire  [TOKENS*EXPERTS*64-1:0] s_axis_a_tdata,
    input  wire                          s_axis_a_tvalid,
    output logic                         s_axis_a_tready,
    input  wire                          s_axis_a_tlast,

    // [TOKENS][EXPERTS] of 32 bits
    output logic [TOKENS*EXPERTS*32-1:0] m_axis_logit_tdata,
    output logic                         m_axis_logit_tvalid,
    input  wire                          m_axis_logit_tready,
    output logic                         m_axis_logit_tlast
);

  localparam int STAGES = 3;
  localparam int LOW_BITS = edge_moe_pkg::GATE_LOW_BITS;  // a weight is 2^LOW_BITS high + low

  if (TOKENS < 1 || EXPERTS < 1) begin : g_check
    $fatal(1, "gate_logits: TOKENS = %0d and EXPERTS = %0d must be at least 1", TOKENS, EXPERTS);
  end

  logic              enable;
  logic [STAGES-1:0] valid_q, last_q;
  assign enable = !valid_q[STAGES-1] || m_axis_logit_tready;

  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else if (enable) valid_q <= {valid_q[STAGES-2:0], s_axis_a_tvalid};
    if (enable) last_q <= {last_q[STAGES-2:0], s_axis_a_tlast};
  end

  logic [EXPERTS*32-1:0] bias_q[2];
  always_ff @(posedge clk) begin
    if (enable) begin
      bias_q[0] <= bias_i;
      bias_q[1] <= bias_q[0];
    end
  end

  for (genvar t = 0; t < TOKENS; t++) begin : g_token
    for (genvar e = 0; e < EXPERTS; e++) begin : g_expert
      localparam int HIGH = (2 * t * EXPERTS + e) * 32;
      localparam int LOW = HIGH + EXPERTS * 32;
      logic [31:0] high_q, low_q, both_q, logit_q;
      always_ff @(posedge clk) begin
        if (enable) begin
          high_q  <= s_axis_a_tdata[HIGH+:32];
          low_q   <= s_axis_a_tdata[LOW+:32];
          both_q  <= (high_q << LOW_BITS) + low_q;
          logit_q <= both_q + bias_q[1][e*32+:32];
        end
      end
      assign m_axis_logit_tdata[(t*EXPERTS+e)*32+:32] = logit_q;
    end
  end

  assign s_axis_a_tready     = enable;
  assign m_axis_logit_tvalid = valid_q[STAGES-1];
  assign m_axis_logit_tlast  = last_q[STAGES-1];

endmodule

`default_nettype wire
