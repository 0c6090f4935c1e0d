// SPDX-License-Identifier: Apache-2.0
// clip16(residual + update) in every lane. SPEC.md, section 4.
//
// An element of each stream is taken when both are there; the update's tlast is the result's. Stages: operands,
// sum, limited. The whole pipeline stops while the last stage is not taken.
`default_nettype none

module residual_add #(
    parameter int LANES = edge_moe_pkg::TOKENS_PARALLEL * edge_moe_pkg::TILE_OUT
) (
    input wire clk,
    input wire rst,

    input  wire  [LANES*16-1:0] s_axis_residual_tdata,
    input  wire                 s_axis_residual_tvalid,
    output logic                s_axis_residual_tready,

    input  wire  [LANES*16-1:0] s_axis_update_tdata,
    input  wire                 s_axis_update_tvalid,
    output logic                s_axis_update_tready,
    input  wire                 s_axis_update_tlast,

    output logic [LANES*16-1:0] m_axis_y_tdata,
    output logic                m_axis_y_tvalid,
    input  wire                 m_axis_y_tready,
    output logic                m_axis_y_tlast
);

  localparam int STAGES = 3;

  if (LANES < 1) begin : g_check
    $fatal(1, "residual_add: LANES = %0d must be at least 1", LANES);
  end

  logic              enable, both;
  logic [STAGES-1:0] valid_q, last_q;
  assign enable = !valid_q[STAGES-1] || m_axis_y_tready;
  assign both   = s_axis_residual_tvalid && s_axis_update_tvalid;

  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else if (enable) valid_q <= {valid_q[STAGES-2:0], both};
    if (enable) last_q <= {last_q[STAGES-2:0], s_axis_update_tlast};
  end

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    logic signed [15:0] residual_q, update_q, y_q;
    logic signed [16:0] sum_q;

    always_ff @(posedge clk) begin
      if (enable) begin
        residual_q <= $signed(s_axis_residual_tdata[i*16+:16]);
        update_q   <= $signed(s_axis_update_tdata[i*16+:16]);
        sum_q      <= residual_q + update_q;
        // the two highest bits differ where the sum leaves 16 bits
        y_q        <= sum_q[16] != sum_q[15] ? {sum_q[16], {15{!sum_q[16]}}} : sum_q[15:0];
      end
    end

    assign m_axis_y_tdata[i*16+:16] = y_q;
  end

  assign s_axis_residual_tready = enable && s_axis_update_tvalid;
  assign s_axis_update_tready   = enable && s_axis_residual_tvalid;
  assign m_axis_y_tvalid        = valid_q[STAGES-1];
  assign m_axis_y_tlast         = last_q[STAGES-1];

endmodule

`default_nettype wire
