// SPDX-License-Identifier: Apache-2.0
// The second pass of layernorm: slices of a row with known T, R and k become int8. SPEC.md, section 4.
//   xhat = clip16(rs((D x - T) R, k + 5)), y = clip(rs(xhat gamma + beta, n), -128, 127)
//
// STAGES stages, which all stop while the last is not taken. gamma and beta are in a memory for two
// layers, written from outside; released_o says that a layer's last slice has read its parameters.
`default_nettype none

module layernorm_channels #(
    parameter int LANES = edge_moe_pkg::VECTOR_CHANNELS,
    parameter int MAX_WIDTH = edge_moe_pkg::MAX_WIDTH,
    parameter int TILES = (MAX_WIDTH + LANES - 1) / LANES,
    parameter int ADDRESS = $clog2(2 * TILES)
) (
    input wire clk,
    input wire rst,

    input wire                 parameter_write_i,
    input wire [ADDRESS-1:0]   parameter_address_i,
    input wire [LANES*48-1:0]  parameter_i,  // {gamma [LANES] of 16 bits, beta [LANES] of 32 bits}

    output logic                                  enable_o,  // a slice is taken
    input wire                                    valid_i,
    input wire                                    last_i,      // of the layer
    input wire        [LANES*16-1:0]              x_i,
    input wire        [ADDRESS-1:0]               tile_i,      // address of gamma and beta of these channels
    input wire        [$clog2(MAX_WIDTH+1)-1:0]   channels_i,  // D
    input wire signed [16+$clog2(MAX_WIDTH)-1:0]  total_i,     // T
    input wire        [15:0]                      inverse_i,   // R
    input wire        [4:0]                       exponent_i,  // k, at most 25
    input wire        [5:0]                       shift_i,     // n
    output logic                                  released_o,

    output logic [LANES*8-1:0] m_axis_y_tdata,
    output logic               m_axis_y_tvalid,
    input  wire                m_axis_y_tready,
    output logic               m_axis_y_tlast
);

  localparam int STAGES = 12;
  localparam int DROPPED = 15 - edge_moe_pkg::XHAT_FRACTION;
  localparam int TOTAL = 16 + $clog2(MAX_WIDTH);
  localparam int CENTRED = TOTAL + 1;  // |D x - T| < 2^(TOTAL)
  localparam int SCALED = CENTRED + 15;  // R has 15 bits and no sign
  localparam int MAX_EXPONENT = $clog2(MAX_WIDTH) + 15;  // half the bits of V, less one
  localparam int FIRST = $clog2(MAX_EXPONENT + DROPPED + 1);  // bits of the shift to xhat

  logic [STAGES-1:0] valid_q, last_q;
  logic enable;
  assign enable = !valid_q[STAGES-1] || m_axis_y_tready;
  assign enable_o = enable;

  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else if (enable) valid_q <= {valid_q[STAGES-2:0], valid_i};
    if (enable) last_q <= {last_q[STAGES-2:0], last_i};
  end

  // Values that a slice's channels share travel beside them as far as they are used.
  logic        [ADDRESS-1:0] tile_q[7];
  logic signed [CENTRED-1:0] channels_q;
  logic signed [TOTAL-1:0] total_q[2];
  logic signed [15:0] inverse_q[4];
  logic [FIRST-1:0] exponent_q[6];
  logic [5:0] shift_q[10];
  always_ff @(posedge clk) begin
    if (enable) begin
      channels_q <= CENTRED'(channels_i);
      for (int i = 0; i < 7; i++) tile_q[i] <= i == 0 ? tile_i : tile_q[i-1];
      for (int i = 0; i < 2; i++) total_q[i] <= i == 0 ? total_i : total_q[i-1];
      for (int i = 0; i < 4; i++) inverse_q[i] <= i == 0 ? inverse_i : inverse_q[i-1];
      exponent_q[0] <= FIRST'(exponent_i) + FIRST'(DROPPED);
      for (int i = 1; i < 6; i++) exponent_q[i] <= exponent_q[i-1];
      for (int i = 0; i < 10; i++) shift_q[i] <= i == 0 ? shift_i : shift_q[i-1];
    end
  end

  // The memory's entry comes with xhat, in stage 8.
  (* ram_style = "distributed" *)
  logic [LANES*48-1:0] parameters[2*TILES];
  logic [LANES*48-1:0] parameter_q;
  always_ff @(posedge clk) begin
    if (parameter_write_i) parameters[parameter_address_i] <= parameter_i;
    if (enable) parameter_q <= parameters[tile_q[6]];
  end
  assign released_o = enable && valid_q[6] && last_q[6];

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    logic signed [15:0] x_q, xhat_q;
    logic signed [CENTRED-1:0] product_q, centred_q, centred_again_q;
    logic signed [SCALED-1:0] scaled_q, scaled_again_q, rounded, rounded_q;
    logic signed [31:0] gained_q, beta_q;
    logic signed [32:0] affine_q, settled, settled_q;
    logic signed [7:0] y_q;

    rounding_shift #(
        .WIDTH(SCALED),
        .MAX_SHIFT(MAX_EXPONENT + DROPPED)
    ) u_first (
        .value_i(scaled_again_q),
        .shift_i(exponent_q[5]),
        .value_o(rounded)
    );
    rounding_shift #(
        .WIDTH(33),
        .MAX_SHIFT(47)
    ) u_second (
        .value_i(affine_q),
        .shift_i(shift_q[9]),
        .value_o(settled)
    );

    always_ff @(posedge clk) begin
      if (enable) begin
        x_q             <= $signed(x_i[i*16+:16]);
        product_q       <= CENTRED'(x_q) * channels_q;
        centred_q       <= product_q - CENTRED'(total_q[1]);
        centred_again_q <= centred_q;
        scaled_q        <= SCALED'(centred_again_q) * SCALED'(inverse_q[3]);
        scaled_again_q  <= scaled_q;
        rounded_q       <= rounded;
        if (rounded_q < -SCALED'(32768)) xhat_q <= 16'sh8000;
        else if (rounded_q > SCALED'(32767)) xhat_q <= 16'sh7FFF;
        else xhat_q <= rounded_q[15:0];
        gained_q <= xhat_q * $signed(parameter_q[LANES*32+i*16+:16]);
        beta_q   <= $signed(parameter_q[i*32+:32]);
        affine_q <= 33'(gained_q) + 33'(beta_q);
        settled_q  <= settled;
        if (settled_q < -33'sd128) y_q <= 8'sh80;
        else if (settled_q > 33'sd127) y_q <= 8'sh7F;
        else y_q <= settled_q[7:0];
      end
    end

    assign m_axis_y_tdata[i*8+:8] = y_q;
  end

  assign m_axis_y_tvalid = valid_q[STAGES-1];
  assign m_axis_y_tlast  = last_q[STAGES-1];

endmodule

`default_nettype wire
