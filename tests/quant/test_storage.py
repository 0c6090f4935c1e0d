# SPDX-License-Identifier: Apache-2.0
"""Integer networks as files: written networks are read, and no other file is."""

import dataclasses
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_moe import EdgeMoEError
from edge_moe.config import ModelConfig
from edge_moe.quant import storage
from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe.quant.storage import is_network, load_network, save_network
from edge_moe.testing.networks import random_images, random_network

CONFIG = ModelConfig(
    image_size=(16, 32), tasks={"semseg": 3, "depth": 1}, embed_dim=16, num_heads=2, depth=2, patch_size=8,
    num_experts=3, head_channels=8,
)  # fmt: skip
EXTRA = {
    "scales": {"residual": np.array(0.25), "block0.v": np.linspace(0, 1, 16)},
    "usage": {"depth": np.arange(6).reshape(2, 3)},
    "options": {"observer": "mse", "average_expert_bits": None, "images": 32, "drop_unused_experts": False},
    "list": [1, 2.5, ["a", (3, 4)]],
}


def flat(value: Any, place: str = "") -> dict[str, Any]:
    """Every leaf of a tree of dataclasses, mappings and sequences by its place."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        value = {f"{type(value).__name__}{index}": item for index, item in enumerate(value)}
    if hasattr(value, "items"):
        parts = [flat(item, f"{place}/{key}") for key, item in value.items()]
        return {key: leaf for part in parts for key, leaf in part.items()}
    return {place: value}


def same(left: Any, right: Any) -> int:
    """Assert that two trees are equal, array types included; the number of leaves."""
    ours, theirs = flat(left), flat(right)
    assert list(ours) == list(theirs)
    for place, value in ours.items():
        other = theirs[place]
        assert type(value) is type(other), place
        if isinstance(value, np.ndarray):
            assert value.dtype == other.dtype, place
            assert np.array_equal(value, other), place
        else:
            assert value == other, place
    return len(ours)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, IntegerNetwork]:
    network = random_network(CONFIG, expert_bits=5)
    path = tmp_path / "network.int.npz"
    save_network(network, path, EXTRA)
    return path, network


def test_round_trip(saved: tuple[Path, IntegerNetwork]) -> None:
    path, network = saved
    loaded, extra = load_network(path)
    assert loaded.config == network.config
    assert list(loaded.config.tasks) == list(network.config.tasks) == list(loaded.heads)
    assert same(dataclasses.replace(loaded, config=None), dataclasses.replace(network, config=None)) > 100
    assert same(extra, EXTRA) == 12
    images = random_images(CONFIG, 2)
    for task in CONFIG.tasks:
        assert np.array_equal(run_network(loaded, images, task).raw, run_network(network, images, task).raw)


def test_path_of_one_task_and_no_extra(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "one.int.npz"
    save_network(random_network(CONFIG).path("depth"), path)
    loaded, extra = load_network(path)
    assert loaded.tasks == ("depth",)
    assert extra == {}


def test_equal_networks_give_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        save_network(random_network(CONFIG), tmp_path / f"{name}.int.npz", EXTRA)
    assert (tmp_path / "a.int.npz").read_bytes() == (tmp_path / "b.int.npz").read_bytes()


def test_numpy_reads_the_file_without_pickle(saved: tuple[Path, IntegerNetwork]) -> None:
    path, network = saved
    with np.load(path, allow_pickle=False) as archive:
        assert np.array_equal(archive["network/patch/weight"], network.patch.weight)
        assert json.loads(archive["header"].tobytes())["format"] == storage.FORMAT


def test_names_of_networks() -> None:
    assert is_network(Path("a/b.int.npz"))
    assert not is_network(Path("a/b.npz"))
    assert not is_network(Path("a/b.pt"))


def test_every_truncation_is_refused(saved: tuple[Path, IntegerNetwork], tmp_path: Path) -> None:
    data = saved[0].read_bytes()
    cut = tmp_path / "cut.int.npz"
    lengths = sorted({0, 1, 21, len(data) - 1, *range(100, len(data), len(data) // 40)})
    for length in lengths:
        cut.write_bytes(data[:length])
        with pytest.raises(
            EdgeMoEError, match=r"cut short, damaged or was not written by Edge-MoE|is damaged"
        ):
            load_network(cut)
    assert len(lengths) > 40


def refusal(path: Path) -> str:
    """The message with which loading refuses the file, or nothing."""
    try:
        load_network(path)
    except EdgeMoEError as error:
        return str(error)
    return ""


def test_every_damage_is_refused_or_harmless(saved: tuple[Path, IntegerNetwork], tmp_path: Path) -> None:
    path, network = saved
    data, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    harmless = 0
    broken = tmp_path / "broken.int.npz"
    # anywhere, and in the directory at the end, which has names, sizes and methods
    places = [*rng.integers(0, len(data), 150), *rng.integers(len(data) - 4000, len(data), 250)]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        broken.write_bytes(damaged)
        message = refusal(broken)
        if message:
            refused += "broken.int.npz" in message and message.endswith(".")
            continue
        loaded, extra = load_network(broken)  # a time stamp or an attribute of the archive
        same(dataclasses.replace(loaded, config=None), dataclasses.replace(network, config=None))
        same(extra, EXTRA)
        harmless += 1
    assert refused + harmless == 400
    assert refused > 200


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def npy(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, value)
    return buffer.getvalue()


def rewrite_header(path: Path, **changes: Any) -> None:
    """Another header with a checksum that fits, as another program would write it."""
    content = members(path)
    header = json.loads(np.lib.format.read_array(io.BytesIO(content["header.npy"])).tobytes())
    text = json.dumps({**header, **changes}).encode()
    content["header.npy"] = npy(np.frombuffer(text, np.uint8))
    content["checksum.npy"] = npy(np.frombuffer(storage.hashlib.sha256(text).digest(), np.uint8))
    write(path, content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "has version 2, this program reads version 1"),
        ({"version": None}, "has version None"),
        ({"format": "other"}, "is not an integer network: write one with 'edge-moe quantise'"),
        ({"sha256": {}}, "is damaged"),
        ({"network": {"node": "Gate", "fields": {}}}, "is damaged"),
        ({"network": {"node": "os.system", "fields": {}}}, "is damaged"),
        ({"network": {"array": "network/position"}}, "is damaged"),
        ({"network": 5}, "is damaged"),
        ({"extra": {"array": "nothing"}}, "is damaged"),
    ],
)
def test_headers_of_other_programs_are_refused(
    saved: tuple[Path, IntegerNetwork], changes: dict, message: str
) -> None:
    rewrite_header(saved[0])
    load_network(saved[0])  # the same header, rewritten, is fine
    rewrite_header(saved[0], **changes)
    with pytest.raises(EdgeMoEError, match=message):
        load_network(saved[0])


def test_configuration_of_a_newer_program_is_named(saved: tuple[Path, IntegerNetwork]) -> None:
    content = members(saved[0])
    header = json.loads(np.lib.format.read_array(io.BytesIO(content["header.npy"])).tobytes())
    header["network"]["fields"]["config"]["config"]["colour"] = 1
    rewrite_header(saved[0], network=header["network"])
    with pytest.raises(EdgeMoEError, match=r"unknown key 'config\.colour'"):
        load_network(saved[0])


def test_exchanged_missing_and_added_members_are_refused(saved: tuple[Path, IntegerNetwork]) -> None:
    path, _ = saved
    content = members(path)
    names = [name for name in content if name.endswith("proj/bias.npy")]
    for change in (
        {**content, names[0]: content[names[1]]},
        {name: data for name, data in content.items() if name != names[0]},
        {**content, "more.npy": npy(np.zeros(3))},
        {**content, "checksum.npy": npy(np.zeros(32, np.uint8))},
        {**content, "header.npy": b"\x93NUMPY"},
    ):
        write(path, change)
        with pytest.raises(EdgeMoEError, match="is damaged"):
            load_network(path)
    write(path, {name: data for name, data in content.items() if name != "header.npy"})
    with pytest.raises(EdgeMoEError, match="is not an integer network"):
        load_network(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeMoEError, match=r"integer network '.*none.int.npz' does not exist"):
        load_network(tmp_path / "none.int.npz")
    with pytest.raises(EdgeMoEError, match="does not exist"):
        load_network(tmp_path)
    other = tmp_path / "other.int.npz"
    np.savez(other, weight=np.zeros(3))
    with pytest.raises(EdgeMoEError, match="is not an integer network"):
        load_network(other)
    other.write_text("hello")
    with pytest.raises(EdgeMoEError, match="cut short, damaged or was not written by Edge-MoE"):
        load_network(other)


def test_a_network_that_cannot_be_computed_exactly_is_refused(tmp_path: Path) -> None:
    network = random_network(CONFIG)
    patch = dataclasses.replace(network.patch, bias=np.full(16, 2**31 - 1, dtype=np.int32))
    path = tmp_path / "bad.int.npz"
    save_network(dataclasses.replace(network, patch=patch), path)
    with pytest.raises(EdgeMoEError, match="layer 'patch_embedding' cannot be computed exactly"):
        load_network(path)


def test_a_failed_write_leaves_the_old_file(saved: tuple[Path, IntegerNetwork]) -> None:
    path, network = saved
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_network(network, path, {"what": object()})
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    (path.parent / "file").write_text("")
    with pytest.raises(EdgeMoEError, match="cannot write"):
        save_network(network, path.parent / "file" / "x.int.npz")


def test_loading_needs_no_torch(saved: tuple[Path, IntegerNetwork]) -> None:
    code = (
        "import sys; from pathlib import Path; from edge_moe.quant.storage import load_network;"
        "import edge_moe.quant.prune;"
        "load_network(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, saved[0]]).returncode == 0
