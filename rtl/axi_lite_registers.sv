// SPDX-License-Identifier: Apache-2.0
// The AXI4-Lite port: control as in a Vitis HLS block (ap_ctrl_hs), arguments, and results with one flag each.
// edge_moe_host.contract.registers has the map.
//
// ap_ctrl: bit 0 start, set by writing 1, until ap_ready_i; 1 done and 3 ready, cleared by reading; 2 idle;
//   7 restart, which keeps start set; 9 the interrupt. isr: an event whose bit in ier is set sets its bit;
//   writing 1 toggles it. interrupt_o is 1 while gie and a bit of isr are set. A bit that is set and cleared in
//   the same cycle stays set.
// Arguments may be written at any time, byte by byte; their users take them at ap_start_o.
// Results: results_valid_i takes the four of a run and sets every flag, also those of config_id and version,
//   which always read as this accelerator's. Reading NAME_ctrl clears its flag.
// Every address is answered with OKAY; unused ones read as 0.
//
// A write and a read are taken every cycle if their answers are. An address and its data may come in any order.
`default_nettype none

module axi_lite_registers #(
    parameter int ADDRESS_WIDTH = $clog2(edge_moe_pkg::REG_WORDS * 4)
) (
    input wire clk,
    input wire rst,

    input  wire  [ADDRESS_WIDTH-1:0] s_axi_awaddr,
    input  wire  [2:0]               s_axi_awprot,
    input  wire                      s_axi_awvalid,
    output logic                     s_axi_awready,
    input  wire  [31:0]              s_axi_wdata,
    input  wire  [3:0]               s_axi_wstrb,
    input  wire                      s_axi_wvalid,
    output logic                     s_axi_wready,
    output logic [1:0]               s_axi_bresp,
    output logic                     s_axi_bvalid,
    input  wire                      s_axi_bready,
    input  wire  [ADDRESS_WIDTH-1:0] s_axi_araddr,
    input  wire  [2:0]               s_axi_arprot,
    input  wire                      s_axi_arvalid,
    output logic                     s_axi_arready,
    output logic [31:0]              s_axi_rdata,
    output logic [1:0]               s_axi_rresp,
    output logic                     s_axi_rvalid,
    input  wire                      s_axi_rready,

    output logic ap_start_o,
    input  wire  ap_done_i,
    input  wire  ap_ready_i,
    input  wire  ap_idle_i,
    output logic interrupt_o,

    output logic [63:0] program_o,
    output logic [63:0] tables_o,
    output logic [63:0] weights0_o,
    output logic [63:0] weights1_o,
    output logic [63:0] weights2_o,
    output logic [63:0] image_o,
    output logic [63:0] output_o,
    output logic [31:0] program_offset_o,
    output logic [31:0] program_records_o,
    output logic [31:0] weight_beats_o,
    output logic [31:0] image_bytes_o,
    output logic [31:0] output_bytes_o,

    input wire        results_valid_i,
    input wire [31:0] status_i,
    input wire [31:0] error_i,
    input wire [31:0] position_i,
    input wire [31:0] cycles_i
);

  localparam int WORDS = edge_moe_pkg::REG_WORDS;
  localparam int WORD = ADDRESS_WIDTH - 2;
  localparam logic [1:0] OKAY = 2'b00;
  localparam logic [63:0] CONFIG_ID = edge_moe_pkg::CONFIG_ID;
  localparam logic [WORDS-1:0] FLAGS = edge_moe_pkg::REG_FLAG_WORDS;

  if (ADDRESS_WIDTH < $clog2(WORDS * 4)) begin : g_check
    $fatal(1, "axi_lite_registers: ADDRESS_WIDTH = %0d must reach all %0d bytes", ADDRESS_WIDTH, WORDS * 4);
  end

  function automatic logic [WORD-1:0] word_of(input int offset);
    word_of = WORD'(offset / 4);
  endfunction

  // -- handshakes: an answer is registered, and room for it is needed first

  logic write, read;
  assign write         = s_axi_awvalid && s_axi_wvalid && (!s_axi_bvalid || s_axi_bready);
  assign s_axi_awready = write;
  assign s_axi_wready  = write;
  assign s_axi_arready = !s_axi_rvalid || s_axi_rready;
  assign read          = s_axi_arvalid && s_axi_arready;
  assign s_axi_bresp   = OKAY;
  assign s_axi_rresp   = OKAY;

  always_ff @(posedge clk) begin
    if (rst) begin
      s_axi_bvalid <= 1'b0;
      s_axi_rvalid <= 1'b0;
    end else begin
      s_axi_bvalid <= write || (s_axi_bvalid && !s_axi_bready);
      s_axi_rvalid <= read || (s_axi_rvalid && !s_axi_rready);
    end
  end

  logic [WORD-1:0] write_word, read_word;
  assign write_word = s_axi_awaddr[ADDRESS_WIDTH-1:2];
  assign read_word  = s_axi_araddr[ADDRESS_WIDTH-1:2];

  // -- control

  logic start_q, restart_q, done_q, ready_q, gie_q;
  logic [1:0] ier_q, isr_q, events;
  logic write_control, write_low, toggle, read_control;

  assign write_low     = write && s_axi_wstrb[0];
  assign write_control = write_low && write_word == word_of(edge_moe_pkg::REG_AP_CTRL);
  assign toggle        = write_low && write_word == word_of(edge_moe_pkg::REG_ISR);
  assign read_control  = read && read_word == word_of(edge_moe_pkg::REG_AP_CTRL);
  assign events        = {ap_ready_i, ap_done_i};
  assign ap_start_o    = start_q;
  assign interrupt_o   = gie_q && isr_q != '0;

  always_ff @(posedge clk) begin
    if (rst) begin
      start_q   <= 1'b0;
      restart_q <= 1'b0;
      done_q    <= 1'b0;
      ready_q   <= 1'b0;
      gie_q     <= 1'b0;
      ier_q     <= '0;
      isr_q     <= '0;
    end else begin
      if (write_control && s_axi_wdata[0]) start_q <= 1'b1;
      else if (ap_ready_i) start_q <= restart_q;
      if (write_control) restart_q <= s_axi_wdata[7];
      done_q  <= ap_done_i || (done_q && !read_control);
      ready_q <= ap_ready_i || (ready_q && !read_control);
      if (write_low && write_word == word_of(edge_moe_pkg::REG_GIE)) gie_q <= s_axi_wdata[0];
      if (write_low && write_word == word_of(edge_moe_pkg::REG_IER)) ier_q <= s_axi_wdata[1:0];
      for (int i = 0; i < 2; i++) begin
        if (ier_q[i] && events[i]) isr_q[i] <= 1'b1;
        else if (toggle) isr_q[i] <= isr_q[i] ^ s_axi_wdata[i];
      end
    end
  end

  // -- arguments: words of the map that can be written, others are 0

  logic [32*WORDS-1:0] arguments;
  for (genvar w = 0; w < WORDS; w++) begin : g_word
    if (edge_moe_pkg::REG_ARGUMENT_WORDS[w]) begin : g_argument
      logic [31:0] argument_q;
      always_ff @(posedge clk) begin
        if (rst) argument_q <= '0;
        else begin
          for (int b = 0; b < 4; b++) begin
            if (write && write_word == WORD'(w) && s_axi_wstrb[b]) argument_q[8*b+:8] <= s_axi_wdata[8*b+:8];
          end
        end
      end
      assign arguments[32*w+:32] = argument_q;
    end else begin : g_none
      assign arguments[32*w+:32] = '0;
    end
  end

  assign program_o         = arguments[8*edge_moe_pkg::REG_PROGRAM+:64];
  assign tables_o          = arguments[8*edge_moe_pkg::REG_TABLES+:64];
  assign weights0_o        = arguments[8*edge_moe_pkg::REG_WEIGHTS0+:64];
  assign weights1_o        = arguments[8*edge_moe_pkg::REG_WEIGHTS1+:64];
  assign weights2_o        = arguments[8*edge_moe_pkg::REG_WEIGHTS2+:64];
  assign image_o           = arguments[8*edge_moe_pkg::REG_IMAGE+:64];
  assign output_o          = arguments[8*edge_moe_pkg::REG_OUTPUT+:64];
  assign program_offset_o  = arguments[8*edge_moe_pkg::REG_PROGRAM_OFFSET+:32];
  assign program_records_o = arguments[8*edge_moe_pkg::REG_PROGRAM_RECORDS+:32];
  assign weight_beats_o    = arguments[8*edge_moe_pkg::REG_WEIGHT_BEATS+:32];
  assign image_bytes_o     = arguments[8*edge_moe_pkg::REG_IMAGE_BYTES+:32];
  assign output_bytes_o    = arguments[8*edge_moe_pkg::REG_OUTPUT_BYTES+:32];

  // -- results

  logic [31:0]      status_q, error_q, position_q, cycles_q;
  logic [WORDS-1:0] flags_q;  // at the words of NAME_ctrl

  always_ff @(posedge clk) begin
    if (rst) begin
      status_q   <= '0;
      error_q    <= '0;
      position_q <= '0;
      cycles_q   <= '0;
      flags_q    <= '0;
    end else begin
      if (results_valid_i) begin
        status_q   <= status_i;
        error_q    <= error_i;
        position_q <= position_i;
        cycles_q   <= cycles_i;
        flags_q    <= FLAGS;
      end else if (read) begin
        for (int w = 0; w < WORDS; w++) if (read_word == WORD'(w)) flags_q[w] <= 1'b0;
      end
    end
  end

  // -- reading

  logic [31:0] held, value;
  always_comb begin
    held = '0;  // an argument or a flag, of which a word has one or none
    for (int w = 0; w < WORDS; w++) begin
      if (read_word == WORD'(w)) held = arguments[32*w+:32] | 32'(flags_q[w] && FLAGS[w]);
    end
    case (read_word)
      word_of(edge_moe_pkg::REG_AP_CTRL):
        value = {22'b0, interrupt_o, 1'b0, restart_q, 3'b0, ready_q, ap_idle_i, done_q, start_q};
      word_of(edge_moe_pkg::REG_GIE):           value = 32'(gie_q);
      word_of(edge_moe_pkg::REG_IER):           value = 32'(ier_q);
      word_of(edge_moe_pkg::REG_ISR):           value = 32'(isr_q);
      word_of(edge_moe_pkg::REG_CONFIG_ID):     value = CONFIG_ID[31:0];
      word_of(edge_moe_pkg::REG_CONFIG_ID + 4): value = CONFIG_ID[63:32];
      word_of(edge_moe_pkg::REG_VERSION):       value = edge_moe_pkg::ISA_VERSION;
      word_of(edge_moe_pkg::REG_STATUS):        value = status_q;
      word_of(edge_moe_pkg::REG_ERROR):         value = error_q;
      word_of(edge_moe_pkg::REG_POSITION):      value = position_q;
      word_of(edge_moe_pkg::REG_CYCLES):        value = cycles_q;
      default:                                  value = held;
    endcase
  end
  always_ff @(posedge clk) if (read) s_axi_rdata <= value;

  logic unused_bits;  // protection, and bytes within a word
  assign unused_bits = ^{s_axi_awprot, s_axi_arprot, s_axi_awaddr[1:0], s_axi_araddr[1:0]};

endmodule

`default_nettype wire
