# SPDX-License-Identifier: Apache-2.0
"""Stand-in for ``v++ -c --mode hls`` and ``vitis-run --mode hls``: options and configuration keys of UG1399
2023.2 to 2026.1, as far as the project may use them. Records like the Tcl stubs.
"""

import json
import os
import shutil
import sys
from pathlib import Path

KEYS = {
    "clock", "clock_uncertainty", "syn.top", "syn.file", "syn.cflags", "syn.csimflags",
    "syn.interface.m_axi_addr64", "tb.file", "tb.cflags", "cosim.argv", "cosim.O", "cosim.rtl",
    "package.output.format", "package.output.syn", "package.ip.vendor", "package.ip.library",
    "package.ip.name", "package.ip.version",
}  # fmt: skip
STEPS = {"--csim", "--cosim", "--package", "--impl"}


def need(condition: bool, sentence: str) -> None:
    if not condition:
        sys.exit(f"error: {sentence}")


def read_config(path: Path) -> dict[str, list[str]]:
    """Every value of every key; ``part`` comes before the section."""
    values: dict[str, list[str]] = {}
    section = ""
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line
            continue
        key, _, value = line.partition("=")
        need(key == "part" if not section else section == "[hls]" and key in KEYS, f"no such key: {key}")
        values.setdefault(key, []).append(value)
    return values


def main() -> None:
    program, words = sys.argv[1], sys.argv[2:]
    options = dict(
        zip(words[words.index("--config") :: 2], words[words.index("--config") + 1 :: 2], strict=True)
    )
    before = words[: words.index("--config")]
    need(options.keys() == {"--config", "--work_dir"}, f"unknown options: {sorted(options)}")
    if program == "v++":
        need(before == ["-c", "--mode", "hls"], f"v++ {before}")
        step = "csynth"
    else:
        need(
            before[:2] == ["--mode", "hls"] and len(before) == 3 and before[2] in STEPS, f"vitis-run {before}"
        )
        step = before[2].removeprefix("--")
    config = read_config(Path(options["--config"]))
    need(config["part"] == ["xczu7ev-ffvc1156-2-e"], f"there is no part {config['part']}")
    for path in (*config["syn.file"], *config.get("tb.file", [])):
        need(Path(path).is_file(), f"there is no file {path}")
    for flag in config["syn.cflags"][0].split():
        need(not flag.startswith("-I") or Path(flag[2:]).is_dir(), f"there is no folder {flag[2:]}")
    with open(os.environ["VENDOR_LOG"], "a", encoding="utf-8") as log:
        log.write(json.dumps({"command": step, "options": config, "objects": words}) + "\n")
    component = Path(options["--work_dir"]) / "hls"
    results = Path(os.environ["VENDOR_RESULTS"])
    if step == "csynth":
        shutil.copytree(results / "syn", component / "syn")
    else:
        need((component / "syn").is_dir(), "nothing was synthesised")
        if step == "cosim":
            need(Path(config["cosim.argv"][0]).is_dir(), "the test bench has nothing to read")
        shutil.copytree(
            results / ("sim" if step == "cosim" else "impl"),
            component / ("sim" if step == "cosim" else "impl"),
        )


if __name__ == "__main__":
    main()
