# SPDX-License-Identifier: Apache-2.0
"""Steps that report their progress, and that do not run again once they have succeeded."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import write_text

_LOG = logging.getLogger(__name__)

Values = dict[str, Any]  # plain data, as JSON has it


class Steps:
    """Runs steps in order. FOLDER/NAME.json has a step's values; it is written when the step has ended.

    A step is kept if that file exists, the inputs of this and all earlier steps are the same, and the files
    that it made exist. Once a step has run, every later one runs too. The first that runs removes ``report``,
    the report of earlier results.
    """

    def __init__(self, folder: Path, total: int, report: Path) -> None:
        self.folder, self.total, self.report = folder, total, report
        self.titles: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self._key = ""
        self._changed = False

    def run(
        self,
        name: str,
        title: str,
        work: Callable[[], Values],
        inputs: str = "",
        made: Sequence[Path] = (),
    ) -> Values:
        """The values that ``work`` returns, or returned when it last ran."""
        self._key = hashlib.sha256(f"{self._key}/{name}/{inputs}".encode()).hexdigest()
        self.titles[name] = title
        head = f"[{len(self.titles)}/{self.total}] {title}"
        marker = self.folder / f"{name}.json"
        kept = None if self._changed else self._read(marker)
        if kept is not None and all(path.exists() for path in made):
            self.seconds[name] = float(kept["seconds"])
            _LOG.info("%s: done before", head)
            values: Values = kept["values"]
            return values
        _LOG.info("%s ...", head)
        self._changed = True
        try:
            marker.unlink(missing_ok=True)
        except OSError as error:
            raise EdgeMoEError(f"cannot write '{marker}': {error.strerror or error}.") from None
        self.report.unlink(missing_ok=True)
        start = time.monotonic()
        values = work()
        self.seconds[name] = round(time.monotonic() - start, 1)
        content = {"key": self._key, "seconds": self.seconds[name], "values": values}
        write_text(marker, json.dumps(content, indent=1, allow_nan=False) + "\n")
        _LOG.info("    %.1f s", self.seconds[name])
        return values

    def _read(self, marker: Path) -> Values | None:
        try:
            content: Values = json.loads(marker.read_text(encoding="utf-8"))
            return content if content["key"] == self._key and "values" in content else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
