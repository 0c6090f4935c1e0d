// SPDX-License-Identifier: Apache-2.0
// Sum of COUNT signed values, four to one in each of LATENCY = ceil(log4 COUNT) stages.
`default_nettype none

module adder_tree #(
    parameter int COUNT = edge_moe_pkg::VECTOR_CHANNELS,
    parameter int WIDTH = 16
) (
    input  wire                                   clk,
    input  wire                                   enable_i,
    input  wire         [COUNT*WIDTH-1:0]         values_i,
    output logic signed [WIDTH+$clog2(COUNT)-1:0] sum_o
);

  localparam int LATENCY = ($clog2(COUNT) + 1) / 2;

  if (COUNT < 2) begin : g_check
    $fatal(1, "adder_tree: COUNT = %0d must be at least 2", COUNT);
  end

  // Number of values left after this many stages.
  function automatic int left(int stages);
    left = (COUNT + (1 << 2 * stages) - 1) >> (2 * stages);
  endfunction

  for (genvar s = 0; s < LATENCY; s++) begin : g_stage
    localparam int FROM = left(s);
    localparam int TO = left(s + 1);
    localparam int NARROW = WIDTH + 2 * s;
    localparam int WIDE = NARROW + 2;

    logic [FROM*NARROW-1:0] values;
    // verilator lint_off UNUSEDSIGNAL
    logic [TO*WIDE-1:0] sums_q;  // if COUNT is no power of 4, the last has one bit too many
    // verilator lint_on UNUSEDSIGNAL
    if (s == 0) begin : g_first
      assign values = values_i;
    end else begin : g_next
      assign values = g_stage[s-1].sums_q;
    end

    for (genvar i = 0; i < TO; i++) begin : g_sum
      logic signed [WIDE-1:0] sum;
      always_comb begin
        sum = '0;
        for (int j = 4 * i; j < 4 * i + 4 && j < FROM; j++) begin
          sum += WIDE'($signed(values[j*NARROW+:NARROW]));
        end
      end
      always_ff @(posedge clk) if (enable_i) sums_q[i*WIDE+:WIDE] <= sum;
    end
  end

  assign sum_o = g_stage[LATENCY-1].sums_q[WIDTH+$clog2(COUNT)-1:0];

endmodule

`default_nettype wire
