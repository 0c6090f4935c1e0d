# SPDX-License-Identifier: Apache-2.0
"""Does a model fit an accelerator? Every limit, what the model uses of it, and what would fit."""

from collections.abc import Sequence

from edge_moe.accelerator import AcceleratorConfig, load_accelerator
from edge_moe.compiler.emit import emit_program
from edge_moe.compiler.instructions import Emitter
from edge_moe.compiler.read_graph import PathGraph, parse_path
from edge_moe.compiler.weights import WeightImage
from edge_moe.config import ModelConfig
from edge_moe.export.graph import path_graph
from edge_moe.quant.random_network import random_network
from edge_moe.settings import packaged_names
from edge_moe_host.contract.opcodes import LIMITS
from edge_moe_host.errors import EdgeMoEError

# Settings of a model that lower what it uses of a limit.
SETTINGS = {
    "scratch_bytes": ("image_size", "head", "head_channels", "embed_dim"),
    "accumulator_rows": ("image_size", "embed_dim"),
    "max_instructions": ("depth", "image_size"),
    "max_tokens": ("image_size",),
    "max_width": ("embed_dim",),
    "max_channels": ("embed_dim", "mlp_ratio", "expert_ratio", "num_heads", "patch_size"),
    "max_heads": ("num_heads",),
    "max_head_dim": ("embed_dim", "num_heads"),
    "max_experts": ("num_experts",),
    "max_top_k": ("top_k",),
    "max_map_rows": ("image_size", "head"),
    "max_conv_channels": ("head_channels", "embed_dim"),
    "max_image_height": ("image_size",),
    "max_image_width": ("image_size",),
    "max_patch_size": ("patch_size",),
}


def exceeded(needs: dict[str, int], accelerator: AcceleratorConfig) -> list[str]:
    """The limits that are too small."""
    return [name for name in LIMITS if needs[name] > getattr(accelerator, name)]


def require_fit(programs: Sequence[Emitter], accelerator: AcceleratorConfig) -> None:
    """EdgeMoEError names every limit that a task's program exceeds."""
    texts = []
    for program in programs:
        needs = program.needs()
        over = [
            f"{name} = {getattr(accelerator, name)} where {needs[name]} are needed"
            for name in exceeded(needs, accelerator)
        ]
        texts += [f"task '{program.graph.task}': {', '.join(over)}"] if over else []
    if texts:
        raise EdgeMoEError(
            f"the model does not fit the accelerator; {'; '.join(texts)}: choose a larger accelerator or a "
            "smaller model, 'edge-moe info PRESET --accelerator NAME' says which."
        )


def model_graph(config: ModelConfig) -> PathGraph:
    """The graph of a model of these sizes with random weights.

    It is that of the task with the most channels: tasks differ in nothing else that a limit covers.
    """
    task = max(config.tasks, key=lambda name: config.tasks[name])
    return parse_path(path_graph(random_network(config), task), "the model")


def describe_fit(config: ModelConfig, name: str) -> str:
    """Table of the limits of the accelerator ``name``, for ``edge-moe info``."""
    chosen, graph = load_accelerator(name), model_graph(config)
    packaged = {other: load_accelerator(other) for other in packaged_names("accelerators")}
    needs = emit_program(graph, chosen, WeightImage()).needs()
    over = exceeded(needs, chosen)
    lines = [f"{'limit':<18}{'the model uses':>15}{'the accelerator has':>21}"]
    for limit in LIMITS:
        lines.append(f"{limit:<18}{needs[limit]:>15,}{getattr(chosen, limit):>21,}")
        if limit in over:
            fits = [other for other, has in packaged.items() if needs[limit] <= getattr(has, limit)]
            ways = [f"take {' or '.join(fits)}"] if fits else []
            ways.append(f"change {' or '.join(f'model.{setting}' for setting in SETTINGS[limit])}")
            lines[-1] += f"  too much: {', or '.join(ways)}"
    if not over:
        return "\n".join([*lines, f"It fits {name}."])
    distinct = {accelerator.hash(): accelerator for accelerator in packaged.values()}
    fitting = {
        key
        for key, accelerator in distinct.items()
        if not exceeded(emit_program(graph, accelerator, WeightImage()).needs(), accelerator)
    }
    names = [other for other, accelerator in packaged.items() if accelerator.hash() in fitting]
    return "\n".join(
        [
            *lines,
            f"It does not fit {name}: {len(over)} of {len(LIMITS)} limits are too small. "
            f"It fits {' or '.join(names) or 'no packaged accelerator'}.",
        ]
    )
