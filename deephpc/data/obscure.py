"""Reveals the passwords that rclone's configuration obscures, and obscures them alike.

Obscuring hides a password from a glance, no more: the key is public. AES-256 in counter mode, the random first block is
the initial counter, URL-safe base64 without padding. Source: rclone 1.60, fs/config/obscure/obscure.go.
"""

import base64
import binascii
import os

from deephpc.errors import InputError

_KEY = bytes.fromhex("9c935b48730a554d6bfd7c63c886a92bd390198eb8128afbf4de162b8b95f638")
_BLOCK_BYTES = 16


def reveal(obscured: str, where: str = "a password") -> str:
    """Return the password.

    Parameters
    ----------
    where
        The option it stands in, for the message; the text itself is never told.

    Raises
    ------
    InputError
        It is not obscured.
    """
    hint = "write what `rclone obscure` prints, or set it by `rclone config`"
    try:
        text = obscured.strip()
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{where} is not obscured as rclone does it", hint) from error
    if len(content) < _BLOCK_BYTES:
        raise InputError(f"{where} is too short for an obscured password", hint)
    try:
        return _crypt(content[:_BLOCK_BYTES], content[_BLOCK_BYTES:]).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not obscured as rclone does it", hint) from error


def obscure(password: str, start: bytes | None = None) -> str:
    """Return the password as rclone's configuration holds it; `start` is 16 bytes, random when left out."""
    first = os.urandom(_BLOCK_BYTES) if start is None else start
    return base64.urlsafe_b64encode(first + _crypt(first, password.encode())).rstrip(b"=").decode()


def _crypt(start: bytes, content: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # start-up time: few remotes need it

    cipher = Cipher(algorithms.AES(_KEY), modes.CTR(start)).encryptor()
    return cipher.update(content) + cipher.finalize()
