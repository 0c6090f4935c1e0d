// SPDX-License-Identifier: Apache-2.0
// T = sum x and Q = sum x^2 of rows of int16 channels, a slice per cycle. SPEC.md, section 4, layernorm.
//
// With a slice comes the number of channels left in its row, this slice included. Lanes beyond it count as
// 0, and a row ends with the slice that has at most LANES left. Every slice is taken at once. A row's moments
// come LATENCY cycles after its last slice.
`default_nettype none

module layernorm_moments #(
    parameter int LANES = edge_moe_pkg::VECTOR_CHANNELS,
    parameter int MAX_WIDTH = edge_moe_pkg::MAX_WIDTH
) (
    input wire clk,
    input wire rst,

    input wire                             valid_i,
    input wire [LANES*16-1:0]              x_i,
    input wire [$clog2(MAX_WIDTH+1)-1:0]   left_i,
    input wire                             first_i,  // of the row
    input wire [1:0]                       tag_i,    // comes out with the moments

    output logic                                   valid_o,
    output logic signed [16+$clog2(MAX_WIDTH)-1:0] total_o,
    output logic        [31+$clog2(MAX_WIDTH)-1:0] squares_o,
    output logic        [1:0]                      tag_o
);

  localparam int LEFT = $clog2(MAX_WIDTH + 1);
  localparam int TREE = ($clog2(LANES) + 1) / 2;
  localparam int STAGES = TREE + 5;  // operands, masked, product twice, tree, carried sum
  localparam int TOTAL = 16 + $clog2(MAX_WIDTH);  // |T| <= 2^15 MAX_WIDTH
  localparam int SQUARES = 31 + $clog2(MAX_WIDTH);  // Q <= 2^30 MAX_WIDTH
  localparam int SLICE_TOTAL = 16 + $clog2(LANES);
  localparam int SLICE_SQUARES = 32 + $clog2(LANES);

  logic [STAGES-1:0] valid_q;
  logic [STAGES-2:0] first_q, last_q;
  logic [1:0] tag_q[STAGES-1];
  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else valid_q <= {valid_q[STAGES-2:0] & {last_q[STAGES-2], {STAGES - 2{1'b1}}}, valid_i};
    first_q <= {first_q[STAGES-3:0], first_i};
    last_q  <= {last_q[STAGES-3:0], left_i <= LEFT'(LANES)};
    for (int i = 0; i < STAGES - 1; i++) tag_q[i] <= i == 0 ? tag_i : tag_q[i-1];
  end

  logic [LEFT-1:0] left_q;
  logic [LANES*16-1:0] x_q, masked_q;
  logic [LANES*32-1:0] product_q, product_again_q;
  always_ff @(posedge clk) begin
    x_q    <= x_i;
    left_q <= left_i;
    for (int i = 0; i < LANES; i++) begin
      masked_q[i*16+:16]  <= LEFT'(i) < left_q ? x_q[i*16+:16] : '0;
      product_q[i*32+:32] <= $signed(masked_q[i*16+:16]) * $signed(masked_q[i*16+:16]);
    end
    product_again_q <= product_q;
  end

  logic signed [SLICE_TOTAL-1:0] slice_total, slice_total_q[2];
  logic signed [SLICE_SQUARES-1:0] slice_squares;
  adder_tree #(
      .COUNT(LANES),
      .WIDTH(16)
  ) u_total (
      .clk,
      .enable_i(1'b1),
      .values_i(masked_q),
      .sum_o(slice_total)
  );
  adder_tree #(
      .COUNT(LANES),
      .WIDTH(32)
  ) u_squares (
      .clk,
      .enable_i(1'b1),
      .values_i(product_again_q),
      .sum_o(slice_squares)
  );

  always_ff @(posedge clk) begin
    slice_total_q[0] <= slice_total;  // as long as the squares take
    slice_total_q[1] <= slice_total_q[0];
    if (valid_q[STAGES-2]) begin
      total_o   <= (first_q[STAGES-2] ? '0 : total_o) + TOTAL'(slice_total_q[1]);
      squares_o <= (first_q[STAGES-2] ? '0 : squares_o) + SQUARES'(slice_squares);
      tag_o     <= tag_q[STAGES-2];
    end
  end
  assign valid_o = valid_q[STAGES-1];

endmodule

`default_nettype wire
