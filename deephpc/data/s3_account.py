"""Finds how S3 is reached: endpoint, region and keys, from a remote, the environment or the files of AWS's tools.

Source: AWS SDKs and Tools reference guide, "Shared config and credentials files" and the list of environment variables.
"""

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deephpc.data.s3_signing import Keys
from deephpc.data.surroundings import Surroundings
from deephpc.data.web import clean_base
from deephpc.errors import InputError

_DEFAULT_REGION = "us-east-1"
_PLAIN_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Account:
    """How S3 is reached."""

    endpoint: str
    """Empty for Amazon's own."""
    region: str
    keys: Keys | None
    """None for reading what is public."""
    path_style: bool = True
    """Whether the bucket stands in the path rather than in the host name."""

    def bucket_url(self, bucket: str) -> str:
        """Return where a bucket answers."""
        if self.endpoint and self.path_style:
            return f"{self.endpoint}/{bucket}"
        if self.endpoint:
            scheme, _, host = self.endpoint.partition("://")
            return f"{scheme}://{bucket}.{host}"
        host = f"s3.{self.region}.amazonaws.com"
        return f"https://{bucket}.{host}" if _PLAIN_BUCKET.fullmatch(bucket) else f"https://{host}/{bucket}"


def find_account(settings: Mapping[str, str], around: Surroundings) -> Account:
    """Return how S3 is reached: what the remote says, else the environment, else the profile.

    Raises
    ------
    InputError
        Half a pair of keys, or a profile that does not exist.
    """
    environ = around.environ
    profile = settings.get("profile") or environ.get("AWS_PROFILE", "")
    said = _profile(profile or "default", around)
    if profile and not said:
        raise InputError(f"the AWS profile {profile!r} is in no file", "see ~/.aws/credentials, or unset AWS_PROFILE")
    endpoint = (
        settings.get("endpoint")
        or environ.get("AWS_ENDPOINT_URL_S3")
        or environ.get("AWS_ENDPOINT_URL")
        or said.get("endpoint_url", "")
    )
    region = settings.get("region") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise InputError(f"the S3 endpoint {endpoint!r} is no http:// or https:// address", "set AWS_ENDPOINT_URL")
    return Account(
        clean_base(endpoint) if endpoint else "",
        region or said.get("region") or _DEFAULT_REGION,
        _keys(settings, environ, said),
        settings.get("path_style") != "no",
    )


def _keys(settings: Mapping[str, str], environ: Mapping[str, str], said: Mapping[str, str]) -> Keys | None:
    if settings.get("anonymous"):
        return None
    sources = (
        (settings, "access_key", "secret_key", "session_token"),
        ({} if settings.get("profile") else environ, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        (said, "aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
    )
    for values, access, secret, token in sources:
        if bool(values.get(access)) != bool(values.get(secret)):
            raise InputError(f"of {access} and {secret} only one is set", "set both, or none")
        if values.get(access):
            return Keys(values[access], values[secret], values.get(token, ""))
    return None


def _profile(name: str, around: Surroundings) -> dict[str, str]:
    """Return what the files of AWS's tools say about a profile; empty where there is none."""
    environ, home = around.environ, around.home
    config = Path(environ.get("AWS_CONFIG_FILE") or home / ".aws" / "config")
    credentials = Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials")
    section = name if name == "default" else f"profile {name}"
    return {**_section(config, section), **_section(credentials, name)}


def _section(path: Path, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False, default_section="\0")
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, configparser.Error):
        return {}
    return dict(parser.items(name)) if parser.has_section(name) else {}
