// SPDX-License-Identifier: Apache-2.0
// a = rs(a, r) + y in every lane, a kept in block memory by address: the averages of V, and with r = 0 the
// dot products of heads of several tiles. SPEC.md, section 4, attention.
//
// A pair per cycle, without stops. Stages: two of the memory, shift, sum; LATENCY = 4 cycles. A pair sees
// earlier pairs that came at least LAG = 5 cycles before it: later ones must have another address.
`default_nettype none

module attention_accumulate #(
    parameter int LANES = edge_moe_pkg::TOKENS_PARALLEL * edge_moe_pkg::TILE_OUT,
    parameter int LANES_RESCALE = edge_moe_pkg::TILE_OUT,  // lanes that have a shift in common
    parameter int ENTRIES = 16,
    parameter int WIDTH = 27,   // of a
    parameter int WIDTH_Y = 21  // of y, of 32 bits in a lane
) (
    input wire clk,
    input wire rst,

    input wire                                 valid_i,
    input wire [$clog2(ENTRIES)-1:0]           address_i,
    input wire                                 keep_i,     // else a is 0 before
    input wire [LANES/LANES_RESCALE*5-1:0]     rescale_i,  // r
    input wire [LANES*WIDTH_Y-1:0]             y_i,

    output logic [LANES*WIDTH-1:0] a_o
);

  localparam int STAGES = 4;

  if (LANES % LANES_RESCALE != 0 || ENTRIES < 2 || WIDTH <= WIDTH_Y) begin : g_check
    $fatal(1, "attention_accumulate: LANES = %0d must be a multiple of %0d", LANES, LANES_RESCALE);
  end

  logic [STAGES-1:0] valid_q;
  logic [1:0] keep_q;
  logic [$clog2(ENTRIES)-1:0] address_q[STAGES];
  logic [LANES/LANES_RESCALE*5-1:0] rescale_q[2];
  logic [LANES*WIDTH_Y-1:0] y_q[3];

  (* ram_style = "block" *) (* no_rw_check *)
  logic [LANES*WIDTH-1:0] memory[ENTRIES];
  logic [LANES*WIDTH-1:0] read_q, before_q;

  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else valid_q <= {valid_q[STAGES-2:0], valid_i};
    keep_q       <= {keep_q[0], keep_i};
    address_q[0] <= address_i;
    rescale_q[0] <= rescale_i;
    rescale_q[1] <= rescale_q[0];
    y_q[0]       <= y_i;
    for (int s = 1; s < STAGES; s++) address_q[s] <= address_q[s-1];
    for (int s = 1; s < 3; s++) y_q[s] <= y_q[s-1];

    read_q   <= memory[address_i];
    before_q <= read_q;
    if (valid_q[STAGES-1]) memory[address_q[STAGES-1]] <= a_o;
  end

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    logic signed [WIDTH:0]   prior, halves_q;  // one bit below a
    logic signed [WIDTH:0]   sum;
    logic signed [WIDTH-1:0] a_q;

    // rs(a, r) + y = ((2 a >> r) + 1 + 2 y) >> 1: one addition
    assign prior = keep_q[1] ? $signed({before_q[i*WIDTH+:WIDTH], 1'b0}) : '0;
    assign sum   = halves_q + (WIDTH + 1)'($signed({y_q[2][i*WIDTH_Y+:WIDTH_Y], 1'b1}));

    always_ff @(posedge clk) begin
      halves_q <= prior >>> rescale_q[1][i/LANES_RESCALE*5+:5];
      a_q      <= sum[WIDTH:1];
    end

    assign a_o[i*WIDTH+:WIDTH] = a_q;

    logic unused_half;
    assign unused_half = sum[0];
  end

endmodule

`default_nettype wire
