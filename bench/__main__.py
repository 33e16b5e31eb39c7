"""Runs every benchmark and keeps the table in docs/benchmarks.md (as root on Debian: it brings the test cluster up)."""

import os
import platform
import sys
from datetime import date
from pathlib import Path

from bench import gateway, of_catalogue, of_data, of_record
from bench.cluster import run_on_cluster
from bench.row import HEADER, Row, load

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "benchmarks.md"


def main() -> None:
    """Measure, print, keep."""
    print(HEADER)
    lines, stumbled = [HEADER], 0
    for measure in (of_record.measure, of_catalogue.measure, gateway.measure, of_data.measure, _on_cluster):
        for row in measure():
            lines.append(row.render())
            stumbled += bool(row.ours_stumbled)
            print(lines[-1], flush=True)
    table = "\n".join(lines)
    PAGE.write_text(_page(table), encoding="utf-8")
    if stumbled:
        sys.exit(f"deephpc itself failed in {stumbled} of {len(lines) - 1} rows")


def _on_cluster() -> list[Row]:
    return [row for rows in run_on_cluster() for row in load(rows)]


def _page(table: str) -> str:
    return f"""# Benchmarks

Made by `make bench` on {date.today().isoformat()}, {platform.machine()} with {_cores()} cores. Everything runs on one
machine: the test cluster of `tests/cluster` (Slurm 24.11, three compute nodes) stands beside what is measured, so trust
the ratios, not the milliseconds. Each pair is run in turn; values are medians. Below 1 is faster than the peer. The two
columns in MiB are the peak memory of the largest process, ours and the peer's; they are empty where it is not measured.

A peer must succeed at its first try. A peer that fails is named in its row with what it said. Such a row has no ratio.
With data, retries are off, the log is read, and what arrived is counted, in each round and of deephpc as well.

{table}

## What the numbers of the gateway and of data mean

The gateway speaks TLS and the server behind it does not, so each row has two peers: the server as it is, and the same
server were it to speak TLS itself. The second is what the gateway itself adds. For 64 MiB, AES-GCM alone costs client
and gateway about 25 ms each, and a second hop over TCP about 20 ms; client, gateway and server share the cores of this
machine, which on a cluster they do not.

Data go to and come from the same server for all. rclone serves WebDAV, S3 and HTTP, OpenSSH serves SFTP. Each row is
a whole command, from its start to its end, with a destination that is new in each round. deephpc has no cache of
earlier rounds. The disk is synced before each command, so nobody waits for another's data.

deephpc hashes every byte, and syncs every file to the disk before the file gets its name. `rclone copy` alone does not
sync, and it hashes only where the protocol has hashes. So large files have a second row, in which rclone does the same
work: `sha256sum` hashes what was sent or brought, and `sync` puts what was brought on the disk. The other peers do not
hash or sync either. s5cmd and obstore speak S3. OpenSSH's `sftp` and `lftp` speak SFTP; `lftp` uses 8 connections, but
sends one large file over a single one.

Three settings of rclone keep the comparison fair. Over WebDAV it does not pause 10 ms before each request, as it does
to spare clouds. Over SFTP it asks for no hashes: it would start a shell on the server for each file. In S3 the folders
exist before the first upload, because `rclone serve s3` sometimes fails when two uploads make the same folder.

The rows of tiny files tell how cost grows. The same work is done on ten times the files, and the larger row gives the
growth. User CPU excludes the kernel; the larger size has a single round. `rclone copy` gets a `sha256sum` of all files
here too, because deephpc writes a manifest. deephpc also syncs each of these files, which shows in its wall time.

## What the numbers of training and of servers mean

Two ranks of `examples/digits/train.py` share one node and have one thread each, ours and bare. torchrun and horovodrun
are called in a batch script of the user's own; each starts a process of Python that starts the ranks, where deephpc
starts them as tasks of Slurm. Samples are counted from the end of the first step to the end of the last, with all that
`train.py` does between: the test after each epoch, and the checkpoint.

The bare server has no gateway, no token, no TLS and no check that it is ready: whoever reaches the node may ask it. Its
time ends with the first prediction it answers to one who asks twenty times a second. The first prediction after ready
is asked of two kinds of servers: by one `deephpc.serve.Client` in a process of its own, which connects and reads what
the module takes when it is opened (told beside), and by a `deephpc predict` among others, each of which starts Python,
connects and reads anew. The model takes 2 ms: what is left between the first prediction and those right after it is
what any prediction pays that follows a pause.
"""


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
