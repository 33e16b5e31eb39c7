"""The processes that train together: one, or as many as Horovod or PyTorch joins."""

from __future__ import annotations

import os

import torch
from torch import nn
from torch.optim import Optimizer


class Ranks:
    """One process on its own."""

    rank = 0
    size = 1

    def share(self, model: nn.Module, optimizer: Optimizer) -> Optimizer:  # noqa: ARG002 -- the others need it
        """Give all ranks the weights of rank 0 and return an optimizer that averages the gradients of all."""
        return optimizer

    def mean(self, value: float) -> float:
        """Return the mean of a value over all ranks."""
        return value

    def leave(self) -> None:
        """Part from the other ranks."""


class HorovodRanks(Ranks):
    """Ranks that Horovod joins; `deephpc train --launcher horovod` starts them."""

    def __init__(self) -> None:
        import horovod.torch

        self._horovod = horovod.torch
        self._horovod.init()
        self.rank, self.size = self._horovod.rank(), self._horovod.size()

    def share(self, model: nn.Module, optimizer: Optimizer) -> Optimizer:
        """Give all ranks the weights of rank 0; the optimizer's state they have all read from the same checkpoint."""
        self._horovod.broadcast_parameters(model.state_dict(), root_rank=0)
        return self._horovod.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())

    def mean(self, value: float) -> float:
        """Return the mean of a value over all ranks."""
        return self._horovod.allreduce(torch.tensor(value, dtype=torch.float64)).item()

    def leave(self) -> None:
        """Part from the other ranks."""
        self._horovod.shutdown()


class TorchRanks(Ranks):
    """Ranks that PyTorch joins; `deephpc train --launcher torchrun` starts them."""

    def __init__(self) -> None:
        # The first step of an optimizer would import it, and with it modules that keep a group which exists by then
        # until Python has ended: a thread of that group which still lives then aborts the process.
        import torch._dynamo

        os.environ.setdefault("USE_LIBUV", "0")  # Debian's PyTorch is built without it
        torch.distributed.init_process_group("gloo")
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def share(self, model: nn.Module, optimizer: Optimizer) -> Optimizer:
        """Give all ranks the weights of rank 0; before each step the optimizer averages the gradients of all."""
        for weights in model.state_dict().values():
            torch.distributed.broadcast(weights, src=0)
        optimizer.register_step_pre_hook(lambda *_: self._average(model))
        return optimizer

    def mean(self, value: float) -> float:
        """Return the mean of a value over all ranks."""
        total = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(total)
        return total.item() / self.size

    def leave(self) -> None:
        """Part from the other ranks, once all have come so far."""
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()

    def _average(self, model: nn.Module) -> None:
        for weights in model.parameters():
            torch.distributed.all_reduce(weights.grad)
            weights.grad /= self.size


def find_ranks() -> Ranks:
    """Return what the launcher has made of this process."""
    if "HOROVOD_RANK" in os.environ:
        return HorovodRanks()
    return TorchRanks() if "RANK" in os.environ else Ranks()
