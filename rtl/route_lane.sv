// SPDX-License-Identifier: Apache-2.0
// One token in route.sv: its k largest logits, then the sum of all numerators. SPEC.md, section 4,
// gate.
//
// A tile's logits are loaded at once and offered one per cycle. Flags come when their stage needs them:
// offered_i and its values SCALED = 5 cycles after step_i, when the scaled logit is ready; chosen_i when
// the last offer is in the list; summed_i and its values 4 cycles after the address
// read_i.
`default_nettype none

module route_lane #(
    parameter int LOGITS = edge_moe_pkg::TILE_OUT / 2,  // of a tile
    parameter int MAX_EXPERTS = edge_moe_pkg::MAX_EXPERTS,
    parameter int MAX_TOP_K = edge_moe_pkg::MAX_TOP_K,
    parameter int EXPERT = $clog2(MAX_EXPERTS)
) (
    input wire clk,

    input wire        [15:0] multiplier_i,
    input wire        [5:0]  shift_i,

    input wire                 load_i,
    input wire [LOGITS*32-1:0] logits_i,
    input wire                 step_i,

    input wire              offered_i,
    input wire              first_i,
    input wire [EXPERT-1:0] expert_i,
    input wire              bank_i,
    input wire              chosen_i,

    input wire [EXPERT:0]   read_i,  // {bank, expert}
    input wire              summed_i,
    input wire              summed_first_i,
    input wire [EXPERT-1:0] summed_expert_i,

    // of the best: {numerator [MAX_TOP_K] of 16 bits, expert [MAX_TOP_K]}; and the sum of all numerators
    output logic [MAX_TOP_K*(16+EXPERT)-1:0] best_o,
    output logic [15+EXPERT:0]               sum_o
);

  localparam int SCALED = 5;  // stages of requantise_lane
  localparam int FRACTION = edge_moe_pkg::EXP2_BITS;
  localparam int BELOW = 17;  // 256 M - y is at most 2^16

  // ---- offered: the logit and, SCALED cycles later, the base-2 logit in Q8
  logic [LOGITS*32-1:0] logits_q;
  logic signed [31:0] offered, logit_q[SCALED], logit;
  logic signed [15:0] scaled, multiplier;
  assign offered    = $signed(logits_q[31:0]);
  assign multiplier = $signed(multiplier_i);
  always_ff @(posedge clk) begin
    if (load_i) logits_q <= logits_i;
    else if (step_i) logits_q <= logits_q >> 32;
    for (int i = 0; i < SCALED; i++) logit_q[i] <= i == 0 ? offered : logit_q[i-1];
  end
  assign logit = logit_q[SCALED-1];

  requantise_lane u_requantise_lane (
      .clk,
      .enable_i(1'b1),
      .a_i(offered),
      .multiplier_i(multiplier),
      .shift_i,
      .low_i(16'sh8000),
      .high_i(16'sh7FFF),
      .zero_point_i(8'sd0),
      .y_o(scaled)
  );

  (* ram_style = "distributed" *)
  logic [15:0] scaled_logits[2<<EXPERT];
  always_ff @(posedge clk) if (offered_i) scaled_logits[{bank_i, expert_i}] <= scaled;

  // ---- the largest so far: a new one takes the first place with a smaller logit; later ones move back.
  // Experts come in rising order, so among equal ones the lower index stays in front.
  logic [MAX_TOP_K-1:0] taken_q, smaller;
  logic signed [31:0] list_q[MAX_TOP_K];
  logic [EXPERT-1:0] list_expert_q[MAX_TOP_K];
  logic signed [15:0] maximum_q;
  for (genvar i = 0; i < MAX_TOP_K; i++) begin : g_place
    assign smaller[i] = first_i || !taken_q[i] || list_q[i] < logit;
    if (i == 0) begin : g_first
      always_ff @(posedge clk) begin
        if (offered_i && smaller[0]) begin
          taken_q[0]       <= 1'b1;
          list_q[0]        <= logit;
          list_expert_q[0] <= expert_i;
        end
      end
    end else begin : g_behind
      always_ff @(posedge clk) begin
        if (offered_i && smaller[i]) begin
          taken_q[i]       <= !first_i && taken_q[i-1];
          list_q[i]        <= smaller[i-1] ? list_q[i-1] : logit;
          list_expert_q[i] <= smaller[i-1] ? list_expert_q[i-1] : expert_i;
        end
      end
    end
  end
  always_ff @(posedge clk) begin
    if (offered_i && (first_i || scaled > maximum_q)) maximum_q <= scaled;
  end

  // ---- kept while the next token is offered
  logic [EXPERT-1:0] chosen_q[MAX_TOP_K];
  logic signed [15-FRACTION+1:0] exponent_q;  // M
  always_ff @(posedge clk) begin
    if (chosen_i) begin
      chosen_q   <= list_expert_q;
      exponent_q <= (15 - FRACTION + 2)'(maximum_q >>> FRACTION) + (15 - FRACTION + 2)'(1);
    end
  end

  // ---- numerators: read, distance to M, table, shift
  (* rom_style = "block" *)
  logic [15:0] exp2[edge_moe_pkg::EXP2_ENTRIES];
  initial begin
    for (int i = 0; i < edge_moe_pkg::EXP2_ENTRIES; i++) exp2[i] = edge_moe_pkg::EXP2[i*16+:16];
  end

  logic signed [15:0] read_q;
  logic [BELOW-1:0] below_q;
  logic [15:0] entry_q;
  logic signed [16:0] entry;
  logic [4:0] down_q;
  // verilator lint_off UNUSEDSIGNAL
  logic signed [16:0] numerator;  // not negative
  // verilator lint_on UNUSEDSIGNAL
  logic [15:0] numerator_q;
  logic [MAX_TOP_K-1:0] hit_q[4];
  assign entry = $signed({1'b0, entry_q});
  rounding_shift #(
      .WIDTH(17),
      .MAX_SHIFT(edge_moe_pkg::EXPONENT_LIMIT)
  ) u_rounding_shift (
      .value_i(entry),
      .shift_i(down_q),
      .value_o(numerator)
  );
  always_ff @(posedge clk) begin
    read_q      <= $signed(scaled_logits[read_i]);
    below_q     <= BELOW'($signed({exponent_q, {FRACTION{1'b0}}})) - BELOW'(read_q);
    entry_q     <= exp2[below_q[FRACTION-1:0]];
    if (below_q[BELOW-1:FRACTION+5] != '0) down_q <= 5'(edge_moe_pkg::EXPONENT_LIMIT);
    else down_q <= below_q[FRACTION+:5];
    numerator_q <= numerator[15:0];
    for (int i = 0; i < MAX_TOP_K; i++) hit_q[0][i] <= chosen_q[i] == read_i[EXPERT-1:0];
    for (int i = 1; i < 4; i++) hit_q[i] <= hit_q[i-1];
  end

  // ---- their sum, and the numerators of the chosen experts
  always_ff @(posedge clk) begin
    if (summed_i) sum_o <= (summed_first_i ? '0 : sum_o) + (16 + EXPERT)'(numerator_q);
    for (int i = 0; i < MAX_TOP_K; i++) begin
      if (summed_i && hit_q[3][i]) begin
        best_o[i*EXPERT+:EXPERT]            <= summed_expert_i;
        best_o[MAX_TOP_K*EXPERT+i*16+:16] <= numerator_q;
      end
    end
  end

endmodule

`default_nettype wire
