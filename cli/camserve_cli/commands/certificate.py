"""Make a certificate for TLS: a small authority, and what it signs for one server.

    \b
    python scripts/certificate.py
    python scripts/certificate.py --host cam.example --host 192.0.2.7 --out .tls --days 90

Writes server.pem and server.key, which the server shows, and ca.pem, which its clients trust. The
authority's own key is forgotten as soon as it has signed: nobody can sign another certificate with
it, and a new certificate comes with a new ca.pem.

A certificate that somebody else signed does as well: put it into a folder under these names, as
server.pem with the certificates between it and its authority, as server.key its RSA key in PEM, and
as ca.pem the authority's own.
"""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from running import ROOT
from tls import LOOPBACK, Certificate, CertificateError

#: RSA, as TorchServe takes no other; of the strength of AES-128 (NIST SP 800-57, table 2).
BITS = 3072
#: A clock that is behind must not find a certificate of the future.
SKEW = timedelta(hours=1)
_DNS_NAME = re.compile(
    r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9-]{1,63}", re.IGNORECASE
)

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


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
                f"--host {host!r}: accepted is a DNS name, as cam.example, or an IP address"
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


def write(folder: Path, hosts: list[str], days: int) -> Certificate:
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


@app.command(help=__doc__)
def certificate(
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address of the server, beside those of loopback; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = ROOT / ".tls",
    days: Annotated[int, typer.Option(min=1, max=825, help="How long it is good for.")] = 365,
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
) -> None:
    made = Certificate(out)
    there = [path for path in (made.chain, made.key, made.authority) if path.exists()]
    if there and not force:
        raise CertificateError(f"{there[0]} exists; --force writes over it")
    hosts = list(dict.fromkeys([*(host or []), *LOOPBACK]))
    try:
        made = write(out, hosts, days)
    except OSError as failure:
        raise CertificateError(f"--out {failure.filename}: {failure.strerror}") from None
    made.prove()
    typer.echo(
        f"{made.chain} and {made.key.name}, for {', '.join(hosts)}, good for {days} days; "
        f"clients trust {made.authority}"
    )


def main() -> None:
    try:
        app()
    except CertificateError as error:
        typer.echo(f"certificate: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
