// SPDX-License-Identifier: Apache-2.0
// A stand-in for the Verilog that an HLS tool makes of hls/ops/requantise.cpp: the same ports and handshakes,
// written by hand. One value every four cycles.
`timescale 1 ns / 1 ps

module requantise (
        ap_clk, ap_rst, ap_start, ap_done, ap_idle, ap_ready,
        a_address0, a_ce0, a_q0,
        m_address0, m_ce0, m_q0,
        out_r_address0, out_r_ce0, out_r_we0, out_r_d0,
        rows, channels, n, low, high, z
);

parameter IDLE = 2'd0;
parameter ASK = 2'd1;
parameter COMPUTE = 2'd2;
parameter WRITE = 2'd3;

input   ap_clk;
input   ap_rst;
input   ap_start;
output  ap_done;
output  ap_idle;
output  ap_ready;
output  [18:0] a_address0;
output  a_ce0;
input   [31:0] a_q0;
output  [9:0] m_address0;
output  m_ce0;
input   [15:0] m_q0;
output  [18:0] out_r_address0;
output  out_r_ce0;
output  out_r_we0;
output  [15:0] out_r_d0;
input   [31:0] rows;
input   [31:0] channels;
input   [31:0] n;
input   [31:0] low;
input   [31:0] high;
input   [31:0] z;

reg [1:0] state;
reg [31:0] row;
reg [31:0] channel;
reg [31:0] next;
reg [15:0] result;

wire signed [47:0] product = $signed(a_q0) * $signed(m_q0);
wire signed [49:0] half = (50'sd1 <<< n[5:0]) >>> 1;
wire signed [49:0] rounded = (product + half) >>> n[5:0];
wire signed [49:0] moved = rounded + $signed(z);
wire signed [49:0] least = $signed(low);
wire signed [49:0] most = $signed(high);
wire last = (channel + 32'd1 == channels) && (row + 32'd1 == rows);

always @(posedge ap_clk) begin
    if (ap_rst == 1'b1) begin
        state <= IDLE;
    end else begin
        case (state)
            IDLE: if (ap_start == 1'b1) begin
                state <= (rows == 32'd0 || channels == 32'd0) ? IDLE : ASK;
                row <= 32'd0;
                channel <= 32'd0;
                next <= 32'd0;
            end
            ASK: state <= COMPUTE;
            COMPUTE: begin
                result <= (moved < least) ? low[15:0] : (moved > most) ? high[15:0] : moved[15:0];
                state <= WRITE;
            end
            default: begin
                next <= next + 32'd1;
                if (channel + 32'd1 == channels) begin
                    channel <= 32'd0;
                    row <= row + 32'd1;
                end else begin
                    channel <= channel + 32'd1;
                end
                state <= last ? IDLE : ASK;
            end
        endcase
    end
end

assign a_address0 = next[18:0];
assign a_ce0 = (state == ASK);
assign m_address0 = channel[9:0];
assign m_ce0 = (state == ASK);
assign out_r_address0 = next[18:0];
assign out_r_ce0 = (state == WRITE);
assign out_r_we0 = (state == WRITE);
assign out_r_d0 = result;
assign ap_done = (state == WRITE && last);
assign ap_ready = ap_done;
assign ap_idle = (state == IDLE && ap_start == 1'b0);

endmodule
