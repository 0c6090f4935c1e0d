// SPDX-License-Identifier: Apache-2.0
// The properties of fifo.sv, included in it. Any one entering element is watched, with the number of those before it.
// Induction needs to know where it is stored. The property: it comes out in its turn, unchanged.

logic             started_q = 1'b0;
logic             leaves, watching_q;
logic [COUNT-1:0] ahead_q;    // elements before the watched one
logic [WIDTH-1:0] watched_q;
logic [2:0]       waited_q;   // cycles in which elements were held and none was offered
(* anyseq *) logic pick;

assign leaves = m_axis_data_tvalid && m_axis_data_tready;

always_ff @(posedge clk) begin
  started_q <= 1'b1;
  if (rst) begin
    watching_q <= 1'b0;
    waited_q   <= '0;
  end else begin
    if (!watching_q && pick && write) begin
      watching_q <= 1'b1;
      watched_q  <= s_axis_data_tdata;
      ahead_q    <= count_o - COUNT'(leaves);
    end else if (watching_q && leaves) begin
      watching_q <= ahead_q != '0;
      ahead_q    <= ahead_q - COUNT'(1);
    end
    waited_q <= count_o != '0 && !m_axis_data_tvalid ? waited_q + 3'd1 : '0;
  end
end

// The element that has this many before it: registers from the last one on, then the memory.
logic [COUNT-1:0] seen;
logic [ADDRESS:0] place;
logic [WIDTH-1:0] located;
always_comb begin
  seen    = '0;
  located = '0;
  for (int i = STAGES - 1; i >= 0; i--) begin
    if (valid_q[i] && seen == ahead_q) located = data_q[i];
    seen = seen + COUNT'(valid_q[i]);
  end
  place = (ADDRESS + 1)'(read_q) + (ADDRESS + 1)'(ahead_q - seen);
  if (place >= (ADDRESS + 1)'(DEPTH)) place = place - (ADDRESS + 1)'(DEPTH);
  if (ahead_q >= seen) located = memory[ADDRESS'(place)];
end

logic [ADDRESS:0] next_write;
always_comb begin
  next_write = (ADDRESS + 1)'(read_q) + stored_q;
  if (next_write >= (ADDRESS + 1)'(DEPTH)) next_write = next_write - (ADDRESS + 1)'(DEPTH);
end

always_comb if (!started_q) assume (rst);

// How many elements have been taken and not given: counted apart from the FIFO's own pointers.
logic [COUNT-1:0] held_q;
always_ff @(posedge clk) begin
  if (rst) held_q <= '0;
  else held_q <= held_q + COUNT'(write) - COUNT'(leaves);
end

always_comb begin
  if (started_q && !rst) begin
    // no overflow, no underflow, the right count
    assert (stored_q <= (ADDRESS + 1)'(DEPTH));
    assert (count_o == held_q);
    assert (!(m_axis_data_tvalid && count_o == '0));
    assert ((ADDRESS + 1)'(read_q) < (ADDRESS + 1)'(DEPTH));
    assert ((ADDRESS + 1)'(write_q) == next_write);
    // room is offered while there is any; an element is offered within as many cycles as there are registers
    assert (s_axis_data_tready || count_o >= COUNT'(DEPTH));
    assert (waited_q <= 3'(STAGES));
    if (valid_q == '0) assert (waited_q == '0);
    for (int i = 0; i < STAGES; i++) begin  // the first element moves on in every cycle in which none is offered
      if (valid_q >> i == STAGES'(1)) assert (waited_q <= 3'(i + 1));
    end
    // order, nothing lost
    if (watching_q) begin
      assert (ahead_q < count_o);
      assert (located == watched_q);
      if (ahead_q == '0 && m_axis_data_tvalid) assert (m_axis_data_tdata == watched_q);
    end
  end
end

// An offered element stays, unchanged, until it is taken.
logic             stalled_q = 1'b0;
logic [WIDTH-1:0] offered_q;
always_ff @(posedge clk) begin
  stalled_q <= !rst && m_axis_data_tvalid && !m_axis_data_tready;
  offered_q <= m_axis_data_tdata;
end
always_comb if (started_q && stalled_q && !rst) assert (m_axis_data_tvalid && m_axis_data_tdata == offered_q);
