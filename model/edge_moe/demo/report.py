# SPDX-License-Identifier: Apache-2.0
"""The demo's report: one HTML file with everything in it, made of the demo's results and pictures alone."""

from html import escape
from pathlib import Path
from typing import Any

from edge_moe.demo import report_chip as chip
from edge_moe.demo.backends import BOARD, NAMES, TITLES
from edge_moe.demo.flow import Folder
from edge_moe.demo.html import badge, card, code, figure, note, page, section, table
from edge_moe.demo.pictures import picture_file
from edge_moe.eval.report import format_value
from edge_moe.tasks import TASKS
from edge_moe_host.files import write_text

CONTENTS = (
    ("agreement", "Agreement"),
    ("pictures", "Pictures"),
    ("metrics", "Metrics"),
    ("routing", "Routing"),
    ("cycles", "Cycles and traffic"),
    ("roofline", "Roofline"),
    ("published", "Published accelerators"),
    ("steps", "Steps"),
)

Values = dict[str, Any]


def write_report(path: Path, folder: Folder, results: Values) -> None:
    """Write the page; ``results`` is what results.json holds."""
    sections = [
        _agreement(results),
        _pictures(folder, results),
        _metrics(folder, results),
        _routing(folder, results),
        chip.cycles_section(folder, results),
        chip.roofline_section(folder, results),
        chip.published_section(results),
        _steps(results),
        "<footer>This page needs nothing but itself. Its numbers as data: results.json beside it.</footer>",
    ]
    write_text(path, page("Edge-MoE demo", CONTENTS, _header(results), sections))


def compared_values(results: Values) -> int:
    """Values of all backends that were compared with golden."""
    return sum(sum(by_task.values()) for by_task in results["compared"].values())


def _header(results: Values) -> str:
    model = results["model"]
    height, width = model["image_size"]
    experts = f", {model['experts']} experts, top-{model['top_k']}" if model["moe_blocks"] else ""
    lead = (
        f"{model['name']}: {height}x{width} pixels, {model['depth']} blocks of width {model['embed_dim']}"
        f"{experts}, {model['parameters'] / 1e6:.2f} M parameters, tasks {', '.join(model['tasks'])}; "
        f"data {results['data']}."
    )
    return (
        f'<h1>Edge-MoE demo</h1><p class="lead">{escape(lead)} From the float model to integers, a compiled '
        "bundle, and the same pictures on every backend.</p>" + _verdict(results) + _cards(results)
    )


def _verdict(results: Values) -> str:
    others = [f"the {NAMES[name]}" for name in results["compared"]]
    names = ", ".join(others[:-1]) + " and " + others[-1]
    count = len(results["pictures"]["names"])
    text = (
        '<div class="verdict"><strong>All backends agree to the bit.</strong> '
        f"{compared_values(results):,} values compared, 0 differ: {escape(names)} give for {count} pictures "
        f"and {len(results['model']['tasks'])} tasks exactly what the reference in NumPy gives.</div>"
    )
    if results["skipped"]:
        text += f'<div class="warning">Not run: {escape(results["skipped"])}.</div>'
    return text


def _cards(results: Values) -> str:
    cards = []
    for task in results["model"]["tasks"]:
        name = TASKS[task].headline
        floats, integers = (results["metrics"][form]["metrics"][task][name] for form in ("float", "integer"))
        below = f"float {format_value(task, name, floats)}<br>{badge('measured')}"
        cards.append(card(f"{task} {name}, integer", format_value(task, name, integers), below))
    for task in results["model"]["tasks"]:
        estimate = results["estimate"][task]
        below = f"{estimate['cycles']:,.0f} cycles<br>{badge('estimated')}"
        cards.append(card(f"{task}, ZCU104 frame", f"{estimate['milliseconds']:.2f} ms", below))
    sizes = results["quantise"]
    below = f"float32 {sizes['float_bytes'] / 1e6:.2f} MB<br>{badge('measured')}"
    cards.append(card("weights, integer", f"{sizes['integer_bytes'] / 1e6:.2f} MB", below))
    return f'<div class="cards">{"".join(cards)}</div>'


def _agreement(results: Values) -> str:
    rows = []
    for name, by_task in results["backends"].items():
        counts = results["compared"].get(name)
        kind = "simulated" if name == BOARD else "measured"
        for task in results["model"]["tasks"]:
            count, cycles = (counts or {}).get(task), by_task[task]["cycles"]
            rows.append([
                f"<b>{escape(NAMES[name])}</b>",
                escape(task),
                f"{count:,}" if count else "reference",
                "0" if count else "",
                f"{by_task[task]['milliseconds']:.2f} {badge(kind)}",
                f"{cycles:,} {badge('simulated')}" if cycles else "",
            ])  # fmt: skip
    clock, count = results["compile"]["clock_mhz"], len(results["pictures"]["names"])
    text = (
        f"The heads' raw integers of {count} validation pictures, compared for equality. Milliseconds are "
        "medians: of golden, onnxruntime and the C simulation what they take on this computer's CPU; of the "
        f"simulated board its count of cycles at {clock} MHz. Cycles are those of the loops as written, "
        "without waiting for memory."
    )
    what = "".join(
        f"<li><b>{escape(NAMES[name])}</b>: {escape(TITLES[name])}</li>" for name in results["backends"]
    )
    return section(
        "agreement", "Every backend gives the same integers", f"<p>{text}</p>",
        f'<ul class="log">{what}</ul>',
        table(["backend", "task", "values compared", "differ", "ms per frame", "cycles"], rows, text=2),
        note("No FPGA was involved: the simulated board is software, behind the real PYNQ driver.",
             "One backend alone:", code(f"edge-moe run {results['folder']}/bundle photo.jpg --backend csim")),
        _checks(results),
    )  # fmt: skip


def _checks(results: Values) -> str:
    lines = [*results["export"]["summary"], *results["compile"]["summary"]]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<h3>What export and compiler verified</h3><ul class="log">{items}</ul>'


def _pictures(folder: Folder, results: Values) -> str:
    accelerator = "simulated board" if BOARD in results["backends"] else "C simulation"
    captions = {
        "truth": "ground truth",
        "float": "float32, PyTorch",
        "integer": "integer, golden",
        "accelerator": f"accelerator, {accelerator}",
    }
    tasks, shown = results["model"]["tasks"], results["pictures"]["names"]
    parts = [_legend(task, results) for task in tasks]
    for name, agreement in zip(shown, results["drawn"]["forms"], strict=True):
        cells = [figure(picture_file(folder, name, "input"), f"input, {name}").replace(
            "<figure>", '<figure class="input">', 1)]  # fmt: skip
        for task in tasks:
            extra = {"integer": _beside_float(agreement[task])}
            cells += [figure(picture_file(folder, name, task, form),
                             f"{task}: {caption}{extra.get(form, '')}")
                      for form, caption in captions.items()]  # fmt: skip
        parts.append(f'<div class="forms" style="--tasks:{len(tasks)}">{"".join(cells)}</div>')
    text = (
        f"Float results are {badge('measured')} in PyTorch, integer results {badge('measured')} with golden, "
        f"and those of the accelerator come from the {accelerator} {badge('simulated')}; they equal golden's "
        "in every integer."
    )
    return section(
        "pictures", "Input, ground truth, float, integer, accelerator", f"<p>{text}</p>", *parts,
        note(f"Files: {escape(results['folder'])}/pictures. The float model's alone:",
             code(f"edge-moe show {results['checkpoint']} --data {results['data']} --count {len(shown)}")),
    )  # fmt: skip


def _beside_float(agreement: Values) -> str:
    if "same" in agreement:
        return f"; {100 * agreement['same']:.2f} % of pixels as float"
    return f"; mean difference to float {agreement['difference']:.3g} {agreement['unit']}".rstrip()


def _legend(task: str, results: Values) -> str:
    styles, kind = results["drawn"]["legend"][task], results["drawn"]["kinds"][task]
    items = "".join(_swatch(style["colour"], style["name"]) for style in styles)
    if kind == "scalar":
        forms = [by_task[task] for by_task in results["drawn"]["forms"]]
        limits, unit = [form["limit"] for form in forms], forms[0]["unit"]
        items = (
            "<span>near is bright, far dark; of each picture all forms share the range, up to "
            f"{min(limits):.0f} to {max(limits):.0f} {unit}; black: sky, or no distance above 0</span>"
        )
    return f'<div class="legend"><b>{escape(task)}</b>{items}</div>'


def _swatch(colour: list[int], name: str) -> str:
    rgb = ",".join(map(str, colour))
    return f'<span><span class="swatch" style="background:rgb({rgb})"></span>{escape(name)}</span>'


def _metrics(folder: Folder, results: Values) -> str:
    floats, integers = results["metrics"]["float"], results["metrics"]["integer"]
    rows = []
    for task, metrics in floats["metrics"].items():
        for name, value in metrics.items():
            integer = integers["metrics"][task][name]
            title = f"<b>{escape(name)}</b>" if name == TASKS[task].headline else escape(name)
            change = f"{100 * (integer / value - 1):+.3f} %" if value else ""
            rows.append([escape(task), title, format_value(task, name, value),
                         format_value(task, name, integer), change])  # fmt: skip
    text = (
        f"{floats['images']} validation images of {floats['dataset']}, at the labels' resolution "
        f"{badge('measured')}; bold: headline metric. The integer column is that of every backend, as they "
        "agree to the bit."
    )
    return section(
        "metrics", "Metrics, float against integer", f"<p>{text}</p>",
        table(["task", "metric", "float32", "integer", "relative change"], rows, text=2),
        note("Reproduce:", code(f"edge-moe quantise {results['checkpoint']} --out model.int.npz --evaluate")),
    )  # fmt: skip


def _routing(folder: Folder, results: Values) -> str:
    integer, routing = results["metrics"]["integer"], results["drawn"]["routing"]
    if not integer["usage"]:
        return section("routing", "Routing", "<p>This model is dense: it has no experts.</p>")
    usage = [figure(folder.usage(task), f"{task}: share of the tokens that each expert gets")
             for task in integer["usage"]]  # fmt: skip
    colours = "".join(_swatch(colour, f"expert {n}") for n, colour in enumerate(routing["colours"]))
    name = routing["picture"]
    maps = [figure(picture_file(folder, name, task, f"block{block}"), f"{task}, block {block}")
            for task in results["model"]["tasks"] for block in routing["blocks"][task]]  # fmt: skip
    command = f"edge-moe eval {results['checkpoint']} --usage usage.png"
    return section(
        "routing", "Which experts each task uses",
        f"<p>All {integer['images']} validation images, integer form {badge('measured')}. With an even load "
        f"every expert would get {100 / results['model']['experts']:.1f} %.</p>",
        f'<div class="pair">{"".join(usage)}</div>',
        note("Reproduce for the float form:", code(command)),
        f"<h3>First choice of every patch of {escape(name)}</h3>",
        f'<div class="legend">{colours}</div><div class="pair">{"".join(maps)}</div>',
    )  # fmt: skip


def _steps(results: Values) -> str:
    seconds: dict[str, float] = results["seconds"]
    longest = max(*seconds.values(), 0.1)
    rows = [
        [
            escape(title),
            f'<span class="bar" style="width:{round(120 * spent / longest)}px"></span>',
            f"{spent:.1f}",
        ]
        for title, spent in seconds.items()
    ]
    rows.append(["<b>all</b>", "", f"<b>{sum(seconds.values()):.1f}</b>"])
    return section(
        "steps", "What ran, and how long it took",
        f"<p>Seconds on this computer {badge('measured')}. A step that ended is not run again until its "
        "input changes; of one that was interrupted only its last part is counted.</p>",
        table(["step", "", "s"], rows, text=2),
        note("All of it:", code("make demo"), "from the start:", code("make clean demo")),
    )  # fmt: skip
