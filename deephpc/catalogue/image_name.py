"""The image a module names: from what people write in metadata to a name a registry can be asked for."""

import re
from collections.abc import Iterator

from deephpc.model import Model

_WEB_PAGE = re.compile(r"^https?://(?:www\.|registry\.)?hub\.docker\.com/(?:r/)?", re.IGNORECASE)
#: The parts of a name, by the grammar of distribution/reference: registry, path, tag, digest.
_NAME = re.compile(
    r"(?:(?:[a-z0-9.-]+\.[a-z0-9.-]+|[a-z0-9.-]+:[0-9]+|localhost(?::[0-9]+)?)/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


class ImageName(Model):
    """A written image name, made usable."""

    name: str
    """Empty when nothing usable was written."""
    error: str = ""
    """Why it is unusable."""
    changes: tuple[str, ...] = ()
    """What was mended, in words."""


def parse_image_name(written: str, organisation: str = "") -> ImageName:
    """Mend what real metadata gets wrong: spaces, a web address, a missing organisation.

    Parameters
    ----------
    organisation
        Who publishes the images of this catalogue; goes before a name that has none.
    """
    changes = list(_visible_changes(written))
    name = _WEB_PAGE.sub("", written.strip()).removeprefix("docker://").rstrip("/")
    if not name:
        return ImageName(name="", changes=("names no image",))
    if not _NAME.fullmatch(name):
        return ImageName(name="", error=f"{written!r} is not the name of an image, such as organisation/name")
    if "/" not in name:
        if organisation:
            name = f"{organisation}/{name}"
            changes.append(f"lacks the organisation; read as {name}")
        else:
            changes.append("lacks the organisation, as in organisation/name")
    if ":" in name.rpartition("/")[2].partition("@")[0]:
        changes.append("carries a tag, which pins every user to it")
    return ImageName(name=name, changes=tuple(changes))


def _visible_changes(written: str) -> Iterator[str]:
    if written != written.strip():
        yield "has spaces around it"
    if _WEB_PAGE.match(written.strip()):
        yield "is a web address; write organisation/name"
    if written.strip().startswith("docker://"):
        yield "needs no docker:// in front"
