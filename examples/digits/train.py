"""Train a small convolutional network to read handwritten digits: plain PyTorch, and what a batch job needs besides.

The data are the UCI optical digits (1797 images of 8 x 8 pixels) that scikit-learn ships, so nothing is downloaded.

    deephpc train examples/digits/train.py --wait -- --epochs 20     # as a job
    python examples/digits/train.py --epochs 20                      # by hand, in the current folder
    deephpc train examples/digits/train.py --nodes 2 --tasks-per-node 4 --launcher horovod     # or torchrun

What makes it fit for a batch system, and worth copying:

- every file goes where the environment says (`Places`), so the same file runs as a job and by hand;
- a checkpoint after every epoch, and on SIGUSR1, which deephpc sends before the time limit; then it ends with exit code
  75, which asks deephpc to continue it in a new job;
- started again, it goes on from the checkpoint and ends with the same model as a run that was never interrupted;
- metrics are appended as JSON lines while it runs;
- as one of several ranks it learns from its share of every batch (`Ranks`), so that any number of them, joined by
  Horovod or by PyTorch, ends with the same weights;
- no rank ends before all are done, and none ends while threads of the others' messages still run (`Training.leave`).
"""

import argparse
import gc
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

CONTINUE = 75  # EX_TEMPFAIL of sysexits.h
LOOK_EVERY = 10  # steps; to ask all ranks takes a message to each
CLASSES = 10
PIXEL_MAX = 16.0


def main() -> None:
    """Train to the last epoch, from the start or from the checkpoint, and keep the model."""
    options = parse_options()
    places = Places.from_environment()
    ranks = find_ranks()
    torch.set_num_threads(1)  # so small a network is no quicker with more, and those would spin on cores of other ranks
    device = f"cuda:{ranks.local_rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    torch.set_default_dtype(torch.float64 if options.double else torch.float32)
    train, test = load_split(device)
    torch.manual_seed(options.seed)
    training = Training(options.hidden, options.lr, device, ranks)
    if places.checkpoint.exists():
        training.restore(places.checkpoint)
        say(ranks, f"attempt {places.attempt}: going on from step {training.step}")
    training.share()
    stop_request = StopRequest()
    started = time.monotonic()

    first_epoch = training.step // steps_in_epoch(train, options.batch_size)
    for epoch in range(first_epoch, options.epochs):
        for batch in remaining_batches(train, options, epoch, training.step):
            training.take_step(batch)
            if training.step % LOOK_EVERY == 0 and ranks.any(stop_request.came):
                training.save(places.checkpoint)
                say(ranks, f"SIGUSR1: checkpoint at step {training.step}, to be continued")
                training.leave()
                sys.exit(CONTINUE)
        loss = ranks.mean(training.loss_sum) / steps_in_epoch(train, options.batch_size)
        if ranks.rank == 0:
            report_epoch(places.metrics, epoch + 1, training.step, loss, training.accuracy(test))
        training.loss_sum = 0.0
        training.save(places.checkpoint)

    if ranks.rank == 0:
        accuracy = training.accuracy(test)
        keep_results(places, training, options, accuracy, time.monotonic() - started)
        say(ranks, f"test accuracy {accuracy:.4f}")
    training.leave()


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train a small network on the UCI optical digits.")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training images (default: 20)")
    parser.add_argument("--batch-size", type=int, default=32, help="images in one step (default: 32)")
    parser.add_argument("--lr", type=float, default=1e-3, help="Adam's learning rate (default: 0.001)")
    parser.add_argument("--hidden", type=int, default=64, help="width of the hidden layer (default: 64)")
    parser.add_argument(
        "--double", action="store_true", help="double precision, to compare runs on many ranks with one"
    )
    parser.add_argument("--seed", type=int, default=0, help="initial weights and order of the images (default: 0)")
    return parser.parse_args()


@dataclass(frozen=True)
class Places:
    """Where a run keeps its files. deephpc says so in the environment; by hand they lie in the current folder."""

    output: Path
    checkpoints: Path
    metrics: Path
    attempt: int

    @classmethod
    def from_environment(cls) -> "Places":
        """Read the places from the environment and make the folders."""
        places = cls(
            output=Path(os.environ.get("DEEPHPC_OUTPUT_DIR", "output")),
            checkpoints=Path(os.environ.get("DEEPHPC_CHECKPOINT_DIR", "checkpoints")),
            metrics=Path(os.environ.get("DEEPHPC_METRICS", "metrics.jsonl")),
            attempt=int(os.environ.get("DEEPHPC_ATTEMPT", "1")),
        )
        places.output.mkdir(parents=True, exist_ok=True)
        places.checkpoints.mkdir(parents=True, exist_ok=True)
        return places

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint; each replaces the one before."""
        return self.checkpoints / "latest.pt"


class Ranks:
    """The processes that train together: one, when no launcher has started more."""

    rank = 0
    size = 1
    local_rank = 0

    def share(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return both so that every step averages the gradients of all ranks; all begin with the weights of rank 0."""
        return model, optimizer

    def mean(self, value: float) -> float:
        """Return the mean of a value over all ranks."""
        return value

    def any(self, mine: bool) -> bool:
        """Whether it is so on one rank at least; a signal does not reach all of them in the same step."""
        return self.mean(float(mine)) > 0

    def leave(self) -> None:
        """Part from the other ranks, once all have come so far."""


class HorovodRanks(Ranks):
    """Ranks that Horovod joins."""

    def __init__(self) -> None:
        import horovod.torch

        self.horovod = horovod.torch
        self.horovod.init()
        self.rank, self.size = self.horovod.rank(), self.horovod.size()
        self.local_rank = self.horovod.local_rank()

    def share(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Let the optimizer average."""
        self.horovod.broadcast_parameters(model.state_dict(), root_rank=0)
        return model, self.horovod.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())

    def mean(self, value: float) -> float:
        """Return the mean of a value over all ranks."""
        return self.horovod.allreduce(torch.tensor(value)).item()

    def leave(self) -> None:
        """Part from the other ranks, once all have come so far."""
        self.horovod.barrier()
        self.horovod.shutdown()


class TorchRanks(Ranks):
    """Ranks that PyTorch joins, in the environment that torchrun sets."""

    def __init__(self) -> None:
        # The first step of an optimizer would import it, and with it modules that keep a group which exists by then
        # until Python has ended: a thread of that group which still lives then aborts the process.
        import torch._dynamo

        os.environ.setdefault("USE_LIBUV", "0")  # Debian's PyTorch is built without it
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.local_rank = int(os.environ["LOCAL_RANK"])

    def share(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Let the model average."""
        return nn.parallel.DistributedDataParallel(model), optimizer

    def mean(self, value: float) -> float:
        """Return the mean of a value over all ranks."""
        total = torch.tensor(value, device="cuda" if torch.cuda.is_available() else "cpu")
        torch.distributed.all_reduce(total)
        return total.item() / self.size

    def leave(self) -> None:
        """Part from the other ranks, once all have come so far; nothing may use the shared model any more."""
        torch.distributed.barrier()
        gc.collect()  # DistributedDataParallel refers to itself, and to the group, whose threads end with it
        torch.distributed.destroy_process_group()


def find_ranks() -> Ranks:
    """Return what the launcher has made of this process."""
    if "HOROVOD_RANK" in os.environ:
        return HorovodRanks()
    return TorchRanks() if "RANK" in os.environ else Ranks()


def say(ranks: Ranks, line: str) -> None:
    """Print a line once, however many ranks there are."""
    if ranks.rank == 0:
        print(line, flush=True)


@dataclass(frozen=True)
class Digits:
    """Images `(n, 1, 8, 8)` with pixels from 0 to 1, and their labels `(n,)` from 0 to 9."""

    images: Tensor
    labels: Tensor


def load_split(device: str) -> tuple[Digits, Digits]:
    """Return the training and the test images (four to one); the split is always the same."""
    digits = load_digits()
    train, test = train_test_split(range(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0)
    images = torch.tensor(digits.images, dtype=torch.get_default_dtype(), device=device).unsqueeze(1) / PIXEL_MAX
    labels = torch.tensor(digits.target, dtype=torch.long, device=device)
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])


def steps_in_epoch(digits: Digits, batch_size: int) -> int:
    """Return how many steps go once through the images."""
    return math.ceil(len(digits.labels) / batch_size)


def remaining_batches(digits: Digits, options: argparse.Namespace, epoch: int, step: int) -> Iterator[Digits]:
    """Yield the batches of an epoch that are still to come after `step` steps of the whole training.

    Their order depends on the seed and the epoch alone, so an interrupted epoch goes on where it stopped.
    """
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + epoch)
    order = torch.randperm(len(digits.labels), generator=generator).split(options.batch_size)
    for chosen in order[step - epoch * len(order) :]:
        yield Digits(digits.images[chosen], digits.labels[chosen])


def build_model(hidden: int) -> nn.Module:
    """Return the untrained network: two convolutions, then one hidden layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, hidden),
        nn.ReLU(),
        nn.Linear(hidden, CLASSES),
    )


class Training:
    """A model on its way: its weights, its optimizer, the steps taken, and the loss summed over the current epoch."""

    def __init__(self, hidden: int, lr: float, device: str, ranks: Ranks) -> None:
        self.ranks = ranks
        self.device = device
        self.model = build_model(hidden).to(device)
        self.shared = self.model
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)
        self.step = 0
        self.loss_sum = 0.0

    def share(self) -> None:
        """Join the other ranks, after weights and optimizer have been read from a checkpoint."""
        self.shared, self.optimizer = self.ranks.share(self.model, self.optimizer)

    def leave(self) -> None:
        """Part from the other ranks."""
        self.shared = self.model
        self.ranks.leave()

    def take_step(self, batch: Digits) -> None:
        """Learn from one batch: each rank from its share, scaled so that the mean over all ranks is the batch's."""
        mine = slice(self.ranks.rank, None, self.ranks.size)
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.shared(batch.images[mine]), batch.labels[mine], reduction="sum")
        loss = loss * self.ranks.size / len(batch.labels)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        self.loss_sum += loss.item()

    @torch.no_grad()
    def accuracy(self, digits: Digits) -> float:
        """Return the share of images read rightly, 0 to 1."""
        guesses = self.model(digits.images).argmax(dim=1)
        return (guesses == digits.labels).float().mean().item()

    def save(self, path: Path) -> None:
        """Write a checkpoint, one for all ranks; whoever opens `path`, at whatever moment, finds a whole one."""
        if self.ranks.rank != 0:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "loss_sum": self.loss_sum,
        }
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.loss_sum = state["loss_sum"]


class StopRequest:
    """Remembers that SIGUSR1 came, until the step under way is done."""

    def __init__(self) -> None:
        self.came = False
        signal.signal(signal.SIGUSR1, self._note)

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self.came = True


def report_epoch(metrics: Path, epoch: int, step: int, loss: float, accuracy: float) -> None:
    """Print one line on the epoch and append the same to the metrics as one JSON object."""
    print(f"epoch {epoch:3d}   train loss {loss:.4f}   test accuracy {accuracy:.4f}", flush=True)
    line = {"time": time.time(), "step": step, "epoch": epoch, "train_loss": loss, "test_accuracy": accuracy}
    with metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def keep_results(
    places: Places, training: Training, options: argparse.Namespace, accuracy: float, seconds: float
) -> None:
    """Write the model's weights and a summary of the run."""
    torch.save(training.model.state_dict(), places.output / "model.pt")
    summary = {
        "test_accuracy": accuracy,
        "steps": training.step,
        "parameters": sum(weights.numel() for weights in training.model.parameters()),
        "attempt": places.attempt,
        "ranks": training.ranks.size,
        "seconds_in_this_attempt": round(seconds, 3),
        "options": vars(options),
        "torch": torch.__version__,
    }
    (places.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
