// SPDX-License-Identifier: Apache-2.0
// Softmax of base 2 in one pass over blocks of keys: numerators, the right shift of earlier sums, and for
// each query the exponent M (an integer above every logit so far) and the sum S. SPEC.md, section 4,
// attention.
//
// A head's logits come block by block, in each block all pairs of rows. pairs_i and keys_i are taken with its
// first pair; another head may follow at once. The last block's lanes beyond the keys may hold any value. A
// pair's next block may come in the very next cycle: values not yet written are passed on. Stages: operands,
// three of the maximum, M, three of numerator.sv, three of their sum, S. The whole pipeline stops while the
// last stage is not taken.
`default_nettype none

module softmax #(
    parameter int TOKENS = edge_moe_pkg::TOKENS_PARALLEL,
    parameter int KEYS = edge_moe_pkg::KEY_BLOCK,
    parameter int MAX_PAIRS = (edge_moe_pkg::MAX_TOKENS + TOKENS - 1) / TOKENS  // "pairs" of TOKENS rows
) (
    input wire clk,
    input wire rst,

    input wire [$clog2(MAX_PAIRS+1)-1:0]                 pairs_i,  // at least 1
    input wire [$clog2(edge_moe_pkg::TOKEN_LIMIT+1)-1:0] keys_i,   // of all blocks, at least 1

    input  wire  [TOKENS*KEYS*16-1:0] s_axis_x_tdata,  // logits in Q8, [TOKENS][KEYS]
    input  wire                       s_axis_x_tvalid,
    output logic                      s_axis_x_tready,

    // {S [TOKENS] of 32 bits; M [TOKENS] of 16; rescale [TOKENS] of 8; numerators [TOKENS][KEYS] of 8}
    output logic [TOKENS*(KEYS*8+56)-1:0] m_axis_p_tdata,
    output logic                          m_axis_p_tvalid,
    input  wire                           m_axis_p_tready,
    output logic                          m_axis_p_tlast  // of a head
);

  localparam int STAGES = 12;
  localparam int PAIR = MAX_PAIRS > 1 ? $clog2(MAX_PAIRS) : 1;
  localparam int COUNT = $clog2(KEYS + 1);
  localparam int KEYS_ALL = $clog2(edge_moe_pkg::TOKEN_LIMIT + 1);
  localparam int WHOLE = 16 - edge_moe_pkg::EXP2_BITS;  // bits of a logit above its fraction
  localparam int EXPONENT = WHOLE + 1;  // M in [-128, 128]
  localparam int RESCALE = $clog2(edge_moe_pkg::EXPONENT_LIMIT + 1);
  localparam int SUM = $clog2(127 * 256 * edge_moe_pkg::TOKEN_LIMIT + 1);
  localparam int TOTAL = $clog2(127 * KEYS + 1);  // sum of one block's numerators
  localparam int UP = edge_moe_pkg::SUM_FRACTION;
  localparam logic signed [EXPONENT-1:0] LOWEST = EXPONENT'(-(1 << (WHOLE - 1)));

  if (KEYS % 16 != 0 || KEYS < 16 || KEYS > 64) begin : g_check
    $fatal(1, "softmax: KEYS = %0d must be 16, 32, 48 or 64, for trees of three stages", KEYS);
  end
  if (TOKENS < 1 || MAX_PAIRS < 1) begin : g_check_rows
    $fatal(1, "softmax: TOKENS = %0d and MAX_PAIRS = %0d must be at least 1", TOKENS, MAX_PAIRS);
  end

  logic enable, take;
  assign enable          = !valid_q[STAGES] || m_axis_p_tready;
  assign take            = enable && s_axis_x_tvalid;
  assign s_axis_x_tready = enable;

  // ---- the pair's number
  logic                           start_q, first_block_q, first_block, last_pair, last_block;
  logic [PAIR-1:0]                pair_q, pair;
  logic [$clog2(MAX_PAIRS+1)-1:0] pairs_q, pairs;
  logic [KEYS_ALL-1:0]            left_q, left;  // keys of this block and of those after it
  logic [COUNT-1:0]               valid_keys;

  assign pairs       = start_q ? pairs_i : pairs_q;
  assign left        = start_q ? keys_i : left_q;
  assign pair        = start_q ? '0 : pair_q;
  assign first_block = start_q || first_block_q;
  assign last_pair   = ($clog2(MAX_PAIRS+1))'(pair) + 1'b1 == pairs;
  assign last_block  = left <= KEYS_ALL'(KEYS);
  assign valid_keys  = last_block ? left[COUNT-1:0] : COUNT'(KEYS);

  always_ff @(posedge clk) begin
    if (rst) start_q <= 1'b1;
    else if (take) start_q <= last_pair && last_block;
    if (take) begin
      pairs_q       <= pairs;
      pair_q        <= last_pair ? '0 : pair + 1'b1;
      left_q        <= last_pair ? left - KEYS_ALL'(KEYS) : left;
      first_block_q <= first_block && !last_pair;
    end
  end

  // ---- values of a whole pair: index s means after s registers
  logic [STAGES:1] valid_q, last_q, first_q;
  logic [PAIR-1:0] pair_at_q[1:STAGES];
  logic [COUNT-1:0] keys_at_q[1:5];
  logic same_m_q, same_s_q;  // the element ahead is the same pair, so what it writes cannot be read yet
  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else if (enable) valid_q <= {valid_q[STAGES-1:1], s_axis_x_tvalid};
    if (enable) begin
      last_q       <= {last_q[STAGES-1:1], last_pair && last_block};
      first_q      <= {first_q[STAGES-1:1], first_block};
      pair_at_q[1] <= pair;
      keys_at_q[1] <= valid_keys;
      for (int s = 2; s <= STAGES; s++) pair_at_q[s] <= pair_at_q[s-1];
      for (int s = 2; s <= 5; s++) keys_at_q[s] <= keys_at_q[s-1];
      same_m_q <= valid_q[4] && pair_at_q[4] == pair_at_q[3];
      same_s_q <= valid_q[11] && pair_at_q[11] == pair_at_q[10];
    end
  end

  for (genvar t = 0; t < TOKENS; t++) begin : g_token
    // ---- maximum; only its whole part is needed; lanes without a key have the smallest value
    logic [KEYS*16-1:0] x_q[1:5];
    logic signed [WHOLE-1:0] valid_whole_q[KEYS];
    logic signed [WHOLE-1:0] max8_q[KEYS/4];
    logic signed [WHOLE-1:0] max2_q[KEYS/16];
    logic signed [WHOLE-1:0] highest;
    logic signed [EXPONENT-1:0] above_q;  // the least M that the block needs

    function automatic logic signed [WHOLE-1:0] larger(input logic signed [WHOLE-1:0] a,
                                                       input logic signed [WHOLE-1:0] b);
      larger = a > b ? a : b;
    endfunction

    always_comb begin
      highest = max2_q[0];
      for (int i = 1; i < KEYS / 16; i++) highest = larger(highest, max2_q[i]);
    end

    always_ff @(posedge clk) begin
      if (enable) begin
        x_q[1] <= s_axis_x_tdata[t*KEYS*16+:KEYS*16];
        for (int s = 2; s <= 5; s++) x_q[s] <= x_q[s-1];
        for (int i = 0; i < KEYS; i++) begin
          if (COUNT'(i) < valid_keys) valid_whole_q[i] <= $signed(s_axis_x_tdata[(t*KEYS+i+1)*16-1-:WHOLE]);
          else valid_whole_q[i] <= {1'b1, {WHOLE - 1{1'b0}}};
        end
        for (int i = 0; i < KEYS / 4; i++) begin
          max8_q[i] <= larger(larger(valid_whole_q[4*i], valid_whole_q[4*i+1]),
                              larger(valid_whole_q[4*i+2], valid_whole_q[4*i+3]));
        end
        for (int i = 0; i < KEYS / 16; i++) begin
          max2_q[i] <= larger(larger(max8_q[4*i], max8_q[4*i+1]), larger(max8_q[4*i+2], max8_q[4*i+3]));
        end
        above_q <= EXPONENT'(highest) + EXPONENT'(1);
      end
    end

    // ---- M, after 5 registers; the memory is read after 4 and written after 5
    (* ram_style = "distributed" *) (* no_rw_check *)
    logic signed [EXPONENT-1:0] exponents[MAX_PAIRS];
    logic signed [EXPONENT-1:0] exponent_read_q, exponent_before, exponent_raised;
    logic signed [EXPONENT-1:0] exponent_before_q;
    logic signed [EXPONENT-1:0] exponent_q[5:STAGES];
    logic signed [EXPONENT-1:0] rise;
    logic [RESCALE-1:0] rescale_q[6:STAGES];

    assign exponent_before = first_q[4] ? LOWEST : same_m_q ? exponent_q[5] : exponent_read_q;
    assign exponent_raised = above_q > exponent_before ? above_q : exponent_before;
    assign rise            = exponent_q[5] - exponent_before_q;  // not negative, so 9 bits hold 256

    always_ff @(posedge clk) begin
      if (enable) begin
        exponent_read_q   <= exponents[pair_at_q[3]];
        exponent_before_q <= exponent_before;
        exponent_q[5]     <= exponent_raised;
        for (int s = 6; s <= STAGES; s++) exponent_q[s] <= exponent_q[s-1];
        rescale_q[6] <= rise[EXPONENT-1:RESCALE] != '0 ? '1 : rise[RESCALE-1:0];
        for (int s = 7; s <= STAGES; s++) rescale_q[s] <= rescale_q[s-1];
        if (valid_q[4]) exponents[pair_at_q[4]] <= exponent_raised;
      end
    end

    // ---- numerators, after 8 registers
    logic [KEYS*8-1:0] numerators;
    logic [KEYS*8-1:0] numerators_q[9:STAGES];

    numerator #(
        .LANES(KEYS)
    ) u_numerator (
        .clk,
        .enable_i(enable),
        .logit_i(x_q[5]),
        .exponent_i(exponent_q[5]),
        .keys_i(keys_at_q[5]),
        .numerator_o(numerators)
    );

    // ---- S, after 12 registers; the memory is read after 11 and written after 12
    logic [8:0]  sum8_q[KEYS/4];
    logic [10:0] sum2_q[KEYS/16];
    logic [TOTAL-1:0] total, total_q;
    (* ram_style = "distributed" *) (* no_rw_check *)
    logic [SUM-1:0] sums[MAX_PAIRS];
    logic [SUM-1:0] sum_read_q, sum_before, sum_after, sum_q;
    logic [SUM:0]   halves;

    always_comb begin
      total = '0;
      for (int i = 0; i < KEYS / 16; i++) total += TOTAL'(sum2_q[i]);
    end

    // rs(S, r) + 256 total = ((2 S >> r) + 1 + 512 total) >> 1: one addition
    assign sum_before = first_q[11] ? '0 : same_s_q ? sum_q : sum_read_q;
    assign halves     = ({sum_before, 1'b0} >> rescale_q[11]) + (SUM + 1)'({total_q, {UP{1'b0}}, 1'b1});
    assign sum_after  = halves[SUM:1];

    always_ff @(posedge clk) begin
      if (enable) begin
        numerators_q[9] <= numerators;
        for (int s = 10; s <= STAGES; s++) numerators_q[s] <= numerators_q[s-1];
        for (int i = 0; i < KEYS / 4; i++) begin
          sum8_q[i] <= (9'(numerators[32*i+:8]) + 9'(numerators[32*i+8+:8]))
                     + (9'(numerators[32*i+16+:8]) + 9'(numerators[32*i+24+:8]));
        end
        for (int i = 0; i < KEYS / 16; i++) begin
          sum2_q[i] <= (11'(sum8_q[4*i]) + 11'(sum8_q[4*i+1])) + (11'(sum8_q[4*i+2]) + 11'(sum8_q[4*i+3]));
        end
        total_q    <= total;
        sum_read_q <= sums[pair_at_q[10]];
        sum_q      <= sum_after;
        if (valid_q[11]) sums[pair_at_q[11]] <= sum_after;
      end
    end

    assign m_axis_p_tdata[t*KEYS*8+:KEYS*8]               = numerators_q[STAGES];
    assign m_axis_p_tdata[TOKENS*KEYS*8+t*8+:8]           = 8'(rescale_q[STAGES]);
    assign m_axis_p_tdata[TOKENS*(KEYS*8+8)+t*16+:16]     = 16'(exponent_q[STAGES]);
    assign m_axis_p_tdata[TOKENS*(KEYS*8+24)+t*32+:32]    = 32'(sum_q);

    // the bits above include the rounding of the lowest bit of the halves
    logic unused_half;
    assign unused_half = halves[0];
  end

  assign m_axis_p_tvalid = valid_q[STAGES];
  assign m_axis_p_tlast  = last_q[STAGES];

  logic unused_first, unused_pair;  // last registers of values that are passed on further than needed
  assign unused_first = ^first_q[STAGES];
  assign unused_pair  = ^pair_at_q[STAGES];

endmodule

`default_nettype wire
