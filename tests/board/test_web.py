# SPDX-License-Identifier: Apache-2.0
"""The demo's page over HTTP and, where chromium is installed, in a browser."""

import base64
import dataclasses
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import demo
import numpy as np
import pytest
from demo_figures import Stretch
from demo_web import DemoServer, Live, encode, legend
from PIL import Image

from edge_moe.testing.browser import SECONDS, browse, needs_browser
from edge_moe.testing.checkout import ROOT
from edge_moe.testing.samples import Sample
from edge_moe_host.backends.board.power import Energy
from edge_moe_host.runtime import images
from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.drawing import depth_colours, depth_limit
from edge_moe_host.runtime.images import frames
from edge_moe_host.runtime.result import Result

SCRIPT = ROOT / "board" / "zcu104" / "demo.py"
SCREEN = (1000, 900)


class Page:
    """A demo that serves one picture again and again, in a process of its own."""

    def __init__(self, sample: Sample, picture: Path) -> None:
        command = [sys.executable, str(SCRIPT), str(sample.path), str(picture), "--simulated"]
        self.process = subprocess.Popen(
            [*command, "--serve", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(2)]
        match = re.match(r"http://127\.0\.0\.1:(\d+)/", lines[1])
        assert match, (lines, self.process.stderr.read())
        self.port = int(match[1])

    def get(self, path: str) -> Any:
        return urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=SECONDS)

    def state(self) -> dict[str, Any]:
        return json.load(self.get("/state"))

    def measured(self) -> dict[str, Any]:
        """The state, once it has figures."""
        deadline = time.monotonic() + SECONDS
        while not (state := self.state())["measured"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return state

    def end(self) -> tuple[str, str]:
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=SECONDS)


@pytest.fixture(scope="module")
def results(small: Sample) -> dict[str, Result]:
    """The page's content."""
    with Accelerator.open("csim", small.path) as csim:
        return csim.run_tasks(np.full((60, 80, 3), 90, np.uint8))


@pytest.fixture(scope="module")
def coloured(results: dict[str, Result]) -> Result:
    """The page of a bundle that names its classes."""
    palette = np.array([(128, 64, 128), (70, 130, 180)], np.uint8)
    return dataclasses.replace(results["semseg"], class_names=("road", "<sky>"), palette=palette)


@pytest.fixture(scope="module")
def page(small: Sample, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    picture = tmp_path_factory.mktemp("page") / "plain.png"
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(picture)
    served = Page(small, picture)
    yield served
    try:
        printed, errors = served.end()
    finally:
        served.process.kill()
    assert (errors, served.process.returncode) == ("", 0)  # whatever browsers did
    assert "\nall " in printed


def test_the_page_needs_nothing_else(page: Page) -> None:
    with page.get("/") as answer:
        text = answer.read().decode()
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
    assert text.startswith("<!DOCTYPE html>")
    assert re.findall(r"(?:https?:)?//[a-z]", text.replace("// milliseconds", "")) == []
    assert re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"([^\"]*)\"", text) == ["data:,"]


def test_state(page: Page, small: Sample, results: dict[str, Result]) -> None:
    state = page.measured()
    assert (state["board"], state["simulated"], state["bundle"]) == ("ZCU104 (simulated)", True, "bundle")
    assert state["watts"] == 1.0
    assert state["switches"] == state["frames"] - 1
    assert [task["task"] for task in state["tasks"]] == small.tasks
    for task in state["tasks"]:
        assert task["milliseconds"] == pytest.approx(results[task["task"]].cycles / 300e3)
        assert task["name"] == "plain"
    assert 0 < state["number"] <= state["frames"]
    shared = sum(task["joules"] * task["per_second"] for task in state["tasks"])
    assert shared == pytest.approx(state["watts"])  # joules of a second
    assert sum(task["per_second"] for task in state["tasks"]) == pytest.approx(state["per_second"])
    time.sleep(0.3)
    assert page.state()["frames"] > state["frames"]


def test_legends(page: Page, results: dict[str, Result], coloured: Result) -> None:
    legends = {task["task"]: task["legend"] for task in page.measured()["tasks"]}
    near_and_far = depth_colours(np.array([0.0, 1.0]))
    assert legends["semseg"] == {}  # this bundle names no classes
    assert legends["depth"]["far"] == depth_limit(results["depth"].values)
    ends = [legends["depth"]["scale"][place] for place in (0, -1)]
    assert ends == [f"#{bytes(colour).hex()}" for colour in near_and_far]
    assert legend(coloured) == {"classes": [["road", "#804080"], ["<sky>", "#4682b4"]]}


def picture(state: dict[str, Any], task: str) -> bytes:
    """A task's overlay, as a file."""
    return base64.b64decode(next(own["picture"] for own in state["tasks"] if own["task"] == task))


def test_pictures(page: Page, results: dict[str, Result]) -> None:
    """Byte for byte the overlay of the C simulation's result."""
    state = page.measured()
    for task, result in results.items():
        content = picture(state, task)
        assert content == encode(result.draw(result.image), "JPEG")
        assert Image.open(io.BytesIO(content)).size == (80, 60)


@pytest.mark.parametrize("video", [True, False])
def test_one_answer_has_one_frame(small: Sample, tmp_path: Path, video: bool) -> None:
    """Captions and pictures of every task belong to the same frame."""
    names = [f"{'clip_' if video else 'f'}{n:06d}" for n in range(4)]
    if video:
        source = tmp_path / "clip.avi"
        writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 16))
        for level in (20, 90, 160, 230):
            writer.write(np.full((16, 32, 3), level, np.uint8))
        writer.release()
    else:
        source = tmp_path / "folder"
        source.mkdir()
        for name, image in zip(names, small.images, strict=True):
            Image.fromarray(image).save(source / f"{name}.png")
    right: dict[str, set[bytes]] = {}
    with Accelerator.open("csim", small.path) as csim:
        for frame in frames(source):
            drawn = [csim.run(frame.image, task).draw(frame.image) for task in small.tasks]
            right[frame.name] = {encode(overlay, "JPEG") for overlay in drawn}
    assert sorted(right) == names
    served = Page(small, source)
    try:
        seen = set()
        for _ in range(40):
            state = served.state()
            if state["number"]:
                (name,) = {task["name"] for task in state["tasks"]}
                assert {picture(state, task) for task in small.tasks} == right[name]
                seen.add(name)
            if len(seen) == 4:
                break
        served.end()
    finally:
        served.process.kill()
    assert len(seen) > 1


def test_a_frame_that_is_seen_is_not_sent_again(results: dict[str, Result]) -> None:
    live = live_of(results)
    number = live.state()["number"]
    assert number == len(results)
    assert all("picture" in task for task in live.state(number - 1)["tasks"])
    assert not any("picture" in task or "name" in task for task in live.state(number)["tasks"])


def test_a_frame_is_shown_when_every_task_has_finished_it(results: dict[str, Result]) -> None:
    live = live_of(results)
    before = live.state()
    first, *others = (dataclasses.replace(result, name="later", image=np.full_like(result.image, 9))
                      for result in results.values())  # fmt: skip
    others = [dataclasses.replace(other, image=first.image) for other in others]
    live.show(first)
    assert live.state()["tasks"] == before["tasks"]
    live.show(dataclasses.replace(others[0], image=others[0].image.copy()))  # of yet another frame
    assert live.state()["tasks"] == before["tasks"]
    for result in (first, *others):
        live.show(result)
    assert {task["name"] for task in live.state()["tasks"]} == {"later"}


class Camera:
    """In place of cv2.VideoCapture: pictures whose level counts, for ever."""

    def __init__(self) -> None:
        self.count, self.released = 0, threading.Event()

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def read(self) -> tuple[bool, np.ndarray]:
        time.sleep(0.001)
        self.count += 1
        return True, np.full((16, 32, 3), self.count % 256, np.uint8)

    def release(self) -> None:
        self.released.set()


def test_a_served_camera_gives_its_newest_frame_to_every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera()
    stand_in = SimpleNamespace(
        VideoCapture=lambda _: camera, cvtColor=lambda image, _: image, COLOR_BGR2RGB=cv2.COLOR_BGR2RGB
    )
    monkeypatch.setattr(images, "_cv2", lambda: stand_in)
    taken = demo.in_turn(demo.open_sources([0], True), [0], ["a", "b"], True)
    for _ in range(5):
        one, other = next(taken), next(taken)
        assert one.name == other.name
        assert one.image is other.image
        before = camera.count
        while camera.count < before + 10:  # it is read while nobody asks
            time.sleep(0.001)
        asked = camera.count
        assert (int(next(taken).image[0, 0, 0]) - (asked - 1)) % 256 < 128
        next(taken)
    taken.close()
    assert camera.released.wait(10)


def test_nothing_else_is_served(page: Page) -> None:
    for path in (
        "/depth.jpg",
        "/depth.png",
        "/.jpg",
        "/demo.py",
        "/../demo.py",
        "/%2e%2e/demo.py",
        "/state/",
        "//etc/passwd",
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            page.get(path)
        assert refused.value.code == 404


def test_several_browsers(page: Page, results: dict[str, Result]) -> None:
    page.measured()
    right = {task: encode(result.draw(result.image), "JPEG") for task, result in results.items()}
    seen: list[bool] = []

    def browse() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=SECONDS)
        for _ in range(5):
            for path in ("/", "/state"):
                connection.request("GET", path)  # over one connection, kept alive
                answer = connection.getresponse()
                body = answer.read()
                state = json.loads(body) if path == "/state" else {}
                seen.append(answer.status == 200 and all(picture(state, task) == right[task]
                                                         for task in right if state))  # fmt: skip
        connection.close()

    threads = [threading.Thread(target=browse) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert seen == [True] * (6 * 5 * 2)


def test_browsers_that_go_away(page: Page) -> None:
    for sent in (
        b"",
        b"GET /sta",
        b"GET /state?seen=x HTTP/1.1\r\n\r\n",
        b"\0\xff\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", page.port)) as connection:
            connection.sendall(sent)
    assert page.state()["frames"] > 0


def test_ctrl_c_with_a_browser_connected(small: Sample, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.fromarray(small.images[0]).save(picture)
    served = Page(small, picture)
    try:
        with socket.create_connection(("127.0.0.1", served.port)) as idle:
            idle.sendall(b"GET /state HTTP/1.1\r\n\r\n")
            assert idle.recv(12) == b"HTTP/1.1 200"
            printed, errors = served.end()
        assert (errors, served.process.returncode) == ("", 0)
        assert printed.startswith("stopped\n")
        socket.create_server(("127.0.0.1", served.port)).close()  # the port is free again
    finally:
        served.process.kill()


def live_of(results: dict[str, Result], **facts: Any) -> Live:
    """One frame of each task on a board without a sensor."""
    live, stretch = Live(list(results), **facts), Stretch(list(results))
    for result in results.values():
        live.show(result)
        stretch.count(result)
    stretch.end(Energy(seconds=0.5))
    live.measured(stretch)
    return live


def test_no_sensor_no_number(results: dict[str, Result]) -> None:
    live = live_of(results, simulated=False)
    state = json.loads(json.dumps(live.state()))
    assert (state["measured"], state["watts"], state["per_second"]) == (True, None, 4.0)
    assert [task["joules"] for task in state["tasks"]] == [None, None]
    before = Live(["depth"]).state()
    assert (before["measured"], before["number"], "picture" in before["tasks"][0]) == (False, 0, False)


def test_a_frame_is_drawn_once(results: dict[str, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, draw = [], Result.draw
    monkeypatch.setattr(Result, "draw", lambda self, image: (drawn.append(self.task), draw(self, image))[1])
    live = live_of(results)
    assert drawn == []
    for _ in range(3):
        live.state()
    assert drawn == list(results)
    for result in results.values():
        live.show(result)
    live.state()
    assert drawn == [*results] * 2


# In a browser


def shown(dom: str, task: str, name: str) -> str:
    """A figure of a task's card, as text."""
    card = dom[dom.index(f'id="task-{task}"') :]
    return re.sub("<[^>]*>", "", re.search(rf'<dd class="{name}">(.*?)</dd>', card)[1]).strip()


@pytest.mark.browser
@needs_browser
def test_both_tasks_and_their_numbers(page: Page, results: dict[str, Result], tmp_path: Path) -> None:
    page.measured()
    dom = browse(tmp_path, f"http://127.0.0.1:{page.port}/", "--dump-dom")
    assert re.search(r'<p class="notice" id="simulated"><strong>Simulated board\.', dom)
    assert re.search(r'<p class="notice" id="gone" role="status" hidden="">', dom)
    assert '<dt id="watts-label">simulated power</dt><dd id="watts">1.00 <small>W</small></dd>' in dom
    assert int(re.search(r'id="switches">(\d+)<', dom)[1]) > 0
    for task, title in (("semseg", "Semantic segmentation"), ("depth", "Depth")):
        assert f"<h2>{title}</h2>" in dom
        assert f'<img alt="{title} of plain"' in dom
        assert dom.count('src="data:image/jpeg;base64,') == 2
        assert shown(dom, task, "milliseconds") == f"{results[task].cycles / 300e3:.2f} ms"
        assert float(shown(dom, task, "per-second")) > 0
        assert re.fullmatch(r"\d+\.\d{3} J", shown(dom, task, "joules"))
    assert f"{depth_limit(results['depth'].values):.1f} m</span>" in dom


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("width", [1000, 400])
def test_both_pictures_are_seen(width: int, page: Page, results: dict[str, Result], tmp_path: Path) -> None:
    """The commonest colour of each overlay covers an area of the screen that only the picture can cover."""
    page.measured()
    file = tmp_path / "screen.png"
    browse(tmp_path, f"http://127.0.0.1:{page.port}/", f"--window-size={width},1500", f"--screenshot={file}")
    screen = np.asarray(Image.open(file).convert("RGB")).astype(int)
    assert screen.shape[1] == width
    for result in results.values():
        overlay = np.asarray(Image.open(io.BytesIO(encode(result.draw(result.image), "JPEG")))).reshape(-1, 3)
        colours, counts = np.unique(overlay, axis=0, return_counts=True)
        common = colours[counts.argmax()].astype(int)
        near = (np.abs(screen - common).max(axis=2) <= 6).mean()
        assert near > 0.005, (result.task, common, near)


@pytest.mark.browser
@needs_browser
def test_no_sensor_is_said(results: dict[str, Result], coloured: Result, tmp_path: Path) -> None:
    named = {task: dataclasses.replace(result, name="<b>bold</b>")
             for task, result in {**results, "semseg": coloured}.items()}  # fmt: skip
    live = live_of(named, board="ZCU104", simulated=False, bundle="x")
    with DemoServer(live, "127.0.0.1", 0) as server:
        dom = browse(tmp_path, server.url, "--dump-dom")
    assert re.search(r'<p class="notice" id="simulated" hidden="">', dom)
    assert '<dt id="watts-label">board power</dt><dd id="watts">no sensor</dd>' in dom
    assert [shown(dom, task, "joules") for task in results] == ["no sensor"] * 2
    assert dom.count("&lt;b&gt;bold&lt;/b&gt;") >= 2
    assert "<b>" not in dom
    assert '<i style="background: rgb(70, 130, 180);"></i>&lt;sky&gt;</span>' in dom
