# SPDX-License-Identifier: Apache-2.0
"""Data-parallel training by explicit all-reduce, started with ``torchrun``.

Gradients are averaged over ranks after the backward pass, in one flat bucket. Every loss is
normalised over the joint batch (see :mod:`edge_moe.train.losses`), so for every parameter the average
equals the gradient of one process with the joint batch. An expert that gets tokens on only one rank is
averaged with zeros of the others, as its share of the loss requires.
On GPUs batch norm is synchronised; on CPUs each rank uses the statistics of its own share.
"""

import logging
import os
from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edge_moe_host.errors import EdgeMoEError

_TIMEOUT = timedelta(hours=2)  # rank 0 validates alone while the others wait
_log = logging.getLogger(__name__)


def is_parallel() -> bool:
    """Whether a process group is in use."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if is_parallel() else 1


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if is_parallel() else 0


def start(device: str) -> torch.device:
    """Join the process group that ``torchrun`` announces in the environment, if any.

    ``device`` is ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    Returns this rank's device. Uses NCCL on GPUs and gloo on CPUs.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise EdgeMoEError(f"device '{device}' is unknown: use auto, cpu, cuda or cuda:N.") from None
    if chosen.type not in ("cpu", "cuda"):
        raise EdgeMoEError(f"device '{device}' is not supported: use auto, cpu, cuda or cuda:N.")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise EdgeMoEError(f"device '{device}': this PyTorch finds no CUDA device; use --device cpu.")
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ and not is_parallel():
        if chosen.type == "cuda":
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(chosen)
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_TIMEOUT)
        _log.info("rank %d of %d on %s", rank(), world_size(), chosen)
    return chosen


def stop() -> None:
    """Leave the process group."""
    if is_parallel():
        dist.destroy_process_group()


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum of a tensor without gradient over all ranks; the tensor itself with one rank."""
    if not is_parallel():
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


def average_tensors(tensors: Iterable[Tensor]) -> None:
    """Average tensors of one dtype over all ranks, in place and in one message."""
    tensors = list(tensors)
    if not is_parallel() or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world_size()
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average ``.grad`` over ranks; a parameter unused on every rank keeps ``None``.

    One flag per parameter travels with the gradients, so that a parameter which only some ranks
    reached is averaged with zeros and not skipped by their optimizers.
    """
    parameters = list(parameters)
    if not is_parallel():
        return
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flags = used.to(parameters[0].device)
    average_tensors([*grads, flags])
    for parameter, grad, flag in zip(parameters, grads, flags.tolist(), strict=True):
        parameter.grad = grad if flag > 0 else None


def broadcast_state(model: nn.Module) -> None:
    """Copy rank 0's parameters and buffers to every rank."""
    if is_parallel():
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)


def wait_for_all() -> None:
    """Return when every rank has called this."""
    if is_parallel():
        dist.barrier()


def agree(value: int) -> int:
    """Rank 0's value, on every rank."""
    if not is_parallel():
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(value, dtype=torch.int64, device=device)
    dist.broadcast(tensor, src=0)
    return int(tensor)
