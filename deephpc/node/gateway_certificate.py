"""Makes the certificate of one run; its key stays in this process's memory and dies with it."""

import contextlib
import os
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deephpc.serve.endpoint import public_key_pin

_VALID = timedelta(days=30)
_CLOCKS_DIFFER = timedelta(hours=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate that vouches for itself, and its key."""

    pem: str
    key_pem: bytes
    public_key_pin: str


def make_certificate(run_id: str, host: str, now: datetime | None = None) -> Certificate:
    """Return a certificate for a node and for localhost, where tunnels end (P-256, valid for thirty days).

    Clients trust it alone. It is marked as an authority, as some of them ask of a root, but its key signs nothing else.
    """
    start = (now or datetime.now(timezone.utc)) - _CLOCKS_DIFFER
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"deephpc {run_id}"[:64])])
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(True, False, False, False, False, True, False, False, False)  # signs, and signs certificates
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _VALID)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(subject_key, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        public_key_pin(
            key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        ),
    )


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """Return the TLS side of the gateway; `load_cert_chain` only reads files, so it gets one that lies in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    descriptor = os.memfd_create("deephpc-gateway", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, certificate.key_pem + certificate.pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def _names(host: str) -> list[x509.GeneralName]:
    """Return what the gateway is called: by the node's name, its addresses, and as localhost behind a tunnel."""
    names = dict.fromkeys(["localhost", host, socket.gethostname(), socket.getfqdn()])
    addresses = dict.fromkeys(["127.0.0.1", "::1"])
    with contextlib.suppress(OSError):  # a node that does not know its own name is reached by it all the same
        addresses |= dict.fromkeys(str(found[4][0]).partition("%")[0] for found in socket.getaddrinfo(host, None))
    return [
        *(x509.DNSName(name) for name in names if _is_dns_name(name)),
        *(x509.IPAddress(ip_address(address)) for address in addresses),
    ]


def _is_dns_name(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return bool(name) and name.isascii()
    return False
