// SPDX-License-Identifier: Apache-2.0
// The input of attention's compute unit: tiles of K and V, and against them the queries and the numerators.
// The numerators wait here for the passes of V. SPEC.md, section 4, attention.
//
// The limits must not change from start_i until everything is given. Numerators come block by block, each with
// its pair. A pair of the last block's passes of V is given only when there is room for its result. Two registers,
// which move together, are between that decision and the compute unit.
`default_nettype none

module attention_feed #(
    parameter int MAX_HEADS = edge_moe_pkg::MAX_HEADS,
    parameter int MAX_TILES = edge_moe_pkg::MAX_HEAD_DIM / edge_moe_pkg::TILE_IN,
    parameter int MAX_PAIRS = edge_moe_pkg::MAX_TOKENS / edge_moe_pkg::TOKENS_PARALLEL,
    parameter int MAX_BLOCKS = edge_moe_pkg::TOKEN_LIMIT / edge_moe_pkg::KEY_BLOCK,
    parameter int TILE = edge_moe_pkg::KEY_BLOCK,
    parameter int PAIR = edge_moe_pkg::TOKENS_PARALLEL * edge_moe_pkg::TILE_IN * 8,
    parameter int RESULTS = 64,  // that there is room for
    parameter int LAG = 5        // a pass of fewer pairs waits until the one before is LAG cycles ahead
) (
    input wire clk,
    input wire rst,

    input wire                            start_i,
    input wire [$clog2(MAX_HEADS+1)-1:0]  heads_i,
    input wire [$clog2(MAX_BLOCKS+1)-1:0] blocks_i,
    input wire [$clog2(MAX_TILES+1)-1:0]  tiles_i,
    input wire [$clog2(MAX_PAIRS+1)-1:0]  pairs_i,
    input wire                            hold_i,  // no query yet

    input  wire  [PAIR-1:0] s_axis_kv_tdata,
    input  wire             s_axis_kv_tvalid,
    output logic            s_axis_kv_tready,

    input  wire  [PAIR-1:0] s_axis_q_tdata,
    input  wire             s_axis_q_tvalid,
    output logic            s_axis_q_tready,

    input wire                         numerators_valid_i,
    input wire [$clog2(MAX_PAIRS)-1:0] numerators_pair_i,
    input wire [PAIR-1:0]              numerators_i,
    input wire                         result_leaves_i,

    output logic [1:0]      load_o,  // form of the tile: compute_unit.sv
    output logic [PAIR-1:0] m_axis_w_tdata,
    output logic            m_axis_w_tvalid,
    input  wire             m_axis_w_tready,

    output logic [PAIR-1:0] m_axis_x_tdata,
    output logic            m_axis_x_tvalid,
    input  wire             m_axis_x_tready,
    output logic            m_axis_x_tlast
);

  localparam int HEAD = $clog2(MAX_HEADS + 1);
  localparam int TILES = $clog2(MAX_TILES + 1);
  localparam int PAIRS = $clog2(MAX_PAIRS + 1);
  localparam int STEPS = $clog2(TILE / 2 + 1);
  localparam int ROOM = $clog2(RESULTS + 1);
  localparam int SETTLE = $clog2(LAG);

  if (MAX_PAIRS < 2 || LAG < 2 || TILE % 2 != 0) begin : g_check
    $fatal(1, "attention_feed: MAX_PAIRS = %0d and LAG = %0d must be at least 2, TILE even", MAX_PAIRS, LAG);
  end

  // ---- tiles: pairs of keys, as rows of K or columns of V
  logic load_active, load_values;
  assign load_o           = load_values ? 2'd2 : 2'd1;
  assign m_axis_w_tdata   = s_axis_kv_tdata;
  assign m_axis_w_tvalid  = s_axis_kv_tvalid && load_active;
  assign s_axis_kv_tready = m_axis_w_tready && load_active;

  logic [HEAD-1:0]  unused_load_head;
  logic [TILES-1:0] unused_load_tile;
  logic [STEPS-1:0] unused_load_index;
  logic [4:0]       unused_load;
  attention_order #(
      .MAX_HEADS(MAX_HEADS),
      .MAX_BLOCKS(MAX_BLOCKS),
      .MAX_TILES(MAX_TILES),
      .MAX_STEPS(TILE / 2)
  ) u_load_order (
      .clk,
      .rst,
      .start_i,
      .step_i(m_axis_w_tvalid && m_axis_w_tready),
      .heads_i,
      .blocks_i,
      .tiles_i,
      .steps_i(STEPS'(TILE / 2)),
      .active_o(load_active),
      .head_o(unused_load_head),
      .first_block_o(unused_load[0]),
      .last_block_o(unused_load[1]),
      .values_o(load_values),
      .tile_o(unused_load_tile),
      .last_tile_o(unused_load[2]),
      .index_o(unused_load_index),
      .last_index_o(unused_load[3]),
      .last_o(unused_load[4])
  );

  // ---- which pair is the next, and whether it may go
  logic active, values, last_block, last_index, open, give, give_first_of_values, give_result;
  logic [TILES-1:0] tile;
  logic [PAIRS-1:0] index;
  logic [HEAD-1:0]  unused_head;
  logic [2:0]       unused_give;
  attention_order #(
      .MAX_HEADS(MAX_HEADS),
      .MAX_BLOCKS(MAX_BLOCKS),
      .MAX_TILES(MAX_TILES),
      .MAX_STEPS(MAX_PAIRS)
  ) u_give_order (
      .clk,
      .rst,
      .start_i,
      .step_i(give),
      .heads_i,
      .blocks_i,
      .tiles_i,
      .steps_i(pairs_i),
      .active_o(active),
      .head_o(unused_head),
      .first_block_o(unused_give[0]),
      .last_block_o(last_block),
      .values_o(values),
      .tile_o(tile),
      .last_tile_o(unused_give[1]),
      .index_o(index),
      .last_index_o(last_index),
      .last_o(unused_give[2])
  );

  logic              enable;
  logic [PAIRS-1:0]  waiting_q;  // numerators that the first pass of V has not taken
  logic [ROOM-1:0]   room_q;
  logic [SETTLE-1:0] settle_q;

  assign open = active && enable && !(index == '0 && pairs_i < PAIRS'(LAG) && settle_q != '0);
  assign s_axis_q_tready = open && !values && !hold_i;
  assign give = values ? open && (tile != '0 || waiting_q != '0) && (!last_block || room_q != '0)
                       : s_axis_q_tready && s_axis_q_tvalid;
  assign give_first_of_values = give && values && tile == '0;
  assign give_result          = give && values && last_block;

  always_ff @(posedge clk) begin
    if (rst) begin
      waiting_q <= '0;
      room_q    <= ROOM'(RESULTS);
      settle_q  <= '0;
    end else begin
      waiting_q <= waiting_q + PAIRS'(numerators_valid_i) - PAIRS'(give_first_of_values);
      room_q    <= room_q + ROOM'(result_leaves_i) - ROOM'(give_result);
      settle_q  <= give ? SETTLE'(LAG - 1) : settle_q - SETTLE'(settle_q != '0);
    end
  end

  // ---- the query, or the numerators from their memory
  (* ram_style = "block" *) (* no_rw_check *)
  logic [PAIR-1:0] numerators[MAX_PAIRS];
  logic [PAIR-1:0] numerators_q, query_q;
  logic            valid_q, last_q, values_q;
  assign enable = !m_axis_x_tvalid || m_axis_x_tready;

  always_ff @(posedge clk) begin
    if (rst) {m_axis_x_tvalid, valid_q} <= '0;
    else if (enable) {m_axis_x_tvalid, valid_q} <= {valid_q, give};
    if (enable) begin
      {m_axis_x_tlast, last_q} <= {last_q, last_index};
      values_q                 <= values;
      query_q                  <= s_axis_q_tdata;
      numerators_q             <= numerators[($clog2(MAX_PAIRS))'(index)];
      m_axis_x_tdata           <= values_q ? numerators_q : query_q;
    end
    if (numerators_valid_i) numerators[numerators_pair_i] <= numerators_i;
  end

endmodule

`default_nettype wire
