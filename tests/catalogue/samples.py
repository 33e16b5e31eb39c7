"""Metadata that tests start from, and a web server that behaves like the ones catalogues are kept on."""

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from deephpc.config import UserPlaces
from deephpc.workflows.catalogue import Catalogue

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)

V2 = """\
metadata_version: 2.0.0
title: Leaf counter
summary: Counts leaves.
description: |-
  Counts the leaves of a tree.
dates:
  created: '2024-01-31'
  updated: '2024-02-01'
links:
  source_code: https://github.com/someone/leaf-counter
  docker_image: someone/leaf-counter
tags:
  - botany
tasks:
  - Computer Vision
categories:
  - AI4 trainable
  - AI4 inference
libraries:
  - PyTorch
resources:
  training:
    cpu: 8
    gpu: 1
    memory_MB: 16000
"""

V1 = """\
{
\t"title": "Bird song",
\t"summary": "Names birds.",
\t"description": ["It listens.\\n", "", "It answers."],
\t"keywords": ["docker", "Tensorflow", "trainable", "pre-trained", "image classification", "audio"],
\t"license": "MIT",
\t"date_creation": "2019-02-19",
\t"cite_url": "http://add-some-DOI-url.com",
\t"dataset_url": "https://data.example.net/birds",
\t"sources": {
\t\t"dockerfile_repo": "https://github.com/someone/birds-oc",
\t\t"docker_registry_repo": "someone/birds",
\t\t"code": "https://github.com/someone/birds"
\t}
}
"""


def v2(**changes: str) -> str:
    """Return version 2 metadata with another title, summary, …"""
    text = V2
    for key, value in changes.items():
        old = next(line for line in V2.splitlines() if line.strip().startswith(f"{key}:"))
        text = text.replace(old, f"{old.partition(':')[0]}: {value}")
    return text


def a_catalogue(folder: Path) -> Catalogue:
    """Return the catalogues of a user without any settings."""
    places = UserPlaces(folder / "config" / "config.toml", "built-in", folder / "config" / "sites", folder / "state")
    return Catalogue(places, folder / "cache" / "catalogue")


@dataclass
class Mirror:
    """Files served over HTTP with ETags, and what was asked of them."""

    files: dict[str, str]
    stalled: set[str] = field(default_factory=set)
    """Paths that are never answered."""
    failing: dict[str, int] = field(default_factory=dict)
    """Path → how often it answers 503 before it works."""
    answers: Counter[int] = field(default_factory=Counter)
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    turn: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def served(mirror: Mirror) -> Iterator[Mirror]:
    """Serve a mirror on the loopback for as long as the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path in mirror.stalled:
                mirror.over.wait()
                return
            with mirror.turn:
                fails = mirror.failing.get(self.path, 0) > 0
                if fails:
                    mirror.failing[self.path] -= 1
            if fails:
                self._answer(503, b"", {"Retry-After": "0"})
                return
            text = mirror.files.get(self.path)
            if text is None:
                self._answer(404, b"no such file", {})
                return
            tag = '"' + hashlib.sha256(text.encode()).hexdigest()[:16] + '"'
            if self.headers.get("If-None-Match") == tag:
                self._answer(304, b"", {"ETag": tag})
            else:
                self._answer(200, text.encode(), {"ETag": tag})

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            with mirror.turn:
                mirror.answers[status] += 1
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    mirror.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield mirror
    finally:
        mirror.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
