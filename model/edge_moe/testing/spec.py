# SPDX-License-Identifier: Apache-2.0
"""SPEC.md, sections 2 to 4, literally in Python integers: slow, and independent of golden.

Everything is a nested list of int for one image; no NumPy arithmetic, no import from the project.
Layers are the dataclasses of constants, read by field name. Tables are computed with 50 digits.
"""

from decimal import Decimal, localcontext

PI = Decimal("3.14159265358979323846264338327950288419716939937511")
ROW = list[int]
ROWS = list[list[int]]


# ------------------------------------------------------------------ section 2: arithmetic


def rs(v: int, n: int) -> int:
    """floor(v / 2**n + 1/2), as one exact division."""
    return (2 * v + 2**n) // 2 ** (n + 1)


def clip(v: int, lo: int, hi: int) -> int:
    return lo if v < lo else hi if v > hi else v


def clip16(v: int) -> int:
    return clip(v, -(2**15), 2**15 - 1)


def rq(a: int, m: int, n: int, lo: int, hi: int, z: int = 0) -> int:
    return clip(rs(a * m, n) + z, lo, hi)


# ------------------------------------------------------------------ section 3: tables


def _half_up(value: Decimal) -> int:
    return int((value + Decimal("0.5")).to_integral_value("ROUND_FLOOR"))


def _normal_tail(a: Decimal) -> Decimal:
    """1 - Phi(a), by the power series of Phi."""
    term, series, n = a, Decimal(0), 0
    while abs(term) > Decimal(10) ** -45:
        series += term / (2 * n + 1)
        n += 1
        term = -term * a * a / (2 * n)
    return Decimal("0.5") - series / (2 * PI).sqrt()


def exact_tables() -> dict[str, list[Decimal]]:
    """Every entry before rounding."""
    with localcontext() as context:
        context.prec = 50
        middle = [Decimal(2 * i + 1) / 512 for i in range(1024)]
        return {
            "EXP2": [Decimal(2) ** (15 - Decimal(i) / 256) for i in range(256)],
            "RECIPROCAL": [Decimal(2**26) / (2 * (1024 + i) + 1) for i in range(1024)],
            "RSQRT": [2**15 / (Decimal(2 * (512 + i) + 1) / 1024).sqrt() for i in range(1536)],
            "GELU": [1024 * a * _normal_tail(a) for a in middle],
        }


TABLES = {name: [_half_up(value) for value in values] for name, values in exact_tables().items()}


def reciprocal(v: int) -> tuple[int, int]:
    """(R, k); the mantissa is taken from the binary digits."""
    digits = bin(v)[2:]
    mantissa = int(digits[:11].ljust(11, "0"), 2)
    return TABLES["RECIPROCAL"][mantissa - 1024], len(digits) - 1


def reciprocal_sqrt(v: int) -> tuple[int, int]:
    """(R, k)."""
    k = 0
    while 4 ** (k + 1) <= v:
        k += 1
    mantissa = v * 2**9 // 4**k
    return TABLES["RSQRT"][mantissa - 512], k


# ------------------------------------------------------------------ section 4: linears


def _accumulate(x: ROW, weight: ROWS, bias: ROW) -> ROW:
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def _requantised(x: ROWS, layer, lo: int, hi: int) -> ROWS:
    weight, bias, multiplier = layer.weight.tolist(), layer.bias.tolist(), layer.multiplier.tolist()
    return [
        [
            rq(a, m, layer.shift, lo, hi)
            for a, m in zip(_accumulate(token, weight, bias), multiplier, strict=True)
        ]
        for token in x
    ]


def linear(x: ROWS, layer) -> ROWS:
    return _requantised(x, layer, -127, 127)


def linear_int16(x: ROWS, layer) -> ROWS:
    return _requantised(x, layer, -32768, 32767)


def residual_add(residual: ROWS, update: ROWS) -> ROWS:
    return [
        [clip16(a + b) for a, b in zip(*pair, strict=True)] for pair in zip(residual, update, strict=True)
    ]


def linear_residual(x: ROWS, layer, residual: ROWS) -> ROWS:
    return residual_add(residual, linear_int16(x, layer))


def gelu(x: int) -> int:
    delta = TABLES["GELU"][abs(x) >> 2] if abs(x) < 4096 else 0
    return max(x, 0) - delta


def linear_gelu(x: ROWS, ffn) -> ROWS:
    return [
        [rq(gelu(a), ffn.gelu_multiplier, ffn.gelu_shift, -128, 127, ffn.zero_point) for a in token]
        for token in linear_int16(x, ffn.fc1)
    ]


def patch_embedding(image: list[ROWS], layer, position: ROWS, p: int) -> ROWS:
    """image [H][W][3]; patches row by row."""
    tokens = []
    for top in range(0, len(image), p):
        for left in range(0, len(image[0]), p):
            patch = [
                image[top + r][left + c][colour] - 128
                for r in range(p)
                for c in range(p)
                for colour in range(3)
            ]
            tokens.append(patch)
    tokens = linear_int16(tokens, layer)
    cls = position[: len(position) - len(tokens)]
    return cls + residual_add(tokens, position[len(cls) :])


# ------------------------------------------------------------------ section 4: LayerNorm, attention


def layernorm(x: ROWS, norm, skip: int = 0) -> ROWS:
    gamma, beta = norm.gamma.tolist(), norm.beta.tolist()
    result = []
    for token in x[skip:]:
        D, T, Q = len(token), sum(token), sum(v * v for v in token)
        R, k = reciprocal_sqrt(D * Q - T * T + norm.epsilon)
        xhat = [clip16(rs((D * v - T) * R, k + 5)) for v in token]
        result.append(
            [clip(rs(h * g + b, norm.shift), -128, 127) for h, g, b in zip(xhat, gamma, beta, strict=True)]
        )
    return result


def attend(q: ROW, keys: ROWS, values: ROWS, m: int, n: int) -> ROW:
    """One query of one head: its average of V in Q6."""
    M, S, A = -128, 0, [0] * len(q)
    for start in range(0, len(keys), 32):
        block, v = keys[start : start + 32], values[start : start + 32]
        x = [rq(sum(a * b for a, b in zip(q, key, strict=True)), m, n, -32768, 32767) for key in block]
        raised = max(M, (max(x) >> 8) + 1)
        r, M = min(raised - M, 31), raised
        t = [256 * M - logit for logit in x]
        assert min(t) >= 1
        p = [min(127, rs(TABLES["EXP2"][tj & 255], min(tj >> 8, 31) + 8)) for tj in t]
        S = rs(S, r) + 256 * sum(p)
        A = [rs(a, r) + sum(pj * vj[c] for pj, vj in zip(p, v, strict=True)) for c, a in enumerate(A)]
    R, e = reciprocal(S)
    assert e >= 14
    assert len(keys) * 127 * 256 >= S
    assert len(keys) * 127**2 >= max(map(abs, A))
    return [clip16(rs(a * R, e + 1)) for a in A]


def attention(qkv: ROWS, attn) -> ROWS:
    D = len(qkv[0]) // 3
    d = D // attn.heads
    result: ROWS = [[] for _ in qkv]
    for head in range(attn.heads):
        q, k, v = ([row[part * D + head * d :][:d] for row in qkv] for part in range(3))
        m = int(attn.logit_multiplier[head])
        for row, query in zip(result, q, strict=True):
            row += attend(query, k, v, m, attn.logit_shift)
    multiplier = attn.out_multiplier.tolist()
    return [[rq(u, m, attn.out_shift, -127, 127) for u, m in zip(row, multiplier, strict=True)]
            for row in result]  # fmt: skip


# ------------------------------------------------------------------ section 4: experts


def gate_logits(x: ROWS, gate) -> ROWS:
    """Computed from the two int8 halves of each weight."""
    low = [[(w + 64) % 128 - 64 for w in row] for row in gate.weight.tolist()]
    high = [[(w - v) // 128 for w, v in zip(*rows, strict=True)]
            for rows in zip(gate.weight.tolist(), low, strict=True)]  # fmt: skip
    assert all(-127 <= h <= 127 for row in high for h in row)
    zero, bias = [0] * len(low), gate.bias.tolist()
    return [
        [128 * h + v for h, v in zip(_accumulate(token, high, zero), _accumulate(token, low, bias),
                                     strict=True)]
        for token in x
    ]  # fmt: skip


def route(logits: ROWS, gate) -> tuple[ROWS, ROWS]:
    experts, scores = [], []
    for L in logits:
        chosen = sorted(range(len(L)), key=lambda e: (-L[e], e))[: gate.top_k]
        y = [rq(v, gate.multiplier, gate.shift, -32768, 32767) for v in L]
        M = (max(y) >> 8) + 1
        t = [256 * M - v for v in y]
        P = [rs(TABLES["EXP2"][te & 255], min(te >> 8, 31)) for te in t]
        R, j = reciprocal(sum(P))
        experts.append(chosen)
        scores.append([min(32767, rs(P[e] * R, j)) for e in chosen])
    return experts, scores


def experts(x: ROWS, expert: ROWS, score: ROWS, ffns) -> ROWS:
    """The mixture, before it is added to the residual."""
    result = []
    for token, chosen, weights in zip(x, expert, score, strict=True):
        total = [0] * len(ffns[0].fc2.weight)
        for e, weight in zip(chosen, weights, strict=True):
            f = linear_int16(linear_gelu([token], ffns[e]), ffns[e].fc2)[0]
            total = [a + rs(b * weight, 15) for a, b in zip(total, f, strict=True)]
        result.append(total)
    return result


# ------------------------------------------------------------------ section 4: head


def conv3x3(x: ROWS, layer, height: int, width: int, pad: int) -> ROWS:
    weight, bias, multiplier = layer.weight.tolist(), layer.bias.tolist(), layer.multiplier.tolist()
    outside = [pad] * len(x[0])
    result = []
    for row in range(height):
        for column in range(width):
            pixel = []
            for w, b, m in zip(weight, bias, multiplier, strict=True):
                a = b
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        inside = 0 <= row + dy < height and 0 <= column + dx < width
                        values = x[(row + dy) * width + column + dx] if inside else outside
                        a += sum(p * q for p, q in zip(w[dy + 1][dx + 1], values, strict=True))
                pixel.append(rq(a, m, layer.shift, -128, 127, -128))
            result.append(pixel)
    return result


def upsample2x(x: ROWS, height: int, width: int) -> ROWS:
    """Output 2i is a quarter before i, output 2i + 1 a quarter after it."""

    def taps(o: int, size: int) -> list[tuple[int, int]]:
        near, far = o // 2, o // 2 + (1 if o % 2 else -1)
        return [(near, 3), (clip(far, 0, size - 1), 1)]

    def pixel(row: int, column: int, c: int) -> int:
        return sum(
            wy * wx * x[i * width + j][c] for i, wy in taps(row, height) for j, wx in taps(column, width)
        )

    return [
        [rs(pixel(row, column, c), 4) for c in range(len(x[0]))]
        for row in range(2 * height)
        for column in range(2 * width)
    ]


def task_output(raw: ROWS, height: int, width: int, f: int, classes: bool) -> list:
    """[H][W] classes or [H][W][C] sums."""

    def taps(o: int, size: int) -> list[tuple[int, int]]:
        a = 2 * o + 1 - f
        lower, upper = a // (2 * f), a % (2 * f)
        return [(clip(lower, 0, size - 1), 2 * f - upper), (clip(lower + 1, 0, size - 1), upper)]

    result = []
    for row in range(height * f):
        line: list = []
        for column in range(width * f):
            sums = [
                sum(wy * wx * raw[i * width + j][c] for i, wy in taps(row, height)
                    for j, wx in taps(column, width))
                for c in range(len(raw[0]))
            ]  # fmt: skip
            line.append(sums.index(max(sums)) if classes else sums)
        result.append(line)
    return result


# ------------------------------------------------------------------ section 6: the graph


def network(net, image: list[ROWS], task: str, classes: bool) -> dict[str, list]:
    """Every named tensor of one image."""
    cfg, named = net.config, {}
    x = named["patch_embedding"] = patch_embedding(image, net.patch, net.position.tolist(), cfg.patch_size)
    for index, block in enumerate(net.blocks):
        t: dict[str, list] = {}
        t["norm1"] = layernorm(x, block.norm1)
        t["qkv"] = linear(t["norm1"], block.attention.qkv)
        t["attention"] = attention(t["qkv"], block.attention)
        t["proj"] = linear_residual(t["attention"], block.attention.proj, x)
        t["norm2"] = layernorm(t["proj"], block.norm2)
        if block.ffn is not None:
            t["hidden"] = linear_gelu(t["norm2"], block.ffn)
            t["ffn"] = linear_residual(t["hidden"], block.ffn.fc2, t["proj"])
        else:
            gate = block.gates[task]
            t["gate.logits"] = gate_logits(t["norm2"], gate)
            t["gate.expert"], t["gate.score"] = route(t["gate.logits"], gate)
            gained = experts(t["norm2"], t["gate.expert"], t["gate.score"], block.experts)
            t["ffn"] = residual_add(t["proj"], gained)
        x = t["ffn"]
        named |= {f"block{index}.{name}": value for name, value in t.items()}
    head = net.heads[task]
    height, width = (side // cfg.patch_size for side in cfg.image_size)
    y = named["head.norm"] = layernorm(x, head.norm, skip=1 if cfg.cls_token else 0)
    for stage, conv in enumerate(head.convs):
        if stage:
            y = named[f"head.upsample{stage}"] = upsample2x(y, height, width)
            height, width = 2 * height, 2 * width
        y = named[f"head.conv{stage}"] = conv3x3(y, conv, height, width, -128 if stage else 0)
    raw = named["head.out"] = linear_int16(y, head.out)
    named["output"] = task_output(raw, height, width, cfg.image_size[0] // height, classes)
    return named
