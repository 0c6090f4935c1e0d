# SPDX-License-Identifier: Apache-2.0
"""The demo's live web page for any number of browsers, with only the standard library.

``/`` is the page, ``/state`` its figures as JSON, and ``/TASK.jpg`` the last overlay of a task. A picture is
drawn when the first browser asks for it: a page without viewers costs nothing.
"""

import io
import json
import socket
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from demo_figures import Stretch

from edge_moe_host.errors import EdgeMoEError, ImageError
from edge_moe_host.runtime.drawing import depth_colours, depth_limit
from edge_moe_host.runtime.result import Result

PAGE = Path(__file__).with_name("demo_page.html")
JPEG_QUALITY = 88
SCALE_COLOURS = 9  # of the depth's legend
IDLE_SECONDS = 20.0  # until an idle connection of a browser is closed
_ALL = ("", "0.0.0.0")


def encode(picture: np.ndarray, kind: str) -> bytes:
    """A picture uint8 [h, w, 3] as a ``PNG`` or ``JPEG`` file."""
    try:
        from PIL import Image
    except ImportError:
        raise ImageError("writing pictures needs Pillow: install it.") from None
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, quality=JPEG_QUALITY)
    return buffer.getvalue()


class Live:
    """Contents of the page; written by the demo, read by the server's threads."""

    def __init__(self, tasks: Sequence[str], **facts: Any) -> None:
        """``facts`` are shown unchanged: the board's name, whether it is simulated, the bundle."""
        self._facts = facts
        self._lock, self._drawing = threading.Lock(), threading.Lock()
        self._last: dict[str, tuple[int, Result]] = {}
        self._drawn: dict[str, tuple[int, bytes]] = {}
        self._figures = Stretch(tasks)
        self._frames = self._switches = 0
        self._task: str | None = None

    def show(self, result: Result) -> None:
        """Show a finished frame."""
        with self._lock:
            self._frames += 1
            self._switches += self._task not in (None, result.task)
            self._task = result.task
            self._last[result.task] = (self._frames, result)

    def measured(self, stretch: Stretch) -> None:
        """Show the figures of the stretch of time that ended now."""
        with self._lock:
            self._figures = stretch

    def state(self) -> dict[str, Any]:
        """Everything on the page except the pictures."""
        with self._lock:
            figures, last = self._figures, dict(self._last)
            state = {**self._facts, "frames": self._frames, "switches": self._switches}
        tasks = [self._task_state(task, figures, last.get(task)) for task in figures.frames]
        return {
            **state, "measured": figures.seconds > 0, "watts": figures.watts,
            "per_second": figures.figures().per_second, "tasks": tasks,
        }  # fmt: skip

    @staticmethod
    def _task_state(task: str, stretch: Stretch, last: tuple[int, Result] | None) -> dict[str, Any]:
        figures = stretch.figures(task)
        state: dict[str, Any] = {
            "task": task, "milliseconds": figures.milliseconds, "per_second": figures.per_second,
            "joules": figures.joules, "number": 0,
        }  # fmt: skip
        if last is not None:
            number, result = last
            state |= {"number": number, "name": result.name, "size": list(result.image_size),
                      "legend": legend(result)}  # fmt: skip
        return state

    def picture(self, task: str) -> bytes | None:
        """The last overlay of a task as a JPEG file; None before the first."""
        with self._lock:
            last = self._last.get(task)
        if last is None:
            return None
        number, result = last
        with self._drawing:
            if self._drawn.get(task, (0, b""))[0] < number:
                self._drawn[task] = (number, encode(result.draw(result.image), "JPEG"))
            return self._drawn[task][1]


def legend(result: Result) -> dict[str, Any]:
    """The meaning of an overlay's colours."""
    if result.kind == "classes" and result.palette is not None:
        colours = [_css(colour) for colour in result.palette]
        return {"classes": [list(pair) for pair in zip(result.class_names, colours, strict=True)]}
    if result.kind == "scalar":
        colours = [_css(colour) for colour in depth_colours(np.linspace(0, 1, SCALE_COLOURS))]
        return {"scale": colours, "far": depth_limit(result.values)}
    return {}


def _css(colour: np.ndarray) -> str:
    return "#" + bytes(colour.tolist()).hex()


class DemoServer:
    """The page at ``host`` (empty: every address of this machine) and ``port`` (0: any free one)."""

    def __init__(self, live: Live, host: str, port: int) -> None:
        page = PAGE.read_bytes()
        handler = type("Handler", (_Handler,), {"live": live, "page": page})
        try:
            self._server = _Server((host, port), handler)
        except (OSError, OverflowError, TypeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise EdgeMoEError(f"the page cannot be served at {host}:{port}: {reason}.") from None
        port = self._server.server_address[1]
        self.url = f"http://{socket.gethostname() if host in _ALL else host}:{port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def __enter__(self) -> "DemoServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # closing does not wait for idle connections

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: a browser may go away, and a failed request must not stop the demo."""


class _Handler(BaseHTTPRequestHandler):
    live: Live
    page: bytes
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/":
            self._send(self.page, "text/html; charset=utf-8")
        elif path == "/state":
            self._send(json.dumps(self.live.state()).encode(), "application/json")
        elif path.endswith(".jpg") and (picture := self.live.picture(path[1:-4])) is not None:
            self._send(picture, "image/jpeg")
        else:
            self.send_error(404)

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing: the terminal belongs to the demo."""
