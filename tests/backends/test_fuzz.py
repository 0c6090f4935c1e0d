# SPDX-License-Identifier: Apache-2.0
"""A thousand damaged bundles and as many pictures: an error in one sentence, or the right answer."""

import io
import json
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe.testing.bundles import compile_network, small_config
from edge_moe.testing.csim import build
from edge_moe.testing.damage import VALUES, leaves, random_instruction, relist, reseal
from edge_moe.testing.networks import random_network
from edge_moe_host.contract import encoding, isa, manifest
from edge_moe_host.contract.bundle import load_bundle
from edge_moe_host.errors import BundleError, EdgeMoEError, ImageError
from edge_moe_host.runtime.accelerator import Accelerator
from edge_moe_host.runtime.images import resize_image

CONFIG = small_config(patch_size=4, image_size=(8, 16))
MUTATIONS = 1000


@pytest.fixture(scope="module")
def network() -> IntegerNetwork:
    return random_network(CONFIG)


@pytest.fixture(scope="module")
def original(network: IntegerNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    build()
    folder = tmp_path_factory.mktemp("bundle")
    compile_network(network, folder)
    return folder / "bundle"


def sentence(error: Exception) -> str:
    text = str(error)
    assert text.endswith((".", "?"))
    assert "\n" not in text
    assert len(text) < 600
    return text


# Bundles


class Damage:
    """Draws one change of a copy of a bundle, and repairs it afterwards."""

    def __init__(self, original: Path, other: Path, folder: Path) -> None:
        self.folder = Path(shutil.copytree(original, folder))
        self.content = {path.name: path.read_bytes() for path in sorted(original.iterdir())}
        self.other = {path.name: path.read_bytes() for path in sorted(other.iterdir())}
        self.random = random.Random(0)
        self.rng = np.random.default_rng(0)

    def repair(self) -> None:
        for name, content in self.content.items():
            (self.folder / name).write_bytes(content)

    def bits(self) -> bool:
        """A few bits of one file."""
        name = self.random.choice(list(self.content))
        data = bytearray(self.content[name])
        for _ in range(self.random.randint(1, 4)):
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        (self.folder / name).write_bytes(data)
        return bytes(data) != self.content[name]

    def cut(self) -> bool:
        """A file cut short, continued with zeros, emptied or taken away."""
        name = self.random.choice(list(self.content))
        data = self.content[name]
        choice = self.random.randrange(4)
        (self.folder / name).write_bytes(
            [data[: self.random.randrange(len(data))], data + bytes(64), b"", data[:-1]][choice]
        )
        if choice == 2 and self.random.random() < 0.5:
            (self.folder / name).unlink()
        return True

    def swap(self) -> bool:
        """A file of another bundle or another task; its checksum is corrected half of the time."""
        name = self.random.choice(list(self.content))
        data = self.random.choice([*self.content.values(), *self.other.values()])
        (self.folder / name).write_bytes(data)
        if self.random.random() < 0.5 and name != "manifest.json":
            relist(self.folder)
        return data != self.content[name]

    def sealed_manifest(self) -> bool:
        """An entry of the manifest, with correct checksums."""
        data = json.loads(self.content["manifest.json"])
        del data["checksum"]
        *keys, last = self.random.choice(leaves(data)[1:])
        parent = data
        for key in keys:
            parent = parent[key]
        old = parent[last]
        near = [old + 1, old - 1, 2 * old, old + 64] if isinstance(old, int) else [old]
        parent[last] = self.random.choice([*VALUES, *near, *near, *near])
        if keys[1:2] == ["config"]:
            data[keys[0]]["hash"] = manifest.config_hash(data[keys[0]]["config"])
        reseal(self.folder, data)
        return True

    def sealed_program(self) -> bool:
        """A field of an instruction, with correct checksums."""
        name = self.random.choice(["depth.program.bin", "semseg.program.bin"])
        content = self.content[name]
        at = 64 * int(self.rng.integers(len(content) // 64))
        try:
            new = encoding.encode(
                random_instruction(self.rng, encoding.decode(isa.Instruction, content[at : at + 64], ""))
            )
        except BundleError:
            return False
        (self.folder / name).write_bytes(content[:at] + new + content[at + 64 :])
        relist(self.folder)
        return True

    def sealed_weights(self) -> bool:
        """A few bytes of the weight image, with correct checksums."""
        data = bytearray(self.content["weights.bin"])
        for _ in range(self.random.randint(1, 8)):
            data[self.random.randrange(len(data))] = self.random.randrange(256)
        (self.folder / "weights.bin").write_bytes(data)
        relist(self.folder)
        return True


def test_damaged_bundles(original: Path, tmp_path: Path) -> None:
    compile_network(random_network(CONFIG, seed=1), tmp_path / "other")
    damage = Damage(original, tmp_path / "other" / "bundle", tmp_path / "bundle")
    kinds = [damage.bits, damage.cut, damage.swap, damage.sealed_manifest]
    seen: Counter[tuple[str, str]] = Counter()
    for number in range(MUTATIONS):
        kind = kinds[number % len(kinds)]
        seen[kind.__name__, use(damage.folder) if kind() else "unchanged"] += 1
        damage.repair()
    assert use(damage.folder) == "equal"
    assert sum(seen.values()) == MUTATIONS
    for name in ("bits", "cut"):  # bundles that are not sealed again are never accepted
        assert seen[name, "refused"] + seen[name, "unchanged"] == MUTATIONS / len(kinds), seen
    for name in ("swap", "sealed_manifest"):
        assert seen[name, "refused"] > 100, seen
        assert seen[name, "equal"] > 5, seen
    assert {outcome for _, outcome in seen} == {"refused", "equal", "unchanged"}


def test_bundles_of_another_meaning(original: Path, tmp_path: Path) -> None:
    """Bundles that no compiler made are refused, or C++ and reference give equal results."""
    damage = Damage(original, original, tmp_path / "bundle")
    seen: Counter[str] = Counter()
    for number in range(MUTATIONS // 2):
        if (damage.sealed_program, damage.sealed_weights)[number % 2]():
            seen[use(damage.folder)] += 1
        damage.repair()
    assert seen["refused"] > 100, seen
    assert seen["equal"] > 40, seen
    assert set(seen) == {"refused", "equal"}, seen


def use(path: Path) -> str:
    """Refused with a sentence, or C simulation and reference agree in every task, or they differ."""
    image = np.random.default_rng(0).integers(0, 256, (8, 16, 3)).astype(np.uint8)
    try:
        bundle = load_bundle(path)
        with Accelerator.open("csim", bundle) as csim, Accelerator.open("golden", bundle) as golden:
            actual, expected = csim.run_tasks(image), golden.run_tasks(image)
    except EdgeMoEError as error:
        sentence(error)
        return "refused"
    for task, result in actual.items():
        assert result.draw().shape == image.shape
        if not np.array_equal(result.raw, expected[task].raw):
            return "differs"
        np.testing.assert_array_equal(result.values, expected[task].values)
    return "equal"


# Pictures


def pictures() -> Iterator[tuple[str, bytes]]:
    """Small files of many formats and modes."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (13, 21, 3)).astype(np.uint8))
    grey16 = Image.fromarray(rng.integers(0, 2**16, (9, 7)).astype(np.uint16))
    for suffix, image, options in (
        ("png", colour, {}),
        ("png", colour.convert("P"), {}),
        ("png", colour.convert("LA"), {}),
        ("png", colour.convert("1"), {}),
        ("png", grey16, {}),
        ("jpg", colour, {"quality": 60}),
        ("jpg", colour.convert("CMYK"), {}),
        ("jpg", colour.convert("L"), {"progressive": True}),
        ("bmp", colour, {}),
        ("webp", colour, {}),
        ("tif", colour.convert("F"), {}),
        ("ppm", colour, {}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        image.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), **options)
        yield suffix, buffer.getvalue()


def damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    if rng.random() < 0.2:
        return bytes(changed[: rng.randrange(len(changed))])
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(min(len(changed), 64) if rng.random() < 0.5 else len(changed))
        changed[place] = rng.choice([0, 255, changed[place] ^ (1 << rng.randrange(8)), rng.randrange(256)])
    return bytes(changed)


def decoded(path: Path) -> np.ndarray | None:
    """Pixels of an 8-bit file, read by Pillow alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = ImageOps.exif_transpose(Image.open(path))
        if image.mode.startswith("I") or image.mode == "F":
            return None
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return np.array(image.convert("RGB"))


def test_damaged_picture_files(original: Path, network: IntegerNetwork, tmp_path: Path) -> None:
    rng, files = random.Random(0), list(pictures())
    outcomes: Counter[str] = Counter()
    with Accelerator.open("csim", original) as acc:
        for number in range(MUTATIONS):
            suffix, data = files[number % len(files)]
            path = tmp_path / f"picture.{suffix}"
            path.write_bytes(damaged(data, rng))
            try:
                result = acc.run(path, "depth")
            except ImageError as error:
                sentence(error)
                outcomes["refused"] += 1
                continue
            pixels = decoded(path)
            if pixels is None:
                outcomes["wide"] += 1
                pixels = result.image
                assert pixels is not None
            golden = run_network(network, resize_image(pixels, (8, 16))[None], "depth")
            np.testing.assert_array_equal(result.raw, golden.raw[0])
            assert result.values.shape == pixels.shape[:2]
            outcomes["equal"] += 1
    assert outcomes["refused"] + outcomes["equal"] == MUTATIONS
    assert outcomes["refused"] > 200, outcomes
    assert outcomes["equal"] > 200, outcomes


def test_damaged_arrays(original: Path, network: IntegerNetwork) -> None:
    rng = np.random.default_rng(0)
    types: list[Any] = [np.uint8, np.uint8, np.uint8, np.int8, np.uint16, np.int64, np.float32, np.float64,
                        bool, np.complex64, object, "S1"]  # fmt: skip
    equal = 0
    with Accelerator.open("csim", original) as acc:
        for _ in range(300):
            shape = [(8, 16, 3), (5, 3, 3), (8, 16), (8, 16, 4), (3, 8, 16), (2, 8, 16, 3), (0, 16, 3), (3,),
                     (1, 1, 3), (16, 8, 3), ()][rng.integers(11)]  # fmt: skip
            array = rng.integers(0, 256, shape)
            array = np.asarray(array).astype(types[rng.integers(len(types))])
            if array.dtype.kind == "f" and array.size:
                array.flat[0] = rng.choice([np.nan, np.inf, -1.0])
            right = array.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3 and array.size
            if not right:
                with pytest.raises(ImageError) as caught:
                    acc.run(array, "depth")
                sentence(caught.value)
                continue
            golden = run_network(network, resize_image(array, (8, 16))[None], "depth")
            np.testing.assert_array_equal(acc.run(array, "depth").raw, golden.raw[0])
            equal += 1
    assert 15 < equal < 150
