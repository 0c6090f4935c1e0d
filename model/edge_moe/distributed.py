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

from edge_moe_host.errors import EdgeMoEError, reason

_TIMEOUT = timedelta(hours=2)  # rank 0 validates alone while the others wait
_MEETING = timedelta(minutes=5)  # until all processes have started
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


def choose_device(device: str) -> torch.device:
    """The device ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``."""
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
    if chosen.type == "cuda" and (chosen.index or 0) >= (count := torch.cuda.device_count()):
        raise EdgeMoEError(f"device '{chosen}' does not exist: this machine has {count} CUDA device(s).")
    return chosen


def start(device: str) -> torch.device:
    """Join the process group that ``torchrun`` announces in the environment, if any, to train with it.

    Returns this rank's device; ``device`` as for :func:`choose_device`. Uses NCCL on GPUs and gloo on CPUs.
    """
    chosen = choose_device(device)
    if is_parallel() or not ("RANK" in os.environ or "WORLD_SIZE" in os.environ):
        return chosen
    needed = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", *["LOCAL_RANK"] * (chosen.type == "cuda")]
    remedy = "start all processes with torchrun, or unset RANK and WORLD_SIZE to train alone"
    if missing := [name for name in needed if name not in os.environ]:
        found = " and ".join(name for name in ("RANK", "WORLD_SIZE") if name in os.environ)
        raise EdgeMoEError(f"the environment has {found} but lacks {', '.join(missing)}: {remedy}.")
    numbers = [os.environ[name] for name in needed if name != "MASTER_ADDR"]
    if not all(number.isdecimal() for number in numbers) or int(numbers[0]) >= int(numbers[1]):
        values = ", ".join(f"{name}={os.environ[name]}" for name in needed)
        raise EdgeMoEError(f"{values} in the environment do not describe a group of processes: {remedy}.")
    if chosen.type == "cuda":
        chosen = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    _log.info("rank %s of %s processes meets the others at %s", numbers[0], numbers[1], place)
    try:
        store, own, world = next(dist.rendezvous("env://", timeout=_MEETING))
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=own, world_size=world, timeout=_TIMEOUT)
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise EdgeMoEError(f"the processes do not meet at {place} ({reason(error)}): {remedy}.") from None
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
