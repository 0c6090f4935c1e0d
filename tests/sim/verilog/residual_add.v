// SPDX-License-Identifier: Apache-2.0
// A stand-in for the Verilog that an HLS tool makes of hls/ops/residual_add.cpp: the same ports and handshakes,
// written by hand. Words of 32 lanes, one every cycle, two cycles after their addresses.
`timescale 1 ns / 1 ps

module residual_add (
        ap_clk, ap_rst, ap_start, ap_done, ap_idle, ap_ready,
        residual_address0, residual_ce0, residual_q0,
        update_address0, update_ce0, update_q0,
        out_r_address0, out_r_ce0, out_r_we0, out_r_d0,
        slices
);

input   ap_clk;
input   ap_rst;
input   ap_start;
output  ap_done;
output  ap_idle;
output  ap_ready;
output  [11:0] residual_address0;
output  residual_ce0;
input   [511:0] residual_q0;
output  [11:0] update_address0;
output  update_ce0;
input   [511:0] update_q0;
output  [11:0] out_r_address0;
output  out_r_ce0;
output  out_r_we0;
output  [511:0] out_r_d0;
input   [31:0] slices;

reg running;
reg [31:0] asked;
reg here;
reg [11:0] place;
reg writing;
reg [11:0] target;
reg [511:0] sums;
reg [31:0] written;

wire asking = running && (asked != slices);

function [15:0] clip;
    input signed [16:0] value;
    clip = (value > 17'sd32767) ? 16'h7fff : (value < -17'sd32768) ? 16'h8000 : value[15:0];
endfunction

integer i;
always @(posedge ap_clk) begin
    if (ap_rst == 1'b1) begin
        running <= 1'b0;
        here <= 1'b0;
        writing <= 1'b0;
    end else begin
        if (running == 1'b0 && ap_start == 1'b1) begin
            running <= 1'b1;
            asked <= 32'd0;
            written <= 32'd0;
        end else if (ap_done == 1'b1) begin
            running <= 1'b0;
        end
        if (asking) asked <= asked + 32'd1;
        here <= asking;
        place <= asked[11:0];
        writing <= here;
        target <= place;
        for (i = 0; i < 32; i = i + 1)
            sums[16*i +: 16] <= clip($signed(residual_q0[16*i +: 16]) + $signed(update_q0[16*i +: 16]));
        if (writing) written <= written + 32'd1;
    end
end

assign residual_address0 = asked[11:0];
assign residual_ce0 = asking;
assign update_address0 = asked[11:0];
assign update_ce0 = asking;
assign out_r_address0 = target;
assign out_r_ce0 = writing;
assign out_r_we0 = writing;
assign out_r_d0 = sums;
assign ap_done = running && (written == slices);
assign ap_ready = ap_done;
assign ap_idle = (running == 1'b0) && (ap_start == 1'b0);

endmodule
