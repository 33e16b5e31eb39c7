#!/usr/bin/env python3
"""Makes configs/catalogue/snapshot.json.gz and provenance.tsv from a folder of metadata files and their provenance.

The folder holds `provenance.tsv` (a line per file: module, file, repo, path, commit, file_last_commit, head_date,
licence, metadata_version, sha256), the files it names, and in `_index/` the indexes as `OWNER__REPO.MODULES.yml` or
`OWNER__REPO.gitmodules`. Files whose licence is not permissive, or whose hash is not the recorded one, are left out.

    tools/make-catalogue-snapshot.py FOLDER
"""

import csv
import hashlib
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

from deephpc.catalogue.copies import FileCopy, ModuleCopy, SourceCopy, render_snapshot
from deephpc.catalogue.index_file import parse_index
from deephpc.catalogue.source import Source
from deephpc.config.toml_file import read_toml

TARGET = Path(__file__).resolve().parent.parent / "configs" / "catalogue"
PERMISSIVE = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "CC0-1.0"}
Row = dict[str, str]


def main(folder: Path) -> None:
    """Write the two files."""
    rows = [row for row in load_provenance(folder) if is_usable(folder, row)]
    sources = [
        Source(name=name, url=entry["url"], organisation=entry["organisation"], whose="shipped")
        for name, entry in read_toml(TARGET / "sources.toml")["sources"].items()
    ]
    kept: list[Row] = []
    copies = tuple(make_copy(source, folder, rows, kept) for source in sources)
    (TARGET / "snapshot.json.gz").write_bytes(render_snapshot(copies))
    with (TARGET / "provenance.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    print(f"{sum(len(copy.modules) for copy in copies)} modules, {len(kept)} files of {len(rows)} usable")  # noqa: T201


def load_provenance(folder: Path) -> list[Row]:
    """Return the lines of provenance.tsv."""
    with (folder / "provenance.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def is_usable(folder: Path, row: Row) -> bool:
    """Whether a file may be passed on, and is the one the line speaks of."""
    digest = hashlib.sha256((folder / row["file"]).read_bytes()).hexdigest()
    return row["licence"] in PERMISSIVE and digest == row["sha256"]


def make_copy(source: Source, folder: Path, rows: list[Row], kept: list[Row]) -> SourceCopy:
    """Return the copy of a source out of the files at hand; appends the lines it used to `kept`."""
    address = urlsplit(source.url)
    owner, repository, *_, file = address.path.strip("/").split("/")
    index = folder / "_index" / f"{owner}__{repository}{file if file.startswith('.') else '.' + file}"
    entries, _ = parse_index(index.read_text(encoding="utf-8"), source.url)
    listed = {entry.repository for entry in entries} | unlisted(folder, rows, owner)
    modules = tuple(read_modules(folder, listed, rows, kept))
    as_of = max((module.as_of for module in modules), default=datetime.now(timezone.utc))
    return SourceCopy(name=source.name, url=source.url, modules=modules, as_of=as_of)


def unlisted(folder: Path, rows: list[Row], owner: str) -> set[str]:
    """Return the repositories of an owner that no index lists any more."""
    indexes = [path.read_text("utf-8").lower() for path in (folder / "_index").iterdir()]
    repos = {row["repo"] for row in rows if row["repo"].startswith(f"{owner}/")}
    return {f"https://github.com/{repo}" for repo in repos if not any(repo.lower() in text for text in indexes)}


def read_modules(folder: Path, listed: set[str], rows: list[Row], kept: list[Row]) -> Iterator[ModuleCopy]:
    """Yield the modules of an index of which there are files."""
    for repo in dict.fromkeys(row["repo"] for row in rows):
        repository = f"https://github.com/{repo}"
        own = [row for row in rows if row["repo"] == repo]
        if repository not in listed:
            continue
        kept += [row for row in own if row not in kept]
        files = (
            FileCopy(name=Path(row["file"]).name, text=(folder / row["file"]).read_bytes().decode("utf-8"))
            for row in own
        )
        as_of = max(datetime.fromisoformat(row["head_date"]).replace(tzinfo=timezone.utc) for row in own)
        yield ModuleCopy(
            name=repo.partition("/")[2],
            repository=repository,
            files=tuple(files),
            licence=own[0]["licence"],
            as_of=as_of,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
