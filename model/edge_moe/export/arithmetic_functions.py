# SPDX-License-Identifier: Apache-2.0
"""ONNX text of the functions that the nodes' bodies share: SPEC.md, sections 2 and 3.

Values are int64 unless a name says otherwise; shifts and bounds are int64 too. ONNX shifts only unsigned
integers and divides towards zero, so an arithmetic shift adds 2^62 before and subtracts its share
afterwards. Clip, Min, Max and ReduceMax of int64 are used only for values of 32 bits: onnxruntime's are
wrong beyond that on x86, while its comparisons are right.

Products of int8 use MatMulInteger on uint8 with zero points of 128. This is the combination of
onnxruntime that is exact on every CPU: uint8 by int8 saturates pairs of products at 16 bits on CPUs
without VNNI, and int8 by int8 is slow or absent.
"""

ARITHMETIC = """
# floor(v / 2^n)
FloorShift (v, n) => (y) {
    lift = Constant <value = int64 {4611686018427387904}> ()
    n_bits = Cast <to = $UINT64> (n)
    lift_bits = Cast <to = $UINT64> (lift)
    lift_share_bits = BitShift <direction = "RIGHT"> (lift_bits, n_bits)
    lift_share = Cast <to = $INT64> (lift_share_bits)
    lifted = Add (v, lift)
    bits = Cast <to = $UINT64> (lifted)
    shifted_bits = BitShift <direction = "RIGHT"> (bits, n_bits)
    shifted = Cast <to = $INT64> (shifted_bits)
    y = Sub (shifted, lift_share)
}

# v / 2^n, halves up
RoundingShift (v, n) => (y) {
    one = Constant <value = int64 {1}> ()
    half = edge_moe.ShiftBits (one, n, one)
    moved = Add (v, half)
    y = edge_moe.FloorShift (moved, n)
}

# v >= 0, left by up and right by down
ShiftBits (v, up, down) => (y) {
    bits = Cast <to = $UINT64> (v)
    up_bits = Cast <to = $UINT64> (up)
    down_bits = Cast <to = $UINT64> (down)
    raised = BitShift <direction = "LEFT"> (bits, up_bits)
    lowered = BitShift <direction = "RIGHT"> (raised, down_bits)
    y = Cast <to = $INT64> (lowered)
}

# v in [low, high], for any int64
Saturate (v, low, high) => (y) {
    under = Less (v, low)
    raised = Where (under, low, v)
    over = Greater (raised, high)
    y = Where (over, high, raised)
}

# clip(rs(accumulator multiplier, n) + zero_point, low, high)
Requantise (accumulator, multiplier, n, low, high, zero_point) => (y) {
    a = Cast <to = $INT64> (accumulator)
    m = Cast <to = $INT64> (multiplier)
    product = Mul (a, m)
    rounded = edge_moe.RoundingShift (product, n)
    moved = Add (rounded, zero_point)
    y = edge_moe.Saturate (moved, low, high)
}

SaturateInt16 (v) => (y) {
    low = Constant <value = int64 {$INT16_MIN}> ()
    high = Constant <value = int64 {$INT16_MAX}> ()
    y = edge_moe.Saturate (v, low, high)
}

RequantiseInt16 (accumulator, multiplier, n) => (y) {
    low = Constant <value = int64 {$INT16_MIN}> ()
    high = Constant <value = int64 {$INT16_MAX}> ()
    zero = Constant <value = int64 {0}> ()
    y = edge_moe.Requantise (accumulator, multiplier, n, low, high, zero)
}

# int8 to uint8, 128 higher
Unsigned (x) => (y) {
    offset = Constant <value = int32 {128}> ()
    wide = Cast <to = $INT32> (x)
    moved = Add (wide, offset)
    y = Cast <to = $UINT8> (moved)
}

# a and b are int8 values as Unsigned gives them; the product of the int8 values, int32
Product (a, b) => (y) {
    offset = Constant <value = uint8 {128}> ()
    y = MatMulInteger (a, b, offset, offset)
}

# x as Unsigned gives it, weight int8 [out, ...], bias int32 [out]; int32 [.., out]
Accumulate (x, weight, bias) => (y) {
    flat = Flatten <axis = 1> (weight)
    w = edge_moe.Unsigned (flat)
    columns = Transpose <perm = [1, 0]> (w)
    product = edge_moe.Product (x, columns)
    y = Add (product, bias)
}

# max(x, 0) - delta(|x|), Q10; the table's last entry, 0, serves |x| >= 4
Gelu (x) => (y) {
    table = Constant <value = $TABLE_GELU> ()
    zero = Constant <value = int64 {0}> ()
    step = Constant <value = uint64 {$GELU_STEP_BITS}> ()
    end = Constant <value = int64 {$GELU_END}> ()
    magnitude = Abs (x)
    bits = Cast <to = $UINT64> (magnitude)
    bin_bits = BitShift <direction = "RIGHT"> (bits, step)
    bin = Cast <to = $INT64> (bin_bits)
    index = Min (bin, end)
    delta = Gather (table, index)
    positive = Max (x, zero)
    y = Sub (positive, delta)
}

# floor(log2 v) of v >= 1: how many of 2^0 ... 2^61 do not exceed it, less one
FloorLog2 (v) => (k) {
    powers = Constant <value = $TABLE_POWERS> ()
    last = Constant <value_ints = [-1]> ()
    one = Constant <value = int64 {1}> ()
    column = Unsqueeze (v, last)
    reached = GreaterOrEqual (column, powers)
    counted = Cast <to = $INT64> (reached)
    count = ReduceSum <keepdims = 0> (counted, last)
    k = Sub (count, one)
}

# of v >= 1: 1/v is about R 2^(-15-k)
Reciprocal (v) => (R, k) {
    table = Constant <value = $TABLE_RECIPROCAL> ()
    bits = Constant <value = int64 {$MANTISSA_BITS}> ()
    first = Constant <value = int64 {$MANTISSA_ONE}> ()
    zero = Constant <value = int64 {0}> ()
    k = edge_moe.FloorLog2 (v)
    missing = Sub (bits, k)
    surplus = Sub (k, bits)
    up = Max (missing, zero)
    down = Max (surplus, zero)
    mantissa = edge_moe.ShiftBits (v, up, down)
    index = Sub (mantissa, first)
    R = Gather (table, index)
}

# of v >= 1: 1/sqrt(v) is about R 2^(-15-k)
ReciprocalSqrt (v) => (R, k) {
    table = Constant <value = $TABLE_RSQRT> ()
    bits = Constant <value = int64 {$ROOT_BITS}> ()
    first = Constant <value = int64 {$ROOT_ONE}> ()
    one = Constant <value = int64 {1}> ()
    log2 = edge_moe.FloorLog2 (v)
    zero = Constant <value = int64 {0}> ()
    k = edge_moe.ShiftBits (log2, zero, one)
    even = Add (k, k)
    missing = Sub (bits, even)
    surplus = Sub (even, bits)
    up = Max (missing, zero)
    down = Max (surplus, zero)
    mantissa = edge_moe.ShiftBits (v, up, down)
    index = Sub (mantissa, first)
    R = Gather (table, index)
}

# 2^(logit - exponent) as a table entry and a right shift; logits Q8, exponent an integer above all
Exp2 (logits, exponent) => (entry, shift) {
    table = Constant <value = $TABLE_EXP2> ()
    one = Constant <value = int64 {$EXP2_UNIT}> ()
    mask = Constant <value = int64 {$EXP2_MASK}> ()
    bits = Constant <value = int64 {$EXP2_BITS}> ()
    zero = Constant <value = int64 {0}> ()
    limit = Constant <value = int64 {$EXPONENT_LIMIT}> ()
    ceiling = Mul (exponent, one)
    below = Sub (ceiling, logits)
    fraction = BitwiseAnd (below, mask)
    entry = Gather (table, fraction)
    whole = edge_moe.ShiftBits (below, zero, bits)
    shift = Min (whole, limit)
}

# The integer above the largest of the last axis
ExponentAbove (logits) => (y) {
    last = Constant <value_ints = [-1]> ()
    bits = Constant <value = int64 {$EXP2_BITS}> ()
    one = Constant <value = int64 {1}> ()
    largest = ReduceMax <keepdims = 1> (logits, last)
    floor = edge_moe.FloorShift (largest, bits)
    y = Add (floor, one)
}
"""
