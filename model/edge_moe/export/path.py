# SPDX-License-Identifier: Apache-2.0
"""``path.onnx``: one task's integer graph with the functions that make it run in stock onnxruntime.

SPEC.md, section 6. Imports no torch.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edge_moe.export.functions import path_functions
from edge_moe.export.graph import DOMAIN, FORMAT_VERSION, METADATA_KEY, path_graph
from edge_moe.export.tensors import describe_tensors
from edge_moe.quant.network import IntegerNetwork, check_network
from edge_moe_host.errors import EdgeMoEError, reason
from edge_moe_host.files import read_bytes

REQUIRED_METADATA = ("format_version", "task", "config", "config_hash", "output_scale")


def build_path_model(
    network: IntegerNetwork, task: str, classes: Sequence[tuple[str, Sequence[int]]] = ()
) -> onnx.ModelProto:
    """The complete model of one task, with types and shapes of every tensor of the main graph.

    ``classes``: name and RGB colour of each class, kept in the metadata for drawing the result.
    Raises EdgeMoEError for a task that the network lacks or constants that int32 cannot hold.
    """
    check_network(network.path(task))
    model = path_graph(network, task, classes)
    model.functions.extend(path_functions())
    describe_tensors(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def flat_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its functions inlined, for runtimes that know only the operators of ONNX."""
    flat = onnx.inliner.inline_local_functions(model)
    kept = [entry for entry in flat.opset_import if entry.domain != DOMAIN]
    del flat.opset_import[:]
    flat.opset_import.extend(kept)
    onnx.checker.check_model(flat, full_check=True)
    return flat


def path_metadata(model: onnx.ModelProto, source: str = "the model") -> dict[str, Any]:
    """The metadata of a path model; EdgeMoEError says what ``source`` lacks."""
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    if text is None:
        raise EdgeMoEError(
            f"{source} has no '{METADATA_KEY}' metadata: it is not a path.onnx that 'edge-moe export' wrote."
        )
    try:
        metadata = json.loads(text)
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("format_version"), int):
        raise EdgeMoEError(f"the '{METADATA_KEY}' metadata of {source} is damaged: export the model again.")
    if metadata["format_version"] != FORMAT_VERSION:
        raise EdgeMoEError(
            f"{source} has format version {metadata['format_version']} and this version of edge-moe reads "
            f"{FORMAT_VERSION}: export the model again, or use the version that wrote it."
        )
    missing = [key for key in REQUIRED_METADATA if key not in metadata]
    if missing:
        raise EdgeMoEError(
            f"the '{METADATA_KEY}' metadata of {source} lacks '{missing[0]}': export the model again."
        )
    return metadata


def read_path_model(path: Path) -> onnx.ModelProto:
    """Load and check a ``path.onnx``. EdgeMoEError for a missing, damaged or other file."""
    data = read_bytes(path)
    try:
        if not data:
            raise DecodeError
        model = onnx.load_model_from_string(data)
    except DecodeError:
        raise EdgeMoEError(
            f"'{path}' is not an ONNX model or was cut short: export it again with 'edge-moe export'."
        ) from None
    path_metadata(model, f"'{path}'")
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise EdgeMoEError(
            f"'{path}' is damaged ({reason(error)}): export it again with 'edge-moe export'."
        ) from None
    return model
