"""A small certificate authority, and what it signs for one server."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from camserve_cli.serving.certificates import Certificate, CertificateError

#: RSA, as TorchServe takes no other; of the strength of AES-128 (NIST SP 800-57, table 2).
BITS = 3072
#: A clock that is behind must not find a certificate of the future.
SKEW = timedelta(hours=1)
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
# A name whose last label is a number is taken for an IPv4 address (WHATWG URL, "ends in a number").
_DNS_NAME = re.compile(rf"(\*\.)?({_LABEL}\.)*(?![0-9]+$){_LABEL}", re.IGNORECASE | re.ASCII)


def alternative_name(host: str) -> x509.GeneralName:
    """A host's name or address, as a certificate has it (RFC 5280, 4.2.1.6).

    Raises:
        CertificateError: it is neither.
    """
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        if not _DNS_NAME.fullmatch(host) or len(host) > 253:
            raise CertificateError(
                f"--host {host!r}: accepted is a DNS name, as cam.example or *.cam.example "
                "(letters, digits and inner hyphens, no number as the last part), or an IP address"
            ) from None
        return x509.DNSName(host.lower())


def _usage(*allowed: str) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: name in allowed for name in names})


def _builder(
    subject: str, issuer: str, key: rsa.RSAPrivateKey, signer: rsa.RSAPrivateKey, days: int
) -> x509.CertificateBuilder:
    """What the authority's certificate and the server's have in common."""
    now = datetime.now(UTC)
    named = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (subject, issuer)]
    return (
        x509.CertificateBuilder(named[1], named[0], key.public_key(), x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )


def issue(folder: Path, hosts: list[str], days: int) -> Certificate:
    """Make an authority and a server's certificate, and write them; the authority's key is not.

    Args:
        folder: made where it is missing; files of the same names are written over.
        hosts: the server's names and addresses.
        days: that both are good for.

    Raises:
        CertificateError: a host is neither a name nor an address.
        OSError: a file cannot be written.
    """
    names = [alternative_name(host) for host in hosts]
    authority_key, key = (rsa.generate_private_key(65537, BITS) for _ in range(2))
    # Two authorities of one name would be mistaken for each other.
    issuer = f"camserve {os.urandom(4).hex()}"
    authority = (
        _builder(issuer, issuer, authority_key, authority_key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server = (
        _builder("camserve", issuer, key, authority_key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    written = Certificate(folder)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for path, content, mode in (
        (written.key, secret, 0o600),
        (written.chain, server.public_bytes(Encoding.PEM), 0o644),
        (written.authority, authority.public_bytes(Encoding.PEM), 0o644),
    ):
        # Never open to others, not even while it is being written.
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    return written
