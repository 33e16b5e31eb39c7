"""Chooses a module's tag from those its repository has: cpu or gpu by where it will run, else latest."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from deephpc.errors import EngineError

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class TagChoice:
    """A tag, and why it was taken, in words for the user."""

    tag: str
    why: str


def choose_tag(
    tags: Sequence[str], *, for_gpus: bool, repository: str = "the repository", here: Collection[str] = ()
) -> TagChoice:
    """Choose between a module's tags; pure.

    What is here already is taken where it does the same: an image for GPUs runs without one, too.

    Catalogue images carry `cpu` and `gpu`, and `latest` is the same as `cpu`; most PyTorch modules have `latest` alone,
    which then serves both (seen in the module catalogues of DEEP and AI4EOSC, 2026).

    Parameters
    ----------
    tags
        The registry's list.
    for_gpus
        Whether the partition the image will run in has GPUs.
    here
        The tags whose images are in the store.

    Raises
    ------
    EngineError
        None of the usual tags exists and there is more than one other.
    """
    wanted, place = ("gpu", "with GPUs") if for_gpus else ("cpu", "without GPUs")
    usable = [wanted] if for_gpus and "gpu" in tags else [wanted, "latest", *([] if for_gpus else ["gpu"])]
    kept = next((tag for tag in usable if tag in here), None)
    if kept is not None and kept != wanted:
        return TagChoice(kept, f"tag {kept}, which is here; {repository}:{wanted} would be another image")
    if wanted in tags:
        return TagChoice(wanted, f"tag {wanted}, since it will run {place}")
    if "latest" in tags:
        return TagChoice("latest", f"tag latest, since {repository} has no tag {wanted}")
    if for_gpus and "cpu" in tags:
        return TagChoice("cpu", f"tag cpu, since {repository} has neither gpu nor latest: it will not use the GPUs")
    if len(tags) == 1:
        return TagChoice(tags[0], f"tag {tags[0]}, the only one {repository} has")
    shown = ", ".join(sorted(tags)[:_SHOWN]) + (", …" if len(tags) > _SHOWN else "")
    raise EngineError(
        f"{repository} has no tag {wanted} and no tag latest" + (f", only {shown}" if tags else ": it has no tags"),
        "name one: MODULE:TAG" if tags else "ask the module's authors where its image is",
    )
