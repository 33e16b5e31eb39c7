"""Turns the options of an rclone remote into the settings of one of our storages.

Source: rclone 1.60, the pages of each backend at https://rclone.org/{webdav,s3,sftp,http}/.
"""

from collections.abc import Callable, Mapping
from urllib.parse import unquote

from deephpc.data.obscure import reveal
from deephpc.errors import InputError

_TRUE = frozenset({"true", "1", "t", "yes"})


def remote_settings(name: str, kind: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the settings; the storage's kind is the remote's type.

    Raises
    ------
    InputError
        The type is none we speak, or an option is missing or not as it should be.
    """
    translate = _KINDS.get(kind)
    if translate is None:
        said = f"of the type {kind!r}" if kind else "without a type"
        raise InputError(
            f"the remote {name!r} is {said}, which deephpc does not speak",
            f"it speaks {', '.join(sorted((*_KINDS, 'alias', 'local')))}; copy with rclone itself, or mount it",
        )
    for option in _NOT_FOLLOWED.get(kind, ()):
        if options.get(option):
            raise InputError(
                f"deephpc does not follow the option {option} of the remote {name!r}",
                "copy with rclone itself, or mount it",
            )
    return {key: value for key, value in translate(name, options).items() if value}


def _webdav(name: str, options: Mapping[str, str]) -> dict[str, str]:
    password = _password(name, options, "pass")
    return {
        **_address(name, options),
        **_only_set(user=options.get("user", ""), password=password),
        "bearer_token": options.get("bearer_token", ""),
        "bearer_token_command": options.get("bearer_token_command", ""),
        "headers": options.get("headers", ""),
        "vendor": options.get("vendor", ""),
    }


def _s3(name: str, options: Mapping[str, str]) -> dict[str, str]:
    del name
    endpoint = options.get("endpoint", "")
    if endpoint and "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    from_environment = options.get("env_auth", "").lower() in _TRUE
    has_key = bool(options.get("access_key_id"))
    return {
        "endpoint": endpoint,
        "region": options.get("region", ""),
        "access_key": options.get("access_key_id", ""),
        "secret_key": options.get("secret_access_key", ""),
        "session_token": options.get("session_token", ""),
        "profile": options.get("profile", ""),
        "anonymous": "" if has_key or from_environment else "yes",
        "path_style": "no" if options.get("force_path_style", "").lower() == "false" else "",
    }


def _sftp(name: str, options: Mapping[str, str]) -> dict[str, str]:
    if not options.get("host"):
        raise InputError(f"the remote {name!r} has no host", "set it by `rclone config`")
    return {
        "host": options["host"],
        "port": options.get("port", ""),
        "user": options.get("user", ""),
        "password": _password(name, options, "pass"),
        "key_file": options.get("key_file", ""),
        "key_passphrase": _password(name, options, "key_file_pass"),
        "known_hosts": options.get("known_hosts_file", ""),
    }


def _http(name: str, options: Mapping[str, str]) -> dict[str, str]:
    return {**_address(name, options), "headers": options.get("headers", "")}


def _address(name: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the url, and apart from it the user and password that may stand in it."""
    url = options.get("url", "").rstrip("/")
    scheme, found, rest = url.partition("://")
    if scheme not in ("http", "https") or not found:
        raise InputError(
            f"the remote {name!r} has no url that begins with http:// or https://", "set it by `rclone config`"
        )
    host, slash, path = rest.partition("/")
    login, _, host = host.rpartition("@")
    user, _, password = login.partition(":")
    return {"url": f"{scheme}://{host}{slash}{path}", **_only_set(user=unquote(user), password=unquote(password))}


def _only_set(**settings: str) -> dict[str, str]:
    return {key: value for key, value in settings.items() if value}


def _password(name: str, options: Mapping[str, str], key: str) -> str:
    said = options.get(key, "")
    return reveal(said, f"{key} of the remote {name!r}") if said else ""


#: Without these a remote is another one, or none at all.
_NOT_FOLLOWED = {
    "s3": ("role_arn", "sse_customer_key", "sse_customer_key_base64"),
    "sftp": ("ssh", "key_pem", "pubkey"),
}
_KINDS: dict[str, Callable[[str, Mapping[str, str]], dict[str, str]]] = {
    "webdav": _webdav,
    "s3": _s3,
    "sftp": _sftp,
    "http": _http,
}
