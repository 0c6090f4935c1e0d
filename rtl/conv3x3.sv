// SPDX-License-Identifier: Apache-2.0
// A 3x3 convolution's input of the compute unit: for each tile of outputs, tap (ky, kx) and tile of inputs one
// pass over all pairs of output pixels, each with the two pixels that the tap reads, or the input's zero
// point outside the map. SPEC.md, sections 4, 8 and 9.
//
// The scratch memory stores the map by pairs of pixels: beat `base + pair * tiles + tile` has the tile of the
// even pixel in its even half and that of the odd pixel in its odd half. Two neighbours of which the first is
// odd are in two beats. Each half has its own address, so any two neighbours come in one cycle.
//
// start: job, while start_ready_o: pixels `first_pixel_i` to `first_pixel_i + pixels_i - 1`, whole lines from
//   line first_line_i on, of a map of height_i x width_i pixels of in_tiles_i tiles. All _i are taken then.
//   No field is 0.
// m_axis_address: a read of the memory, {odd half, even half}, each {the pixel exists, beat}. If the highest
//   bit of a half is 0, its beat has no meaning and need not be read.
// s_axis_pixels: the beats read, {odd half, even half}, in the order of the addresses, after any delay; up to
//   PENDING reads may be on their way.
// m_axis_x: {pixel 1, pixel 0} for the compute unit, tlast with the last pair of a pass. If the number of
//   pixels is odd, the last pair's second one is the tap of the next pixel, or the zero point; its result has
//   no meaning.
`default_nettype none

module conv3x3 #(
    parameter int TILE_IN = edge_moe_pkg::TILE_IN,
    parameter int BEATS = edge_moe_pkg::SCRATCH_BYTES / (edge_moe_pkg::TOKENS_PARALLEL * TILE_IN),
    parameter int MAX_PIXELS = edge_moe_pkg::MAX_MAP_ROWS,
    parameter int MAX_TILES = (edge_moe_pkg::MAX_CONV_CHANNELS + TILE_IN - 1) / TILE_IN,
    parameter int PENDING = 16,
    parameter int HALF = 8 * ($clog2(BEATS) / 8 + 1)  // bits of an address with its flag: whole bytes
) (
    input wire clk,
    input wire rst,

    input  wire                              start_valid_i,
    output logic                             start_ready_o,
    input  wire [$clog2(BEATS)-1:0]          base_i,
    input  wire [$clog2(MAX_PIXELS+1)-1:0]   height_i,
    input  wire [$clog2(MAX_PIXELS+1)-1:0]   width_i,
    input  wire [$clog2(MAX_PIXELS+1)-1:0]   first_line_i,
    input  wire [$clog2(MAX_PIXELS+1)-1:0]   first_pixel_i,
    input  wire [$clog2(MAX_PIXELS+1)-1:0]   pixels_i,
    input  wire [$clog2(MAX_TILES+1)-1:0]    in_tiles_i,
    input  wire [$clog2(MAX_TILES+1)-1:0]    out_tiles_i,
    input  wire signed [7:0]                 pad_i,  // the input's zero point

    output logic [2*HALF-1:0] m_axis_address_tdata,
    output logic              m_axis_address_tvalid,
    input  wire               m_axis_address_tready,

    input  wire  [2*TILE_IN*8-1:0] s_axis_pixels_tdata,
    input  wire                    s_axis_pixels_tvalid,
    output logic                   s_axis_pixels_tready,

    output logic [2*TILE_IN*8-1:0] m_axis_x_tdata,
    output logic                   m_axis_x_tvalid,
    input  wire                    m_axis_x_tready,
    output logic                   m_axis_x_tlast
);

  localparam int ADDRESS = $clog2(BEATS);
  localparam int PIXEL = $clog2(MAX_PIXELS + 1);
  localparam int PLACE = PIXEL + 2;  // signed: from width + 1 before the map to as many after it
  localparam int TILE = $clog2(MAX_TILES + 1);
  localparam int STAGES = 4;  // after the counters: place, product, product again, address

  if (TILE_IN < 1 || MAX_TILES < 1) begin : g_check
    $fatal(1, "conv3x3: TILE_IN = %0d and MAX_TILES = %0d must be at least 1", TILE_IN, MAX_TILES);
  end
  if (HALF <= ADDRESS || HALF % 8 != 0) begin : g_check_half
    $fatal(1, "conv3x3: HALF = %0d must be whole bytes and hold a beat's %0d bits and a flag", HALF, ADDRESS);
  end

  // -- the job and its progress

  logic               busy_q;
  logic [ADDRESS-1:0] base_q;
  logic [PIXEL-1:0]   height_q, width_q, first_line_q, first_pixel_q, pixels_q;
  logic [TILE-1:0]    in_tiles_q;
  logic [TILE-1:0]    out_left_q;  // tiles of outputs after this one
  logic signed [7:0]  pad_q;
  logic               enable, step, last_pair, last_tile, last_kx, last_ky, last_out;

  logic [1:0]             ky_q, kx_q;
  logic [TILE-1:0]        tile_q;
  logic [PIXEL:0]         done_q;            // pixels of this pass before this pair
  logic [PIXEL-1:0]       line_q, column_q;  // of the pair's first pixel
  logic signed [PLACE-1:0] place_q;          // the pair's first pixel in the map, moved by the tap
  logic signed [PLACE-1:0] start_q;          // place_q of the first pair
  logic                   wraps, narrow;

  assign start_ready_o = !busy_q;
  assign step          = busy_q && enable;
  assign last_pair     = done_q + (PIXEL + 1)'(2) >= (PIXEL + 1)'(pixels_q);
  assign last_tile     = tile_q + TILE'(1) == in_tiles_q;
  assign last_kx       = kx_q == 2'd2;
  assign last_ky       = ky_q == 2'd2;
  assign last_out      = out_left_q == '0;
  assign narrow        = width_q == PIXEL'(1);
  assign wraps         = column_q + PIXEL'(2) >= width_q && !narrow;  // the next pair begins in the next line

  always_ff @(posedge clk) begin
    if (rst) busy_q <= 1'b0;
    else if (start_valid_i && start_ready_o) busy_q <= 1'b1;
    else if (step && last_pair && last_tile && last_kx && last_ky && last_out) busy_q <= 1'b0;

    if (start_valid_i && start_ready_o) begin
      base_q        <= base_i;
      height_q      <= height_i;
      width_q       <= width_i;
      first_line_q  <= first_line_i;
      first_pixel_q <= first_pixel_i;
      pixels_q      <= pixels_i;
      in_tiles_q    <= in_tiles_i;
      out_left_q    <= out_tiles_i - TILE'(1);
      pad_q         <= pad_i;
      ky_q          <= '0;
      kx_q          <= '0;
      tile_q        <= '0;
      done_q        <= '0;
      line_q        <= first_line_i;
      column_q      <= '0;
      place_q       <= PLACE'(first_pixel_i) - PLACE'(width_i) - PLACE'(1);
      start_q       <= PLACE'(first_pixel_i) - PLACE'(width_i) - PLACE'(1);
    end else if (step && !last_pair) begin
      done_q   <= done_q + (PIXEL + 1)'(2);
      place_q  <= place_q + PLACE'(2);
      line_q   <= line_q + (narrow ? PIXEL'(2) : PIXEL'(wraps));
      column_q <= narrow ? '0 : wraps ? column_q + PIXEL'(2) - width_q : column_q + PIXEL'(2);
    end else if (step) begin  // the next pass: tiles of inputs first, then kx, then ky, then tiles of outputs
      done_q   <= '0;
      line_q   <= first_line_q;
      column_q <= '0;
      tile_q   <= last_tile ? '0 : tile_q + TILE'(1);
      place_q  <= start_q;
      if (last_tile) begin
        kx_q    <= last_kx ? '0 : kx_q + 2'd1;
        start_q <= next_start;
        place_q <= next_start;
        if (last_kx) ky_q <= last_ky ? '0 : ky_q + 2'd1;
        if (last_kx && last_ky) out_left_q <= out_left_q - TILE'(1);
      end
    end
  end

  // One to the right, to the beginning of the next line of taps, or to the first tap.
  logic signed [PLACE-1:0] next_start;
  always_comb begin
    if (!last_kx) next_start = start_q + PLACE'(1);
    else if (!last_ky) next_start = start_q + PLACE'(width_q) - PLACE'(2);
    else next_start = PLACE'(first_pixel_q) - PLACE'(width_q) - PLACE'(1);
  end

  // -- is there a pixel? Rows and columns are stored plus one, so that they are not negative.

  logic [PIXEL-1:0] line1, column1;
  assign line1   = narrow || column_q + PIXEL'(1) == width_q ? line_q + PIXEL'(1) : line_q;
  assign column1 = narrow || column_q + PIXEL'(1) == width_q ? '0 : column_q + PIXEL'(1);

  function automatic logic is_there(
      input logic [PIXEL-1:0] at, input logic [1:0] tap, input logic [PIXEL-1:0] size
  );
    logic [PIXEL:0] moved;
    moved = (PIXEL + 1)'(at) + (PIXEL + 1)'(tap);
    is_there = moved != '0 && moved <= (PIXEL + 1)'(size);
  endfunction

  logic inside0_now, inside1_now;
  assign inside0_now = is_there(line_q, ky_q, height_q) && is_there(column_q, kx_q, width_q);
  assign inside1_now = is_there(line1, ky_q, height_q) && is_there(column1, kx_q, width_q);

  // -- addresses: one product, with three registers

  logic [STAGES-1:0]     valid_q, inside0_q, inside1_q, odd_q, last_q;
  logic signed [7:0]     pads_q[STAGES];
  logic [ADDRESS-1:0]    pair_q;
  logic [TILE-1:0]       tiles_q[3];
  logic [TILE-1:0]       tile_at_q[3];
  logic [ADDRESS-1:0]    bases_q[3];
  logic [ADDRESS-1:0]    product_q, product_again_q;  // as far as an address goes
  logic [ADDRESS-1:0]    odd_beat, odd_beat_q, even_beat_q;
  logic                  pending_ready;

  assign enable   = !valid_q[STAGES-1] || (m_axis_address_tready && pending_ready);
  assign odd_beat = bases_q[2] + product_again_q + ADDRESS'(tile_at_q[2]);

  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else if (enable) valid_q <= {valid_q[STAGES-2:0], busy_q};
    if (enable) begin
      inside0_q <= {inside0_q[STAGES-2:0], inside0_now};
      inside1_q <= {inside1_q[STAGES-2:0], inside1_now};
      odd_q     <= {odd_q[STAGES-2:0], place_q[0]};
      last_q    <= {last_q[STAGES-2:0], last_pair};
      pads_q[0] <= pad_q;
      for (int i = 1; i < STAGES; i++) pads_q[i] <= pads_q[i-1];
      pair_q       <= ADDRESS'(place_q >>> 1);  // -1 where only the even half has a pixel
      tiles_q[0]   <= in_tiles_q;
      tile_at_q[0] <= tile_q;
      bases_q[0]   <= base_q;
      for (int i = 1; i < 3; i++) begin
        tiles_q[i]   <= tiles_q[i-1];
        tile_at_q[i] <= tile_at_q[i-1];
        bases_q[i]   <= bases_q[i-1];
      end
      product_q       <= pair_q * ADDRESS'(tiles_q[0]);
      product_again_q <= product_q;
      odd_beat_q      <= odd_beat;
      even_beat_q     <= odd_q[STAGES-2] ? odd_beat + ADDRESS'(tiles_q[2]) : odd_beat;
    end
  end

  // The first pixel is in the odd half if its place is odd.
  logic even_inside, odd_inside;
  assign even_inside = odd_q[STAGES-1] ? inside1_q[STAGES-1] : inside0_q[STAGES-1];
  assign odd_inside  = odd_q[STAGES-1] ? inside0_q[STAGES-1] : inside1_q[STAGES-1];
  assign m_axis_address_tdata  = {odd_inside, (HALF - 1)'(odd_beat_q), even_inside, (HALF - 1)'(even_beat_q)};
  assign m_axis_address_tvalid = valid_q[STAGES-1] && pending_ready;

  // -- pixels

  logic              pending_valid, swap, inside0, inside1, last, take;
  logic signed [7:0] pad;
  logic [$clog2(PENDING+4)-1:0] unused_count;
  fifo #(
      .WIDTH(12),
      .DEPTH(PENDING)
  ) u_fifo (
      .clk,
      .rst,
      .s_axis_data_tdata ({pads_q[STAGES-1], last_q[STAGES-1], odd_q[STAGES-1], inside1_q[STAGES-1],
                           inside0_q[STAGES-1]}),
      .s_axis_data_tvalid(valid_q[STAGES-1] && m_axis_address_tready),
      .s_axis_data_tready(pending_ready),
      .m_axis_data_tdata ({pad, last, swap, inside1, inside0}),
      .m_axis_data_tvalid(pending_valid),
      .m_axis_data_tready(take),
      .count_o           (unused_count)
  );

  logic moves;
  assign moves                = !m_axis_x_tvalid || m_axis_x_tready;
  assign take                 = moves && s_axis_pixels_tvalid;
  assign s_axis_pixels_tready = moves && pending_valid;

  logic [TILE_IN*8-1:0] even, odd;
  assign even = s_axis_pixels_tdata[0+:TILE_IN*8];
  assign odd  = s_axis_pixels_tdata[TILE_IN*8+:TILE_IN*8];

  always_ff @(posedge clk) begin
    if (rst) m_axis_x_tvalid <= 1'b0;
    else if (moves) m_axis_x_tvalid <= s_axis_pixels_tvalid && pending_valid;
    if (moves) begin
      m_axis_x_tlast <= last;
      m_axis_x_tdata[0+:TILE_IN*8]         <= !inside0 ? {TILE_IN{pad}} : swap ? odd : even;
      m_axis_x_tdata[TILE_IN*8+:TILE_IN*8] <= !inside1 ? {TILE_IN{pad}} : swap ? even : odd;
    end
  end

endmodule

`default_nettype wire
