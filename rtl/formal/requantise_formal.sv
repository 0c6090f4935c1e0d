// SPDX-License-Identifier: Apache-2.0
// The handshakes of requantise.sv, which every pipeline with a common enable has. The bench checks its
// arithmetic.
`default_nettype none

module requantise_formal (
    input wire        clk,
    input wire        rst,
    input wire [5:0]  shift,
    input wire [15:0] low,
    input wire [15:0] high,
    input wire [7:0]  zero_point,
    input wire [47:0] a,
    input wire        a_valid,
    input wire        a_last,
    input wire        y_ready
);

  localparam int STAGES = 5;

  logic        a_ready, y_valid, y_last;
  logic [15:0] y;

  // Changes of the negative twins between the module and its neighbours.
  logic dut_last, dut_ready;
`ifdef OTHER_LAST
  assign dut_last = !a_last;
`else
  assign dut_last = a_last;
`endif
`ifdef NEVER_STOPS
  assign dut_ready = 1'b1;
`else
  assign dut_ready = y_ready;
`endif

  requantise #(
      .LANES(1)
  ) dut (
      .clk,
      .rst,
      .shift_i      (shift),
      .low_i        (low),
      .high_i       (high),
      .zero_point_i (zero_point),
      .s_axis_a_tdata (a),
      .s_axis_a_tvalid(a_valid),
      .s_axis_a_tready(a_ready),
      .s_axis_a_tlast (dut_last),
      .m_axis_y_tdata (y),
      .m_axis_y_tvalid(y_valid),
      .m_axis_y_tready(dut_ready),
      .m_axis_y_tlast (y_last)
  );

  logic started_q = 1'b0;
  always_ff @(posedge clk) started_q <= 1'b1;
  always_comb if (!started_q) assume (rst);

  // An offered element stays, unchanged, until it is taken.
  logic        stalled_q = 1'b0;
  logic [16:0] offered_q;
  always_ff @(posedge clk) begin
    stalled_q <= !rst && y_valid && !y_ready;
    offered_q <= {y_last, y};
  end
  always_comb if (stalled_q && !rst) assert (y_valid && {y_last, y} == offered_q);

  // An element is taken whenever the last stage is free or becomes free, and comes out once STAGES were taken.
  logic [STAGES-1:0] due_q, due_last_q;
  always_ff @(posedge clk) begin
    if (rst) due_q <= '0;
    else if (a_ready) due_q <= {due_q[STAGES-2:0], a_valid};
    if (a_ready) due_last_q <= {due_last_q[STAGES-2:0], a_last};
  end
  always_comb begin
    if (started_q && !rst) begin
      assert (a_ready == (!y_valid || y_ready));
`ifdef IN_TURN
      assert (y_valid == due_q[STAGES-1]);
      if (y_valid) assert (y_last == due_last_q[STAGES-1]);
`endif
    end
  end

endmodule

`default_nettype wire
