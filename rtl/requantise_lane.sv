// SPDX-License-Identifier: Apache-2.0
// One lane of requantise.sv: clip(rs(a m, n) + z, low, high) in five stages. SPEC.md, section 2.
//
// Stages: operands, product, product again (the multiplier's own registers), rounded, limited. The layer's scalars
// come when their stage needs them: shift_i two cycles after the operands, the others three. With WIDTH up to 27 the
// product takes one DSP48E2, which multiplies 27 x 18 bits; with 32 it takes two.
`default_nettype none

module requantise_lane #(
    parameter int WIDTH = 32  // of a sum
) (
    input wire clk,
    input wire enable_i,

    input  wire signed [WIDTH-1:0] a_i,
    input  wire signed [15:0] multiplier_i,  // not negative
    input  wire        [5:0]  shift_i,       // 1 to 47
    input  wire signed [15:0] low_i,
    input  wire signed [15:0] high_i,
    input  wire signed [7:0]  zero_point_i,
    output logic signed [15:0] y_o
);

  localparam int PRODUCT = WIDTH + 16;  // |a m| < 2^(WIDTH + 14); 2 more bits for sign and rounding

  logic signed [WIDTH-1:0] a_q;
  logic signed [15:0] multiplier_q;
  logic signed [PRODUCT-1:0] product_q, product_again_q, rounded, rounded_q, moved;

  rounding_shift #(
      .WIDTH(PRODUCT),
      .MAX_SHIFT(47)
  ) u_rounding_shift (
      .value_i(product_again_q),
      .shift_i(shift_i),
      .value_o(rounded)
  );

  assign moved = rounded_q + PRODUCT'(zero_point_i);

  always_ff @(posedge clk) begin
    if (enable_i) begin
      a_q             <= a_i;
      multiplier_q    <= multiplier_i;
      product_q       <= a_q * multiplier_q;
      product_again_q <= product_q;
      rounded_q       <= rounded;
      if (moved < PRODUCT'(low_i)) y_o <= low_i;
      else if (moved > PRODUCT'(high_i)) y_o <= high_i;
      else y_o <= moved[15:0];
    end
  end

endmodule

`default_nettype wire
