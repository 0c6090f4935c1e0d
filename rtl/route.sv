// SPDX-License-Identifier: Apache-2.0
// Logits to routing rows: each token's k largest logits and the scores of their experts. SPEC.md, section
// 4, gate.
//
// Tokens are processed in groups of PAIRS pairs. For each tile of LOGITS experts the pairs' logits come, then
// the experts are offered, one per cycle. Meanwhile the numerators of the group before are summed, and the
// scores of the group before that leave, a pair per cycle. A group takes experts_i + PAIRS
// ceil(experts_i / LOGITS) cycles.
//
// A frame is pairs_i pairs. The scalars are taken when its first pair is offered, after the previous frame
// has left the lanes. Nothing stops inside: a group begins when there is room for all its results.
`default_nettype none

module route #(
    parameter int LOGITS = edge_moe_pkg::TILE_OUT / 2,  // of a tile
    parameter int PAIRS = edge_moe_pkg::ROUTE_PAIRS,  // of a group
    parameter int MAX_TOKENS = edge_moe_pkg::MAX_TOKENS,
    parameter int MAX_EXPERTS = edge_moe_pkg::MAX_EXPERTS,
    parameter int MAX_TOP_K = edge_moe_pkg::MAX_TOP_K,
    parameter int SLOTS = edge_moe_pkg::TOP_K_LIMIT  // of a routing row
) (
    input wire clk,
    input wire rst,

    input wire [$clog2(MAX_TOKENS)-1:0]    pairs_i,       // at least 1
    input wire [$clog2(MAX_EXPERTS+1)-1:0] experts_i,     // at least 1
    input wire [3:0]                       top_k_i,       // 1 to experts_i
    input wire [15:0]                      multiplier_i,
    input wire [5:0]                       shift_i,       // 1 to 47

    // groups in order, in a group its tiles, in a tile its pairs: [2][LOGITS] of 32 bits
    input  wire  [LOGITS*64-1:0] s_axis_logit_tdata,
    input  wire                  s_axis_logit_tvalid,
    output logic                 s_axis_logit_tready,

    // [2][SLOTS] of {score of 16 bits, expert of 16 bits}, best first, zeros after the top_k_i-th
    output logic [SLOTS*64-1:0] m_axis_route_tdata,
    output logic                m_axis_route_tvalid,
    input  wire                 m_axis_route_tready,
    output logic                m_axis_route_tlast
);

  localparam int TOKENS = 2;
  localparam int ROOM = 32;  // pairs on their way: enough for groups of few experts to follow without a gap
  localparam int EXPERT = $clog2(MAX_EXPERTS);
  localparam int PAIR = $clog2(PAIRS);
  localparam int LEFT = $clog2(MAX_TOKENS);
  localparam int BEST = MAX_TOP_K * (16 + EXPERT);  // of a token, as in route_lane
  localparam int SUM = 16 + EXPERT;

  if (MAX_TOP_K < 1 || MAX_TOP_K > SLOTS || MAX_TOP_K > MAX_EXPERTS) begin : g_check
    $fatal(1, "route: MAX_TOP_K = %0d must be from 1 to SLOTS = %0d, MAX_EXPERTS = %0d", MAX_TOP_K, SLOTS,
           MAX_EXPERTS);
  end
  if (PAIRS < 2 || PAIRS != 1 << PAIR || LOGITS != 1 << $clog2(LOGITS)) begin : g_check_group
    $fatal(1, "route: PAIRS = %0d must be 2, 4, 8 or 16 and LOGITS = %0d a power of 2", PAIRS, LOGITS);
  end
  if (MAX_EXPERTS < 2 || MAX_EXPERTS > 64 || MAX_TOKENS < 4) begin : g_check_sizes
    $fatal(1, "route: MAX_EXPERTS = %0d must be from 2 to 64, MAX_TOKENS = %0d at least 4", MAX_EXPERTS,
           MAX_TOKENS);
  end

  // ---- frame
  logic frame_q, leave, leave_last;  // a pair leaves the lanes
  logic [EXPERT-1:0] last_expert_q;
  logic [3:0] top_k_q;
  logic [15:0] multiplier_q;
  logic [5:0] shift_q;
  logic open;
  assign open = !frame_q && s_axis_logit_tvalid;
  always_ff @(posedge clk) begin
    if (rst) frame_q <= 1'b0;
    else if (open) frame_q <= 1'b1;
    else if (leave && leave_last) frame_q <= 1'b0;
    if (open) begin
      last_expert_q <= EXPERT'(experts_i - 1);
      top_k_q       <= top_k_i;
      multiplier_q  <= multiplier_i;
      shift_q       <= shift_i;
    end
  end

  // ---- a tile's pairs are fetched, then its experts offered
  logic [LEFT-1:0] left_q;  // pairs of groups that have not been offered completely
  logic [PAIR-1:0] fetched_q;
  logic [EXPERT-1:0] expert_q;
  logic [5:0] under_way_q;
  logic offering_q, bank_q, exists, room, fetch, take, tile_end, group_end, push;
  assign exists    = LEFT'(fetched_q) < left_q;
  assign room      = expert_q != '0 || fetched_q != '0 || under_way_q <= 6'(ROOM - PAIRS);
  assign s_axis_logit_tready = frame_q && left_q != '0 && !offering_q && exists && room;
  assign take      = s_axis_logit_tvalid && s_axis_logit_tready;
  assign fetch     = take || left_q != '0 && !offering_q && !exists;
  assign group_end = offering_q && expert_q == last_expert_q;
  assign tile_end  = group_end || offering_q && (int'(expert_q) + 1) % LOGITS == 0;
  always_ff @(posedge clk) begin
    if (rst) begin
      left_q      <= '0;
      fetched_q   <= '0;
      expert_q    <= '0;
      offering_q  <= 1'b0;
      bank_q      <= 1'b0;
      under_way_q <= '0;
    end else begin
      if (open) left_q <= pairs_i;
      else if (group_end) left_q <= left_q > LEFT'(PAIRS) ? left_q - LEFT'(PAIRS) : '0;
      if (fetch) fetched_q <= fetched_q + PAIR'(1);
      if (fetch && fetched_q == PAIR'(PAIRS - 1)) offering_q <= 1'b1;
      else if (tile_end) offering_q <= 1'b0;
      if (offering_q) expert_q <= group_end ? '0 : expert_q + EXPERT'(1);
      if (group_end) bank_q <= !bank_q;
      under_way_q <= under_way_q + 6'(take && expert_q == '0) -
          6'(m_axis_route_tvalid && m_axis_route_tready);
    end
  end

  // ---- flags for the lanes, delayed to the stage that uses them
  localparam int SCALED = 5;  // route_lane's
  logic [SCALED:0] offered_q, last_q;
  logic [SCALED-1:0] offered_bank_q;
  logic [EXPERT-1:0] offered_expert_q[SCALED];
  always_ff @(posedge clk) begin
    if (rst) offered_q <= '0;
    else offered_q <= {offered_q[SCALED-1:0], offering_q};
    last_q         <= {last_q[SCALED-1:0], group_end};
    offered_bank_q <= {offered_bank_q[SCALED-2:0], bank_q};
    for (int i = 0; i < SCALED; i++) offered_expert_q[i] <= i == 0 ? expert_q : offered_expert_q[i-1];
  end
  logic chosen;
  assign chosen = offered_q[SCALED] && last_q[SCALED];

  // ---- sums of numerators: a group's take as many cycles as its offers
  localparam int SUMMED = 4;  // route_lane's
  logic summing_q, sum_bank_q;
  logic [EXPERT-1:0] sum_expert_q;
  logic [SUMMED-1:0] summed_q;
  logic [SUMMED-1:0] summed_last_q;
  logic [EXPERT-1:0] summed_expert_q[SUMMED];
  always_ff @(posedge clk) begin
    if (rst) begin
      summing_q  <= 1'b0;
      sum_bank_q <= 1'b1;
      summed_q   <= '0;
    end else begin
      if (chosen) summing_q <= 1'b1;
      else if (sum_expert_q == last_expert_q) summing_q <= 1'b0;
      if (chosen) sum_bank_q <= !sum_bank_q;
      summed_q <= {summed_q[SUMMED-2:0], summing_q};
    end
    sum_expert_q  <= summing_q && sum_expert_q != last_expert_q ? sum_expert_q + EXPERT'(1) : '0;
    summed_last_q <= rst ? '0 : {summed_last_q[SUMMED-2:0], summing_q && sum_expert_q == last_expert_q};
    for (int i = 0; i < SUMMED; i++) summed_expert_q[i] <= i == 0 ? sum_expert_q : summed_expert_q[i-1];
  end

  logic [PAIRS*TOKENS*BEST-1:0] best;
  logic [PAIRS*TOKENS*SUM-1:0] sum;
  for (genvar p = 0; p < PAIRS; p++) begin : g_pair
    for (genvar t = 0; t < TOKENS; t++) begin : g_token
      route_lane #(
          .LOGITS(LOGITS),
          .MAX_EXPERTS(MAX_EXPERTS),
          .MAX_TOP_K(MAX_TOP_K)
      ) u_lane (
          .clk,
          .multiplier_i(multiplier_q),
          .shift_i(shift_q),
          .load_i(take && fetched_q == PAIR'(p)),
          .logits_i(s_axis_logit_tdata[t*LOGITS*32+:LOGITS*32]),
          .step_i(offering_q),
          .offered_i(offered_q[SCALED-1]),
          .first_i(offered_expert_q[SCALED-1] == '0),
          .expert_i(offered_expert_q[SCALED-1]),
          .bank_i(offered_bank_q[SCALED-1]),
          .chosen_i(chosen),
          .read_i({sum_bank_q, sum_expert_q}),
          .summed_i(summed_q[SUMMED-1]),
          .summed_first_i(summed_expert_q[SUMMED-1] == '0),
          .summed_expert_i(summed_expert_q[SUMMED-1]),
          .best_o(best[(p*TOKENS+t)*BEST+:BEST]),
          .sum_o(sum[(p*TOKENS+t)*SUM+:SUM])
      );
    end
  end

  // ---- pairs leave one by one
  logic [LEFT-1:0] behind_q;  // pairs that have not left
  logic [PAIR-1:0] pair_q;
  logic leaving_q, pair_end;
  assign pair_end   = pair_q == PAIR'(PAIRS - 1) || leave_last;
  assign leave      = leaving_q && behind_q != '0;
  assign leave_last = behind_q == LEFT'(1);
  always_ff @(posedge clk) begin
    if (rst) begin
      leaving_q <= 1'b0;
      behind_q  <= '0;
    end else begin
      if (summed_last_q[SUMMED-1]) leaving_q <= 1'b1;
      else if (pair_end) leaving_q <= 1'b0;
      if (open) behind_q <= pairs_i;
      else if (leave) behind_q <= behind_q - LEFT'(1);
    end
    pair_q <= leaving_q && !pair_end ? pair_q + PAIR'(1) : '0;
  end

  // Slots after the top-k get expert 0 with a numerator, and so a score, of 0.
  logic scored_valid_q, scored_last_q;
  logic [TOKENS*BEST-1:0] best_q;
  logic [TOKENS*SUM-1:0] sum_q;
  always_ff @(posedge clk) begin
    scored_valid_q <= !rst && leave;
    scored_last_q  <= leave_last;
    sum_q          <= sum[int'(pair_q)*TOKENS*SUM+:TOKENS*SUM];
    best_q         <= best[int'(pair_q)*TOKENS*BEST+:TOKENS*BEST];
    for (int t = 0; t < TOKENS; t++) begin
      for (int i = 0; i < MAX_TOP_K; i++) begin
        if (4'(i) >= top_k_q) begin
          best_q[t*BEST+i*EXPERT+:EXPERT]            <= '0;
          best_q[t*BEST+MAX_TOP_K*EXPERT+i*16+:16] <= '0;
        end
      end
    end
  end

  logic push_last;
  logic [TOKENS*BEST-1:0] pushed, out;
  route_scores #(
      .TOKENS(TOKENS),
      .MAX_EXPERTS(MAX_EXPERTS),
      .MAX_TOP_K(MAX_TOP_K)
  ) u_scores (
      .clk,
      .rst,
      .valid_i(scored_valid_q),
      .last_i(scored_last_q),
      .best_i(best_q),
      .sum_i(sum_q),
      .valid_o(push),
      .last_o(push_last),
      .best_o(pushed)
  );

  // verilator lint_off PINCONNECTEMPTY
  fifo #(
      .WIDTH(TOKENS * BEST + 1),
      .DEPTH(ROOM)
  ) u_fifo (
      .clk,
      .rst,
      .s_axis_data_tdata({push_last, pushed}),
      .s_axis_data_tvalid(push),
      .s_axis_data_tready(),  // there is room: a group would not have begun
      .m_axis_data_tdata({m_axis_route_tlast, out}),
      .m_axis_data_tvalid(m_axis_route_tvalid),
      .m_axis_data_tready(m_axis_route_tready),
      .count_o()
  );
  // verilator lint_on PINCONNECTEMPTY

  for (genvar t = 0; t < TOKENS; t++) begin : g_row
    for (genvar i = 0; i < SLOTS; i++) begin : g_slot
      if (i < MAX_TOP_K) begin : g_used
        assign m_axis_route_tdata[(t*SLOTS+i)*32+:32] = {
          out[t*BEST+MAX_TOP_K*EXPERT+i*16+:16], 16'(out[t*BEST+i*EXPERT+:EXPERT])
        };
      end else begin : g_unused
        assign m_axis_route_tdata[(t*SLOTS+i)*32+:32] = '0;
      end
    end
  end

endmodule

`default_nettype wire
