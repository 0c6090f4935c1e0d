// SPDX-License-Identifier: Apache-2.0
// The order of attention's work: for each head, for each block of keys, K and then V, for each tile of the
// head's channels, step by step. The loader, the issue of rows and the results each have such a counter of their
// own.
`default_nettype none

module attention_order #(
    parameter int MAX_HEADS = edge_moe_pkg::MAX_HEADS,
    parameter int MAX_BLOCKS = edge_moe_pkg::TOKEN_LIMIT / edge_moe_pkg::KEY_BLOCK,
    parameter int MAX_TILES = edge_moe_pkg::MAX_HEAD_DIM / edge_moe_pkg::TILE_IN,
    parameter int MAX_STEPS = edge_moe_pkg::MAX_TOKENS
) (
    input wire clk,
    input wire rst,

    input wire start_i,  // when not active; the limits must not change from then on until the end
    input wire step_i,   // the present one is done

    input wire [$clog2(MAX_HEADS+1)-1:0]  heads_i,
    input wire [$clog2(MAX_BLOCKS+1)-1:0] blocks_i,
    input wire [$clog2(MAX_TILES+1)-1:0]  tiles_i,
    input wire [$clog2(MAX_STEPS+1)-1:0]  steps_i,

    output logic                           active_o,
    output logic [$clog2(MAX_HEADS+1)-1:0] head_o,
    output logic                           first_block_o,
    output logic                           last_block_o,
    output logic                           values_o,      // V, else K
    output logic [$clog2(MAX_TILES+1)-1:0] tile_o,
    output logic                           last_tile_o,
    output logic [$clog2(MAX_STEPS+1)-1:0] index_o,
    output logic                           last_index_o,
    output logic                           last_o         // of all
);

  if (MAX_HEADS < 1 || MAX_BLOCKS < 1 || MAX_TILES < 1 || MAX_STEPS < 1) begin : g_check
    $fatal(1, "attention_order: every limit must be at least 1, MAX_TILES = %0d", MAX_TILES);
  end

  logic [$clog2(MAX_BLOCKS+1)-1:0] block_q;
  logic end_of_pass, end_of_tiles, end_of_block, end_of_head;

  assign first_block_o = block_q == '0;
  assign last_block_o  = block_q + 1'b1 == blocks_i;
  assign last_tile_o   = tile_o + 1'b1 == tiles_i;
  assign last_index_o  = index_o + 1'b1 == steps_i;

  assign end_of_pass  = step_i && last_index_o;
  assign end_of_tiles = end_of_pass && last_tile_o;
  assign end_of_block = end_of_tiles && values_o;
  assign end_of_head  = end_of_block && last_block_o;
  assign last_o       = last_index_o && last_tile_o && values_o && last_block_o && head_o + 1'b1 == heads_i;

  always_ff @(posedge clk) begin
    if (rst) active_o <= 1'b0;
    else if (start_i) active_o <= 1'b1;
    else if (step_i && last_o) active_o <= 1'b0;

    if (start_i) begin
      head_o   <= '0;
      block_q  <= '0;
      values_o <= 1'b0;
      tile_o   <= '0;
      index_o  <= '0;
    end else begin
      if (step_i) index_o <= last_index_o ? '0 : index_o + 1'b1;
      if (end_of_pass) tile_o <= last_tile_o ? '0 : tile_o + 1'b1;
      if (end_of_tiles) values_o <= !values_o;
      if (end_of_block) block_q <= last_block_o ? '0 : block_q + 1'b1;
      if (end_of_head) head_o <= head_o + 1'b1;
    end
  end

endmodule

`default_nettype wire
