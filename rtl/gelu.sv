// SPDX-License-Identifier: Apache-2.0
// max(x, 0) - delta(|x|) in every lane; delta is a table that is 0 from |x| = 4 on; int16 Q10. SPEC.md,
// section 4.
//
// Stages: operand, magnitude, two of the table, difference. Two lanes share a table's memory. The whole
// pipeline stops while the last stage is not taken.
`default_nettype none

module gelu #(
    parameter int LANES = edge_moe_pkg::TOKENS_PARALLEL * edge_moe_pkg::TILE_OUT
) (
    input wire clk,
    input wire rst,

    input  wire  [LANES*16-1:0] s_axis_x_tdata,
    input  wire                 s_axis_x_tvalid,
    output logic                s_axis_x_tready,
    input  wire                 s_axis_x_tlast,

    output logic [LANES*16-1:0] m_axis_y_tdata,
    output logic                m_axis_y_tvalid,
    input  wire                 m_axis_y_tready,
    output logic                m_axis_y_tlast
);

  localparam int STAGES = 5;
  localparam int WIDTH = edge_moe_pkg::GELU_WIDTH;
  localparam int INDEX = $clog2(edge_moe_pkg::GELU_ENTRIES);
  localparam int STEP = edge_moe_pkg::GELU_STEP_BITS;

  if (LANES < 1) begin : g_check
    $fatal(1, "gelu: LANES = %0d must be at least 1", LANES);
  end
  if (INDEX + STEP != $clog2(edge_moe_pkg::GELU_LIMIT) + edge_moe_pkg::GELU_FRACTION) begin : g_check_table
    $fatal(1, "gelu: %0d entries do not reach the limit of the table", edge_moe_pkg::GELU_ENTRIES);
  end

  logic              enable;
  logic [STAGES-1:0] valid_q, last_q;
  assign enable = !valid_q[STAGES-1] || m_axis_y_tready;

  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else if (enable) valid_q <= {valid_q[STAGES-2:0], s_axis_x_tvalid};
    if (enable) last_q <= {last_q[STAGES-2:0], s_axis_x_tlast};
  end

  logic [LANES*INDEX-1:0] index;
  logic [LANES*WIDTH-1:0] delta;

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    logic signed [15:0] x_q;
    logic        [15:0] magnitude_q;  // up to 2^15
    logic        [14:0] positive_q[3];
    logic        [1:0]  inside_q;
    logic signed [15:0] y_q;

    always_ff @(posedge clk) begin
      if (enable) begin
        x_q           <= $signed(s_axis_x_tdata[i*16+:16]);
        magnitude_q   <= x_q[15] ? 16'(-x_q) : 16'(x_q);
        positive_q[0] <= x_q[15] ? '0 : x_q[14:0];
        positive_q[1] <= positive_q[0];
        positive_q[2] <= positive_q[1];
        inside_q      <= {inside_q[0], magnitude_q[15:INDEX+STEP] == '0};
        y_q <= $signed({1'b0, positive_q[2]}) - $signed(16'(inside_q[1] ? delta[i*WIDTH+:WIDTH] : '0));
      end
    end

    assign index[i*INDEX+:INDEX]    = magnitude_q[STEP+:INDEX];
    assign m_axis_y_tdata[i*16+:16] = y_q;

    // neighbours use the same entry of the table
    logic unused_magnitude;
    assign unused_magnitude = ^magnitude_q[STEP-1:0];
  end

  for (genvar i = 0; i < LANES; i += 2) begin : g_table
    localparam int PORTS = i + 1 < LANES ? 2 : 1;
    table_rom #(
        .WIDTH(WIDTH),
        .ENTRIES(edge_moe_pkg::GELU_ENTRIES),
        .CONTENTS(edge_moe_pkg::GELU),
        .PORTS(PORTS)
    ) u_table_rom (
        .clk,
        .enable_i(enable),
        .address_i(index[i*INDEX+:PORTS*INDEX]),
        .data_o(delta[i*WIDTH+:PORTS*WIDTH])
    );
  end

  assign s_axis_x_tready = enable;
  assign m_axis_y_tvalid = valid_q[STAGES-1];
  assign m_axis_y_tlast  = last_q[STAGES-1];

endmodule

`default_nettype wire
