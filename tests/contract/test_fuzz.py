# SPDX-License-Identifier: Apache-2.0
"""Bundles changed at random, with correct checksums: an error or an answer, never anything else."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edge_moe.estimate.cycles import estimate_task
from edge_moe.testing.damage import VALUES, leaves, random_instruction, relist, reseal
from edge_moe_host.contract import encoding, manifest
from edge_moe_host.contract.bundle import load_bundle
from edge_moe_host.contract.isa import Instruction
from edge_moe_host.contract.opcodes import SECTION_KINDS
from edge_moe_host.errors import BundleError, EdgeMoEError
from edge_moe_host.golden.interpreter import run_program


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    """A copy that tests may damage."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def use(path: Path) -> bool:
    """Load, run and estimate; False when one of them refuses the bundle."""
    try:
        bundle = load_bundle(path)
        for task, program in bundle.tasks.items():
            run_program(bundle, task, np.full(program.entry.image, 128, np.uint8))
            assert estimate_task(bundle, task).cycles > 0
    except (BundleError, EdgeMoEError):
        return False
    return True


def test_random_changes_of_sealed_manifests(bundle: Path) -> None:
    text = (bundle / "manifest.json").read_text()
    random.seed(0)
    accepted = []
    for _ in range(200):
        data = json.loads(text)
        del data["checksum"]
        *keys, last = random.choice(leaves(data)[1:])
        parent = data
        for key in keys:
            parent = parent[key]
        if random.random() < 0.2:
            del parent[last]
        else:
            parent[last] = random.choice(VALUES)
        if manifest.seal(data) == text:
            continue
        if keys[1:2] == ["config"]:
            data[keys[0]]["hash"] = manifest.config_hash(data[keys[0]]["config"])
        reseal(bundle, data)
        if use(bundle):
            accepted.append((*keys, last))
    harmless = {"name", "colour", "scale", "scales", "residual", "config", "tensors", "expert_ids", "classes",
                "kind", "graph"}  # fmt: skip
    assert len(accepted) < 100
    assert [place for place in accepted if not harmless.intersection(map(str, place))] == []


def test_random_changes_of_sealed_programs(bundle: Path) -> None:
    path = bundle / "depth.program.bin"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    accepted, tried = 0, 0
    for _ in range(250):
        at = 64 * int(rng.integers(len(content) // 64))
        old = encoding.decode(Instruction, content[at : at + 64], "it")
        try:
            new = encoding.encode(random_instruction(rng, old))
        except BundleError:
            continue
        if new == content[at : at + 64]:
            continue
        path.write_bytes(content[:at] + new + content[at + 64 :])
        relist(bundle)
        accepted += use(bundle)
        tried += 1
    assert tried > 150
    assert 0 < accepted < tried / 2


def test_instructions_out_of_order_or_missing(bundle: Path) -> None:
    path = bundle / "depth.program.bin"
    content = path.read_bytes()
    records = [content[at : at + 64] for at in range(0, len(content), 64)]
    rng = np.random.default_rng(1)
    refused = 0
    for index in range(len(records)):
        path.write_bytes(b"".join(records[:index] + records[index + 1 :]))
        relist(bundle)
        refused += not use(bundle)
    assert refused == len(records)
    for _ in range(30):
        order = rng.permutation(len(records))
        path.write_bytes(b"".join(records[index] for index in order))
        relist(bundle)
        use(bundle)


def test_random_changes_of_sealed_weights(bundle: Path) -> None:
    path = bundle / "weights.bin"
    content = np.frombuffer(path.read_bytes(), np.uint8)
    sections = {s.kind: s for s in reversed(load_bundle(bundle).manifest.sections)}
    rng = np.random.default_rng(0)
    seen: Counter[tuple[str, bool]] = Counter()
    for kind, section in sections.items():
        for _ in range(30):
            damaged = content.copy()
            place = 64 * section.offset + int(rng.integers(60 if kind == "table" else 64 * section.beats))
            damaged[place] ^= np.uint8(rng.integers(1, 256))
            path.write_bytes(damaged.tobytes())
            relist(bundle)
            seen[kind, use(bundle)] += 1
    assert set(sections) == set(SECTION_KINDS)
    assert seen["table", True] == 0
    assert all(seen[kind, True] > 0 for kind in set(sections) - {"table"}), seen
