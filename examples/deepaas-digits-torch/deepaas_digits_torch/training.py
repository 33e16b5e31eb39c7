"""A network on its way: its weights, its optimizer, its epoch; the same however many ranks train it."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from deepaas_digits_torch.data import CLASSES
from deepaas_digits_torch.ranks import Ranks

torch.set_num_threads(1)  # so small a network is no quicker with more, and those would spin on cores of other ranks


def build_network(hidden: int) -> nn.Sequential:
    """Return the untrained network: one convolution, one hidden layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, hidden),
        nn.ReLU(),
        nn.Linear(hidden, CLASSES),
    )


def load_network(path: Path) -> nn.Sequential:
    """Read a network that `Training.save` wrote."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = build_network(state["hidden"])
    network.load_state_dict(state["network"])
    return network.eval()


class Training:
    """What is trained, by all ranks together.

    Every rank goes through the same batches and learns from its share of each, scaled so that the mean over all ranks
    is the batch's own: the weights do not depend on their number, but for the last digits.
    """

    def __init__(self, ranks: Ranks, *, hidden: int, learning_rate: float, seed: int, checkpoint: Path | None) -> None:
        torch.manual_seed(seed)
        self.ranks, self.hidden, self.seed, self.epoch = ranks, hidden, seed, 0
        self.network = build_network(hidden)
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
        if checkpoint and checkpoint.exists():
            self._restore(checkpoint)
        self.optimizer = ranks.share(self.network, self.optimizer)

    def train_epoch(self, images: Tensor, digits: Tensor, batch_size: int) -> float:
        """Go through all images once, in an order that follows from seed and epoch, and return the mean loss."""
        order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch))
        loss = 0.0
        for chosen in order.split(batch_size):
            mine = chosen[self.ranks.rank :: self.ranks.size]
            self.optimizer.zero_grad()
            found = nn.functional.cross_entropy(self.network(images[mine]), digits[mine], reduction="sum")
            (found * self.ranks.size / len(chosen)).backward()
            self.optimizer.step()
            loss += found.item()
        self.epoch += 1
        return self.ranks.mean(loss) * self.ranks.size / len(digits)

    @torch.no_grad()
    def accuracy(self, images: Tensor, digits: Tensor) -> float:
        """Return the share of images that are read rightly, 0 to 1."""
        return (self.network(images).argmax(dim=1) == digits).float().mean().item()

    def save(self, path: Path) -> None:
        """Write everything, one file for all ranks; a reader sees the old one or the new one."""
        if self.ranks.rank:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "epoch": self.epoch, "hidden": self.hidden}, part)
        part.replace(path)

    def _restore(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch = state["epoch"]
