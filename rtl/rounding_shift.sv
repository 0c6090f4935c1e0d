// SPDX-License-Identifier: Apache-2.0
// rs(v, n) = (v + (1 << n >> 1)) >> n, combinational: round half up. SPEC.md, section 2.
//
// Written as (((2 v) >> n) + 1) >> 1, which is equal: one shifter and an increment for every n.
`default_nettype none

module rounding_shift #(
    parameter int WIDTH = 48,
    parameter int MAX_SHIFT = edge_moe_pkg::SHIFT_LIMIT
) (
    input  wire  signed [WIDTH-1:0]               value_i,
    input  wire         [$clog2(MAX_SHIFT+1)-1:0] shift_i,
    output logic signed [WIDTH-1:0]               value_o
);

  if (WIDTH < 2 || MAX_SHIFT < 1) begin : g_check
    $fatal(1, "rounding_shift: WIDTH = %0d must be at least 2 and MAX_SHIFT = %0d at least 1", WIDTH, MAX_SHIFT);
  end

  logic signed [WIDTH:0] halves;   // one bit below the result
  // verilator lint_off UNUSEDSIGNAL
  logic signed [WIDTH:0] rounded;  // the lowest bit was needed for rounding only
  // verilator lint_on UNUSEDSIGNAL

  assign halves  = $signed({value_i, 1'b0}) >>> shift_i;
  assign rounded = halves + (WIDTH + 1)'(1);
  assign value_o = rounded[WIDTH:1];

endmodule

`default_nettype wire
