# SPDX-License-Identifier: Apache-2.0
"""``edge-moe demo`` on a small model with random weights: its steps, what stops it, and its report."""

import html
import json
import re
import shlex
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edge_moe.checkpoint import save_checkpoint
from edge_moe.cli import build_parser, main
from edge_moe.config import load_preset
from edge_moe.demo import flow as demo_flow
from edge_moe.demo.backends import NAMES, compare, device_times, has_pynq, run_board
from edge_moe.demo.folder import Folder
from edge_moe.demo.published import PUBLISHED
from edge_moe.demo.report import write_report
from edge_moe.demo.run import BOARD_PYTHON, DemoOptions, run_demo
from edge_moe.demo.steps import Steps
from edge_moe.nn import build_model
from edge_moe.tasks import TASKS
from edge_moe.testing.browser import browse, needs_browser
from edge_moe.train.engine import TrainingInterrupted
from edge_moe_host.config import to_dict
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.runtime.record import UNCOUNTED, Record, load_images, load_record, save_record
from edge_moe_host.runtime.record import main as record_main

PICTURES = 2
PRESET = load_preset(
    "mini",
    ["model.image_size=[32,64]", "model.embed_dim=32", "model.depth=2", "model.head_channels=16",
     "model.num_experts=4", "train.train_images=8", "train.val_images=3"],
)  # fmt: skip
NO_PYTHON = Path("nowhere/bin/python")
PLAIN = ("rmse", "log_rmse", "absErr", "absRel")  # metrics that are no ratio
METRES = {"rmse": " m", "absErr": " m"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = build_model(PRESET.model)
    with torch.no_grad():
        for head in model.heads.values():
            head.out.weight.mul_(30)  # else every pixel has the same class
            head.out.bias.zero_()
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_checkpoint(path, {"preset": to_dict(PRESET), "data": "scenes", "model": model.state_dict()})
    return path


@pytest.fixture(scope="module")
def options(checkpoint) -> DemoOptions:
    return DemoOptions(checkpoint, PICTURES, NO_PYTHON, compared=checkpoint)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, options) -> Path:
    """The folder of a demo without board."""
    folder = tmp_path_factory.mktemp("demo")
    assert run_demo(folder, options) == folder / "report.html"
    return folder


@pytest.fixture
def demo(finished, tmp_path) -> Path:
    """A copy that a test may change, at the same relative place."""
    return Path(shutil.copytree(finished, tmp_path / "demo"))


@pytest.fixture(scope="module")
def results(finished) -> dict:
    return json.loads((finished / "results.json").read_text())


class _Page(HTMLParser):
    """Text, links, pictures and identifiers of a page; open elements must be closed in order."""

    VOID = ("meta", "img", "br", "link", "input", "hr")
    SECTIONS = (
        "agreement", "pictures", "metrics", "learning", "routing", "cycles", "roofline", "published", "steps",
        "next",
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.codes: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)
        if self.open[-1:] == ["code"]:
            self.codes.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(finished) -> _Page:
    return _Page((finished / "report.html").read_text())


def test_report_needs_nothing_but_itself(page, finished):
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    for tag, name, value in page.attributes:
        if name in ("src", "srcset", "data", "poster"):
            assert value.startswith("data:image/"), (tag, name, value[:40])
        if name == "href":
            assert value.startswith("#"), value
            assert value[1:] in page.ids
    text = (finished / "report.html").read_text()
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", text)
    assert "url(" not in text
    assert "@import" not in text


def test_report_has_every_section_and_picture(page, results):
    assert page.ids == list(page.SECTIONS)
    assert [value for _, name, value in page.attributes if name == "href"] == [
        f"#{name}" for name in page.ids
    ]
    tasks, count = results["model"]["tasks"], len(results["pictures"]["names"])
    assert (tasks, count) == (["semseg", "depth"], PICTURES)
    routing = sum(len(blocks) for blocks in results["drawn"]["routing"]["blocks"].values())
    forms, usage, rooflines = 4, len(tasks), len(tasks)
    assert routing == 2  # one MoE block in each task
    assert page.tags.count("img") == count * (1 + forms * len(tasks)) + usage + routing + rooflines
    for published in PUBLISHED:
        assert published.source in page.text
        assert f"{published.milliseconds:.2f}" in page.text
    for kind in ("measured", "simulated", "estimated", "published"):
        assert kind in page.text


def test_numbers_of_the_report_are_those_of_the_results(page, results):
    floats, integers = (results["metrics"][form]["metrics"] for form in ("float", "integer"))
    assert floats != integers
    shown = []
    for task, metrics in floats.items():
        for name in metrics:
            values = [form[task][name] for form in (floats, integers)]
            metres = METRES.get(name, "")
            both = [f"{v:.4f}{metres}" if name in PLAIN else f"{100 * v:.2f} %" for v in values]
            shown.append(f"{task} {name} {' '.join(both)}")
            if name == TASKS[task].headline:
                shown.append(f"{task} {name}, integer {both[1]} float {both[0]}")
    for estimate in results["estimate"].values():
        shown += [f"{estimate['cycles']:,.0f} cycles", f"{estimate['memory_bytes'] / 1e6:.3f} MB"]
        shown += [f"{i[key]:,.0f}" for i in estimate["instructions"] for key in ("cycles", "weight_bytes")]
    for by_task in results["compared"].values():
        shown += [f"{count:,}" for count in by_task.values()]
    shown += [f"{results['published'][key]:.2f}" for key in ("encoder_ms", "frame_ms")]
    assert len(shown) > 100
    for text in shown:
        assert text in page.text, text


def test_report_of_a_dense_model_and_the_board_with_names_that_are_no_markup(demo, results, tmp_path):
    """Cases that the demo above lacks: no experts, the simulated board, and text that must be escaped."""
    folder = Folder(demo)
    changed = json.loads(json.dumps(results))
    changed["metrics"]["integer"]["usage"] = {}
    changed["model"] |= {"moe_blocks": [], "name": "<b>&amp;\"'"}
    changed["drawn"]["routing"]["blocks"] = {task: [] for task in changed["model"]["tasks"]}
    for values in (changed["backends"], changed["compared"]):
        values["pynq"] = values["csim"]
    changed["skipped"] = None
    write_report(tmp_path / "report.html", folder, changed)
    page = _Page((tmp_path / "report.html").read_text())
    assert page.ids == list(page.SECTIONS)
    assert "<b>&amp;\"'" in page.text
    assert "This model is dense: it has no experts." in page.text
    assert "the ONNX graph, the C simulation and the simulated board give for 2 pictures" in page.text
    assert "Not run" not in page.text
    assert "4 experts, top-" not in page.text
    del changed["seconds"], changed["published"]["dsp"]
    with pytest.raises(KeyError):
        write_report(tmp_path / "other.html", folder, changed)
    assert not (tmp_path / "other.html").exists()


def test_differences_are_drawn_and_said(page, results, finished):
    for name, agreement in zip(results["pictures"]["names"], results["drawn"]["forms"], strict=True):
        same, depth = agreement["semseg"]["same"], agreement["depth"]
        drawn = np.asarray(Image.open(Folder(finished).drawing(name, "semseg", "difference"))).astype(int)
        black = (drawn == drawn.reshape(-1, 3).min(axis=0)).all(axis=2)
        assert black.mean() == pytest.approx(same)
        assert 0 < same < 1
        assert f"semseg: difference, {100 * same:.2f} % equal" in page.text
        assert f"depth: difference, mean {depth['difference']:.3g} m, most {depth['most']:.3g} m" in page.text


def test_curves_of_the_training_are_shown(demo, results, page, tmp_path):
    assert "No learning curves are beside" in page.text
    Image.new("RGB", (4, 4)).save(tmp_path / "curves.png")
    write_report(
        tmp_path / "report.html", Folder(demo), results | {"checkpoint": str(tmp_path / "it's best.pt")}
    )
    other = _Page((tmp_path / "report.html").read_text())
    assert other.tags.count("img") == page.tags.count("img") + 1
    assert "it'\"'\"'s best.pt" in other.text


def test_commands_of_the_report_are_understood(page):
    parser, commands = build_parser(), [code for code in page.codes if code.startswith("edge-moe")]
    assert len(commands) >= 12
    for command in commands:
        parser.parse_args(shlex.split(command)[1:])


LOOK = """<script>
const light = c => c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const colour = text => text.match(/[\\d.]+/g).map(Number);
const behind = e => {
  while (e) { const c = colour(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3]) return c.slice(0, 3); e = e.parentElement; }
  return [255, 255, 255]; };
let least = 99, size = 99;
const all = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (all.nextNode()) { const e = all.currentNode.parentElement;
  if (!all.currentNode.data.trim() || e.tagName == "SCRIPT") continue;
  const style = getComputedStyle(e), a = light(colour(style.color)), b = light(behind(e));
  least = Math.min(least, (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
  size = Math.min(size, parseFloat(style.fontSize)); }
const width = document.documentElement.scrollWidth, picture = document.querySelector("figure img");
picture.click();
const large = picture.getBoundingClientRect();
picture.click();
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
parent.postMessage(JSON.stringify({least, size, width, inner: innerWidth, dark,
  large: [large.width, large.height], small: picture.getBoundingClientRect().width, height: innerHeight
}), "*");
</script></body>"""


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_report_can_be_read_in_a_browser(width, dark, finished, tmp_path):
    """Nothing is wider than the window, text has size and contrast, and a click enlarges a picture."""
    text = (finished / "report.html").read_text()
    (tmp_path / "page.html").write_text(text.replace("</body>", LOOK))
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    # chromium's own window is never narrow
    (tmp_path / "window.html").write_text(
        '<html style="color-scheme: light dark"><script>onmessage = e => document.title = e.data</script>'
        f'<title></title><iframe src="page.html" width="{width}" height="800" style="border: 0">'
    )
    dom = browse(tmp_path / "profile", (tmp_path / "window.html").as_uri(), *scheme, "--dump-dom")
    seen = json.loads(html.unescape(re.search("<title>(.*?)</title>", dom)[1]))
    assert seen["dark"] == dark
    assert seen["width"] <= seen["inner"] == width
    assert seen["least"] >= 4.5
    assert seen["size"] >= 11.5
    assert seen["large"] == [width, seen["height"]]
    assert seen["small"] < width


def test_estimate_and_c_simulation_count_the_same_loops(results):
    compared = 0
    for task, estimate in results["estimate"].items():
        for instruction in estimate["instructions"]:
            assert instruction["loops"] == instruction["counted"], (task, instruction)
            assert instruction["loops"] + instruction["waited"] == pytest.approx(instruction["cycles"])
            compared += 1
        total = sum(i["cycles"] for i in estimate["instructions"])
        assert total == pytest.approx(estimate["cycles"])
        parts = estimate["weight_bytes"] + estimate["io_bytes"] + estimate["program_bytes"]
        assert parts == estimate["memory_bytes"]
    assert compared == 52


def test_every_backend_was_compared_in_every_value(results, finished):
    height, width = PRESET.model.image_size
    grid = height // 4 * width // 4
    sizes = {task: PICTURES * grid * channels for task, channels in PRESET.model.tasks.items()}
    assert results["compared"] == {"onnx": sizes, "csim": sizes}
    assert results["skipped"].startswith("the simulated board was left out")
    for backend in ("golden", "onnx", "csim"):
        record = load_record(Folder(finished).record(backend))
        assert {task: values.size for task, values in record.raw.items()} == sizes
        for task, cycles in record.cycles.items():
            assert (cycles > 0).all() if backend == "csim" else (cycles == UNCOUNTED).all()
            assert (results["backends"][backend][task]["cycles"] is None) == (backend != "csim")


def test_missing_board_is_said_in_one_sentence(page, results):
    assert f"Not run: {results['skipped']}." in page.text
    assert "make .venv-board/.ready" in results["skipped"]
    assert f"the {NAMES['pynq']}" not in page.text.split("Every backend")[0].replace(results["skipped"], "")


def test_one_wrong_value_stops_the_demo_and_removes_the_report(demo, options):
    record = load_record(Folder(demo).record("csim"))
    record.raw["depth"][1, 3, 0] += 1
    wrong = int(record.raw["depth"][1, 3, 0])
    save_record(record, Folder(demo).record("csim"))
    with pytest.raises(EdgeMoEError) as error:
        run_demo(demo, options)
    assert str(error.value) == (
        "backend 'csim' differs from golden in 1 of 256 values of task 'depth', first at value 3, channel 0 "
        f"of picture 'val_0_000002': {wrong} where {wrong - 1} is right."
    )
    assert not (demo / "report.html").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.pop("depth"), "not the same tasks"),
        (
            lambda raw: raw.update(depth=raw["depth"][:1]),
            r"int16 \[1, 128, 1\] where golden gives int16 \[2, 128",
        ),
        (lambda raw: raw.update(depth=raw["depth"].astype(np.int32)), "as int32"),
    ],
)
def test_results_of_another_form_are_refused(change, message, finished):
    records = {name: load_record(Folder(finished).record(name)) for name in ("golden", "onnx")}
    change(records["onnx"].raw)
    with pytest.raises(EdgeMoEError, match=message):
        compare(records, ["a", "b"])


def test_finished_demo_runs_nothing_again(demo, finished, options, caplog):
    before = {path: path.stat().st_mtime_ns for path in (demo / "results").iterdir()}
    page = (demo / "report.html").read_text()
    caplog.set_level("INFO")
    run_demo(demo, options)
    assert sum("done before" in line for line in caplog.messages) == 11
    assert {path: path.stat().st_mtime_ns for path in (demo / "results").iterdir()} == before
    same = (demo / "report.html").read_text().replace(str(demo), str(finished)) == page
    assert same  # not compared in the assertion: pytest would take minutes to show pictures that differ


def test_interrupted_step_and_all_after_it_are_run_again(demo, options, caplog, monkeypatch):
    """Stopped in the C simulation's run: this step and later ones run again, earlier ones do not."""
    marker = demo / "steps" / "run-csim.json"
    marker.unlink()

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edge_moe.demo.backends.record", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_demo(demo, options)
    assert not marker.exists()
    assert not (demo / "report.html").exists()
    caplog.set_level("INFO")
    run_demo(demo, options)
    kept = [line.split("]")[1].split(":")[0].strip() for line in caplog.messages if "done before" in line]
    assert len(kept) == 7
    assert kept[-1].startswith("run ONNX graph")
    assert marker.exists()
    assert (demo / "report.html").exists()


def test_steps_run_again_for_other_inputs_lost_files_and_damaged_markers(tmp_path):
    ran: list[str] = []
    made = tmp_path / "made"

    def go(inputs: str = "a") -> list[str]:
        ran.clear()
        steps = Steps(tmp_path / "steps", 3, tmp_path / "report.html")

        def work(name: str) -> dict:
            ran.append(name)
            made.touch()
            return {"name": name}

        for name in ("first", "second", "third"):
            values = steps.run(name, name, lambda name=name: work(name),
                               inputs=inputs if name == "second" else "",
                               made=(made,) if name == "third" else ())  # fmt: skip
            assert values == {"name": name}
        assert set(steps.seconds) == {"first", "second", "third"}
        return list(ran)

    assert go() == ["first", "second", "third"]
    assert go() == []
    assert go("b") == ["second", "third"]
    made.unlink()
    assert go("b") == ["third"]
    (tmp_path / "steps" / "first.json").write_text("{")
    assert go("b") == ["first", "second", "third"]


def test_failed_step_leaves_no_marker(tmp_path):
    def work() -> dict:
        raise EdgeMoEError("no.")

    Steps(tmp_path, 1, tmp_path / "report.html").run("step", "step", dict)
    with pytest.raises(EdgeMoEError):
        Steps(tmp_path, 1, tmp_path / "report.html").run("step", "step", work, inputs="other")
    assert list(tmp_path.iterdir()) == []


def test_training_goes_on_where_it_was(tmp_path, monkeypatch):
    """Without a checkpoint it begins anew, even if a run stopped before its first checkpoint."""
    calls: list[bool] = []
    monkeypatch.setattr(demo_flow, "run_training", lambda *_, resume: calls.append(resume))
    folder = Folder(tmp_path)
    folder.run.mkdir()
    (folder.run / "log.jsonl").touch()
    demo_flow.train(folder)
    assert list(tmp_path.iterdir()) == []
    folder.run.mkdir()
    (folder.run / "last.pt").touch()
    demo_flow.train(folder)
    assert calls == [False, True]


def test_stopped_training_says_that_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    def stopped(*_, resume):
        raise TrainingInterrupted("add --resume.")

    monkeypatch.setattr(demo_flow, "run_training", stopped)
    assert main(["demo", "--out", str(tmp_path)]) == 130
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "edge-moe: training was stopped and saved: the same command continues it."
    assert not (tmp_path / "steps" / "train.json").exists()


@pytest.mark.skipif(not has_pynq(BOARD_PYTHON), reason="there is no .venv-board")
def test_simulated_board_gives_the_same_integers(demo):
    folder = Folder(demo)
    times = run_board(folder, BOARD_PYTHON)
    records = {name: load_record(folder.record(name)) for name in ("golden", "csim", "pynq")}
    assert sum(compare(records, ["a", "b"])["pynq"].values()) == PICTURES * 128 * (7 + 1)
    for task in ("semseg", "depth"):
        np.testing.assert_array_equal(records["pynq"].cycles[task], records["csim"].cycles[task])
        assert times[task]["cycles"] > 0


def test_board_that_fails_is_one_sentence(demo):
    (Folder(demo).images).write_bytes(b"no images")
    with pytest.raises(
        EdgeMoEError, match=r"the simulated board failed: '.*images.npz' has no array 'images'"
    ):
        run_board(Folder(demo), Path(sys.executable))


def test_bad_input_is_one_sentence_and_status_2(tmp_path, capsys, checkpoint):
    for arguments, message in (
        (["nowhere.pt"], "checkpoint 'nowhere.pt' does not exist"),
        ([str(checkpoint), "--count", "0"], "argument --count: 0 is not allowed"),
    ):
        assert main(["demo", *arguments, "--out", str(tmp_path / "demo")]) == 2
        error = capsys.readouterr().err.splitlines()
        assert error[-1].startswith("edge-moe: ")
        assert message in error[-1]
        assert not (tmp_path / "demo").exists()


def test_record_command_writes_what_the_library_reads(demo, tmp_path, capsys):
    folder, out = Folder(demo), tmp_path / "out.npz"
    arguments = [str(folder.bundle), str(folder.images), str(out)]
    assert record_main(["onnx", *arguments, f"graphs={folder.graphs}"]) == 0
    assert capsys.readouterr().out.split() == [task for task in load_record(out).raw for _ in range(PICTURES)]
    assert sum(compare({"golden": load_record(folder.record("golden")), "onnx": load_record(out)}, ["a", "b"])
               ["onnx"].values()) == PICTURES * 128 * 8  # fmt: skip
    assert record_main(["onnx", *arguments, "graphs"]) == 2
    assert "KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text"])
def test_damaged_files_are_one_sentence(content, tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    for read in (load_record, load_images):
        with pytest.raises(EdgeMoEError, match=r"x\.npz"):
            read(path)
    np.savez(path, images=np.zeros((1, 4, 4, 3)))
    with pytest.raises(EdgeMoEError, match="float64"):
        load_images(path)
    with pytest.raises(EdgeMoEError, match="no results"):
        load_record(path)
    with pytest.raises(EdgeMoEError, match="cannot read"):
        load_record(tmp_path / "nowhere.npz")


def test_record_keeps_frames_without_cycles_apart(tmp_path):
    done = Record(
        {"depth": np.zeros((2, 4, 1), np.int16)}, {"depth": np.array([-1, -1])}, {"depth": np.ones(2)}
    )
    save_record(done, tmp_path / "r.npz")
    assert device_times(load_record(tmp_path / "r.npz")) == {
        "depth": {"milliseconds": 1000.0, "cycles": None}
    }
