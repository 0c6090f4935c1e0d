// SPDX-License-Identifier: Apache-2.0
// Mixture of experts: residual + sum over a token's experts of rs(f score, 15), saturated once. SPEC.md,
// section 4.
//
// An expert's results come by pairs of tokens, in any order; the tokens of one pair differ. A token may
// be on one side of a pair for one expert and on the other side for the next, so each side has sums of
// all tokens, and both are added to the residual: one tile of any pair per cycle. A pair waits while an
// earlier one with the same token and tile has not been written yet.
//
// A mixture is a frame of results, then a frame of residual slices, one token and tile each: tiles_i of
// token 0, of token 1, and so on. The sums read then become 0 for the next mixture. After reset, DEPTH
// cycles clear them too.
`default_nettype none

module experts #(
    parameter int LANES = edge_moe_pkg::TILE_OUT,
    parameter int MAX_TOKENS = edge_moe_pkg::MAX_TOKENS,
    parameter int MAX_WIDTH = edge_moe_pkg::MAX_WIDTH,
    parameter int MAX_TOP_K = edge_moe_pkg::MAX_TOP_K
) (
    input wire clk,
    input wire rst,

    input wire [7:0] tiles_i,  // of a row; taken with each residual slice

    // {tile of 16 bits, score [2], token [2], f [2][LANES] of 16 bits}; bit 15 of a token: this side is empty
    input  wire  [LANES*32+79:0] s_axis_f_tdata,
    input  wire                  s_axis_f_tvalid,
    output logic                 s_axis_f_tready,
    input  wire                  s_axis_f_tlast,

    input  wire  [LANES*16-1:0] s_axis_residual_tdata,
    input  wire                 s_axis_residual_tvalid,
    output logic                s_axis_residual_tready,
    input  wire                 s_axis_residual_tlast,

    output logic [LANES*16-1:0] m_axis_y_tdata,
    output logic                m_axis_y_tvalid,
    input  wire                 m_axis_y_tready,
    output logic                m_axis_y_tlast
);

  localparam int SIDES = 2;
  localparam int STAGES = 5;  // taken, product, product again and memory, rounded and memory again, sum
  localparam int FRACTION = edge_moe_pkg::SCORE_FRACTION;
  localparam int TILES = (MAX_WIDTH + LANES - 1) / LANES;
  localparam int TILE = TILES > 1 ? $clog2(TILES) : 1;
  localparam int TOKEN = $clog2(MAX_TOKENS);
  localparam int PLACE = TOKEN + TILE;
  localparam int DEPTH = MAX_TOKENS << TILE;
  localparam int SUM = 16 + $clog2(MAX_TOP_K);  // scores are not negative: |sum| <= 2^15 MAX_TOP_K

  if (MAX_TOP_K < 1 || MAX_TOP_K > edge_moe_pkg::TOP_K_LIMIT) begin : g_check
    $fatal(1, "experts: MAX_TOP_K = %0d must be from 1 to %0d", MAX_TOP_K, edge_moe_pkg::TOP_K_LIMIT);
  end
  if (MAX_TOKENS > 32768) begin : g_check_tokens
    $fatal(1, "experts: MAX_TOKENS = %0d must be at most 32768", MAX_TOKENS);
  end

  // ---- results, then the residual; first all sums become 0
  logic clearing_q, finishing_q;
  logic [PLACE-1:0] clear_q;
  logic enable, hazard, accept, take_f, take_residual;
  logic [STAGES-1:0] valid_q;
  logic [STAGES:0] finish_q, last_q;
  logic out_valid_q;

  assign enable                 = !out_valid_q || m_axis_y_tready;
  assign accept                 = enable && (!valid_q[0] || !hazard) && !clearing_q;
  assign s_axis_f_tready        = accept && !finishing_q;
  assign s_axis_residual_tready = accept && finishing_q;
  assign take_f                 = s_axis_f_tvalid && s_axis_f_tready;
  assign take_residual          = s_axis_residual_tvalid && s_axis_residual_tready;

  always_ff @(posedge clk) begin
    if (rst) begin
      clearing_q  <= 1'b1;
      clear_q     <= '0;
      finishing_q <= 1'b0;
    end else begin
      if (clearing_q) clear_q <= clear_q + PLACE'(1);
      if (clear_q == PLACE'(DEPTH - 1)) clearing_q <= 1'b0;
      if (take_f && s_axis_f_tlast) finishing_q <= 1'b1;
      else if (take_residual && s_axis_residual_tlast) finishing_q <= 1'b0;
    end
  end

  // ---- places: of the pair's two tokens, or of the residual's next token and tile on both sides
  logic [TOKEN-1:0] token_q;
  logic [TILE-1:0] tile_q;
  logic row_end;
  assign row_end = 8'(tile_q) == tiles_i - 8'd1;
  always_ff @(posedge clk) begin
    if (rst) begin
      token_q <= '0;
      tile_q  <= '0;
    end else if (take_residual) begin
      tile_q  <= row_end || s_axis_residual_tlast ? '0 : tile_q + TILE'(1);
      token_q <= s_axis_residual_tlast ? '0 : token_q + TOKEN'(row_end);
    end
  end

  // verilator lint_off UNUSEDSIGNAL
  logic [15:0] f_token[SIDES], f_tile;
  // verilator lint_on UNUSEDSIGNAL
  logic [PLACE-1:0] place_q[SIDES][STAGES];
  logic [STAGES-1:0] write_q[SIDES];  // this side is not empty
  logic [SIDES-1:0] meets;
  assign f_tile = s_axis_f_tdata[LANES*32+64+:16];
  for (genvar s = 0; s < SIDES; s++) begin : g_place
    assign f_token[s] = s_axis_f_tdata[LANES*32+s*16+:16];

    always_comb begin
      meets[s] = 1'b0;
      for (int i = 1; i < STAGES - 1; i++) begin  // read in stage 1, written in the last
        if (valid_q[i] && write_q[s][i] && place_q[s][i] == place_q[s][0]) meets[s] = write_q[s][0];
      end
    end

    always_ff @(posedge clk) begin
      if (accept) begin
        place_q[s][0] <= finishing_q ? {token_q, tile_q} : {f_token[s][TOKEN-1:0], f_tile[TILE-1:0]};
        write_q[s][0] <= finishing_q || !f_token[s][15];
      end
      if (enable) begin
        for (int i = 1; i < STAGES; i++) place_q[s][i] <= place_q[s][i-1];
        write_q[s][STAGES-1:1] <= write_q[s][STAGES-2:0];
      end
    end
  end
  assign hazard = meets != '0;

  always_ff @(posedge clk) begin
    if (rst) begin
      valid_q     <= '0;
      out_valid_q <= 1'b0;
    end else begin
      if (accept) valid_q[0] <= take_f || take_residual;
      if (enable) begin
        valid_q[STAGES-1:1] <= {valid_q[STAGES-2:1], valid_q[0] && !hazard};
        out_valid_q         <= valid_q[STAGES-1] && finish_q[STAGES-1];
      end
    end
    if (accept) {finish_q[0], last_q[0]} <= {finishing_q, s_axis_residual_tlast};
    if (enable) begin
      finish_q[STAGES:1] <= finish_q[STAGES-1:0];
      last_q[STAGES:1]   <= last_q[STAGES-1:0];
    end
  end

  // ---- sums of both sides
  logic [LANES*SUM-1:0] before_q[SIDES], after_q[SIDES];
  for (genvar s = 0; s < SIDES; s++) begin : g_side
    (* ram_style = "ultra" *) (* no_rw_check *)  // a pair waits for what it would read while it is written
    logic [LANES*SUM-1:0] sums[DEPTH];
    logic [LANES*SUM-1:0] read_q, sum;
    logic [PLACE-1:0] place;
    logic write;

    assign write = clearing_q || enable && valid_q[STAGES-1] && write_q[s][STAGES-1];
    assign place = clearing_q ? clear_q : place_q[s][STAGES-1];
    assign sum   = clearing_q || finish_q[STAGES-1] ? '0 : after_q[s];
    always_ff @(posedge clk) begin
      if (write) sums[place] <= sum;
      if (enable) begin
        read_q      <= sums[place_q[s][1]];
        before_q[s] <= read_q;
      end
    end

    logic signed [15:0] score_q;
    always_ff @(posedge clk) if (accept) score_q <= $signed(s_axis_f_tdata[LANES*32+32+s*16+:16]);

    for (genvar i = 0; i < LANES; i++) begin : g_lane
      logic signed [15:0] f_q;
      logic signed [31:0] product_q, product_again_q;
      logic signed [16:0] weighted;
      logic signed [SUM-1:0] weighted_q;
      assign weighted = 17'((product_again_q + 32'(1 << (FRACTION - 1))) >>> FRACTION);
      always_ff @(posedge clk) begin
        if (accept) f_q <= $signed(s_axis_f_tdata[(s*LANES+i)*16+:16]);
        if (enable) begin
          product_q                <= f_q * score_q;
          product_again_q          <= product_q;
          weighted_q               <= SUM'(weighted);
          after_q[s][i*SUM+:SUM]   <= before_q[s][i*SUM+:SUM] + weighted_q;
        end
      end
    end
  end

  // ---- the residual joins; saturated once
  logic [LANES*16-1:0] residual_q[STAGES-1];
  always_ff @(posedge clk) begin
    if (accept) residual_q[0] <= s_axis_residual_tdata;
    if (enable) for (int i = 1; i < STAGES - 1; i++) residual_q[i] <= residual_q[i-1];
  end
  for (genvar i = 0; i < LANES; i++) begin : g_total
    localparam int TOTAL = SUM + 2;
    logic signed [TOTAL-1:0] total_q;
    logic signed [15:0] y_q;
    always_ff @(posedge clk) begin
      if (enable) begin
        total_q <= TOTAL'($signed(residual_q[STAGES-2][i*16+:16])) +
            TOTAL'($signed(before_q[0][i*SUM+:SUM])) + TOTAL'($signed(before_q[1][i*SUM+:SUM]));
        if (total_q < -TOTAL'(32768)) y_q <= 16'sh8000;
        else if (total_q > TOTAL'(32767)) y_q <= 16'sh7FFF;
        else y_q <= total_q[15:0];
      end
    end
    assign m_axis_y_tdata[i*16+:16] = y_q;
  end

  assign m_axis_y_tvalid = out_valid_q;
  assign m_axis_y_tlast  = last_q[STAGES];

endmodule

`default_nettype wire
