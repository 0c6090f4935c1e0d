// SPDX-License-Identifier: Apache-2.0
// Rows of int16 [D] to int8 [D]. SPEC.md, section 4.
//   T = sum x, Q = sum x^2, V = D Q - T^2 + epsilon, (R, k) = reciprocal square root of V,
//   xhat = clip16(rs((D x - T) R, k + 5)), y = clip(rs(xhat gamma + beta, n), -128, 127)
//
// A slice is LANES channels of one row; a row has ceil(D / LANES) slices. In the last one, lanes beyond D may
// hold any value. A layer is a frame of gamma and beta, then a frame of rows; channels_i, shift_i and epsilon_i
// are taken with the last slice of parameters. The next layer's parameters may come at any time: there is room
// for two layers.
//
// Each slice goes into a ring and through the moments. When a row's R is known, its slices leave the ring for
// the second pass while later rows come in: one slice per cycle in, one out. A row's first result comes 32
// cycles after its last slice.
`default_nettype none

module layernorm #(
    parameter int LANES = edge_moe_pkg::VECTOR_CHANNELS,
    parameter int MAX_WIDTH = edge_moe_pkg::MAX_WIDTH
) (
    input wire clk,
    input wire rst,

    input wire [$clog2(MAX_WIDTH+1)-1:0] channels_i,  // D, at least 1
    input wire [5:0]                     shift_i,     // n, 1 to 47
    input wire [31:0]                    epsilon_i,   // at least 1

    // {gamma [LANES] of 16 bits, beta [LANES] of 32 bits}
    input  wire  [LANES*48-1:0] s_axis_parameter_tdata,
    input  wire                 s_axis_parameter_tvalid,
    output logic                s_axis_parameter_tready,
    input  wire                 s_axis_parameter_tlast,

    input  wire  [LANES*16-1:0] s_axis_x_tdata,
    input  wire                 s_axis_x_tvalid,
    output logic                s_axis_x_tready,
    input  wire                 s_axis_x_tlast,   // with a layer's last slice

    output logic [LANES*8-1:0] m_axis_y_tdata,
    output logic               m_axis_y_tvalid,
    input  wire                m_axis_y_tready,
    output logic               m_axis_y_tlast
);

  localparam int CHANNELS = $clog2(MAX_WIDTH + 1);
  localparam int TILES = (MAX_WIDTH + LANES - 1) / LANES;
  localparam int TILE = TILES > 1 ? $clog2(TILES) : 1;
  localparam int LAG = 22;  // cycles from a row's last slice into the ring to its first out of it, at most
  localparam int RING = $clog2(TILES + LAG);  // bits of a place
  localparam int TOTAL = 16 + $clog2(MAX_WIDTH);
  localparam int SQUARES = 31 + $clog2(MAX_WIDTH);
  localparam int SPREAD = (2 * $clog2(MAX_WIDTH) + 32 + 7) / 8 * 8;

  if (LANES < 2 || MAX_WIDTH < LANES || MAX_WIDTH > 1024) begin : g_check
    $fatal(1, "layernorm: MAX_WIDTH = %0d must be from LANES = %0d, at least 2, to 1024", MAX_WIDTH, LANES);
  end

  // ---- layers: each has one of two banks from its first parameter to its last slice of results
  logic [1:0] held_q;  // banks of layers whose parameters are complete
  logic [1:0] pending_q;  // those of them whose rows have not all come
  logic load_bank_q, x_bank_q, y_bank_q;
  logic [TILE-1:0] load_tile_q;
  logic load, loaded, taken_last, released;
  logic [CHANNELS-1:0] channels_q[2];
  logic [5:0] shift_q[2];
  logic [31:0] epsilon_q[2];

  assign s_axis_parameter_tready = held_q != 2'd2;
  assign load   = s_axis_parameter_tvalid && s_axis_parameter_tready;
  assign loaded = load && s_axis_parameter_tlast;

  always_ff @(posedge clk) begin
    if (rst) begin
      held_q      <= '0;
      pending_q   <= '0;
      load_bank_q <= 1'b0;
      load_tile_q <= '0;
    end else begin
      held_q    <= held_q + 2'(loaded) - 2'(released);
      pending_q <= pending_q + 2'(loaded) - 2'(taken_last);
      if (load) load_tile_q <= loaded ? '0 : load_tile_q + TILE'(1);
      if (loaded) load_bank_q <= !load_bank_q;
    end
    if (loaded) begin
      channels_q[load_bank_q] <= channels_i;
      shift_q[load_bank_q]    <= shift_i;
      epsilon_q[load_bank_q]  <= epsilon_i;
    end
  end

  // ---- rows come in
  logic [RING:0] slices_q;  // in the ring
  logic [RING-1:0] write_q;
  logic first_q;  // the next slice is the first of a row
  logic [CHANNELS-1:0] after_q, left;
  logic take, row_end, issue;

  assign s_axis_x_tready = pending_q != 2'd0 && !slices_q[RING];
  assign take       = s_axis_x_tvalid && s_axis_x_tready;
  assign left       = first_q ? channels_q[x_bank_q] : after_q;
  assign row_end    = left <= CHANNELS'(LANES);
  assign taken_last = take && row_end && s_axis_x_tlast;

  (* ram_style = "distributed" *)
  logic [LANES*16-1:0] ring[1<<RING];
  always_ff @(posedge clk) begin
    if (rst) begin
      slices_q <= '0;
      write_q  <= '0;
      first_q  <= 1'b1;
      x_bank_q <= 1'b0;
    end else begin
      slices_q <= slices_q + (RING + 1)'(take) - (RING + 1)'(issue);
      if (take) write_q <= write_q + RING'(1);
      if (take) first_q <= row_end;
      if (taken_last) x_bank_q <= !x_bank_q;
    end
    if (take) ring[write_q] <= s_axis_x_tdata;
    if (take) after_q <= left - CHANNELS'(LANES);
  end

  // ---- first pass: moments, V, its reciprocal square root; at most a row per cycle, without stops
  logic moments_valid;
  logic [1:0] moments_tag;  // {last row of its layer, bank}
  logic signed [TOTAL-1:0] moments_total;
  logic [SQUARES-1:0] moments_squares;
  layernorm_moments #(
      .LANES(LANES),
      .MAX_WIDTH(MAX_WIDTH)
  ) u_moments (
      .clk,
      .rst,
      .valid_i(take),
      .x_i(s_axis_x_tdata),
      .left_i(left),
      .first_i(first_q),
      .tag_i({s_axis_x_tlast, x_bank_q}),
      .valid_o(moments_valid),
      .total_o(moments_total),
      .squares_o(moments_squares),
      .tag_o(moments_tag)
  );

  localparam int SPREAD_STAGES = 6;
  logic [SPREAD_STAGES-1:0] spread_valid_q;
  logic [SPREAD-1:0] spread;
  layernorm_spread #(
      .MAX_WIDTH(MAX_WIDTH),
      .WIDTH(SPREAD)
  ) u_spread (
      .clk,
      .total_i(moments_total),
      .squares_i(moments_squares),
      .channels_i(channels_q[moments_tag[0]]),
      .epsilon_i(epsilon_q[moments_tag[0]]),
      .spread_o(spread)
  );
  always_ff @(posedge clk) begin
    if (rst) spread_valid_q <= '0;
    else spread_valid_q <= {spread_valid_q[SPREAD_STAGES-2:0], moments_valid};
  end

  logic inverse_valid;
  // verilator lint_off UNUSEDSIGNAL
  logic [23:0] inverse;  // {k of 8 bits, at most 25, R of 16 bits}
  // verilator lint_on UNUSEDSIGNAL
  // verilator lint_off PINCONNECTEMPTY
  reciprocal_sqrt #(
      .WIDTH(SPREAD)
  ) u_reciprocal_sqrt (
      .clk,
      .rst,
      .s_axis_v_tdata(spread),
      .s_axis_v_tvalid(spread_valid_q[SPREAD_STAGES-1]),
      .s_axis_v_tready(),
      .s_axis_v_tlast(1'b0),
      .m_axis_r_tdata(inverse),
      .m_axis_r_tvalid(inverse_valid),
      .m_axis_r_tready(1'b1),
      .m_axis_r_tlast()
  );
  // verilator lint_on PINCONNECTEMPTY

  // ---- values of whole rows, kept until their second pass; a row has at least one slice in the ring
  (* ram_style = "distributed" *)
  logic [TOTAL:0] totals[1<<RING];  // {last row of its layer, T}
  (* ram_style = "distributed" *)
  logic [20:0] inverses[1<<RING];
  logic [RING-1:0] total_write_q, inverse_write_q, row_q;
  logic [RING:0] rows_q;  // whose R is known
  logic y_row_end;
  always_ff @(posedge clk) begin
    if (rst) begin
      total_write_q   <= '0;
      inverse_write_q <= '0;
      row_q           <= '0;
      rows_q          <= '0;
    end else begin
      total_write_q   <= total_write_q + RING'(moments_valid);
      inverse_write_q <= inverse_write_q + RING'(inverse_valid);
      row_q           <= row_q + RING'(issue && y_row_end);
      rows_q          <= rows_q + (RING + 1)'(inverse_valid) - (RING + 1)'(issue && y_row_end);
    end
    if (moments_valid) totals[total_write_q] <= {moments_tag[1], moments_total};
    if (inverse_valid) inverses[inverse_write_q] <= inverse[20:0];
  end

  // ---- second pass
  logic [RING-1:0] read_q;
  logic y_first_q, enable, y_last, y_layer_end;
  logic signed [TOTAL-1:0] y_total;
  logic [20:0] y_inverse;
  logic [CHANNELS-1:0] y_after_q, y_left;
  logic [TILE-1:0] y_tile_q;

  assign issue       = enable && rows_q != '0;
  assign y_left      = y_first_q ? channels_q[y_bank_q] : y_after_q;
  assign y_row_end   = y_left <= CHANNELS'(LANES);
  assign {y_last, y_total} = totals[row_q];
  assign y_inverse   = inverses[row_q];
  assign y_layer_end = y_last && y_row_end;

  always_ff @(posedge clk) begin
    if (rst) begin
      read_q    <= '0;
      y_first_q <= 1'b1;
      y_tile_q  <= '0;
      y_bank_q  <= 1'b0;
    end else if (issue) begin
      read_q    <= read_q + RING'(1);
      y_first_q <= y_row_end;
      y_tile_q  <= y_row_end ? '0 : y_tile_q + TILE'(1);
      if (y_layer_end) y_bank_q <= !y_bank_q;
    end
    if (issue) y_after_q <= y_left - CHANNELS'(LANES);
  end

  layernorm_channels #(
      .LANES(LANES),
      .MAX_WIDTH(MAX_WIDTH),
      .TILES(1 << TILE),
      .ADDRESS(TILE + 1)
  ) u_channels (
      .clk,
      .rst,
      .parameter_write_i(load),
      .parameter_address_i({load_bank_q, load_tile_q}),
      .parameter_i(s_axis_parameter_tdata),
      .enable_o(enable),
      .valid_i(issue),
      .last_i(y_layer_end),
      .x_i(ring[read_q]),
      .tile_i({y_bank_q, y_tile_q}),
      .channels_i(channels_q[y_bank_q]),
      .total_i(y_total),
      .inverse_i(y_inverse[15:0]),
      .exponent_i(y_inverse[20:16]),
      .shift_i(shift_q[y_bank_q]),
      .released_o(released),
      .m_axis_y_tdata,
      .m_axis_y_tvalid,
      .m_axis_y_tready,
      .m_axis_y_tlast
  );

endmodule

`default_nettype wire
