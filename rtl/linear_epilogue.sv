// SPDX-License-Identifier: Apache-2.0
// A linear's sums become its results: rq(a, m, n, low, high, z), or with GELU between two of them
// rq(gelu(rq(a, m, n, -32768, 32767, 0)), m2, n2, low, high, z). SPEC.md, section 4.
//
// The layer's scalars must not change while its elements are inside. Streams are as in requantise.sv.
`default_nettype none

module linear_epilogue #(
    parameter int LANES = edge_moe_pkg::TOKENS_PARALLEL * edge_moe_pkg::TILE_OUT
) (
    input wire clk,
    input wire rst,

    input wire               gelu_i,
    input wire        [5:0]  shift_i,
    input wire        [15:0] multiplier2_i,  // after GELU, not negative
    input wire        [5:0]  shift2_i,       // after GELU
    input wire signed [15:0] low_i,          // of the result
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

  localparam logic signed [15:0] LOWEST = -16'sd32768, HIGHEST = 16'sd32767;

  logic [LANES*16-1:0] value, activated, y;
  logic                value_valid, value_ready, value_last;
  logic                gelu_ready, activated_valid, activated_ready, activated_last;
  logic                y_valid, y_last;

  requantise #(
      .LANES(LANES)
  ) u_first (
      .clk,
      .rst,
      .shift_i,
      .low_i          (gelu_i ? LOWEST : low_i),
      .high_i         (gelu_i ? HIGHEST : high_i),
      .zero_point_i   (gelu_i ? 8'sd0 : zero_point_i),
      .s_axis_a_tdata,
      .s_axis_a_tvalid,
      .s_axis_a_tready,
      .s_axis_a_tlast,
      .m_axis_y_tdata (value),
      .m_axis_y_tvalid(value_valid),
      .m_axis_y_tready(value_ready),
      .m_axis_y_tlast (value_last)
  );

  gelu #(
      .LANES(LANES)
  ) u_gelu (
      .clk,
      .rst,
      .s_axis_x_tdata (value),
      .s_axis_x_tvalid(value_valid && gelu_i),
      .s_axis_x_tready(gelu_ready),
      .s_axis_x_tlast (value_last),
      .m_axis_y_tdata (activated),
      .m_axis_y_tvalid(activated_valid),
      .m_axis_y_tready(activated_ready),
      .m_axis_y_tlast (activated_last)
  );

  requantise #(
      .LANES(LANES),
      .WIDTH(16)
  ) u_second (
      .clk,
      .rst,
      .shift_i        (shift2_i),
      .low_i,
      .high_i,
      .zero_point_i,
      .s_axis_a_tdata ({{LANES{multiplier2_i}}, activated}),
      .s_axis_a_tvalid(activated_valid),
      .s_axis_a_tready(activated_ready),
      .s_axis_a_tlast (activated_last),
      .m_axis_y_tdata (y),
      .m_axis_y_tvalid(y_valid),
      .m_axis_y_tready,
      .m_axis_y_tlast (y_last)
  );

  assign value_ready     = gelu_i ? gelu_ready : m_axis_y_tready;
  assign m_axis_y_tdata  = gelu_i ? y : value;
  assign m_axis_y_tvalid = gelu_i ? y_valid : value_valid;
  assign m_axis_y_tlast  = gelu_i ? y_last : value_last;

endmodule

`default_nettype wire
