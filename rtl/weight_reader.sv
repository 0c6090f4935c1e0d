// SPDX-License-Identifier: Apache-2.0
// An AXI4 master that reads blocks of the weight image, in the order of use, into a deep FIFO. SPEC.md,
// section 9.
//
// s_axis_block: {transfers [31:0], byte address [ADDRESS_WIDTH-1:0]}, a block of transfers of DATA_WIDTH bits. The
//   address is a multiple of a transfer's bytes; its low bits are ignored. A block of 0 transfers reads nothing.
// m_axis_weights: the transfers of all blocks, tlast with the last one of each.
//
// A burst ends at a multiple of MAX_BURST transfers from address 0, or with its block. So none is longer than
// MAX_BURST, and none crosses 4 KiB, which is a multiple of MAX_BURST transfers. Up to OUTSTANDING bursts are on
// their way, and each has its place in the FIFO reserved before its request: the memory never waits for this
// reader. It reads a transfer per cycle from memory that answers within (OUTSTANDING - 1) MAX_BURST cycles.
//
// A transfer with SLVERR or DECERR is passed on unchanged: all announced transfers come, and nothing hangs.
// error_o then stays until clear_i, with the response and the burst's address of the first such transfer.
`default_nettype none

module weight_reader #(
    parameter int ADDRESS_WIDTH = 64,
    parameter int DATA_WIDTH = 8 * edge_moe_pkg::IO_BYTES_PER_CYCLE,
    parameter int MAX_BURST = 64,  // transfers
    parameter int OUTSTANDING = 2 * (1 + edge_moe_pkg::MEMORY_LATENCY / MAX_BURST),
    // transfers; one port's share of the weight FIFO
    parameter int DEPTH = edge_moe_pkg::FIFO_BYTES / edge_moe_pkg::MEMORY_BYTES_PER_CYCLE
) (
    input wire clk,
    input wire rst,

    input  wire  [ADDRESS_WIDTH+31:0] s_axis_block_tdata,
    input  wire                       s_axis_block_tvalid,
    output logic                      s_axis_block_tready,

    output logic [DATA_WIDTH-1:0] m_axis_weights_tdata,
    output logic                  m_axis_weights_tvalid,
    input  wire                   m_axis_weights_tready,
    output logic                  m_axis_weights_tlast,

    input  wire                      clear_i,
    output logic                     error_o,
    output logic [1:0]               error_response_o,  // 2 SLVERR, 3 DECERR
    output logic [ADDRESS_WIDTH-1:0] error_address_o,

    output logic [0:0]               m_axi_arid,
    output logic [ADDRESS_WIDTH-1:0] m_axi_araddr,
    output logic [7:0]               m_axi_arlen,
    output logic [2:0]               m_axi_arsize,
    output logic [1:0]               m_axi_arburst,
    output logic [3:0]               m_axi_arcache,
    output logic [2:0]               m_axi_arprot,
    output logic                     m_axi_arvalid,
    input  wire                      m_axi_arready,
    input  wire  [0:0]               m_axi_rid,
    input  wire  [DATA_WIDTH-1:0]    m_axi_rdata,
    input  wire  [1:0]               m_axi_rresp,
    input  wire                      m_axi_rlast,
    input  wire                      m_axi_rvalid,
    output logic                     m_axi_rready
);

  localparam int BYTES = DATA_WIDTH / 8;
  localparam int SIZE = $clog2(BYTES);
  localparam int OFFSET = $clog2(MAX_BURST);
  localparam int ADDRESS_BITS = ADDRESS_WIDTH - SIZE;  // of a transfer's number
  localparam int PAGE = 4096;        // bytes; of AXI4
  localparam int LONGEST = 256;      // transfers; of AXI4
  localparam int BURSTS = $clog2(OUTSTANDING);
  localparam int ROOM = $clog2(DEPTH + 1);

  if (DATA_WIDTH < 32 || DATA_WIDTH > 1024 || DATA_WIDTH != 8 << SIZE) begin : g_check_width
    $fatal(1, "weight_reader: DATA_WIDTH = %0d must be a power of 2 from 32 to 1024", DATA_WIDTH);
  end
  if (MAX_BURST < 2 || MAX_BURST != 1 << OFFSET || MAX_BURST > LONGEST) begin : g_check_burst
    $fatal(1, "weight_reader: MAX_BURST = %0d must be a power of 2 from 2 to %0d", MAX_BURST, LONGEST);
  end
  if (MAX_BURST * BYTES > PAGE) begin : g_check_page
    $fatal(1, "weight_reader: MAX_BURST = %0d transfers are %0d bytes, more than %0d", MAX_BURST,
           MAX_BURST * BYTES, PAGE);
  end
  if (OUTSTANDING < 2) begin : g_check_outstanding
    $fatal(1, "weight_reader: OUTSTANDING = %0d must be at least 2", OUTSTANDING);
  end
  if (DEPTH < MAX_BURST) begin : g_check_depth
    $fatal(1, "weight_reader: DEPTH = %0d must hold a burst of MAX_BURST = %0d", DEPTH, MAX_BURST);
  end

  // -- blocks into bursts, one in each cycle

  logic [ADDRESS_BITS-1:0] next_q;  // first transfer of the next burst
  logic [31:0]             left_q;  // transfers of the block from there on
  logic [OFFSET:0]         to_end;  // transfers up to where a burst must end
  logic                    plan, final_burst;

  logic                    burst_valid_q, burst_final_q;
  logic [ADDRESS_BITS-1:0] burst_q;
  logic [OFFSET:0]         burst_count_q;
  logic                    ask;

  assign to_end      = (OFFSET + 1)'(MAX_BURST) - (OFFSET + 1)'(next_q[OFFSET-1:0]);
  assign final_burst = left_q <= 32'(to_end);
  assign plan        = left_q != '0 && (!burst_valid_q || ask);

  assign s_axis_block_tready = left_q == '0 || (plan && final_burst);

  always_ff @(posedge clk) begin
    if (rst) begin
      left_q        <= '0;
      burst_valid_q <= 1'b0;
    end else begin
      if (s_axis_block_tready) left_q <= s_axis_block_tvalid ? s_axis_block_tdata[ADDRESS_WIDTH+:32] : '0;
      else if (plan) left_q <= left_q - 32'(to_end);
      burst_valid_q <= plan || (burst_valid_q && !ask);
    end
    if (s_axis_block_tready) next_q <= s_axis_block_tdata[ADDRESS_WIDTH-1:SIZE];
    else if (plan) next_q <= {next_q[ADDRESS_BITS-1:OFFSET] + (ADDRESS_BITS - OFFSET)'(1), OFFSET'(0)};
    if (plan) begin
      burst_q       <= next_q;
      burst_count_q <= final_burst ? (OFFSET + 1)'(left_q) : to_end;
      burst_final_q <= final_burst;
    end
  end

  // -- bursts to memory: a place among those under way, and room in the FIFO, which is given back transfer by
  // transfer

  logic [BURSTS:0]         open_q;  // bursts on their way
  logic [BURSTS-1:0]       newest_q, oldest_q;
  logic [ROOM-1:0]         room_q;
  logic                    arrived, closed, left;
  logic [ADDRESS_BITS-1:0] address_q;
  logic [7:0]              length_q;
  logic                    asking_q;

  assign ask = burst_valid_q && (!asking_q || m_axi_arready) && open_q != (BURSTS + 1)'(OUTSTANDING) &&
               room_q >= ROOM'(MAX_BURST);
  assign arrived = m_axi_rvalid && m_axi_rready;
  assign closed  = arrived && m_axi_rlast;
  assign left    = m_axis_weights_tvalid && m_axis_weights_tready;

  always_ff @(posedge clk) begin
    if (rst) begin
      open_q   <= '0;
      newest_q <= '0;
      oldest_q <= '0;
      room_q   <= ROOM'(DEPTH);
      asking_q <= 1'b0;
    end else begin
      open_q <= open_q + (BURSTS + 1)'(ask) - (BURSTS + 1)'(closed);
      room_q <= room_q + ROOM'(left) - (ask ? ROOM'(burst_count_q) : '0);
      if (ask) newest_q <= newest_q == BURSTS'(OUTSTANDING - 1) ? '0 : newest_q + BURSTS'(1);
      if (closed) oldest_q <= oldest_q == BURSTS'(OUTSTANDING - 1) ? '0 : oldest_q + BURSTS'(1);
      asking_q <= ask || (asking_q && !m_axi_arready);
    end
    if (ask) begin
      address_q <= burst_q;
      length_q  <= 8'(burst_count_q - (OFFSET + 1)'(1));
    end
  end

  // Data of a burst, kept until its last transfer has come.
  (* ram_style = "distributed" *) (* no_rw_check *)
  logic [ADDRESS_BITS:0]   bursts[OUTSTANDING];
  logic [ADDRESS_BITS-1:0] oldest_address;
  logic                    oldest_final;
  always_ff @(posedge clk) begin
    if (ask) bursts[newest_q] <= {burst_final_q, burst_q};
  end
  assign {oldest_final, oldest_address} = bursts[oldest_q];

  assign m_axi_arid    = '0;  // one ID: bursts come in order
  assign m_axi_araddr  = {address_q, SIZE'(0)};
  assign m_axi_arlen   = length_q;
  assign m_axi_arsize  = 3'(SIZE);
  assign m_axi_arburst = 2'b01;    // INCR
  assign m_axi_arcache = 4'b0011;  // bufferable, modifiable
  assign m_axi_arprot  = '0;
  assign m_axi_arvalid = asking_q;

  // -- transfers to the FIFO

  logic                         unused_ready;  // there is always room
  logic [$clog2(DEPTH + 4)-1:0] unused_count;
  assign m_axi_rready = 1'b1;

  fifo #(
      .WIDTH(DATA_WIDTH + 1),
      .DEPTH(DEPTH)
  ) u_fifo (
      .clk,
      .rst,
      .s_axis_data_tdata ({oldest_final && m_axi_rlast, m_axi_rdata}),
      .s_axis_data_tvalid(arrived),
      .s_axis_data_tready(unused_ready),
      .m_axis_data_tdata ({m_axis_weights_tlast, m_axis_weights_tdata}),
      .m_axis_data_tvalid(m_axis_weights_tvalid),
      .m_axis_data_tready(m_axis_weights_tready),
      .count_o           (unused_count)
  );

  always_ff @(posedge clk) begin
    if (rst) error_o <= 1'b0;
    else if (arrived && m_axi_rresp[1]) error_o <= 1'b1;
    else if (clear_i) error_o <= 1'b0;
    if (!error_o || clear_i) begin
      error_response_o <= m_axi_rresp;
      error_address_o  <= {oldest_address, SIZE'(0)};
    end
  end

  logic unused_bits;
  assign unused_bits = ^{m_axi_rid, s_axis_block_tdata[SIZE-1:0]};

endmodule

`default_nettype wire
