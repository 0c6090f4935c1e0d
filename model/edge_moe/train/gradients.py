# SPDX-License-Identifier: Apache-2.0
"""From per-task losses to ``.grad``: the weighted sum, or PCGrad against conflicting tasks."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edge_moe.distributed import average_gradients, average_tensors


def task_order(tasks: Sequence[str], step: int) -> list[str]:
    """Order of the per-task updates of a step: the first task rotates, so no task is always last."""
    first = step % len(tasks)
    return [*tasks[first:], *tasks[:first]]


def summed_gradients(
    parameters: Sequence[nn.Parameter], losses: Mapping[str, Tensor], balance: Tensor
) -> None:
    """Set ``.grad`` to the gradient of the sum of the (weighted) losses, averaged over ranks.

    ``balance`` is the weighted balance loss; it may have no graph (dense models).
    """
    torch.stack([*losses.values(), balance]).sum().backward()
    average_gradients(parameters)


def pcgrad_gradients(
    parameters: Sequence[nn.Parameter],
    losses: Mapping[str, Tensor],
    balance: Tensor,
    generator: torch.Generator,
) -> None:
    """Set ``.grad`` by PCGrad (Yu et al., "Gradient surgery", NeurIPS 2020, algorithm 1).

    A parameter that two or more tasks reach is shared: there each task's gradient is projected
    onto the normal plane of every other task's it conflicts with, and the results are summed.
    A parameter of one task keeps its gradient. The balance loss is no task: its gradient is
    added unchanged. ``generator`` (CPU) orders the projections; all ranks use one seed, and
    gradients are averaged over ranks before they are compared.
    """
    per_task = [
        list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))
        for loss in losses.values()
    ]
    reached = [sum(grads[i] is not None for grads in per_task) for i in range(len(parameters))]
    shared = [i for i, count in enumerate(reached) if count > 1]
    flat = [
        torch.cat([_or_zeros(grads[i], parameters[i]).reshape(-1) for i in shared])
        if shared
        else parameters[0].new_zeros(0)
        for grads in per_task
    ]
    average_tensors(flat)
    surgered = project_conflicts(flat, generator)
    extra: Sequence[Tensor | None] = [None] * len(parameters)
    if balance.requires_grad:
        extra = torch.autograd.grad(balance, parameters, allow_unused=True)
    for i, parameter in enumerate(parameters):
        own = [grads[i] for grads in per_task if reached[i] == 1]
        parts = [grad for grad in (*own, extra[i]) if grad is not None]
        parameter.grad = torch.stack(parts).sum(dim=0) if parts else None
    average_gradients(parameters)
    # The shared part is averaged already, so it joins after the average of the rest.
    pieces = surgered.split([parameters[i].numel() for i in shared])
    for i, piece in zip(shared, pieces, strict=True):
        grad = piece.view_as(parameters[i])
        previous = parameters[i].grad
        parameters[i].grad = grad.clone() if previous is None else previous + grad


def project_conflicts(gradients: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Sum of the projected gradients: PCGrad's update for flat per-task gradients of one size."""
    result = torch.zeros_like(gradients[0])
    norms = [gradient.dot(gradient) for gradient in gradients]
    for i, gradient in enumerate(gradients):
        projected = gradient.clone()
        for j in torch.randperm(len(gradients), generator=generator).tolist():
            if j == i:
                continue
            product = projected.dot(gradients[j])
            if product < 0:
                projected -= (product / norms[j]) * gradients[j]
        result += projected
    return result


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient
