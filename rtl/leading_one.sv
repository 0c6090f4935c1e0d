// SPDX-License-Identifier: Apache-2.0
// The place of the leading one of v >= 1, and v shifted so that it is in the top UNIT bits. SPEC.md, section 3.
//
//   exponent = floor(log2(v) / UNIT), normalised = v << UNIT (WIDTH / UNIT - 1 - exponent)
//
// Binary search, two steps per stage: if the upper bits are zeros, move the lower ones up. LATENCY stages,
// which stop while enable_i is low.
`default_nettype none

module leading_one #(
    parameter int WIDTH = 32,  // a multiple of UNIT
    parameter int UNIT  = 1
) (
    input  wire                            clk,
    input  wire                            enable_i,
    input  wire  [WIDTH-1:0]               value_i,
    output logic [WIDTH-1:0]               normalised_o,
    output logic [$clog2(WIDTH/UNIT)-1:0]  exponent_o
);

  localparam int STEPS = $clog2(WIDTH / UNIT);
  localparam int LATENCY = (STEPS + 1) / 2;

  if (UNIT < 1 || WIDTH < 2 * UNIT || WIDTH % UNIT != 0) begin : g_check
    $fatal(1, "leading_one: WIDTH = %0d must be two or more times UNIT = %0d", WIDTH, UNIT);
  end

  logic [WIDTH-1:0] value_q[LATENCY];
  logic [STEPS-1:0] zeros_q[LATENCY];  // units above the leading one, as far as known

  for (genvar s = 0; s < LATENCY; s++) begin : g_stage
    localparam int TO = STEPS > 2 * s + 2 ? STEPS - 2 * s - 2 : 0;
    localparam int FROM = STEPS - 2 * s - 1;

    logic [WIDTH-1:0] value, above;
    logic [STEPS-1:0] zeros, zeros_above;
    if (s == 0) begin : g_first
      assign above = value_i;
      assign zeros_above = '0;
    end else begin : g_next
      assign above = value_q[s-1];
      assign zeros_above = zeros_q[s-1];
    end

    always_comb begin
      value = above;
      zeros = zeros_above;
      for (int step = FROM; step >= TO; step--) begin
        if (value >> (WIDTH - (UNIT << step)) == '0) begin
          value = value << (UNIT << step);
          zeros[step] = 1'b1;
        end
      end
    end

    always_ff @(posedge clk) begin
      if (enable_i) begin
        value_q[s] <= value;
        zeros_q[s] <= zeros;
      end
    end
  end

  assign normalised_o = value_q[LATENCY-1];
  assign exponent_o   = STEPS'(WIDTH / UNIT - 1) - zeros_q[LATENCY-1];

endmodule

`default_nettype wire
