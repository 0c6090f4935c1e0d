// SPDX-License-Identifier: Apache-2.0
// min(127, rs(EXP2[t & 255], (t >> 8) + 8)), t = 256 M - x: 2^(x/256 - M) as the integer weight of a value,
// in every lane. SPEC.md, section 4, attention.
//
// Lanes from keys_i on give 0. Three stages: t, table, shift. All hold their values while enable is low.
`default_nettype none

module numerator #(
    parameter int LANES = edge_moe_pkg::KEY_BLOCK
) (
    input wire clk,
    input wire enable_i,

    input  wire         [LANES*16-1:0]          logit_i,     // x, below 256 exponent_i
    input  wire  signed [8:0]                   exponent_i,  // M, in [-127, 128]
    input  wire         [$clog2(LANES+1)-1:0]   keys_i,
    output logic        [LANES*8-1:0]           numerator_o
);

  localparam int FRACTION = edge_moe_pkg::EXP2_BITS;
  localparam int ENTRIES = edge_moe_pkg::EXP2_ENTRIES;
  localparam int ENTRY = edge_moe_pkg::EXP2_WIDTH;
  localparam int DROPPED = edge_moe_pkg::EXP2_ONE - 8;  // bits of an entry that every shift removes
  localparam int HALVES = ENTRY - DROPPED;  // an entry in halves of the result's unit, at most 2^8
  localparam int SHIFT = 4;  // from 2^HALVES on nothing is left
  localparam int BELOW = 17;  // t is at most 2^15 + 2^15
  localparam logic [ENTRIES*ENTRY-1:0] EXP2 = edge_moe_pkg::EXP2;

  if (LANES < 1) begin : g_check
    $fatal(1, "numerator: LANES = %0d must be at least 1", LANES);
  end

  logic [$clog2(LANES+1)-1:0] keys_q[2];
  always_ff @(posedge clk) begin
    if (enable_i) begin
      keys_q[0] <= keys_i;
      keys_q[1] <= keys_q[0];
    end
  end

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    (* ram_style = "registers" *)  // a block memory for 9 bits per lane would be a waste
    logic [HALVES-1:0] rom[ENTRIES];
    initial begin
      for (int e = 0; e < ENTRIES; e++) rom[e] = EXP2[e*ENTRY+DROPPED+:HALVES];
    end

    logic [BELOW-1:0]  below_q;
    logic [HALVES-1:0] halves_q, shifted, rounded;
    logic [SHIFT-1:0]  shift_q;
    logic [6:0]        numerator_q;

    // rs(v, n) = ((v >> n - 1) + 1) >> 1
    assign shifted = halves_q >> shift_q;
    assign rounded = (shifted + HALVES'(1)) >> 1;

    always_ff @(posedge clk) begin
      if (enable_i) begin
        below_q  <= BELOW'({exponent_i, {FRACTION{1'b0}}}) - BELOW'($signed(logit_i[i*16+:16]));
        halves_q <= rom[below_q[FRACTION-1:0]];
        shift_q  <= below_q[BELOW-1:FRACTION+SHIFT] != '0 ? '1 : below_q[FRACTION+:SHIFT];
        if (($clog2(LANES+1))'(i) >= keys_q[1]) numerator_q <= '0;
        else numerator_q <= rounded[HALVES-1:7] != '0 ? '1 : rounded[6:0];
      end
    end

    assign numerator_o[i*8+:8] = {1'b0, numerator_q};
  end

endmodule

`default_nettype wire
