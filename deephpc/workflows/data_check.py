"""The story of `deephpc data ls` and `verify`: what a place has, and whether it is what it should be."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from deephpc.data.discrepancy import Discrepancy, by_path
from deephpc.data.location import Location, split_data_name
from deephpc.data.manifest import LeftOut, Manifest, parse_manifest, shown_name
from deephpc.data.opening import opened
from deephpc.data.progress import Progress, Silent
from deephpc.data.reading_back import Fault, Reading, check_stored, hash_all
from deephpc.data.storage import Entry, missing
from deephpc.data.survey import Survey, survey
from deephpc.errors import DataError, InputError
from deephpc.model import Model
from deephpc.workflows.data_places import DataPlaces

_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}")


class ListedEntry(Model):
    """A file or folder at a place."""

    path: str
    is_folder: bool
    size_bytes: int | None
    modified: datetime | None


class Listing(Model):
    """What a place has, by name."""

    location: str
    entries: tuple[ListedEntry, ...]
    left_out: tuple[LeftOut, ...] = ()
    """What is listed there under a name that no file here can have, or cannot be brought."""


class Verdict(Model):
    """Whether a place has what it should have."""

    location: str
    against: str
    digest: str
    """Of the manifest it was held against."""
    files: int
    faults: tuple[Fault, ...]
    discrepancies: tuple[Discrepancy, ...] = ()
    """Files that a server lists otherwise than their bytes are; the bytes were compared."""


def list_location(text: str, places: DataPlaces, *, recursive: bool) -> Listing:
    """List a folder, or one file, by name.

    Raises
    ------
    DataError
        There is nothing, or the storage refuses.
    """
    location = places.locate(text)
    with opened(location, places.around, places.limits) as storage:
        found = storage.look(location.path)
        if found is None:
            raise missing(str(location))
        if not found.is_folder:
            entries = [Entry(location.name, found.size_bytes, modified_s=found.modified_s)]
        else:
            entries = list(storage.walk(location.path) if recursive else storage.list_folder(location.path))
    return Listing(
        location=str(location),
        left_out=tuple(LeftOut(path=shown_name(each.path), reason=each.left_out) for each in entries if each.left_out),
        entries=tuple(
            ListedEntry(
                path=each.path,
                is_folder=each.is_folder,
                size_bytes=each.size_bytes,
                modified=None if each.modified_s is None else datetime.fromtimestamp(each.modified_s, timezone.utc),
            )
            for each in sorted(entries, key=lambda each: each.path)
            if not each.left_out
        ),
    )


def verify_data(
    text: str,
    places: DataPlaces,
    *,
    manifest: Path | None = None,
    against: str | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Hash what is at a place and hold it against a manifest, or against another place; a staged set against its own.

    Raises
    ------
    InputError
        Nothing is said to hold it against, or two things.
    """
    if manifest is not None and against is not None:
        raise InputError("--manifest and --against contradict each other", "name one of them")
    watched = progress or Silent()
    if manifest is None and against is None:
        wanted, location, told = _staged(text, places)
    else:
        location = places.locate(text)
        told = str(manifest) if manifest is not None else str(places.locate(against or ""))
        wanted = _load(manifest) if manifest is not None else _manifest_of(against or "", places, watched)
    with _surveyed(location, places, watched) as (found, reading):
        findings = check_stored(reading, {each.path: each for each in found.entries}, wanted)
        faults = findings.faults + _left_out(found)
    return Verdict(
        location=str(location),
        against=told,
        digest=wanted.digest,
        files=len(wanted.files),
        faults=tuple(faults),
        discrepancies=by_path(findings.discrepancies),
    )


def check_verdict(verdict: Verdict) -> None:
    """End the command with the code for data when something is not as it should be.

    Raises
    ------
    DataError
        There are faults.
    """
    if verdict.faults:
        count = len(verdict.faults)
        raise DataError(
            f"{verdict.location}: {count} file{'s are' if count > 1 else ' is'} not as in {verdict.against}",
            "bring or send them again; what is equal is not transferred",
        )


def _staged(text: str, places: DataPlaces) -> tuple[Manifest, Location, str]:
    """Return the manifest and folder of a staged set, named by its digest or its folder."""
    by_folder = {str(each.folder): each for each in places.cache.sets()}
    if _DIGEST.fullmatch(text):
        staged = places.cache.find(text)
    else:
        staged = by_folder.get(str(Path(split_data_name(text)[0]).absolute()))
    if staged is None:
        raise InputError(
            f"{text!r} is no staged data set", "name what to hold it against: --manifest FILE or --against PLACE"
        )
    manifest = places.cache.manifest(staged.digest.removeprefix("sha256:"))
    if manifest is None:
        raise InputError(f"the staged data set {text!r} has no manifest", "stage it again")
    return manifest, places.locate(f"{staged.folder}/"), staged.digest


def _load(path: Path) -> Manifest:
    try:
        return parse_manifest(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"cannot read the manifest {path}: {error.strerror}", "check the path") from error


def _manifest_of(text: str, places: DataPlaces, progress: Progress) -> Manifest:
    with _surveyed(places.locate(text), places, progress) as (found, reading):
        findings = hash_all(reading, {each.path: each for each in found.entries})
        faults = findings.faults + _left_out(found)
    if faults:
        raise DataError(f"{text}: {faults[0].path}: {faults[0].reason}", "wait until nobody writes there")
    return Manifest.of(findings.facts.values())


def _left_out(found: Survey) -> list[Fault]:
    return [Fault(path=each.path or "/", reason=f"unreadable: {each.reason}") for each in found.left_out]


@contextmanager
def _surveyed(location: Location, places: DataPlaces, progress: Progress) -> Iterator[tuple[Survey, Reading]]:
    with opened(location, places.around, places.limits) as storage:
        found = survey(storage, location)
        yield found, Reading(storage, found.top, places.limits, progress)
