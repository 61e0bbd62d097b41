"""The folder that holds a server's certificate, and the check that clients will accept it.

TorchServe takes an RSA key alone, and over HTTPS speaks TLS 1.2 with ECDHE-RSA and AES-128.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from camserve_cli.errors import CommandError

#: Where a server answers that nobody named otherwise, as a certificate may name it.
LOOPBACK = ("127.0.0.1", "localhost")


class CertificateError(CommandError):
    """What keeps a certificate from being used, in words for the person who brought it."""


@dataclass(frozen=True)
class Certificate:
    """A certificate in a folder, by the names that ``camserve certificate`` gives the files.

    Attributes:
        folder: holds ``server.pem``, the certificate and those between it and its authority;
            ``server.key``, its RSA key; ``ca.pem``, the authority that clients trust.
    """

    folder: Path

    @property
    def chain(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    def name(self) -> str:
        """The name to ask for: loopback where the certificate has it, else its first host name.

        Its first address is asked for where it has no host name.

        Raises:
            CertificateError: it cannot be read, or names no host.
        """
        try:
            names = _read_certificate(self.chain).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
        except ValueError as failure:
            raise CertificateError(
                f"{self.chain}: its extensions cannot be read: {failure}"
            ) from None
        except x509.ExtensionNotFound:
            raise CertificateError(
                f"{self.chain} has no subjectAltName: it names no host"
            ) from None
        hosts = [
            *names.value.get_values_for_type(x509.DNSName),
            *map(str, names.value.get_values_for_type(x509.IPAddress)),
        ]
        if not hosts:
            raise CertificateError(f"{self.chain} names neither a host nor an address")
        # Any name that a wildcard covers is as good as another.
        first = next((host for host in LOOPBACK if host in hosts), hosts[0])
        return first.replace("*", "camserve", 1)

    def validate(self) -> None:
        """Check that TorchServe can use the certificate, and hold a handshake.

        Raises:
            CertificateError: a file is missing, the key is not the certificate's or not RSA, or the
                client would refuse the certificate: expired, of another authority.
        """
        for path in (self.chain, self.key, self.authority):
            if not path.is_file():
                raise CertificateError(
                    f"no {path}; camserve certificate writes server.pem, server.key and ca.pem"
                )
        if not isinstance(_read_key(self.key), RSAPrivateKey):
            raise CertificateError(f"{self.key}: TorchServe takes an RSA key alone")
        if not self.key.read_bytes().startswith(b"-----BEGIN"):
            raise CertificateError(f"{self.key}: TorchServe takes no text before -----BEGIN")
        self.hold_handshake()

    def hold_handshake(self) -> None:
        """Hold a handshake, as between a server and a client that trusts the authority alone.

        Raises:
            CertificateError: the key is not the certificate's, or the client would refuse the
                certificate: expired, of another authority.
        """
        server = load_pair(self.chain, self.key)
        server.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            _handshake_in_memory(PinnedHostContext.of(str(self.authority), self.name()), server)
        except ssl.SSLError as failure:
            why = getattr(failure, "verify_message", "") or failure.reason or failure
            raise CertificateError(
                f"{self.chain} with {self.key.name} and {self.authority.name}: {why}"
            ) from None


def load_pair(chain: Path, key: Path) -> ssl.SSLContext:
    """What a server shows a certificate with, whatever the kind of its key.

    Raises:
        CertificateError: a file cannot be read, is no certificate or no open key, or the key is not
            the certificate's.
    """
    _read_certificate(chain)
    _read_key(key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(chain, key)
    except ssl.SSLError as failure:
        raise CertificateError(f"{chain} with {key.name}: {failure.reason or failure}") from None
    return server


def _read_certificate(file: Path) -> x509.Certificate:
    """The first certificate of a file.

    Raises:
        CertificateError: it cannot be read, or is none.
    """
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())[0]
    except OSError as failure:
        raise CertificateError(f"{file}: {failure.strerror}") from None
    except ValueError as failure:
        raise CertificateError(f"{file} is no certificate in PEM: {failure}") from None


def _read_key(file: Path) -> PrivateKeyTypes:
    """The key of a file, which would otherwise be asked for a password on the terminal.

    Raises:
        CertificateError: it cannot be read, or is no open key.
    """
    try:
        return load_pem_private_key(file.read_bytes(), password=None)
    except OSError as failure:
        raise CertificateError(f"{file}: {failure.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as failure:
        raise CertificateError(f"{file}: accepted is an open key in PEM; {failure}") from None


class PinnedHostContext(ssl.SSLContext):
    """What a client verifies a server's certificate with: one authority, and one name.

    The name is asked for whatever the address is: a server is reached by loopback here, which a
    certificate for the public does not name.
    """

    name: str

    @classmethod
    def of(cls, authority: str, name: str) -> PinnedHostContext:
        trust = cls(ssl.PROTOCOL_TLS_CLIENT)
        trust.minimum_version = ssl.TLSVersion.TLSv1_2
        # Of its two suites, TorchServe would choose the one with CBC and SHA-1.
        trust.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
        trust.load_verify_locations(authority)
        trust.name = name
        return trust

    def wrap_socket(self, sock: socket, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        return super().wrap_socket(sock, *arguments, **{**named, "server_hostname": self.name})

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.name, session)


def _handshake_in_memory(client: PinnedHostContext, server: ssl.SSLContext) -> None:
    """A whole handshake in memory.

    Raises:
        ssl.SSLError: either side refuses the other.
    """
    upward, downward = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(downward, upward),
        server.wrap_bio(upward, downward, server_side=True),
    ]
    waiting = list(sides)
    # TLS 1.2 takes two round trips.
    for side in sides * 3:
        if side in waiting:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
