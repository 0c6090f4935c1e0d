# SPDX-License-Identifier: Apache-2.0
"""ONNX text of the functions of a mixture of experts: gate, routing, experts. SPEC.md, section 4."""

MOE = """
# sum w x + bias, w int16
GateLogits (x, weight, bias) => (y) {
    rows = Cast <to = $INT32> (weight)
    columns = Transpose <perm = [1, 0]> (rows)
    wide = Cast <to = $INT32> (x)
    product = MatMul (wide, columns)
    y = Add (product, bias)
}

# the top_k largest logits, of equal ones the lower index, and their softmax scores over all experts
Route <multiplier, shift, top_k> (logits) => (expert, score) {
    m = Constant <value_int: int = @multiplier> ()
    n = Constant <value_int: int = @shift> ()
    top = Constant <value_int: int = @top_k> ()
    first = Constant <value_ints = [0]> ()
    last = Constant <value_ints = [-1]> ()
    high = Constant <value = int64 {$INT16_MAX}> ()
    k = Unsqueeze (top, first)
    chosen_logits, chosen = TopK <axis = -1, largest = 1, sorted = 1> (logits, k)
    expert = Cast <to = $INT32> (chosen)
    scaled = edge_moe.RequantiseInt16 (logits, m, n)
    exponent = edge_moe.ExponentAbove (scaled)
    entry, right = edge_moe.Exp2 (scaled, exponent)
    P = edge_moe.RoundingShift (entry, right)
    P_sum = ReduceSum <keepdims = 1> (P, last)
    R, j = edge_moe.Reciprocal (P_sum)
    P_chosen = GatherElements <axis = -1> (P, chosen)
    product = Mul (P_chosen, R)
    rounded = edge_moe.RoundingShift (product, j)
    limited = Min (rounded, high)
    score = Cast <to = $INT16> (limited)
}

# clip16(residual + sum over the chosen of rs(expert(x) score, 15)); an expert sees its own tokens only
Experts <bits1, bits2> (x, expert, score, residual, fc1_weight, fc1_bias, fc1_multiplier, fc1_shift,
                        fc2_weight, fc2_bias, fc2_multiplier, fc2_shift,
                        gelu_multiplier, gelu_shift, zero_point) => (y) {
    rest = Constant <value_ints = [-1]> ()
    last = Constant <value = int64 {-1}> ()
    first = Constant <value_ints = [0]> ()
    row_index = Constant <value = int64 {0}> ()
    low = Constant <value = int64 {$INT8_MIN}> ()
    high = Constant <value = int64 {$INT8_MAX}> ()
    score_n = Constant <value = int64 {$SCORE_FRACTION}> ()
    width = Shape <start = 2, end = 3> (x)
    k = Shape <start = 2, end = 3> (expert)
    token_shape = Concat <axis = 0> (rest, width)
    choice_shape = Concat <axis = 0> (rest, k)
    unsigned = edge_moe.Unsigned (x)
    tokens = Reshape (unsigned, token_shape)
    choices = Reshape (expert, choice_shape)
    flat_scores = Reshape (score, choice_shape)
    scores = Cast <to = $INT64> (flat_scores)
    weights1 = edge_moe.Unsigned (fc1_weight)
    weights2 = edge_moe.Unsigned (fc2_weight)
    columns1 = Transpose <perm = [0, 2, 1]> (weights1)
    columns2 = Transpose <perm = [0, 2, 1]> (weights2)
    expert_count = Shape <start = 0, end = 1> (fc1_weight)
    experts = Squeeze (expert_count, first)
    stream = Cast <to = $INT64> (residual)
    stream_shape = Shape (residual)
    flat_stream = Reshape (stream, token_shape)
    go_first = Constant <value = bool {1}> ()
    total = Loop <body = one_expert (
        int64 e, bool go, int64[t, d] sum
    ) => (bool go_on, int64[t, d] sum_next) {
        go_on = Identity (go)
        index = Cast <to = $INT32> (e)
        hit = Equal (choices, index)
        places = NonZero (hit)
        pairs = Transpose <perm = [1, 0]> (places)
        rows = Gather <axis = 0> (places, row_index)
        own = Gather <axis = 0> (tokens, rows)
        w1 = Gather <axis = 0> (columns1, e)
        b1 = Gather <axis = 0> (fc1_bias, e)
        m1 = Gather <axis = 0> (fc1_multiplier, e)
        n1 = Gather <axis = 0> (fc1_shift, e)
        product1 = edge_moe.Product (own, w1)
        accumulator1 = Add (product1, b1)
        value1 = edge_moe.RequantiseInt16 (accumulator1, m1, n1)
        activated = edge_moe.Gelu (value1)
        gm = Gather <axis = 0> (gelu_multiplier, e)
        gn = Gather <axis = 0> (gelu_shift, e)
        zp = Gather <axis = 0> (zero_point, e)
        hidden_value = edge_moe.Requantise (activated, gm, gn, low, high, zp)
        hidden = edge_moe.Unsigned (hidden_value)
        w2 = Gather <axis = 0> (columns2, e)
        b2 = Gather <axis = 0> (fc2_bias, e)
        m2 = Gather <axis = 0> (fc2_multiplier, e)
        n2 = Gather <axis = 0> (fc2_shift, e)
        product2 = edge_moe.Product (hidden, w2)
        accumulator2 = Add (product2, b2)
        value2 = edge_moe.RequantiseInt16 (accumulator2, m2, n2)
        own_scores = GatherND (scores, pairs)
        factor = Unsqueeze (own_scores, rest)
        weighted = Mul (value2, factor)
        rounded = edge_moe.RoundingShift (weighted, score_n)
        targets = Unsqueeze (rows, rest)
        sum_next = ScatterND <reduction = "add"> (sum, targets, rounded)
    }> (experts, go_first, flat_stream)
    saturated = edge_moe.SaturateInt16 (total)
    narrow = Cast <to = $INT16> (saturated)
    y = Reshape (narrow, stream_shape)
}
"""
