# SPDX-License-Identifier: Apache-2.0
"""The demo's live web page for any number of browsers, with only the standard library.

``/`` is the page, and ``/state`` everything on it as JSON: figures, and overlays of a frame with its name.
``/state?seen=NUMBER`` leaves out the overlays of that frame. A frame is drawn when the first browser asks for
it: a page without viewers costs nothing.
"""

import base64
import io
import json
import socket
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
    """Contents of the page; written by the demo, read by the server's threads.

    Pictures are those of the last frame that every task has finished.
    """

    def __init__(self, tasks: Sequence[str], **facts: Any) -> None:
        """``facts`` are shown unchanged: the board's name, whether it is simulated, the bundle."""
        self._facts = facts
        self._lock, self._drawing = threading.Lock(), threading.Lock()
        self._begun: dict[str, Result] = {}  # tasks of a frame that others have yet to finish
        self._last: tuple[int, dict[str, Result]] = (0, {})
        self._drawn: tuple[int, dict[str, str]] = (0, {})
        self._figures = Stretch(tasks)
        self._frames = self._switches = 0
        self._task: str | None = None

    def show(self, result: Result) -> None:
        """Show a task's result, once all tasks have finished its frame."""
        with self._lock:
            self._frames += 1
            self._switches += self._task not in (None, result.task)
            self._task = result.task
            if any(other.image is not result.image for other in self._begun.values()):
                self._begun = {}
            self._begun[result.task] = result
            if set(self._begun) == set(self._figures.frames):
                self._last, self._begun = (self._frames, self._begun), {}

    def measured(self, stretch: Stretch) -> None:
        """Show the figures of the stretch of time that ended now."""
        with self._lock:
            self._figures = stretch

    def state(self, seen: int = 0) -> dict[str, Any]:
        """Everything on the page; without pictures when ``seen`` is the number of the last frame."""
        with self._lock:
            figures, (number, results) = self._figures, self._last
            state = {**self._facts, "frames": self._frames, "switches": self._switches, "number": number}
        drawn = self._draw(number, results) if number != seen else {}
        tasks = []
        for task in figures.frames:
            own = figures.figures(task)
            tasks.append({"task": task, "milliseconds": own.milliseconds, "per_second": own.per_second,
                          "joules": own.joules})  # fmt: skip
            if task in drawn:
                tasks[-1] |= {
                    "name": results[task].name,
                    "legend": legend(results[task]),
                    "picture": drawn[task],
                }
        return {
            **state, "measured": figures.seconds > 0, "watts": figures.watts,
            "per_second": figures.figures().per_second, "tasks": tasks,
        }  # fmt: skip

    def _draw(self, number: int, results: dict[str, Result]) -> dict[str, str]:
        """The overlays of a frame as JPEG files in base64; a frame is drawn once."""
        with self._drawing:
            if self._drawn[0] != number:
                files = {task: encode(result.draw(result.image), "JPEG") for task, result in results.items()}
                self._drawn = number, {task: base64.b64encode(file).decode() for task, file in files.items()}
            return self._drawn[1]


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
        address = urlsplit(self.path)
        if address.path == "/":
            self._send(self.page, "text/html; charset=utf-8")
        elif address.path == "/state":
            seen = address.query.removeprefix("seen=")
            state = self.live.state(int(seen) if seen.isdecimal() else 0)
            self._send(json.dumps(state).encode(), "application/json")
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
