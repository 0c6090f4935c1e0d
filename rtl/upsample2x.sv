// SPDX-License-Identifier: Apache-2.0
// Bilinear enlargement of a map by two, half-pixel centres, edges repeated: the rounded sum of four weighted
// neighbours. SPEC.md, section 4.
//
// start: a map of height_i x width_i pixels of LANES channels, while start_ready_o. Neither is 0.
// s_axis_x: its pixels by pairs, row by row, {pixel 2 r + 1, pixel 2 r}; if their number is odd, the last
//   pair's second one is ignored. They may come before the start of their map.
// m_axis_y: pairs of output pixels, row by row, tlast with the last one.
//
// A line of outputs is between two lines of the map, which are read in turn: in step c = 0, 2, 4 ... columns
// c and c + 1 of the lower line come from the buffer, in step c + 1 those of the upper line. From step 2 on
// the two outputs of column c - 2 leave. So a line takes width + 2 steps, as in hls/.
//
// The buffer is a ring of pairs; an even and an odd half give any two neighbours at once. It holds a map of
// MAX_PIXELS, or the needed lines of maps that follow each other. The read after a line's last one frees the
// line.
`default_nettype none

module upsample2x #(
    parameter int LANES = edge_moe_pkg::TILE_OUT,
    parameter int MAX_PIXELS = edge_moe_pkg::MAX_MAP_ROWS / 4  // the result has four times this many
) (
    input wire clk,
    input wire rst,

    input  wire                            start_valid_i,
    output logic                           start_ready_o,
    input  wire [$clog2(MAX_PIXELS+1)-1:0] height_i,
    input  wire [$clog2(MAX_PIXELS+1)-1:0] width_i,

    input  wire  [2*LANES*8-1:0] s_axis_x_tdata,
    input  wire                  s_axis_x_tvalid,
    output logic                 s_axis_x_tready,

    output logic [2*LANES*8-1:0] m_axis_y_tdata,
    output logic                 m_axis_y_tvalid,
    input  wire                  m_axis_y_tready,
    output logic                 m_axis_y_tlast
);

  localparam int ADDRESS = $clog2((MAX_PIXELS + 1) / 2);
  localparam int PAIRS = 1 << ADDRESS;
  localparam int NUMBER = ADDRESS + 2;  // a pair's number since reset, modulo 4 PAIRS: differences have signs
  localparam int SIDE = $clog2(MAX_PIXELS + 1);
  localparam int STAGES = 8;
  localparam int HALF = LANES * 8;
  localparam int COLUMN = 10;  // bits of 4 * 255

  if (LANES < 1) begin : g_check_lanes
    $fatal(1, "upsample2x: LANES = %0d must be at least 1", LANES);
  end
  if (MAX_PIXELS < 4) begin : g_check_pixels
    $fatal(1, "upsample2x: MAX_PIXELS = %0d must be at least 4", MAX_PIXELS);
  end

  // -- the map and the progress in it

  logic            busy_q;
  logic [SIDE-1:0] height_q, width_q;
  logic [SIDE-1:0] line_q;            // of the map; two lines of outputs belong to each
  logic            below_q;           // the second of them
  logic [SIDE:0]   column_q;          // step of the line, up to width + 1
  logic [NUMBER:0] lower_q, upper_q;  // first pixels of the two lines, as numbers since reset
  logic [NUMBER-1:0] written_q, freed_q, needed, missing;  // pairs
  logic            enable, step, last_step, last_line, map_done;

  assign start_ready_o = !busy_q;
  assign last_step     = column_q == (SIDE + 1)'(width_q) + (SIDE + 1)'(1);
  assign last_line     = line_q + SIDE'(1) == height_q;

  // Pairs up to the end of the upper line, and whether they are all there.
  logic [NUMBER:0] upper_end;
  assign upper_end = upper_q + (NUMBER + 1)'(width_q) + (NUMBER + 1)'(1);
  assign needed    = upper_end[NUMBER:1];
  assign missing   = written_q - needed;  // negative if some are missing
  assign step          = busy_q && enable && (column_q != '0 || !missing[NUMBER-1]);
  assign map_done      = step && last_step && below_q && last_line;

  always_ff @(posedge clk) begin
    if (rst) busy_q <= 1'b0;
    else if (start_ready_o) busy_q <= start_valid_i;
    else if (map_done) busy_q <= 1'b0;

    if (rst) upper_q <= '0;
    else if (step && last_step && !below_q && !last_line) upper_q <= upper_q + (NUMBER + 1)'(width_q);
    else if (map_done) upper_q <= {needed, 1'b0};  // the next map begins with a pair

    if (start_ready_o) begin
      height_q <= height_i;
      width_q  <= width_i;
      line_q   <= '0;
      below_q  <= 1'b0;
      column_q <= '0;
      lower_q  <= upper_q;  // the line above the first one is the first one
    end else if (step) begin
      column_q <= last_step ? '0 : column_q + (SIDE + 1)'(1);
      if (last_step) begin
        below_q <= !below_q;
        if (!below_q) lower_q <= upper_q;
        else line_q <= line_q + SIDE'(1);
      end
    end
  end

  // -- values of a step travel beside it

  localparam int FLAGS = 6;
  logic [STAGES:1] valid_q;
  logic [FLAGS-1:0] flags, flags_q[1:STAGES];
  logic [STAGES:1] upper_step, below, at_left, at_right, gives, last;

  assign flags = {last_step && below_q && last_line, column_q >= (SIDE + 1)'(2), last_step,
                  column_q == (SIDE + 1)'(2), below_q, column_q[0]};
  for (genvar i = 1; i <= STAGES; i++) begin : g_flags
    assign {last[i], gives[i], at_right[i], at_left[i], below[i], upper_step[i]} = flags_q[i];
  end

  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else if (enable) valid_q <= {valid_q[STAGES-1:1], step};
    if (enable) begin
      flags_q[1] <= flags;
      for (int i = 2; i <= STAGES; i++) flags_q[i] <= flags_q[i-1];
    end
  end

  assign m_axis_y_tvalid = valid_q[STAGES] && gives[STAGES];
  assign m_axis_y_tlast  = last[STAGES];
  assign enable          = !m_axis_y_tvalid || m_axis_y_tready;

  // -- the buffer: written at any time, read after stage 1

  (* ram_style = "block" *) (* no_rw_check *)
  logic [HALF-1:0] even[PAIRS];
  (* ram_style = "block" *) (* no_rw_check *)
  logic [HALF-1:0] odd[PAIRS];

  logic [ADDRESS:0]   line_start, pixel, pixel_behind;  // in the ring
  logic [ADDRESS-1:0] even_at_q, odd_at_q;
  logic [NUMBER-1:0]  free_q;  // pairs before this one are no longer needed
  logic [HALF-1:0]    even_q, odd_q, even_again_q, odd_again_q, first_q, second_q;
  logic [3:1]         swap_q;  // the first of two neighbours is in the odd half
  logic               write;

  assign line_start      = (ADDRESS + 1)'(column_q[0] ? upper_q : lower_q);
  assign pixel           = line_start + (ADDRESS + 1)'({column_q[SIDE:1], 1'b0});
  assign pixel_behind    = pixel + (ADDRESS + 1)'(1);
  assign s_axis_x_tready = written_q - freed_q != NUMBER'(PAIRS);
  assign write           = s_axis_x_tvalid && s_axis_x_tready;

  always_ff @(posedge clk) begin
    if (rst) begin
      written_q <= '0;
      freed_q   <= '0;
    end else begin
      if (write) written_q <= written_q + NUMBER'(1);
      if (enable && valid_q[1]) freed_q <= free_q;
    end
    if (write) even[written_q[ADDRESS-1:0]] <= s_axis_x_tdata[0+:HALF];
    if (write) odd[written_q[ADDRESS-1:0]] <= s_axis_x_tdata[HALF+:HALF];
    if (enable) begin
      even_at_q <= pixel_behind[ADDRESS:1];
      odd_at_q  <= pixel[ADDRESS:1];
      free_q    <= last_step && below_q && last_line ? needed : lower_q[NUMBER:1];
      swap_q    <= {swap_q[2:1], pixel[0]};
      even_q    <= even[even_at_q];
      odd_q     <= odd[odd_at_q];
      even_again_q <= even_q;
      odd_again_q  <= odd_q;
      first_q      <= swap_q[3] ? odd_again_q : even_again_q;
      second_q     <= swap_q[3] ? even_again_q : odd_again_q;
    end
  end

  // -- a column of both lines in each step: the first when the upper step's pair comes, the second a step later.
  // Cycles without a step come between two lines only, where the registers they leave are not used.

  logic [HALF-1:0] lower_first_q, lower_second_q, upper_second_q, near_q, far_q;
  always_ff @(posedge clk) begin
    if (enable) begin
      if (upper_step[4]) begin
        near_q         <= below[4] ? lower_first_q : first_q;
        far_q          <= below[4] ? first_q : lower_first_q;
        upper_second_q <= second_q;
      end else begin
        near_q         <= below[4] ? lower_second_q : upper_second_q;
        far_q          <= below[4] ? upper_second_q : lower_second_q;
        lower_first_q  <= first_q;
        lower_second_q <= second_q;
      end
    end
  end

  // -- three columns; the middle one is column - 2 of the step. All values are stored plus 128, and so are not
  // negative. Weights add to 4 and to 16, so the result is 128 more, too.

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    logic [7:0]        near, far;
    logic [COLUMN-1:0] column_sum_q, middle_q, left_q, l_q, m_q, r_q;
    logic [7:0]        y0_q, y1_q;

    assign near = {!near_q[8*i+7], near_q[8*i+:7]};
    assign far  = {!far_q[8*i+7], far_q[8*i+:7]};

    always_ff @(posedge clk) begin
      if (enable) begin
        column_sum_q <= COLUMN'(far) + COLUMN'(near) + COLUMN'({near, 1'b0});
        middle_q     <= column_sum_q;
        left_q       <= middle_q;
        l_q          <= at_left[6] ? middle_q : left_q;
        m_q          <= middle_q;
        r_q          <= at_right[6] ? middle_q : column_sum_q;
        y0_q         <= rounded(l_q, m_q);
        y1_q         <= rounded(r_q, m_q);
      end
    end

    assign m_axis_y_tdata[8*i+:8]      = {!y0_q[7], y0_q[6:0]};
    assign m_axis_y_tdata[HALF+8*i+:8] = {!y1_q[7], y1_q[6:0]};
  end

  // Sixteen times the value is below 2^12, even with 8 added for rounding: 16 * 255 + 8.
  function automatic logic [7:0] rounded(
      input logic [COLUMN-1:0] far_column, input logic [COLUMN-1:0] near_column
  );
    rounded = 8'((12'(far_column) + 12'(near_column) + 12'({near_column, 1'b0}) + 12'd8) >> 4);
  endfunction

  logic unused_flags;
  assign unused_flags = ^{upper_end[0], pixel_behind[0], upper_step, below, at_left, at_right, gives, last};

endmodule

`default_nettype wire
