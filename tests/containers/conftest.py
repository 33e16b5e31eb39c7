"""One real registry for the session, and shortcuts to pull from it."""

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from deephpc.containers.auth import Credentials
from deephpc.containers.manifest import parse_platform
from deephpc.containers.pull import Pulled, pull
from deephpc.containers.reference import parse_reference
from deephpc.containers.registry import Access, Registry
from deephpc.containers.store import Store
from deephpc.containers.transfer import Transfer
from deephpc.retries import Patience
from tests.fakes.waiting import DEADLINE_S

from .servers import RealRegistry, real_registry

#: Tries again at once, and takes no slow answer for silence.
PATIENT = Patience(attempts=4, deadline_s=DEADLINE_S, first_nap_s=0.01, connect_s=DEADLINE_S, stall_s=DEADLINE_S)
AMD64 = parse_platform("linux/amd64")
Puller = Callable[..., Pulled]


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with real_registry(tmp_path_factory.mktemp("registry") / "data") as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache" / "images")


@pytest.fixture
def pull_image(store: Store) -> Puller:
    """Pull `host/name` into the test's store."""

    def pull_it(
        name: str,
        *,
        credentials: Credentials | None = None,
        into: Store = store,
        platform: str = "",
        patience: Patience = PATIENT,
    ) -> Pulled:
        with Registry(parse_reference(name), Access(credentials, patience=patience)) as source:
            wanted = parse_platform(platform) if platform else AMD64
            return pull(Transfer(into, source, patience), source.resolve(), wanted, datetime.now(timezone.utc))

    return pull_it
