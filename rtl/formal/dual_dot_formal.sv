// SPDX-License-Identifier: Apache-2.0
// The proof of dual_dot.sv by dual_dot.sby, in two parts.
//
// dual_product_formal: one multiplier gives x1 w and x0 w for all x0 and x1 and every w in [-127, 127]; each w is the
//   constant of a multiplier of its own. The operand registers are left out (connect in the .sby). Bounded checking
//   is complete: the rest moves forward through two registers.
// dual_cascade_formal: the products that the registers of the eight multipliers hold are replaced (connect in the
//   .sby) by p1 2^18 + p0 with any p0, p1 of magnitude at most LIMIT, new ones every cycle. By induction the packed
//   sum after each multiplier is {sum of p1, 2^17 + sum of p0}, so the results equal two separate cascades.
// Together: two dot products, for any eight weights in [-127, 127] and any inputs.
`default_nettype none

module dual_product_formal (
    input wire clk
);

  localparam int MOST = 127;  // magnitude of a weight

  (* anyseq *) wire signed [7:0] x0, x1;
  reg signed [7:0] x0_q, x1_q, x0_again_q, x1_again_q;
  reg [1:0] cycle_q = '0;
  always @(posedge clk) begin
    {x0_again_q, x0_q} <= {x0_q, x0};
    {x1_again_q, x1_q} <= {x1_q, x1};
    if (cycle_q != 2'd3) cycle_q <= cycle_q + 2'd1;
  end

  for (genvar w = -MOST; w <= MOST; w++) begin : g_weight
    wire signed [17:0] low, high;
    dual_dot dut (  // of one multiplier
        .clk,
        .w_i   (8'(w)),
        .take_i(1'b1),
        .swap_i(1'b1),
        .x_i   (27'($signed({x1, 18'b0})) + 27'(x0)),
        .low_o (low),
        .high_o(high)
    );
    always @* begin
      if (cycle_q >= 2) begin
        assert (low == w * x0_again_q);
        assert (high == w * x1_again_q);
      end
    end
  end

endmodule

module dual_cascade_formal #(
    parameter int LIMIT = 127 * 128,  // of a product
    parameter int EXTRA = 0           // 1: the last multiplier holds two products, so there are nine
) (
    input wire clk
);

  localparam int COUNT = 8;
  localparam int LANE = 18;
  localparam int SUM = 2 * LANE;

  wire signed [LANE-1:0] low, high;
  dual_dot #(
      .COUNT(COUNT)
  ) dut (
      .clk,
      .w_i   ('0),
      .take_i(1'b0),
      .swap_i('0),
      .x_i   ('0),
      .low_o (low),
      .high_o(high)
  );

  (* anyseq *) wire [COUNT*LANE-1:0] any0, any1;
  wire [COUNT*35-1:0]  products;  // to the registers of the multipliers
  wire [COUNT*SUM-1:0] sums;      // from the registers of the sums

  reg signed [LANE+2:0] low_q [COUNT];
  reg signed [LANE+2:0] high_q[COUNT];
  reg        [3:0]      cycle_q = '0;
  always @(posedge clk) if (cycle_q != '1) cycle_q <= cycle_q + 4'd1;

  for (genvar k = 0; k < COUNT; k++) begin : g_product
    localparam int MOST = k == COUNT - 1 ? LIMIT * (1 + EXTRA) : LIMIT;
    localparam int MOST_SUM = (k + 1) * LIMIT + MOST - LIMIT;
    wire signed [LANE-1:0] p0 = any0[k*LANE+:LANE];
    wire signed [LANE-1:0] p1 = any1[k*LANE+:LANE];
    wire signed [LANE-1:0] low_start = low_q[k] + (1 << (LANE - 1));
    assign products[k*35+:35] = {p1[LANE-2:0], LANE'(0)} + {{17{p0[LANE-1]}}, p0};
    always @(posedge clk) begin
      low_q[k]  <= p0 + (k == 0 ? 0 : low_q[k==0 ? 0 : k-1]);
      high_q[k] <= p1 + (k == 0 ? 0 : high_q[k==0 ? 0 : k-1]);
    end
    always @* begin
      assume (-MOST <= p0 && p0 <= MOST && -MOST <= p1 && p1 <= MOST);
      if (cycle_q > k) begin
        assert (-MOST_SUM <= low_q[k] && low_q[k] <= MOST_SUM);
        assert (-MOST_SUM <= high_q[k] && high_q[k] <= MOST_SUM);
        assert (sums[k*SUM+:SUM] == {high_q[k][LANE-1:0], low_start});
      end
    end
  end

  always @* begin
    if (cycle_q >= COUNT) begin
      assert (low == low_q[COUNT-1]);
      assert (high == high_q[COUNT-1]);
    end
  end

endmodule

`default_nettype wire
