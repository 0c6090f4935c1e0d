// SPDX-License-Identifier: Apache-2.0
// Tokens sorted into one queue for each expert: routing rows in, experts with their tokens and scores out.
// SPEC.md, section 4, experts, and section 8, routing rows.
//
// Each route takes the next entry of one memory and is linked after its expert's last one, so any
// distribution fits, even all tokens on one expert, and the rows pass once. A route takes a cycle on its
// way in and one on its way out. Each expert in order gives one frame: its head, then its tokens in rising
// order. An empty expert gives a head alone. routed_o says before the first frame which experts are not
// empty, so that the weights of the others need not be read.
//
// GATE writes no row with a route to no expert, or twice to the same expert; such a route is
// left out.
`default_nettype none

module expert_queues #(
    parameter int MAX_TOKENS = edge_moe_pkg::MAX_TOKENS,
    parameter int MAX_EXPERTS = edge_moe_pkg::MAX_EXPERTS,
    parameter int MAX_TOP_K = edge_moe_pkg::MAX_TOP_K,
    parameter int SLOTS = edge_moe_pkg::TOP_K_LIMIT  // of a routing row
) (
    input wire clk,
    input wire rst,

    // taken with each pair
    input wire [15:0] experts_i,
    input wire [3:0]  top_k_i,
    input wire        odd_i,      // the pair with tlast has one token only

    // tokens 2 r and 2 r + 1: [2][SLOTS] of {score of 16 bits, expert of 16 bits}
    // verilator lint_off UNUSEDSIGNAL
    input  wire  [SLOTS*64-1:0] s_axis_route_tdata,  // slots beyond MAX_TOP_K are ignored
    // verilator lint_on UNUSEDSIGNAL
    input  wire                 s_axis_route_tvalid,
    output logic                s_axis_route_tready,
    input  wire                 s_axis_route_tlast,

    output logic [MAX_EXPERTS-1:0] routed_o,
    output logic                   routed_valid_o,  // while queues go out

    // {number of tokens, expert}, then {score, token}, 16 bits each; tlast ends an expert
    output logic [31:0] m_axis_queue_tdata,
    output logic        m_axis_queue_tvalid,
    input  wire         m_axis_queue_tready,
    output logic        m_axis_queue_tlast
);

  localparam int ROUTES = MAX_TOKENS * MAX_TOP_K;
  localparam int PLACE = $clog2(ROUTES);
  localparam int EXPERT = $clog2(MAX_EXPERTS);
  localparam int TOKEN = $clog2(MAX_TOKENS);
  localparam int COUNT = $clog2(MAX_TOKENS + 1);

  if (MAX_TOP_K < 1 || MAX_TOP_K > SLOTS) begin : g_check
    $fatal(1, "expert_queues: MAX_TOP_K = %0d must be from 1 to SLOTS = %0d", MAX_TOP_K, SLOTS);
  end
  if (MAX_EXPERTS < 2 || MAX_TOKENS < 2) begin : g_check_sizes
    $fatal(1, "expert_queues: MAX_EXPERTS = %0d and MAX_TOKENS = %0d must be at least 2", MAX_EXPERTS,
           MAX_TOKENS);
  end

  // ---- rows come in: a slot a cycle
  logic reading_q;  // all routes are in, queues go out
  logic busy_q, second_q;  // a row is here; another one after it
  logic last_q, ended_q;  // of the last pair; no row comes after it
  logic [MAX_TOP_K*32-1:0] row_q, behind_q;
  logic [3:0] slot_q, top_k_q;
  logic [15:0] experts_q;
  logic [TOKEN-1:0] token_q;
  logic [MAX_EXPERTS-1:0] named_q;  // by this row
  logic take, row_end, pair_end, read_end;

  assign row_end  = slot_q == top_k_q - 4'd1;
  assign pair_end = busy_q && row_end && !second_q;
  assign s_axis_route_tready = !reading_q && !ended_q && (!busy_q || pair_end && !last_q);
  assign take = s_axis_route_tvalid && s_axis_route_tready;

  always_ff @(posedge clk) begin
    if (rst) begin
      busy_q  <= 1'b0;
      ended_q <= 1'b0;
      token_q <= '0;
    end else begin
      if (take) busy_q <= 1'b1;
      else if (pair_end) busy_q <= 1'b0;
      if (pair_end && last_q) ended_q <= 1'b1;
      else if (read_end) ended_q <= 1'b0;
      if (read_end) token_q <= '0;
      else if (busy_q && row_end) token_q <= token_q + TOKEN'(1);
    end
    if (take) begin
      row_q     <= s_axis_route_tdata[MAX_TOP_K*32-1:0];
      behind_q  <= s_axis_route_tdata[SLOTS*32+:MAX_TOP_K*32];
      second_q  <= !(s_axis_route_tlast && odd_i);
      last_q    <= s_axis_route_tlast;
      experts_q <= experts_i;
      top_k_q   <= top_k_i;
      slot_q    <= '0;
    end else if (busy_q) begin
      row_q    <= row_end ? behind_q : row_q >> 32;
      slot_q   <= row_end ? '0 : slot_q + 4'd1;
      if (row_end) second_q <= 1'b0;
    end
  end

  logic [15:0] named;
  logic known, route_valid_q;
  logic [EXPERT-1:0] expert_q;
  logic [15:0] score_q;
  logic [TOKEN-1:0] route_token_q;
  assign named = row_q[15:0];
  assign known = named < experts_q && named < 16'(MAX_EXPERTS) && !named_q[named[EXPERT-1:0]];
  always_ff @(posedge clk) begin
    if (rst) route_valid_q <= 1'b0;
    else route_valid_q <= busy_q && known;
    if (!busy_q || row_end) named_q <= '0;
    else if (known) named_q[named[EXPERT-1:0]] <= 1'b1;
    expert_q      <= named[EXPERT-1:0];
    score_q       <= row_q[31:16];
    route_token_q <= token_q;
  end

  // ---- queues: entries in the order of arrival, each with the place of its expert's next one
  (* ram_style = "block" *) (* no_rw_check *)  // written only until they are read
  logic [TOKEN+15:0] entries[ROUTES];  // {score, token}
  (* ram_style = "block" *) (* no_rw_check *)
  logic [PLACE-1:0] nexts[ROUTES];
  (* ram_style = "distributed" *)
  logic [PLACE-1:0] heads[MAX_EXPERTS];
  (* ram_style = "distributed" *)
  logic [PLACE-1:0] tails[MAX_EXPERTS];
  (* ram_style = "distributed" *)
  logic [COUNT-1:0] counts[MAX_EXPERTS];
  logic [MAX_EXPERTS-1:0] routed_q;  // has an entry; the memories' values for others have no meaning
  logic [PLACE-1:0] place_q;
  logic [PLACE-1:0] tail;
  logic linked;
  assign linked = routed_q[expert_q];
  assign tail   = tails[expert_q];

  always_ff @(posedge clk) begin
    if (rst || read_end) begin
      routed_q <= '0;
      place_q  <= '0;
    end else if (route_valid_q) begin
      routed_q[expert_q] <= 1'b1;
      place_q            <= place_q + PLACE'(1);
    end
    if (route_valid_q) begin
      entries[place_q] <= {score_q, route_token_q};
      tails[expert_q]  <= place_q;
      counts[expert_q] <= linked ? counts[expert_q] + COUNT'(1) : COUNT'(1);
    end
    if (route_valid_q && linked) nexts[tail] <= place_q;
    if (route_valid_q && !linked) heads[expert_q] <= place_q;
  end

  // ---- and out: a head, then its entries; the place of an entry is read with the one before
  logic enable, walking_q, first_q, empty, step_last;
  logic [15:0] at_q;  // expert
  logic [COUNT-1:0] left_q, count;
  logic [PLACE-1:0] head_q, next_q, place;
  logic [1:0] valid_q, last_word_q;
  logic entry_q;
  logic [31:0] head_word_q, word_q;
  logic [TOKEN+15:0] read_q;

  assign enable    = !valid_q[1] || m_axis_queue_tready;
  assign empty     = !routed_q[at_q[EXPERT-1:0]];
  assign count     = empty ? '0 : counts[at_q[EXPERT-1:0]];
  assign step_last = walking_q ? left_q == COUNT'(1) : empty;
  assign read_end  = reading_q && enable && step_last && at_q == experts_q - 16'd1;
  assign place     = first_q ? head_q : next_q;

  always_ff @(posedge clk) begin
    if (rst) begin
      reading_q <= 1'b0;
      walking_q <= 1'b0;
      at_q      <= '0;
      valid_q   <= '0;
    end else begin
      if (read_end) reading_q <= 1'b0;
      else if (ended_q) reading_q <= 1'b1;  // the last route is being written
      if (enable) valid_q <= {valid_q[0], reading_q};
      if (reading_q && enable) begin
        walking_q <= !step_last;
        if (step_last) at_q <= read_end ? '0 : at_q + 16'd1;
      end
    end
    if (enable) begin
      first_q        <= !walking_q;
      left_q         <= walking_q ? left_q - COUNT'(1) : count;
      head_q         <= heads[at_q[EXPERT-1:0]];
      entry_q        <= walking_q;
      head_word_q    <= {16'(count), at_q};
      last_word_q    <= {last_word_q[0], step_last};
      next_q         <= nexts[place];
      read_q         <= entries[place];
      word_q         <= entry_q ? {read_q[TOKEN+:16], 16'(read_q[TOKEN-1:0])} : head_word_q;
    end
  end

  assign routed_o            = routed_q;
  assign routed_valid_o      = reading_q;
  assign m_axis_queue_tdata  = word_q;
  assign m_axis_queue_tvalid = valid_q[1];
  assign m_axis_queue_tlast  = last_word_q[1];

endmodule

`default_nettype wire
