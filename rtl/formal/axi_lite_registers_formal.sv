// SPDX-License-Identifier: Apache-2.0
// The duties of axi_lite_registers.sv on the bus: each request gets one answer, never before the request, and
// the answer stays until it is taken. A request is taken as soon as it is complete and its answer has room. An
// argument reads as it was written.
`default_nettype none

module axi_lite_registers_formal (
    input wire        clk,
    input wire        rst,
    input wire [7:0]  awaddr,
    input wire        awvalid,
    input wire [31:0] wdata,
    input wire [3:0]  wstrb,
    input wire        wvalid,
    input wire        bready,
    input wire [7:0]  araddr,
    input wire        arvalid,
    input wire        rready,
    input wire        ap_done,
    input wire        ap_ready,
    input wire        ap_idle,
    input wire        results_valid,
    input wire [31:0] result
);

  logic        awready, wready, bvalid, arready, rvalid;
  logic [1:0]  bresp, rresp;
  logic [31:0] rdata, image_bytes;

  axi_lite_registers dut (
      .clk,
      .rst,
      .s_axi_awaddr   (awaddr),
      .s_axi_awprot   (3'b0),
      .s_axi_awvalid  (awvalid),
      .s_axi_awready  (awready),
      .s_axi_wdata    (wdata),
      .s_axi_wstrb    (wstrb),
      .s_axi_wvalid   (wvalid),
      .s_axi_wready   (wready),
      .s_axi_bresp    (bresp),
      .s_axi_bvalid   (bvalid),
      .s_axi_bready   (bready),
      .s_axi_araddr   (araddr),
      .s_axi_arprot   (3'b0),
      .s_axi_arvalid  (arvalid),
      .s_axi_arready  (arready),
      .s_axi_rdata    (rdata),
      .s_axi_rresp    (rresp),
      .s_axi_rvalid   (rvalid),
      .s_axi_rready   (rready),
      .ap_done_i      (ap_done),
      .ap_ready_i     (ap_ready),
      .ap_idle_i      (ap_idle),
      .image_bytes_o  (image_bytes),
      .results_valid_i(results_valid),
      .status_i       (result),
      .error_i        (result),
      .position_i     (result),
      .cycles_i       (result)
  );

  logic started_q = 1'b0;
  always_ff @(posedge clk) started_q <= 1'b1;
  always_comb if (!started_q) assume (rst);

  localparam logic [5:0] WORD = 6'(edge_moe_pkg::REG_IMAGE_BYTES / 4);

  logic [1:0]  addresses_q, data_q, reads_q;  // taken and not answered
  logic        asked_q;                       // the read in progress is of image_bytes
  logic [31:0] written_q, expected_q;
  logic        waits_b_q, waits_r_q;
  logic [31:0] offered_q;

  always_ff @(posedge clk) begin
    waits_b_q <= !rst && bvalid && !bready;
    waits_r_q <= !rst && rvalid && !rready;
    offered_q <= rdata;
    if (rst) begin
      addresses_q <= '0;
      data_q      <= '0;
      reads_q     <= '0;
      written_q   <= '0;
    end else begin
      addresses_q <= addresses_q + 2'(awvalid && awready) - 2'(bvalid && bready);
      data_q      <= data_q + 2'(wvalid && wready) - 2'(bvalid && bready);
      reads_q     <= reads_q + 2'(arvalid && arready) - 2'(rvalid && rready);
      for (int b = 0; b < 4; b++) begin
        if (awvalid && awready && awaddr[7:2] == WORD && wstrb[b]) written_q[8*b+:8] <= wdata[8*b+:8];
      end
    end
    if (arvalid && arready) begin
      asked_q    <= araddr[7:2] == WORD;
      expected_q <= written_q;
    end
  end

  always_comb begin
    if (started_q && !rst) begin
      // as many answers as requests, one at a time
      assert (addresses_q == 2'(bvalid) && data_q == 2'(bvalid));
      assert (reads_q == 2'(rvalid));
      if (bvalid) assert (bresp == 2'b00);
      if (rvalid) assert (rresp == 2'b00);
      // an answer stays as it is until it is taken
      if (waits_b_q) assert (bvalid);
      if (waits_r_q) assert (rvalid && rdata == offered_q);
      // no request waits without a reason
      if (awvalid && wvalid && (!bvalid || bready)) assert (awready && wready);
      if (!rvalid || rready) assert (arready);
      // the written value is at the port, and is read back
      assert (image_bytes == written_q);
      if (rvalid && asked_q) assert (rdata == expected_q);
    end
  end

endmodule

`default_nettype wire
