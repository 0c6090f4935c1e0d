# SPDX-License-Identifier: Apache-2.0
"""ONNX text of the functions of a task head. SPEC.md, section 4. Sums of an upsampling are int32."""

HEAD = """
# rq(sum w x + bias, multiplier, shift, -128, 127, -128): ReLU with zero point -128; pad is the input's
Conv3x3 <shift, height, width, pad> (x, weight, bias, multiplier) => (y) {
    n = Constant <value_int: int = @shift> ()
    h = Constant <value_int: int = @height> ()
    w = Constant <value_int: int = @width> ()
    outside = Constant <value_int: int = @pad> ()
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    rest = Constant <value_ints = [-1]> ()
    rows = Unsqueeze (h, zero)
    columns = Unsqueeze (w, zero)
    map_shape = Concat <axis = 0> (zero, rows, columns, rest)
    unsigned = edge_moe.Unsigned (x)
    outside_unsigned = edge_moe.Unsigned (outside)
    map = Reshape (unsigned, map_shape)
    pads = Constant <value_ints = [0, 1, 1, 0, 0, 1, 1, 0]> ()
    padded = Pad (map, pads, outside_unsigned)
    columns_and_1 = Add (columns, one)
    columns_and_2 = Add (columns, two)
    left = Slice (padded, zero, columns, two)
    middle = Slice (padded, one, columns_and_1, two)
    right = Slice (padded, two, columns_and_2, two)
    triples = Concat <axis = -1> (left, middle, right)
    rows_and_1 = Add (rows, one)
    rows_and_2 = Add (rows, two)
    above = Slice (triples, zero, rows, one)
    level = Slice (triples, one, rows_and_1, one)
    below = Slice (triples, two, rows_and_2, one)
    nines = Concat <axis = -1> (above, level, below)
    pixels = Mul (rows, columns)
    flat_shape = Concat <axis = 0> (zero, pixels, rest)
    patches = Reshape (nines, flat_shape)
    accumulator = edge_moe.Accumulate (patches, weight, bias)
    low = Constant <value = int64 {$INT8_MIN}> ()
    high = Constant <value = int64 {$INT8_MAX}> ()
    value = edge_moe.Requantise (accumulator, multiplier, n, low, high, low)
    y = Cast <to = $INT8> (value)
}

# rs of the bilinear sums of 16 parts; half-pixel centres, edges repeated
Upsample2x <height, width> (x) => (y) {
    h = Constant <value_int: int = @height> ()
    w = Constant <value_int: int = @width> ()
    factor = Constant <value = int64 {2}> ()
    n = Constant <value = int64 {4}> ()
    sums = edge_moe.UpsampleSums (x, h, w, factor)
    wide = Cast <to = $INT64> (sums)
    rounded = edge_moe.RoundingShift (wide, n)
    narrow = Cast <to = $INT8> (rounded)
    zero = Constant <value_ints = [0]> ()
    four = Constant <value_ints = [4]> ()
    rest = Constant <value_ints = [-1]> ()
    rows = Unsqueeze (h, zero)
    quarter = Mul (rows, w)
    pixels = Mul (quarter, four)
    shape = Concat <axis = 0> (zero, pixels, rest)
    y = Reshape (narrow, shape)
}

# per pixel the index of the largest bilinear sum, the lowest on ties
ClassMap <height, width, factor> (raw) => (y) {
    h = Constant <value_int: int = @height> ()
    w = Constant <value_int: int = @width> ()
    f = Constant <value_int: int = @factor> ()
    sums = edge_moe.UpsampleSums (raw, h, w, f)
    index = ArgMax <axis = -1, keepdims = 0, select_last_index = 0> (sums)
    y = Cast <to = $UINT8> (index)
}

# (2 factor)^2 times the bilinear value of the head's integers, exact
PixelValues <height, width, factor> (raw) => (y) {
    h = Constant <value_int: int = @height> ()
    w = Constant <value_int: int = @width> ()
    f = Constant <value_int: int = @factor> ()
    y = edge_moe.UpsampleSums (raw, h, w, f)
}

# x [B, h*w, C] to int32 [B, h*factor, w*factor, C]: (2 factor)^2 times the bilinear value
UpsampleSums (x, height, width, factor) => (y) {
    zero = Constant <value_ints = [0]> ()
    rest = Constant <value_ints = [-1]> ()
    h = Unsqueeze (height, zero)
    w = Unsqueeze (width, zero)
    shape = Concat <axis = 0> (zero, h, w, rest)
    wide = Cast <to = $INT32> (x)
    grid = Reshape (wide, shape)
    row_axes = Constant <value_ints = [1, 2]> ()
    above, below, above_weight, below_weight = edge_moe.BilinearTaps (height, factor, row_axes)
    rows_above = Gather <axis = 1> (grid, above)
    rows_below = Gather <axis = 1> (grid, below)
    part_above = Mul (rows_above, above_weight)
    part_below = Mul (rows_below, below_weight)
    rows = Add (part_above, part_below)
    column_axes = Constant <value_ints = [1]> ()
    left, right, left_weight, right_weight = edge_moe.BilinearTaps (width, factor, column_axes)
    columns_left = Gather <axis = 2> (rows, left)
    columns_right = Gather <axis = 2> (rows, right)
    part_left = Mul (columns_left, left_weight)
    part_right = Mul (columns_right, right_weight)
    y = Add (part_left, part_right)
}

# Along an axis: lower and upper neighbour of each output and their weights over 2 factor, int32 with
# the axes that the map has after this one. Mod has the sign of the divisor, so the division is exact.
BilinearTaps (size, factor, axes) => (lower, upper, lower_weight, upper_weight) {
    zero = Constant <value = int64 {0}> ()
    one = Constant <value = int64 {1}> ()
    two = Constant <value = int64 {2}> ()
    count = Mul (size, factor)
    index = Range (zero, count, one)
    twice = Mul (index, two)
    start = Sub (one, factor)
    position = Add (twice, start)
    parts = Mul (factor, two)
    remainder = Mod (position, parts)
    rest = Sub (parts, remainder)
    upper_column = Unsqueeze (remainder, axes)
    lower_column = Unsqueeze (rest, axes)
    upper_weight = Cast <to = $INT32> (upper_column)
    lower_weight = Cast <to = $INT32> (lower_column)
    whole = Sub (position, remainder)
    before = Div (whole, parts)
    after = Add (before, one)
    last = Sub (size, one)
    lower = Clip (before, zero, last)
    upper = Clip (after, zero, last)
}
"""
