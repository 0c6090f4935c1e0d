// SPDX-License-Identifier: Apache-2.0
// A whole linear layer with its requantisation, and GELU if gelu_i says so (linear_epilogue.sv). SPEC.md, sections 4
// and 9.
//
// start_valid_i, start_ready_o: a layer begins; all scalars are taken with the handshake and the next layer is taken
//   when the last result of this one is.
// s_axis_w: the layer's block of the weight image, plane by plane.
// x_read_o: reads the memory of activations; x_data_i always follows READ_LATENCY cycles later. Beat
//   x_base_i + r in_tiles_i + t = {row 2r+1, row 2r} of 32 int8 each, their tile t of inputs.
// m_axis_y: {row 2r+1, row 2r} of int16 results of a tile of outputs, pairs r in order, tlast at the end of each
//   tile, tiles in order. The partner of an odd last row has no meaning.
//
// For each tile of outputs and each tile of inputs, all pairs of rows pass the compute unit. The last of these passes
// streams through the epilogue while the next tile of outputs begins.
`default_nettype none

module linear #(
    parameter int ADDRESS = $clog2(edge_moe_pkg::SCRATCH_BYTES / 64),
    parameter int READ_LATENCY = 2,
    parameter int ROWS = edge_moe_pkg::ACCUMULATOR_ROWS
) (
    input wire clk,
    input wire rst,

    input  wire                start_valid_i,
    output logic               start_ready_o,
    input  wire         [15:0] rows_i,        // 1 to ROWS
    input  wire         [11:0] in_tiles_i,    // at least 1
    input  wire         [11:0] out_tiles_i,   // at least 1
    input  wire         [3:0]  bits_i,        // of a weight, 2 to 8
    input  wire  [ADDRESS-1:0] x_base_i,
    input  wire                gelu_i,
    input  wire         [5:0]  shift_i,
    input  wire         [15:0] multiplier2_i,  // after GELU
    input  wire         [5:0]  shift2_i,       // after GELU
    input  wire  signed [15:0] low_i,
    input  wire  signed [15:0] high_i,
    input  wire  signed [7:0]  zero_point_i,

    input  wire  [edge_moe_pkg::FIFO_READ_BYTES*8-1:0] s_axis_w_tdata,
    input  wire                                        s_axis_w_tvalid,
    output logic                                       s_axis_w_tready,

    output logic                                                        x_read_o,
    output logic [ADDRESS-1:0]                                          x_address_o,
    input  wire  [edge_moe_pkg::TOKENS_PARALLEL*edge_moe_pkg::TILE_IN*8-1:0] x_data_i,

    output logic [edge_moe_pkg::TOKENS_PARALLEL*edge_moe_pkg::TILE_OUT*16-1:0] m_axis_y_tdata,
    output logic                                                               m_axis_y_tvalid,
    input  wire                                                                m_axis_y_tready,
    output logic                                                               m_axis_y_tlast
);

  localparam int TOKENS = edge_moe_pkg::TOKENS_PARALLEL;
  localparam int TILE_IN = edge_moe_pkg::TILE_IN;
  localparam int TILE_OUT = edge_moe_pkg::TILE_OUT;
  localparam int PLANE = TILE_IN * TILE_OUT;  // bits: one plane of a tile
  localparam int X = TOKENS * TILE_IN * 8;
  localparam int AHEAD = 8;  // tiles whose biases may have been read before the first is used up
  localparam int READS = 16;  // beats of x that are on their way or wait
  localparam int PAIR = $clog2(ROWS / TOKENS + 1);

  if (PLANE != edge_moe_pkg::FIFO_READ_BYTES * 8 || TILE_OUT * 32 != PLANE) begin : g_check_plane
    $fatal(1, "linear: FIFO_READ_BYTES = %0d must be a plane of a tile and the biases of its outputs",
           edge_moe_pkg::FIFO_READ_BYTES);
  end
  if (READ_LATENCY < 1 || READ_LATENCY > READS - 4) begin : g_check_latency
    $fatal(1, "linear: READ_LATENCY = %0d must be 1 to %0d", READ_LATENCY, READS - 4);
  end

  // -- the layer

  logic               busy_q, start, done;
  logic [PAIR-1:0]    last_pair_q;
  logic [11:0]        in_tiles_q, last_in_q, last_out_q;
  logic [3:0]         bits_q;
  logic [ADDRESS-1:0] base_q;
  logic               gelu_q;
  logic        [5:0]  shift_q, shift2_q;
  logic        [15:0] multiplier2_q;
  logic signed [15:0] low_q, high_q;
  logic signed [7:0]  zero_point_q;

  assign start_ready_o = !busy_q;
  assign start         = start_valid_i && start_ready_o;

  always_ff @(posedge clk) begin
    if (rst) busy_q <= 1'b0;
    else busy_q <= start || (busy_q && !done);
    if (start) begin
      last_pair_q   <= PAIR'((rows_i + 16'd1) / 16'(TOKENS)) - PAIR'(1);
      in_tiles_q    <= in_tiles_i;
      last_in_q     <= in_tiles_i - 12'd1;
      last_out_q    <= out_tiles_i - 12'd1;
      bits_q        <= bits_i;
      base_q        <= x_base_i;
      gelu_q        <= gelu_i;
      shift_q       <= shift_i;
      shift2_q      <= shift2_i;
      multiplier2_q <= multiplier2_i;
      low_q         <= low_i;
      high_q        <= high_i;
      zero_point_q  <= zero_point_i;
    end
  end

  // -- weights: each tile of outputs begins with its biases; in an even one the multipliers of two tiles follow

  typedef enum logic [1:0] {IDLE, BIASES, MULTIPLIERS, PLANES} part_t;
  part_t       part_q;
  logic [11:0] w_in_q, w_out_q;
  logic [3:0]  plane_q;
  logic        bias_ready, multiplier_ready, plane_ready, w_accept;

  always_comb begin
    case (part_q)
      BIASES:      s_axis_w_tready = bias_ready;
      MULTIPLIERS: s_axis_w_tready = multiplier_ready;
      PLANES:      s_axis_w_tready = plane_ready;
      default:     s_axis_w_tready = 1'b0;
    endcase
  end
  assign w_accept = s_axis_w_tvalid && s_axis_w_tready;

  always_ff @(posedge clk) begin
    if (rst) part_q <= IDLE;
    else if (start) part_q <= BIASES;
    else if (w_accept) begin
      case (part_q)
        BIASES:  part_q <= w_out_q[0] ? PLANES : MULTIPLIERS;
        PLANES:
        if (plane_q == bits_q - 4'd1 && w_in_q == last_in_q) part_q <= w_out_q == last_out_q ? IDLE : BIASES;
        default: part_q <= PLANES;
      endcase
    end
    if (start) begin
      w_in_q  <= '0;
      w_out_q <= '0;
      plane_q <= '0;
    end else if (w_accept && part_q == PLANES) begin
      plane_q <= plane_q == bits_q - 4'd1 ? '0 : plane_q + 4'd1;
      if (plane_q == bits_q - 4'd1) begin
        w_in_q <= w_in_q == last_in_q ? '0 : w_in_q + 12'd1;
        if (w_in_q == last_in_q) w_out_q <= w_out_q + 12'd1;
      end
    end
  end

  logic [TILE_OUT*32-1:0] bias;
  logic                   bias_valid, bias_taken;
  logic [$clog2(AHEAD+4)-1:0] unused_bias_count;
  fifo #(
      .WIDTH(TILE_OUT * 32),
      .DEPTH(AHEAD)
  ) u_biases (
      .clk,
      .rst,
      .s_axis_data_tdata (s_axis_w_tdata),
      .s_axis_data_tvalid(s_axis_w_tvalid && part_q == BIASES),
      .s_axis_data_tready(bias_ready),
      .m_axis_data_tdata (bias),
      .m_axis_data_tvalid(bias_valid),
      .m_axis_data_tready(bias_taken),
      .count_o           (unused_bias_count)
  );

  logic [2*TILE_OUT*16-1:0] multipliers;  // of two tiles
  logic                     multipliers_valid, multipliers_taken;
  logic [$clog2(AHEAD/2+4)-1:0] unused_multiplier_count;
  fifo #(
      .WIDTH(2 * TILE_OUT * 16),
      .DEPTH(AHEAD / 2)
  ) u_multipliers (
      .clk,
      .rst,
      .s_axis_data_tdata (s_axis_w_tdata),
      .s_axis_data_tvalid(s_axis_w_tvalid && part_q == MULTIPLIERS),
      .s_axis_data_tready(multiplier_ready),
      .m_axis_data_tdata (multipliers),
      .m_axis_data_tvalid(multipliers_valid),
      .m_axis_data_tready(multipliers_taken),
      .count_o           (unused_multiplier_count)
  );

  // -- activations: the same rows again for every tile of outputs

  typedef logic [$clog2(READS+1)-1:0] reads_t;
  logic                    reading_q, read;
  logic [11:0]             x_in_q, x_out_q;
  logic [PAIR-1:0]         x_pair_q;
  logic [ADDRESS-1:0]      address_q, column_q;  // column: of this pass's first beat
  reads_t                  room_q;
  logic [READ_LATENCY-1:0] coming_q, coming_last_q;
  logic                    pair_last, x_valid, x_ready, x_last;
  logic [X-1:0]            x;

  assign pair_last   = x_pair_q == last_pair_q;
  assign read        = reading_q && room_q != '0;
  assign x_read_o    = read;
  assign x_address_o = address_q;

  always_ff @(posedge clk) begin
    if (rst) begin
      reading_q <= 1'b0;
      coming_q  <= '0;
      room_q    <= reads_t'(READS);
    end else begin
      if (start) reading_q <= 1'b1;
      else if (read && pair_last && x_in_q == last_in_q && x_out_q == last_out_q) reading_q <= 1'b0;
      coming_q <= (coming_q << 1) | READ_LATENCY'(read);
      room_q   <= room_q + reads_t'(x_valid && x_ready) - reads_t'(read);
    end
    coming_last_q <= (coming_last_q << 1) | READ_LATENCY'(pair_last);
    if (start) begin
      x_in_q    <= '0;
      x_out_q   <= '0;
      x_pair_q  <= '0;
      address_q <= x_base_i;
      column_q  <= x_base_i;
    end else if (read) begin
      x_pair_q  <= pair_last ? '0 : x_pair_q + PAIR'(1);
      address_q <= address_q + ADDRESS'(in_tiles_q);
      if (pair_last) begin
        x_in_q    <= x_in_q == last_in_q ? '0 : x_in_q + 12'd1;
        column_q  <= x_in_q == last_in_q ? base_q : column_q + ADDRESS'(1);
        address_q <= x_in_q == last_in_q ? base_q : column_q + ADDRESS'(1);
        if (x_in_q == last_in_q) x_out_q <= x_out_q + 12'd1;
      end
    end
  end

  logic [$clog2(READS+4)-1:0] unused_x_count;
  logic unused_x_ready;  // a read begins only if there is room
  fifo #(
      .WIDTH(X + 1),
      .DEPTH(READS)
  ) u_activations (
      .clk,
      .rst,
      .s_axis_data_tdata ({coming_last_q[READ_LATENCY-1], x_data_i}),
      .s_axis_data_tvalid(coming_q[READ_LATENCY-1]),
      .s_axis_data_tready(unused_x_ready),
      .m_axis_data_tdata ({x_last, x}),
      .m_axis_data_tvalid(x_valid),
      .m_axis_data_tready(x_ready),
      .count_o           (unused_x_count)
  );

  // -- products, sums, results

  logic [TOKENS*TILE_OUT*32-1:0] y, a;
  logic                          y_valid, y_ready, y_last, a_valid, a_ready, a_last;
  compute_unit u_compute_unit (
      .clk,
      .rst,
      .load_i         (2'd0),
      .bits_i         (bits_q),
      .s_axis_w_tdata,
      .s_axis_w_tvalid(s_axis_w_tvalid && part_q == PLANES),
      .s_axis_w_tready(plane_ready),
      .s_axis_x_tdata (x),
      .s_axis_x_tvalid(x_valid),
      .s_axis_x_tready(x_ready),
      .s_axis_x_tlast (x_last),
      .m_axis_y_tdata (y),
      .m_axis_y_tvalid(y_valid),
      .m_axis_y_tready(y_ready),
      .m_axis_y_tlast (y_last)
  );

  logic [11:0] y_in_q;
  always_ff @(posedge clk) begin
    if (start) y_in_q <= '0;
    else if (y_valid && y_ready && y_last) y_in_q <= y_in_q == last_in_q ? '0 : y_in_q + 12'd1;
  end

  accumulators #(
      .ROWS(ROWS)
  ) u_accumulators (
      .clk,
      .rst,
      .first_i           (y_in_q == '0),
      .finish_i          (y_in_q == last_in_q),
      .s_axis_y_tdata    (y),
      .s_axis_y_tvalid   (y_valid),
      .s_axis_y_tready   (y_ready),
      .s_axis_y_tlast    (y_last),
      .s_axis_bias_tdata (bias),
      .s_axis_bias_tvalid(bias_valid),
      .s_axis_bias_tready(bias_taken),
      .m_axis_a_tdata    (a),
      .m_axis_a_tvalid   (a_valid),
      .m_axis_a_tready   (a_ready),
      .m_axis_a_tlast    (a_last)
  );

  logic [11:0]            a_out_q;
  logic [TILE_OUT*16-1:0] multiplier;
  logic                   epilogue_ready, a_ends;
  assign multiplier        = multipliers[a_out_q[0]*TILE_OUT*16+:TILE_OUT*16];
  assign a_ready           = epilogue_ready && multipliers_valid;
  assign a_ends            = a_valid && a_ready && a_last;
  assign multipliers_taken = a_ends && (a_out_q[0] || a_out_q == last_out_q);
  always_ff @(posedge clk) begin
    if (start) a_out_q <= '0;
    else if (a_ends) a_out_q <= a_out_q + 12'd1;
  end

  linear_epilogue #(
      .LANES(TOKENS * TILE_OUT)
  ) u_linear_epilogue (
      .clk,
      .rst,
      .gelu_i         (gelu_q),
      .shift_i        (shift_q),
      .multiplier2_i  (multiplier2_q),
      .shift2_i       (shift2_q),
      .low_i          (low_q),
      .high_i         (high_q),
      .zero_point_i   (zero_point_q),
      .s_axis_a_tdata ({{TOKENS{multiplier}}, a}),
      .s_axis_a_tvalid(a_valid && multipliers_valid),
      .s_axis_a_tready(epilogue_ready),
      .s_axis_a_tlast (a_last),
      .m_axis_y_tdata,
      .m_axis_y_tvalid,
      .m_axis_y_tready,
      .m_axis_y_tlast
  );

  logic [11:0] done_out_q;  // tiles of outputs that have left
  logic        leaves;
  assign leaves = m_axis_y_tvalid && m_axis_y_tready && m_axis_y_tlast;
  assign done   = leaves && done_out_q == last_out_q;
  always_ff @(posedge clk) begin
    if (start) done_out_q <= '0;
    else if (leaves) done_out_q <= done_out_q + 12'd1;
  end

endmodule

`default_nettype wire
