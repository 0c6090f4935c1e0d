# SPDX-License-Identifier: Apache-2.0
"""The unchanged notebook, cell by cell in a kernel of its own, on the simulated board."""

import base64
import io
import re
import shutil
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

from edge_moe.testing.checkout import ROOT
from edge_moe.testing.samples import Sample
from edge_moe_host.runtime.accelerator import Accelerator

FOLDER = ROOT / "board" / "zcu104"
NOTEBOOK = FOLDER / "notebook.ipynb"
SECONDS = 100
KEEP = (
    "np.savez('kept.npz', shown=np.asarray(shown), **{task: result.raw for task, result in results.items()})"
)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Its code cells with their outputs, and the kernel's variables at the end."""
    folder = tmp_path_factory.mktemp("notebook")
    small = Sample("small")
    shutil.copytree(small.path, folder / "bundle")
    Image.fromarray(small.images[0]).save(folder / "street.png")
    notebook = nbformat.read(NOTEBOOK, 4)
    notebook.cells.append(nbformat.v4.new_code_cell(KEEP))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_MOE_DEVICE", str(FOLDER / "simulated.py"))
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
            patch.setenv(name, str(folder / name))
        client = nbclient.NotebookClient(
            notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        client.execute()  # raises for a cell that fails
    with np.load(folder / "kept.npz") as kept:
        return [cell for cell in notebook.cells if cell.cell_type == "code"], dict(kept)


def text(cell: Any) -> str:
    """The output of a cell; nothing may go to the standard error."""
    streams = [output for output in cell.outputs if output.output_type == "stream"]
    assert all(stream.name == "stdout" for stream in streams), streams
    return "".join(stream.text for stream in streams)


def test_it_is_committed_with_outputs(executed) -> None:
    """Its code prints the same lines now, except for numbers; nothing tells where or when it ran."""
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == [*range(1, 9)]
    for stored, now in zip(codes, executed[0], strict=False):
        assert stored.source == now.source
        assert re.sub(r" *[\d.]+ *", "0", text(stored)) == re.sub(r" *[\d.]+ *", "0", text(now))
    (picture,) = codes[2].outputs
    shown = Image.open(io.BytesIO(base64.b64decode(picture.data["image/jpeg"])))
    assert shown.size == (256, 3 * 128)
    assert "ZCU104 (simulated)" in text(codes[0])
    assert not re.search(r"/(?:home|root|tmp)/|\d{4}-\d\d-\d\d", NOTEBOOK.read_text())
    assert [cell.cell_type for cell in notebook.cells[::-1]].count("markdown") == 9
    assert (FOLDER / "street.png").is_file()


def test_results_are_golden_s(executed, small: Sample) -> None:
    _, kept = executed
    assert sum(small.compare(kept[task], task, 0) for task in small.tasks) == 768


def test_overlays(executed, small: Sample) -> None:
    cells, kept = executed
    (output,) = cells[2].outputs
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))))
    with Accelerator.open("csim", small.path) as csim:
        drawn = [csim.run(small.images[0], task).draw(small.images[0]) for task in csim.tasks]
    right = np.vstack([small.images[0], *drawn])
    np.testing.assert_array_equal(shown, right)
    np.testing.assert_array_equal(kept["shown"], right)
    assert right.shape == (48, 32, 3)


def test_what_it_prints(executed, small: Sample) -> None:
    cells, _ = executed
    printed = [text(cell) for cell in cells]
    tasks = ", ".join(small.tasks)
    opened = f"ZCU104 (simulated) - tasks: {tasks}\naccelerator {small.bundle.manifest.accelerator.hash}, "
    assert printed[0].startswith(opened)
    for task, line in zip(small.tasks, printed[1].splitlines(), strict=True):
        cycles, milliseconds = re.search(r"\[16, 32\], (\d+) cycles, ([\d.]+) ms$", line).groups()
        assert line.startswith(task)
        assert float(milliseconds) == pytest.approx(int(cycles) / 300e3, abs=6e-4)
    switches = printed[3].splitlines()
    assert [line.split()[0] for line in switches] == small.tasks * 3
    assert all(line.endswith("same result: True") for line in switches)
    counts = [int(re.search(r"(\d+) frames", line)[1]) for line in printed[4].splitlines()]
    assert counts == [1 + 3 + 10] * 2
    assert re.fullmatch(
        r"1\.00 W, [\d.]+ J per frame \(simulated board: this sensor is invented\)\n", printed[5]
    )
    errors = printed[6].splitlines()
    assert [line.partition(":")[0] for line in errors[:3]] == ["TaskError", "ImageError", "ImageError"]
    assert errors[3:] == ["the next frame is right: True"]


def test_without_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A common mistake ends the first cell with one sentence."""
    monkeypatch.setenv("EDGE_MOE_DEVICE", str(FOLDER / "simulated.py"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    resources = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(
        nbformat.read(NOTEBOOK, 4), timeout=SECONDS, kernel_name="python3", resources=resources
    )
    with pytest.raises(nbclient.exceptions.CellExecutionError) as stopped:
        client.execute()
    assert (stopped.value.ename, stopped.value.evalue) == ("BundleError", "bundle 'bundle' is not a folder.")
