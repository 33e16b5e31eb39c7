"""Credentials from where other tools keep them."""

import base64
import json
from pathlib import Path

import pytest

from deephpc.containers.auth import Credentials, find_credentials
from deephpc.errors import InputError

HUB = "https://index.docker.io/v1/"


def packed(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def found(home: Path, registry: str = "reg.org", repository: str = "a/b", **environ: str) -> tuple[str, str] | None:
    credentials = find_credentials(registry, repository, environ, home)
    return None if credentials is None else (credentials.username, credentials.password)


@pytest.mark.parametrize(
    ("place", "document"),
    [
        (".docker/config.json", {"auths": {"reg.org": packed("u", "p:w")}}),
        (".docker/config.json", {"auths": {"https://reg.org/v2/": packed("u", "p:w")}}),
        (".docker/config.json", {"auths": {"reg.org": {"username": "u", "password": "p:w"}}}),
        (".config/containers/auth.json", {"auths": {"reg.org/a": packed("u", "p:w")}}),
        (".apptainer/docker-config.json", {"auths": {"reg.org": packed("u", "p:w")}}),
        (".singularity/docker-config.json", {"auths": {"reg.org": packed("u", "p:w")}}),
        (".udocker/keystore", {"https://reg.org": {**packed("u", "p:w"), "email": ""}}),
    ],
)
def test_each_tool_s_file_is_read(tmp_path: Path, place: str, document: object) -> None:
    write(tmp_path / place, document)
    assert found(tmp_path) == ("u", "p:w")
    assert found(tmp_path, "other.org") is None


def test_docker_hub_is_known_by_all_its_names(tmp_path: Path) -> None:
    write(tmp_path / ".docker/config.json", {"auths": {HUB: packed("u", "p")}})
    assert found(tmp_path, "docker.io", "library/x") == ("u", "p")
    write(tmp_path / ".docker/config.json", {})
    write(tmp_path / ".udocker/keystore", {"https://registry-1.docker.io": packed("v", "q")})
    assert found(tmp_path, "docker.io", "library/x") == ("v", "q")


def test_the_most_exact_entry_and_the_first_file_win(tmp_path: Path) -> None:
    write(
        tmp_path / ".config/containers/auth.json",
        {"auths": {"reg.org": packed("r", "1"), "reg.org/a/b": packed("n", "2")}},
    )
    assert found(tmp_path) == ("n", "2")
    assert found(tmp_path, repository="a/c") == ("r", "1")
    write(tmp_path / "elsewhere.json", {"auths": {"reg.org": packed("e", "3")}})
    assert found(tmp_path, REGISTRY_AUTH_FILE=str(tmp_path / "elsewhere.json")) == ("e", "3")
    write(tmp_path / "d" / "config.json", {"auths": {"reg.org": packed("d", "4")}})
    assert found(tmp_path, DOCKER_CONFIG=str(tmp_path / "d")) == ("d", "4")


def test_an_identity_token_is_taken_as_one(tmp_path: Path) -> None:
    write(tmp_path / ".docker/config.json", {"auths": {"reg.org": {**packed("u", ""), "identitytoken": "t0ken"}}})
    credentials = find_credentials("reg.org", "a", {}, tmp_path)
    assert credentials is not None
    assert credentials.refresh_token == "t0ken"
    assert "t0ken" not in repr(credentials)


def helper(folder: Path, name: str, script: str) -> dict[str, str]:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_a_credential_helper_is_asked_for_this_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'read server; [ "$1 $server" = "get reg.org" ] || { echo "credentials not found"; exit 1; }\n'
    environ = helper(tmp_path, "mine", script + """echo '{"Username": "h", "Secret": "s"}'""")
    monkeypatch.setenv("PATH", environ["PATH"])
    write(
        tmp_path / ".docker/config.json", {"credHelpers": {"reg.org": "mine"}, "auths": {"other.org": packed("o", "1")}}
    )
    assert found(tmp_path, **environ) == ("h", "s")
    assert found(tmp_path, "other.org", **environ) == ("o", "1")
    write(tmp_path / ".docker/config.json", {"credsStore": "mine"})
    assert found(tmp_path, **environ) == ("h", "s")
    assert found(tmp_path, "third.org", **environ) is None


def test_a_helper_that_is_missing_or_babbles_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / ".docker/config.json", {"credsStore": "absent"})
    with pytest.raises(InputError, match="docker-credential-absent, which is not on PATH"):
        found(tmp_path)
    environ = helper(tmp_path, "odd", "echo hello")
    monkeypatch.setenv("PATH", environ["PATH"])
    write(tmp_path / ".docker/config.json", {"credsStore": "odd"})
    with pytest.raises(InputError, match="gave no credentials"):
        found(tmp_path, **environ)
    write(tmp_path / ".docker/config.json", {"credsStore": "../evil"})
    with pytest.raises(InputError, match="evil"):
        found(tmp_path)


def test_a_broken_file_is_named_and_an_empty_one_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".docker" / "config.json"
    write(path, {})
    assert found(tmp_path) is None
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        found(tmp_path)
    write(path, {"auths": {"reg.org": {"auth": "%%%"}}})
    with pytest.raises(InputError, match="not base64"):
        found(tmp_path)


def test_secrets_do_not_show_when_printed() -> None:
    assert "hunter2" not in repr(Credentials("u", "hunter2"))
