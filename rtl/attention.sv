// SPDX-License-Identifier: Apache-2.0
// softmax(q k^T) v, head by head; K and V are held in the compute unit while all queries pass.
// SPEC.md, section 4, attention.
//
//   queries --+-> compute_unit -> attention_accumulate -> average (A R) -> requantise -+-> results
//             |                                                                        |
//             +------------------ numerators <------------- softmax <------- logits ---+
//
// A job starts when start_i meets ready_o, which also takes its scalars: heads, pairs of queries, keys,
// tiles of a head's channels, shifts. Each block of 32 keys starts with the passes of K, one per tile: their dot
// products are summed over the tiles, become logits, and go through the softmax. Then come the passes of V, one
// per tile, whose x are the numerators. The first of them waits for numerators, which follow their query by 46
// cycles: with at least 46 pairs it never waits. The last block's passes of V give the results.
//
// The streams of a job, in this order:
//   s_axis_m:  for each head, for each tile: {logit multiplier 16 bits; out multiplier [32] 16 bits}
//   s_axis_kv: for each head, for each block: each tile of K, each tile of V, 16 pairs {key 2i+1, key 2i}.
//              The last block also has 16 pairs; keys that do not exist may be anything but -128.
//   s_axis_q:  for each head, for each block, for each tile: every pair {query 2i+1, query 2i}
//   m_axis_y:  for each head, for each tile: every pair {query 2i+1, query 2i}; tlast with a head's last one
//
// Nothing stops after the compute unit: a pair of the last passes is issued only when the FIFO of results
// has room.
`default_nettype none

module attention #(
    parameter int MAX_HEADS = edge_moe_pkg::MAX_HEADS,
    parameter int MAX_HEAD_DIM = edge_moe_pkg::MAX_HEAD_DIM,
    parameter int MAX_TOKENS = edge_moe_pkg::MAX_TOKENS,
    localparam int TILE = edge_moe_pkg::KEY_BLOCK,
    localparam int TOKENS = edge_moe_pkg::TOKENS_PARALLEL,
    localparam int MAX_TILES = MAX_HEAD_DIM / TILE,
    localparam int MAX_PAIRS = (MAX_TOKENS + TOKENS - 1) / TOKENS,
    localparam int HEAD = $clog2(MAX_HEADS + 1),
    localparam int TILES = $clog2(MAX_TILES + 1),
    localparam int PAIRS = $clog2(MAX_PAIRS + 1),
    localparam int KEYS = $clog2(edge_moe_pkg::TOKEN_LIMIT + 1),
    localparam int PAIR = TOKENS * TILE * 8
) (
    input wire clk,
    input wire rst,

    input  wire             start_i,
    output logic            ready_o,
    input  wire [HEAD-1:0]  heads_i,
    input  wire [PAIRS-1:0] pairs_i,
    input  wire [KEYS-1:0]  keys_i,
    input  wire [TILES-1:0] tiles_i,
    input  wire [5:0]       logit_shift_i,
    input  wire [5:0]       out_shift_i,

    input  wire  [TILE*16+15:0] s_axis_m_tdata,
    input  wire                 s_axis_m_tvalid,
    output logic                s_axis_m_tready,

    input  wire  [PAIR-1:0] s_axis_kv_tdata,
    input  wire             s_axis_kv_tvalid,
    output logic            s_axis_kv_tready,

    input  wire  [PAIR-1:0] s_axis_q_tdata,
    input  wire             s_axis_q_tvalid,
    output logic            s_axis_q_tready,

    output logic [PAIR-1:0] m_axis_y_tdata,
    output logic            m_axis_y_tvalid,
    input  wire             m_axis_y_tready,
    output logic            m_axis_y_tlast
);

  localparam int LANES = TOKENS * TILE;
  localparam int MAX_BLOCKS = edge_moe_pkg::TOKEN_LIMIT / TILE;
  localparam int BLOCKS = $clog2(MAX_BLOCKS + 1);
  localparam int INDEX = $clog2(MAX_PAIRS);
  localparam int ACCUMULATE = 4;  // latency of attention_accumulate
  localparam int LAG = 5;         // of pairs with the same address, there
  localparam int AVERAGE = 5;     // latency of requantise
  localparam int REGIONS = MAX_TILES + 1;  // of sums: dot products, then averages of each tile
  localparam int ADDRESS = $clog2(REGIONS * MAX_PAIRS);
  localparam int PARAMETERS = MAX_HEADS * MAX_TILES;
  localparam int RESULTS = 64;    // pairs of results on their way, more than there are stages
  localparam int WIDTH_Y = $clog2(TILE * 128 * 128 + 1) + 1;  // 32 products
  localparam int WIDTH_DOT = $clog2(MAX_HEAD_DIM * 128 * 128 + 1) + 1;
  localparam int WIDTH_A = $clog2(127 * 127 * edge_moe_pkg::TOKEN_LIMIT + 1) + 1;  // SPEC.md, section 5
  localparam int WIDTH_S = $clog2(127 * 256 * edge_moe_pkg::TOKEN_LIMIT + 1);

  if (MAX_HEAD_DIM % TILE != 0 || MAX_HEAD_DIM < TILE) begin : g_check_head
    $fatal(1, "attention: MAX_HEAD_DIM = %0d must be a multiple of %0d channels", MAX_HEAD_DIM, TILE);
  end
  if (TILE != edge_moe_pkg::TILE_IN || TILE != edge_moe_pkg::TILE_OUT) begin : g_check_tile
    $fatal(1, "attention: a tile of the compute unit must be a block of %0d keys both ways", TILE);
  end
  if (WIDTH_DOT > WIDTH_A || MAX_TOKENS < 3 || MAX_HEADS < 1) begin : g_check
    $fatal(1, "attention: MAX_TOKENS = %0d must be 3, MAX_HEADS = %0d 1 or more", MAX_TOKENS, MAX_HEADS);
  end

  // ---- the job
  logic             begin_q;  // the orders start one cycle after the scalars
  logic             job_done;
  logic [HEAD-1:0]  heads_q;
  logic [PAIRS-1:0] pairs_q;
  logic [KEYS-1:0]  keys_q;
  logic [BLOCKS-1:0] blocks_q;
  logic [TILES-1:0] tiles_q;
  logic [5:0]       logit_shift_q, out_shift_q;

  always_ff @(posedge clk) begin
    begin_q <= !rst && start_i && ready_o;
    if (rst || job_done) ready_o <= 1'b1;
    else if (start_i) ready_o <= 1'b0;
    if (start_i && ready_o) begin
      heads_q       <= heads_i;
      pairs_q       <= pairs_i;
      keys_q        <= keys_i;
      blocks_q      <= BLOCKS'((keys_i + KEYS'(TILE - 1)) / KEYS'(TILE));
      tiles_q       <= tiles_i;
      logit_shift_q <= logit_shift_i;
      out_shift_q   <= out_shift_i;
    end
  end

  // ---- parameters: an entry for each head and tile
  (* ram_style = "distributed" *) (* no_rw_check *)
  logic [TILE*16+15:0]           parameters[PARAMETERS];
  logic                          parameters_open_q, parameters_take, last_parameter, last_head;
  logic [HEAD-1:0]               parameters_head_q;
  logic [TILES-1:0]              parameters_tile_q;
  logic [$clog2(PARAMETERS)-1:0] parameters_address;

  function automatic logic [$clog2(PARAMETERS)-1:0] parameter_address(input logic [HEAD-1:0] head,
                                                                      input logic [TILES-1:0] tile);
    parameter_address = ($clog2(PARAMETERS))'(head * MAX_TILES) + ($clog2(PARAMETERS))'(tile);
  endfunction

  assign s_axis_m_tready    = parameters_open_q;
  assign parameters_take    = s_axis_m_tvalid && parameters_open_q;
  assign last_parameter     = parameters_tile_q + 1'b1 == tiles_q;  // of the head
  assign last_head          = parameters_head_q + 1'b1 == heads_q;
  assign parameters_address = parameter_address(parameters_head_q, parameters_tile_q);

  always_ff @(posedge clk) begin
    if (rst) parameters_open_q <= 1'b0;
    else if (begin_q) parameters_open_q <= 1'b1;
    else if (parameters_take && last_parameter && last_head) parameters_open_q <= 1'b0;
    if (begin_q) begin
      parameters_head_q <= '0;
      parameters_tile_q <= '0;
    end else if (parameters_take) begin
      parameters_tile_q <= last_parameter ? '0 : parameters_tile_q + 1'b1;
      if (last_parameter) parameters_head_q <= parameters_head_q + 1'b1;
    end
    if (parameters_take) parameters[parameters_address] <= s_axis_m_tdata;
  end

  // ---- K, V, queries and numerators to the array; its results are always taken
  logic [1:0]       load;
  logic [PAIR-1:0]  w, x, numerators;
  logic             w_valid, w_ready, x_valid, x_ready, x_last, y_valid, unused_y_last;
  logic             numerators_valid;
  logic [INDEX-1:0] numerators_pair_q;

  attention_feed #(
      .MAX_HEADS(MAX_HEADS),
      .MAX_TILES(MAX_TILES),
      .MAX_PAIRS(MAX_PAIRS),
      .MAX_BLOCKS(MAX_BLOCKS),
      .TILE(TILE),
      .PAIR(PAIR),
      .RESULTS(RESULTS),
      .LAG(LAG)
  ) u_feed (
      .clk,
      .rst,
      .start_i(begin_q),
      .heads_i(heads_q),
      .blocks_i(blocks_q),
      .tiles_i(tiles_q),
      .pairs_i(pairs_q),
      .hold_i(parameters_open_q),
      .s_axis_kv_tdata,
      .s_axis_kv_tvalid,
      .s_axis_kv_tready,
      .s_axis_q_tdata,
      .s_axis_q_tvalid,
      .s_axis_q_tready,
      .numerators_valid_i(numerators_valid),
      .numerators_pair_i(numerators_pair_q),
      .numerators_i(numerators),
      .result_leaves_i(m_axis_y_tvalid && m_axis_y_tready),
      .load_o(load),
      .m_axis_w_tdata(w),
      .m_axis_w_tvalid(w_valid),
      .m_axis_w_tready(w_ready),
      .m_axis_x_tdata(x),
      .m_axis_x_tvalid(x_valid),
      .m_axis_x_tready(x_ready),
      .m_axis_x_tlast(x_last)
  );

  // verilator lint_off UNUSEDSIGNAL
  logic [LANES*32-1:0] y;  // the upper bits of a lane are its sign
  // verilator lint_on UNUSEDSIGNAL
  compute_unit u_compute_unit (
      .clk,
      .rst,
      .load_i(load),
      .bits_i(4'd8),
      .s_axis_w_tdata((TILE*TILE)'(w)),
      .s_axis_w_tvalid(w_valid),
      .s_axis_w_tready(w_ready),
      .s_axis_x_tdata(x),
      .s_axis_x_tvalid(x_valid),
      .s_axis_x_tready(x_ready),
      .s_axis_x_tlast(x_last),
      .m_axis_y_tdata(y),
      .m_axis_y_tvalid(y_valid),
      .m_axis_y_tready(1'b1),
      .m_axis_y_tlast(unused_y_last)
  );

  // ---- what a result of the array is; from here on index s means after s registers
  logic             values, first_block, last_block, last_tile, last_index, last_of_job;
  logic [HEAD-1:0]  head;
  logic [TILES-1:0] tile;
  logic [PAIRS-1:0] index;
  logic             unused_collect_active;

  attention_order #(
      .MAX_HEADS(MAX_HEADS),
      .MAX_TILES(MAX_TILES),
      .MAX_STEPS(MAX_PAIRS)
  ) u_collect_order (
      .clk,
      .rst,
      .start_i(begin_q),
      .step_i(y_valid),
      .heads_i(heads_q),
      .blocks_i(blocks_q),
      .tiles_i(tiles_q),
      .steps_i(pairs_q),
      .active_o(unused_collect_active),
      .head_o(head),
      .first_block_o(first_block),
      .last_block_o(last_block),
      .values_o(values),
      .tile_o(tile),
      .last_tile_o(last_tile),
      .index_o(index),
      .last_index_o(last_index),
      .last_o(last_of_job)
  );

  localparam int SUMMED = 1 + ACCUMULATE;       // the sum is there
  localparam int AVERAGED = SUMMED + AVERAGE;   // and the average
  localparam int FINAL = AVERAGED + AVERAGE;    // and logit or result
  logic [FINAL:1] last_of_head_q, last_of_job_q;
  logic [SUMMED:1] complete_q;  // the sum goes on
  logic [SUMMED:1] values_q;
  logic [$clog2(PARAMETERS)-1:0] parameter_q[1:AVERAGED-1];
  logic [TILE*16+15:0] parameter_read_q;
  logic valid_q, keep_q;
  logic [ADDRESS-1:0] address_q;
  logic [LANES*WIDTH_Y-1:0] y_q;

  always_ff @(posedge clk) begin
    if (rst) complete_q <= '0;
    else complete_q <= {complete_q[SUMMED-1:1], y_valid && (values ? last_block : last_tile)};
    last_of_head_q <= {last_of_head_q[FINAL-1:1], last_index && last_tile};
    last_of_job_q  <= {last_of_job_q[FINAL-1:1], last_of_job};
    values_q       <= {values_q[SUMMED-1:1], values};
    parameter_q[1] <= parameter_address(head, tile);
    for (int s = 2; s < AVERAGED; s++) parameter_q[s] <= parameter_q[s-1];
    parameter_read_q <= parameters[parameter_q[AVERAGED-1]];
    valid_q   <= !rst && y_valid;
    keep_q    <= values ? !first_block : tile != '0;
    address_q <= ADDRESS'(index) + (values ? (ADDRESS'(tile) + 1'b1) * ADDRESS'(MAX_PAIRS) : '0);
    for (int i = 0; i < LANES; i++) y_q[i*WIDTH_Y+:WIDTH_Y] <= y[i*32+:WIDTH_Y];
  end

  // ---- rescale and 1/S of the pair's block: written with its numerators, before they are issued
  logic [TOKENS*5-1:0] rescale, rescale_q;
  (* ram_style = "distributed" *) (* no_rw_check *)
  logic [TOKENS*5-1:0] rescales[MAX_PAIRS];
  logic [TOKENS*24-1:0] inverse;
  (* ram_style = "distributed" *) (* no_rw_check *)
  logic [TOKENS*24-1:0] inverses[MAX_PAIRS];
  logic [TOKENS*24-1:0] inverse_q[1:SUMMED];
  logic inverse_valid;
  logic [INDEX-1:0] inverse_pair_q;

  always_ff @(posedge clk) begin
    rescale_q    <= values ? rescales[INDEX'(index)] : '0;
    inverse_q[1] <= inverses[INDEX'(index)];
    for (int s = 2; s <= SUMMED; s++) inverse_q[s] <= inverse_q[s-1];
    if (begin_q) begin
      numerators_pair_q <= '0;
      inverse_pair_q    <= '0;
    end else begin
      if (numerators_valid) numerators_pair_q <= next_index(numerators_pair_q);
      if (inverse_valid) inverse_pair_q <= next_index(inverse_pair_q);
    end
    if (numerators_valid) rescales[numerators_pair_q] <= rescale;
    if (inverse_valid) inverses[inverse_pair_q] <= inverse;
  end

  function automatic logic [INDEX-1:0] next_index(input logic [INDEX-1:0] present);
    next_index = PAIRS'(present) + 1'b1 == pairs_q ? '0 : present + 1'b1;
  endfunction

  // ---- sums, and what becomes of them
  logic [LANES*WIDTH_A-1:0] sum;
  logic [LANES*16-1:0]      scaled;
  logic                     scaled_valid, scaled_values;

  attention_accumulate #(
      .ENTRIES(REGIONS * MAX_PAIRS),
      .WIDTH(WIDTH_A),
      .WIDTH_Y(WIDTH_Y)
  ) u_accumulate (
      .clk,
      .rst,
      .valid_i(valid_q),
      .address_i(address_q),
      .keep_i(keep_q),
      .rescale_i(rescale_q),
      .y_i(y_q),
      .a_o(sum)
  );

  attention_scale #(
      .TOKENS(TOKENS),
      .TILE(TILE),
      .WIDTH_A(WIDTH_A),
      .WIDTH_DOT(WIDTH_DOT)
  ) u_scale (
      .clk,
      .rst,
      .valid_i(complete_q[SUMMED]),
      .values_i(values_q[SUMMED]),
      .sum_i(sum),
      .inverse_i(inverse_q[SUMMED]),
      .parameter_i(parameter_read_q),
      .logit_shift_i(logit_shift_q),
      .out_shift_i(out_shift_q),
      .valid_o(scaled_valid),
      .values_o(scaled_values),
      .scaled_o(scaled)
  );

  // ---- numerators, and 1/S of the sum up to this block
  // verilator lint_off UNUSEDSIGNAL
  logic [TOKENS*(TILE*8+56)-1:0] block;  // M is kept to itself
  // verilator lint_on UNUSEDSIGNAL
  logic unused_softmax_ready, unused_softmax_last, unused_inverse_ready, unused_inverse_last;
  softmax #(
      .TOKENS(TOKENS),
      .KEYS(TILE),
      .MAX_PAIRS(MAX_PAIRS)
  ) u_softmax (
      .clk,
      .rst,
      .pairs_i(pairs_q),
      .keys_i(keys_q),
      .s_axis_x_tdata(scaled),
      .s_axis_x_tvalid(scaled_valid && !scaled_values),
      .s_axis_x_tready(unused_softmax_ready),
      .m_axis_p_tdata(block),
      .m_axis_p_tvalid(numerators_valid),
      .m_axis_p_tready(1'b1),
      .m_axis_p_tlast(unused_softmax_last)
  );
  assign numerators = block[PAIR-1:0];
  for (genvar t = 0; t < TOKENS; t++) begin : g_rescale
    assign rescale[t*5+:5] = block[PAIR+t*8+:5];
  end

  reciprocal #(
      .LANES(TOKENS),
      .WIDTH(WIDTH_S)
  ) u_reciprocal (
      .clk,
      .rst,
      .s_axis_v_tdata(block[TOKENS*(TILE*8+56)-1-:TOKENS*32]),
      .s_axis_v_tvalid(numerators_valid),
      .s_axis_v_tready(unused_inverse_ready),
      .s_axis_v_tlast(1'b0),
      .m_axis_r_tdata(inverse),
      .m_axis_r_tvalid(inverse_valid),
      .m_axis_r_tready(1'b1),
      .m_axis_r_tlast(unused_inverse_last)
  );

  // ---- results
  logic [PAIR-1:0] result;
  logic            result_valid, unused_fifo_ready;
  logic [$clog2(RESULTS+4)-1:0] unused_count;
  for (genvar i = 0; i < LANES; i++) begin : g_result
    assign result[i*8+:8] = scaled[i*16+:8];
  end
  assign result_valid = scaled_valid && scaled_values;
  assign job_done     = result_valid && last_of_job_q[FINAL];

  fifo #(
      .WIDTH(PAIR + 1),
      .DEPTH(RESULTS)
  ) u_results (
      .clk,
      .rst,
      .s_axis_data_tdata({last_of_head_q[FINAL], result}),
      .s_axis_data_tvalid(result_valid),
      .s_axis_data_tready(unused_fifo_ready),
      .m_axis_data_tdata({m_axis_y_tlast, m_axis_y_tdata}),
      .m_axis_data_tvalid(m_axis_y_tvalid),
      .m_axis_data_tready(m_axis_y_tready),
      .count_o(unused_count)
  );

endmodule

`default_nettype wire
