"""One file on its way in: its blocks, the server's moods, and what makes it whole."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from deephpc.data.discrepancy import find_discrepancy
from deephpc.data.disk import made_folder_for, unwritable
from deephpc.data.ledger import Seen
from deephpc.data.local import entry_of
from deephpc.data.location import join
from deephpc.data.part_file import BLOCK_BYTES, Block, PartFile, runs_of
from deephpc.data.plan import listed_as, transfer_key
from deephpc.data.storage import ENDLESS, ByteStream, Changed, Entry, Interrupted, Piece, Unfit, changed, missing
from deephpc.data.transport import Transport
from deephpc.errors import DataError
from deephpc.retries import Retries

_READ_BYTES = 1 << 20


class _ListedOtherwise(Exception):  # noqa: N818 - says what happened
    """The first answer tells of another size or version than the list."""


class Arrival:
    """One file on its way; the crew brings its blocks."""

    def __init__(self, download: Transport, entry: Entry, note: Callable[[Seen], None]) -> None:
        self._download = download
        self._listed = self._entry = entry
        self._is_settled = download.storage.is_certain and entry.size_bytes is not None
        self._pinned = self._came = entry if download.storage.is_certain else Entry(entry.path)
        self._note = note
        self._path = join(download.top, entry.path)
        self._part: PartFile | None = None
        self._turn = threading.Lock()
        self._lanes_left = 0
        self._active = 0
        self._failure: BaseException | None = None
        self._farthest = 0

    def begin(self) -> None:
        """Open the part file and bring the first block; the others are for the whole crew."""
        self._guarded(self._begin)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Work on the file, so that its failure is no other's."""
        with self._download.crew.sparing_others(self._listed.path):
            self._work(work)

    def _work(self, work: Callable[[], None]) -> None:
        """Work on the file, unless it failed; the last one to leave a failed file closes it."""
        with self._turn:
            if self._failure is not None:
                return
            self._active += 1
        try:
            work()
        except BaseException as error:
            with self._turn:
                self._failure = self._failure or error
            raise
        finally:
            with self._turn:
                self._active -= 1
                is_over = self._failure is not None and not self._active
            if is_over and self._part is not None:
                if isinstance(self._failure, Changed | Unfit):
                    self._part.discard()
                else:
                    self._part.close()

    def _begin(self) -> None:
        self._download.crew.check()
        try:
            self._bring_as_told()
        except _ListedOtherwise:
            if self._part is not None:
                self._download.progress.advance(-self._part.start_over())
                self._part.discard()
            self._part = None
            self._bring_as_told()

    def _bring_as_told(self) -> None:
        """Bring the file: a small one, or one whose size nobody tells, in one go, a large one in blocks."""
        size = self._entry.size_bytes
        if (size is None or (size <= BLOCK_BYTES and not self._is_settled)) and self._bring_in_one():
            return
        download, part = self._download, self._open_part()
        missing = [block for block in part.blocks if block.at < block.stop]
        alone = 0 if download.storage.is_certain and len(missing) > 1 else 1
        if not missing or self._bring(part, missing[:alone], is_first=True) or not missing[alone:]:
            self._finish(part)
            return
        # half of what may be on its way at once: more ranges of one file cost the server, and one disk takes them all
        lanes = max(1, download.crew.parallel // 2)
        runs = deque(runs_of(missing[alone:], lanes))
        self._lanes_left = lanes
        download.crew.add_first([lambda: self._guarded(lambda: self._bring_all(part, runs))] * lanes)

    def _open_part(self) -> PartFile:
        """Open the part file; what an earlier try left in it counts as progress."""
        download, entry = self._download, self._entry
        place = download.home.part(entry.path, transfer_key(download.pair, entry))
        may_resume = entry.version != "" and entry.size_bytes is not None
        part = PartFile(place, entry.size_bytes or 0, may_resume=may_resume, mode=download.home.open_mode)
        self._part = part
        download.progress.advance(part.open())
        return part

    def _bring_in_one(self) -> bool:
        """Ask for the whole file; False when it turns out to be a large one, which is better brought in blocks."""
        download = self._download
        retries = Retries(download.limits.patience, download.crew.stop, Interrupted)
        while True:
            try:
                with download.storage.open_range(self._path, self._pinned, 0, ENDLESS) as stream:
                    if not self._is_settled:
                        self._settle(stream.told)
                    if self._entry.size_bytes is not None and self._entry.size_bytes > BLOCK_BYTES:
                        return False
                    part = self._part or self._open_part()
                    if self._entry.size_bytes is None:
                        self._fill_unknown(part, stream, retries)
                    else:
                        self._fill_all(part, stream.chunks, retries)
                self._finish(part)
                return True
            except Interrupted as error:
                download.crew.check()
                retries.again(error)

    def _settle(self, told: Entry | None) -> bool:
        """Take what the first answer tells of the file for what it is; False where a list told otherwise."""
        self._is_settled, listed = True, self._entry
        if told is None:
            told = (
                self._told_by_look()
                if listed.size_bytes is None
                else replace(listed, size_bytes=listed.size_bytes or None)
            )
        if told.is_folder:
            raise changed(self._shown)
        is_otherwise = find_discrepancy(listed, told) is not None
        if is_otherwise and self._download.is_one_file:
            self._refuse_if_changed(told)
        self._came = self._pinned = Entry(listed.path, told.size_bytes, told.version)
        is_otherwise = is_otherwise or (listed.size_bytes is not None and told.size_bytes is None)
        self._entry = replace(
            listed,
            size_bytes=told.size_bytes,
            version=told.version if is_otherwise or not listed.version else listed.version,
            modified_s=told.modified_s if is_otherwise or listed.modified_s is None else listed.modified_s,
            md5="" if is_otherwise else listed.md5,
        )
        self._download.progress.expect((told.size_bytes or 0) - (listed.size_bytes or 0), 0)
        return not is_otherwise

    def _told_by_look(self) -> Entry:
        told = self._download.storage.look(self._path)
        if told is None:
            raise missing(self._shown)
        return told

    def _refuse_if_changed(self, told: Entry) -> None:
        """Look again: that tells a change from a server that always says one thing and sends another."""
        again = self._told_by_look()
        if find_discrepancy(self._listed, again) is not None and find_discrepancy(again, told) is None:
            raise changed(self._shown)

    def _bring_all(self, part: PartFile, runs: deque[list[Block]]) -> None:
        """Bring one run after the other; the last to find none left finishes the file."""
        while self._failure is None:
            with self._turn:
                run = runs.popleft() if runs else None
            if run is None:
                break
            self._bring(part, run)
        with self._turn:
            self._lanes_left -= 1
            is_last = self._lanes_left == 0
        if is_last and self._failure is None:
            self._finish(part)

    def _bring(self, part: PartFile, run: list[Block], *, is_first: bool = False) -> bool:
        """Bring blocks that follow one another; True when the whole file came, from a server that knows no ranges."""
        retries = Retries(self._download.limits.patience, self._download.crew.stop, Interrupted)
        takes_all = False
        left = deque(run)
        while left:
            start, stop = left[0].at, left[-1].stop
            try:
                with self._open_range(start, stop, is_first=is_first) as stream:
                    if not stream.whole and stream.start == start:
                        self._fill(part, left, stream.chunks, retries)
                    elif is_first and stream.start == 0:
                        takes_all = True
                        self._fill_all(part, stream.chunks, retries)
                        return True
                    else:
                        raise changed(self._shown)
            except Interrupted as error:
                self._download.crew.check()
                if takes_all:  # what came before the break is worth nothing
                    self._download.progress.advance(-part.start_over())
                retries.again(error)
        return False

    @contextmanager
    def _open_range(self, start: int, stop: int, *, is_first: bool) -> Iterator[ByteStream]:
        """Open a range of the file; the first answer says what the file is.

        Raises
        ------
        _ListedOtherwise
            That is another one than was listed.
        """
        try:
            with self._download.storage.open_range(self._path, self._pinned, start, stop) as stream:
                if is_first and not self._is_settled and not self._settle(stream.told):
                    raise _ListedOtherwise
                yield stream
        except Changed:
            if self._is_settled:
                raise
            self._entry = replace(self._entry, size_bytes=None)  # it has no such range: all of it tells what it is
            raise _ListedOtherwise from None

    def _fill(self, part: PartFile, left: deque[Block], chunks: Iterable[Piece], retries: Retries) -> None:
        """Fill blocks from where the first one ends so far; whole ones leave the queue."""
        for chunk in chunks:
            self._download.crew.check()
            self._fill_on(part, left, chunk, retries)
            if not left:
                return
        if left:
            raise Interrupted(f"{self._shown} broke off after {left[0].at} bytes")

    def _fill_on(self, part: PartFile, left: deque[Block], chunk: Piece, retries: Retries) -> None:
        while chunk and left:
            block = left[0]
            size = block.stop - block.at
            taken, chunk = chunk[:size], chunk[size:]
            part.write(block, taken)
            self._count(len(taken))
            if block.at > block.farthest:  # one that always breaks at the same place must end
                retries.progress(block.at - block.farthest)
                block.farthest = block.at
            if block.at >= block.stop:
                left.popleft()

    def _fill_all(self, part: PartFile, chunks: Iterable[Piece], retries: Retries) -> None:
        """Fill the file from its beginning."""
        self._download.progress.advance(-part.start_over())
        at = 0
        for chunk in chunks:
            self._download.crew.check()
            self._spread(part, at, chunk)
            at += len(chunk)
            self._go_farther(at, retries)
        if at < part.size_bytes:
            raise Interrupted(f"{self._shown} broke off after {at} bytes")

    def _spread(self, part: PartFile, at: int, chunk: Piece) -> None:
        """Write a chunk that may go over the end of a block."""
        while chunk:
            if at >= part.size_bytes:
                raise changed(self._shown)
            block = part.block_at(at)
            taken, chunk = chunk[: block.stop - at], chunk[block.stop - at :]
            part.write(block, taken)
            at += len(taken)
            self._count(len(taken))

    def _fill_unknown(self, part: PartFile, stream: ByteStream, retries: Retries) -> None:
        """Fill a file whose size the server does not tell, from its beginning."""
        block = part.blocks_of_unknown_size()
        try:
            for chunk in stream.chunks:
                self._download.crew.check()
                part.write(block, chunk)
                self._count(len(chunk))
                self._go_farther(block.at, retries)
            part.resize(block.at)
        finally:
            is_whole = stream.ends_surely or block.at >= (self._listed.size_bytes or 0)
            if not is_whole or part.size_bytes != block.at:
                self._download.progress.advance(-block.at)
        if not is_whole:
            raise Interrupted(f"{self._shown} broke off after {block.at} bytes")

    def _go_farther(self, at: int, retries: Retries) -> None:
        """Count only what no earlier try had as progress."""
        if at > self._farthest:
            retries.progress(at - self._farthest)
            self._farthest = at

    def _count(self, size_bytes: int) -> None:
        self._download.received(size_bytes)
        self._download.progress.advance(size_bytes)

    def _finish(self, part: PartFile) -> None:
        """Check the file, give it its name, note it."""
        download, entry = self._download, self._entry
        sha256 = part.finish(entry.modified_s, download.home.final_mode)
        try:
            if entry.md5 and _md5(part.path) != entry.md5:
                self._refuse_if_certain(part)
            target = download.home.final(entry.path, sha256)
            made_folder_for(target, lambda: part.path.replace(target))
            seen = entry_of(target.stat(), "", str(target))
        except OSError as error:
            raise unwritable(part.path.parent, error) from error
        part.forget_state()
        found = find_discrepancy(self._listed, replace(self._came, size_bytes=part.size_bytes))
        if found is not None:
            download.discrepancies.append(found)
        version = listed_as(self._listed) if found else self._listed.version or entry.version
        self._note(Seen(entry.path, part.size_bytes, sha256, version, seen.version))
        download.crew.has_success = True
        download.progress.finish_file()

    def _refuse_if_certain(self, part: PartFile) -> None:
        """Refuse a file with another MD5 than was listed; lists also show what only looks like one (see s3.py)."""
        seen = self._download.storage.look(self._path)
        if seen is not None and seen.md5 and seen.version == self._entry.version:
            part.discard()
            raise DataError(f"{self._shown} came with another MD5 than its server tells", "tell its administrators")

    @property
    def _shown(self) -> str:
        return self._download.storage.show(self._path)


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
