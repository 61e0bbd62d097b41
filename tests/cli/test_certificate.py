"""``camserve certificate``, and what ``camserve serve`` says of a certificate that is of no use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from camserve_cli.serving import certificate_authority
from camserve_cli.serving.certificate_authority import issue
from camserve_cli.serving.certificates import Certificate, CertificateError
from devtools.ports import free_server_ports
from tests.support.scripts import CAMSERVE, ROOT, camserve, run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """As the command makes one."""
    folder = tmp_path_factory.mktemp("made") / "tls"
    hosts = ("--host", "cam.example", "--host", "192.0.2.7", "--host", "::1")
    said = camserve("certificate", *hosts, "--out", folder, "--days", "30")
    assert "for cam.example, 192.0.2.7, ::1, 127.0.0.1, localhost, good for 30 days" in said
    return Certificate(folder)


def loaded(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_what_is_written(made: Certificate) -> None:
    assert sorted(path.name for path in made.folder.iterdir()) == [
        "ca.pem",
        "server.key",
        "server.pem",
    ]
    assert made.key.stat().st_mode & 0o777 == 0o600
    assert made.key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    key = load_pem_private_key(made.key.read_bytes(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 3072


def test_its_extensions(made: Certificate) -> None:
    server, authority = loaded(made.chain), loaded(made.authority)
    server.verify_directly_issued_by(authority)
    for one, is_authority in ((server, False), (authority, True)):
        basic = one.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = one.extensions.get_extension_for_class(x509.KeyUsage)
        assert (basic.critical, basic.value.ca) == (True, is_authority)
        assert (usage.critical, usage.value.key_cert_sign) == (True, is_authority)
        left = one.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=29) < left <= timedelta(days=30)
    purposes = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["cam.example", "localhost"]
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    assert list(addresses) == ["192.0.2.7", "::1", "127.0.0.1"]


def test_nothing_is_written_over_unless_it_is_asked_for(made: Certificate) -> None:
    before = made.key.read_bytes()
    command = (CAMSERVE, "certificate", "--out", made.folder)
    done = run(*command)
    assert (done.returncode, made.key.read_bytes()) == (1, before)
    assert "exists; --force writes over it" in done.stderr
    assert run(*command, "--host", "not a host", "--force").returncode == 1
    assert made.key.read_bytes() == before
    camserve("certificate", "--out", made.folder, "--force", "--days", "30", "--host", "::1")
    assert made.key.read_bytes() != before
    assert made.key.stat().st_mode & 0o777 == 0o600
    made.validate()


@pytest.mark.parametrize(
    "host",
    [
        *("", "a b", "a..b", "https://cam.example", "cam.example:443", "cam.example\n"),
        *("-x", "x-", "a.-x", "x-.a", "-", "a" * 64, f"{'a' * 64}.example"),
        *("1", "999.1.1.1", "127.1", "1.2.3.4.5", "a.1", "*.1", "*.1.2.3.4"),
        *("*", "*.", "a.*", "*a.example", "*.*.example", "cam\u212a.example", "a" * 63 + ".b" * 96),
    ],
)
def test_what_is_no_host_is_named(host: str) -> None:
    with pytest.raises(CertificateError, match="accepted is a DNS name"):
        certificate_authority.alternative_name(host)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "cam",
            "cam.example",
            "CAM.example",
            "*.cam.example",
            "a-b.c--d",
            "xn--bcher-kva.example",
        ),
        *("1.example", "3com", "1a", "a1", "a.1-1", "a" * 63, f"{'a' * 63}.{'b' * 63}"),
    ],
)
def test_a_name_is_written_in_lower_case(host: str) -> None:
    assert certificate_authority.alternative_name(host) == x509.DNSName(host.lower())


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    done = run(CAMSERVE, "certificate", "--out", "", cwd=tmp_path)
    assert done.returncode == 2
    assert "--out: its value is empty" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_name_that_is_asked_for(made: Certificate, tmp_path: Path) -> None:
    assert made.name() == "127.0.0.1"
    wild = issue(tmp_path, ["*.cam.example"], 1)
    assert wild.name() == "camserve.cam.example"
    wild.validate()


@pytest.mark.parametrize(
    ("hosts", "asked"),
    [
        (["b.example", "a.example"], "b.example"),
        (["192.0.2.7", "b.example", "a.example"], "b.example"),
        (["192.0.2.7", "::1"], "192.0.2.7"),
        (["*.cam.example", "cam.example"], "camserve.cam.example"),
        (["cam.example", "localhost"], "localhost"),
        (["localhost", "192.0.2.7", "127.0.0.1"], "127.0.0.1"),
    ],
)
def test_of_several_names_loopback_is_asked_for_or_the_first(
    hosts: list[str], asked: str, tmp_path: Path
) -> None:
    several = issue(tmp_path, hosts, 1)
    assert several.name() == asked
    several.validate()


def test_a_certificate_that_no_client_would_take_is_refused(
    made: Certificate, tmp_path: Path
) -> None:
    other = issue(tmp_path / "other", ["localhost"], 1)
    mixed = Certificate(tmp_path / "mixed")
    mixed.folder.mkdir()

    def refused(reason: str, *, key: bytes | None = None, authority: bytes | None = None) -> None:
        mixed.chain.write_bytes(made.chain.read_bytes())
        mixed.key.write_bytes(key or made.key.read_bytes())
        mixed.authority.write_bytes(authority or made.authority.read_bytes())
        with pytest.raises(CertificateError, match=reason):
            mixed.validate()

    elliptic = ec.generate_private_key(ec.SECP256R1())
    pem = elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    refused("TorchServe takes an RSA key alone", key=pem)
    refused("TorchServe takes no text before", key=b"Bag Attributes\n" + made.key.read_bytes())
    refused("KEY_VALUES_MISMATCH", key=other.key.read_bytes())
    refused("accepted is an open key in PEM", key=b"no key")
    refused("unable to get local issuer", authority=other.authority.read_bytes())
    mixed.authority.unlink()
    with pytest.raises(CertificateError, match=r"no .*ca\.pem; camserve certificate writes"):
        mixed.validate()


def test_an_expired_certificate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate_authority, "SKEW", timedelta(days=3))
    with pytest.raises(CertificateError, match="certificate has expired"):
        issue(tmp_path, ["localhost"], -1).validate()


def test_serve_names_what_is_wrong_with_tls(made: Certificate, tmp_path: Path) -> None:
    environment = {"RUN_DIR": str(tmp_path / "run"), **free_server_ports()}
    serve = (CAMSERVE, "serve", "start")
    done = run(*serve, "--tls", tmp_path, **environment)
    assert done.returncode == 1
    assert f"--tls {tmp_path}: no {tmp_path / 'server.pem'}" in done.stderr
    (tmp_path / "a.mar").touch()
    text = (ROOT / "config.properties").read_text() + "keystore_pass=secret\n"
    (tmp_path / "own.properties").write_text(text)
    options = ("--store", tmp_path, "--config", tmp_path / "own.properties")
    done = run(*serve, *options, **environment)
    assert done.returncode == 1
    assert "sets keystore_pass: TLS is set up by --tls FOLDER" in done.stderr
    assert "secret" not in done.stderr
