# SPDX-License-Identifier: Apache-2.0
"""The picture of the flow in the README: ``flow.py`` writes docs/flow.svg, ``flow.py --check`` compares it.

The picture has a background of its own, so that it reads the same on light and dark pages.
"""

import sys
from html import escape
from pathlib import Path

OUT = Path(__file__).parents[1] / "flow.svg"
TITLE = "The flow of Edge-MoE"

WIDTH, HEIGHT = 960, 320  # pixels
MARGIN = 22
TITLE_DROP, TEXT_DROP = 25, 45  # baselines of a box's two lines, below its top
BOX_HEIGHT = 60

# Name and text. The steps follow each other; the executors run the result of the last step.
STEPS = (
    ("Pictures and labels", "rendered streets, or yours"),
    ("Train", "M3ViT in PyTorch, float32"),
    ("Quantise", "integers of 8 bits"),
    ("Export", "one ONNX graph a task"),
    ("Compile", "one bundle for all tasks"),
)
COMPARED = (
    ("NumPy", "the reference"),
    ("onnxruntime", "runs the graphs"),
    ("C simulation", "of the HLS C++"),
    ("RTL operators", "in Verilator"),
    ("Simulated board", "with real pynq"),
)
NOT_RUN = (
    ("HLS as Verilog", "by vendor tools"),
    ("ZCU104", "needs a bitstream"),
)
COMPARED_TITLE = "Every integer is compared for equality"
NOT_RUN_TITLE = "Prepared, not run yet"

STYLE = """\
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;text-anchor:middle}
.page{fill:#ffffff;stroke:#c9ced6}
.name{font-size:14px;font-weight:600;fill:#16202c}
.small .name{font-size:11.5px}
.text,.label{font-size:11.5px;fill:#414b57}
.label{font-weight:600}
.step{fill:#e3edf9;stroke:#3569a8}
.compared{fill:#e2f2e6;stroke:#2f7d47}
.open{fill:#f6f1e4;stroke:#96700f;stroke-dasharray:5 4}
.group{fill:none;stroke:#2f7d47}
.open.group{fill:none;stroke:#96700f}
.line{fill:none;stroke:#414b57;stroke-width:1.5}
.tip{fill:#414b57}"""


def description() -> str:
    """The picture in words."""
    steps = ", ".join(f"{name} ({text})" for name, text in STEPS)
    compared = ", ".join(f"{name} ({text})" for name, text in COMPARED)
    waiting = ", ".join(f"{name} ({text})" for name, text in NOT_RUN)
    return (
        f"Steps from left to right: {steps}. Below them are the executors of the result. "
        f"{COMPARED_TITLE} between: {compared}. {NOT_RUN_TITLE}: {waiting}."
    )


def box(kind: str, x: float, y: float, width: float, name: str, text: str) -> list[str]:
    """A rectangle with a name and a line of text."""
    middle = x + width / 2
    return [
        f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{BOX_HEIGHT}" rx="6"/>',
        f'<text class="name" x="{middle:g}" y="{y + TITLE_DROP:g}">{escape(name)}</text>',
        f'<text class="text" x="{middle:g}" y="{y + TEXT_DROP:g}">{escape(text)}</text>',
    ]


def arrow(x: float, y: float, *, right: bool) -> str:
    """The tip of an arrow that ends at a point, to the right or downwards."""
    wings = (f"{x - 7:g},{y - 4:g}", f"{x - 7:g},{y + 4:g}")
    if not right:
        wings = (f"{x - 4:g},{y - 7:g}", f"{x + 4:g},{y - 7:g}")
    return f'<polygon class="tip" points="{x:g},{y:g} {wings[0]} {wings[1]}"/>'


def steps(top: float) -> list[str]:
    """The upper row."""
    gap = 26
    width = (WIDTH - 2 * MARGIN - gap * (len(STEPS) - 1)) / len(STEPS)
    parts = []
    for place, (name, text) in enumerate(STEPS):
        x = MARGIN + place * (width + gap)
        parts += box("step", x, top, width, name, text)
        if place:
            middle = top + BOX_HEIGHT / 2
            parts += [
                f'<path class="line" d="M{x - gap:g} {middle:g}H{x - 4:g}"/>',
                arrow(x, middle, right=True),
            ]
    return parts


def executors(top: float, above: float) -> list[str]:
    """The lower row in its two frames, and the line that leads to it from the last step, which ends at
    ``above``."""
    gap, frame = 10, 10
    count = len(COMPARED) + len(NOT_RUN)
    width = (WIDTH - 2 * MARGIN - 4 * frame - gap * (count - 1)) / count
    last = WIDTH - MARGIN - (WIDTH - 2 * MARGIN - 26 * (len(STEPS) - 1)) / len(STEPS) / 2
    rail = (above + top - 34) / 2
    parts, x = [], float(MARGIN + frame)
    ends = []
    for kind, title, group in (("compared", COMPARED_TITLE, COMPARED), ("open", NOT_RUN_TITLE, NOT_RUN)):
        inner = len(group) * width + (len(group) - 1) * gap
        style = "group" if kind == "compared" else "open group"
        parts += [
            f'<rect class="{style}" x="{x - frame:g}" y="{top - 34:g}" width="{inner + 2 * frame:g}" '
            f'height="{BOX_HEIGHT + 34 + frame}" rx="9"/>',
            f'<text class="label" x="{x + inner / 2:g}" y="{top - 13:g}">{escape(title)}</text>',
        ]
        ends.append(x + inner / 2)
        for name, text in group:
            parts += box(kind, x, top, width, name, text)
            x += width + gap
        x += 2 * frame
    parts.append(f'<path class="line" d="M{last:g} {above:g}V{rail:g}M{ends[0]:g} {rail:g}H{last:g}"/>')
    for end in ends:
        parts += [
            f'<path class="line" d="M{end:g} {rail:g}V{top - 38:g}"/>',
            arrow(end, top - 34, right=False),
        ]
    return parts


def picture() -> str:
    """The whole file."""
    first, second = 24, 200
    note = "RTL operators are compared one by one; the other executors run whole frames."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'aria-labelledby="title desc">',
            "<!-- SPDX-License-Identifier: Apache-2.0; written by docs/tools/flow.py -->",
            f'<title id="title">{escape(TITLE)}</title>',
            f'<desc id="desc">{escape(description())}</desc>',
            f"<style>\n{STYLE}\n</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10"/>',
            *steps(first),
            '<g class="small">',
            *executors(second, first + BOX_HEIGHT),
            "</g>",
            f'<text class="text" x="{WIDTH / 2:g}" y="{HEIGHT - 28}">{escape(note)}</text>',
            "</svg>",
            "",
        ]
    )


def main() -> int:
    """Write the picture, or compare it; 1 when it differs."""
    if sys.argv[1:] == ["--check"]:
        if OUT.is_file() and OUT.read_text(encoding="utf-8") == picture():
            return 0
        print(f"{OUT.name} is not what this script writes: run it without --check.")
        return 1
    if sys.argv[1:]:
        print("usage: flow.py [--check]")
        return 2
    OUT.write_text(picture(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
