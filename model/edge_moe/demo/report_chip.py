# SPDX-License-Identifier: Apache-2.0
"""Sections of the demo's report about the chip: cycles and traffic, roofline, published accelerators."""

from collections.abc import Sequence
from html import escape
from typing import Any

from edge_moe.demo.cycles import PUBLISHED, Published, own_rows
from edge_moe.demo.flow import Folder
from edge_moe.demo.html import badge, code, figure, note, section, table

_BAR = 90  # pixels of the largest share
_SUMMED = ("cycles", "loops", "counted", "waited", "macs", "weight_bytes", "io_bytes")
_PLOT = "when each instruction runs, and products per cycle against products per byte of weights"

Values = dict[str, Any]


def cycles_section(folder: Folder, results: Values) -> str:
    """Cycles, products and bytes of a frame: per kind of instruction, and of each instruction."""
    clock, bundle = results["compile"]["clock_mhz"], f"{results['folder']}/bundle"
    text = (
        f"One frame on the ZCU104 configuration at {clock} MHz, image to head, with experts as the picture "
        f"of median cycles uses them. Cycles, waiting and bytes are {badge('estimated')}; the loops are also "
        f"counted by the C simulation of that picture {badge('simulated')}. Neither synthesised nor measured "
        "on a board."
    )
    parts = [_task_cycles(task, results["estimate"][task]) for task in results["model"]["tasks"]]
    return section(
        "cycles", "Cycles and memory traffic of every instruction", f"<p>{text}</p>", *parts,
        note("Reproduce:", code(f"edge-moe estimate {bundle} --images photo.jpg"), "and the listing",
             code(f"edge-moe inspect {bundle}")),
    )  # fmt: skip


def _task_cycles(task: str, estimate: Values) -> str:
    count = len(estimate["instructions"])
    return (
        f"<h3>{escape(task)}: {estimate['cycles']:,.0f} cycles, {estimate['milliseconds']:.3f} ms "
        f"{badge('estimated')}</h3>"
        + _by_kind(estimate)
        + f"<p>{_traffic(estimate)}</p>"
        + f"<details><summary>All {count} instructions</summary>{_listing(estimate)}</details>"
    )


def _by_kind(estimate: Values) -> str:
    kinds: dict[str, list[Values]] = {}
    for instruction in estimate["instructions"]:
        kinds.setdefault(instruction["title"], []).append(instruction)
    groups = [*kinds.items(), ("all", estimate["instructions"])]
    largest = max(sum(i["cycles"] for i in group) for group in kinds.values())
    rows = []
    for title, group in groups:
        total = {key: sum(i[key] for i in group) for key in _SUMMED}
        width = round(_BAR * total["cycles"] / largest) if title != "all" else 0
        part = f"{total['cycles'] / estimate['cycles']:.1%}"
        share = f'<span class="share"><span class="bar" style="width:{width}px"></span>{part}</span>'
        name = f"<b>{title}</b>" if title == "all" else f'<span class="term">{escape(title)}</span>'
        rows.append([name, share, f"{len(group)}", f"{total['cycles']:,.0f}", f"{total['loops']:,}",
                     f"{total['counted']:,}", f"{total['waited']:,.0f}", f"{total['macs'] / 1e6:.2f}",
                     f"{total['weight_bytes'] / 1e3:,.1f}", f"{total['io_bytes'] / 1e3:,.1f}"])  # fmt: skip
    return table(
        ["instruction", "share", "count", "cycles", "loops", "loops, C simulation", "waiting", "MMAC",
         "weights, kB", "image and result, kB"],
        rows, text=2,
    )  # fmt: skip


def _traffic(e: Values) -> str:
    return (
        f"Memory traffic {e['memory_bytes'] / 1e6:.3f} MB: weights {e['weight_bytes'] / 1e6:.3f}, image "
        f"and result {e['io_bytes'] / 1e6:.3f}, instructions {e['program_bytes'] / 1e6:.3f}. The compute "
        f"unit's {e['peak_macs']:,} products per cycle are used to {100 * e['utilisation']:.1f} %. Floors: "
        f"{e['mac_floor']:,.0f} cycles of products, {e['weight_floor']:,.0f} of weights at "
        f"{e['bytes_per_cycle']} bytes per cycle. Over all pictures of this page: {e['least_cycles']:,.0f} "
        f"to {e['most_cycles']:,.0f} cycles."
    )


def _listing(estimate: Values) -> str:
    rows = [
        [f"{number}", escape(i["title"]), escape(i["result"]), f"{i['cycles']:,.0f}", f"{i['loops']:,}",
         f"{i['counted']:,}", f"{i['waited']:,.0f}", f"{i['macs'] / 1e6:.2f}", f"{i['weight_bytes']:,}",
         f"{i['io_bytes']:,}"]
        for number, i in enumerate(estimate["instructions"])
    ]  # fmt: skip
    header = ["", "instruction", "result", "cycles", "loops", "loops, C simulation", "waiting", "MMAC",
              "weights, B", "image and result, B"]  # fmt: skip
    return table(header, rows, text=3, css="small")


def roofline_section(folder: Folder, results: Values) -> str:
    """Timeline and roofline of each task."""
    plots = [
        f'<div class="scroll wide">{figure(folder.roofline(task), f"{task}: {_PLOT}")}</div>'
        for task in results["model"]["tasks"]
    ]
    command = f"edge-moe estimate {results['folder']}/bundle --images photo.jpg --plot roofline.svg"
    return section(
        "roofline", "Timeline and roofline",
        f"<p>The same frames {badge('estimated')}. The line is what memory (slope) and the compute unit "
        "(level) allow; each dot is one instruction. Weights are read ahead, so that one alone may lie above "
        "the slope.</p>",
        *plots,
        note("Reproduce:", code(command)),
    )  # fmt: skip


def published_section(results: Values) -> str:
    """This project's estimate beside what others published for the same model."""
    own = results["published"]
    rows = [*own_rows(own), *PUBLISHED]
    text = (
        "The published accelerators run M3ViT-tiny at 128x256 (129 tokens, width 192, 12 blocks, 16 experts, "
        "top-2). This project's packaged model has those sizes; it is not the one trained above. Theirs are "
        "figures of the sources named, for the encoder alone, on larger devices; ours are the cycle model's, "
        f"for the slowest task and picture ({escape(own['task'])}, {own['pictures']} scenes), with and "
        "without the task's head. What is not known is left empty: nobody has measured this project's power."
    )
    header = ["system and source", "device", "precision", "computes", "", "ms", "frames/s", "W",
              "J per frame", "MHz", "DSP"]  # fmt: skip
    return section(
        "published", "Beside published accelerators", f"<p>{text}</p>",
        table(header, map(_row, rows), text=5),
        note("Reproduce ours:", code("edge-moe export pretrained --out export"),
             code("edge-moe compile export/*/path.onnx --out bundle"),
             code("edge-moe estimate bundle --images photo.jpg"),
             "with pictures of your own; the DSP, estimated from the design as written:",
             code("edge-moe resources")),
    )  # fmt: skip


def _row(row: Published) -> Sequence[str]:
    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    kind = badge(row.kind)
    return [
        f'<b>{escape(row.system)}</b><br><span class="source">{escape(row.source)}</span>',
        escape(row.device),
        escape(row.precision or ""),
        escape(row.scope),
        kind,
        f"{row.milliseconds:.2f}",
        f"{1000 / row.milliseconds:.0f}",
        number(row.watts, ".2f"),
        number(row.joules, ".3f"),
        number(row.clock_mhz, "d"),
        number(row.dsp, ",d"),
    ]
