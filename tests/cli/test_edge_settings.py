"""What ``camserve edge`` accepts, and what it says of the rest before it starts Envoy."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from camserve_cli.commands.edge import upstream_settings
from camserve_cli.paths import ENVOY_SCRIPTS
from camserve_cli.serving.certificate_authority import issue
from camserve_cli.serving.certificates import Certificate
from camserve_cli.serving.envoy_config import EdgeError, render_config, settings
from camserve_cli.serving.local_server import LocalServer
from devtools.edge_proxy import running_edge
from devtools.ports import free_ports
from tests.support.scripts import CAMSERVE, ROOT, run

SOURCE = (ROOT / "deploy" / "envoy.yaml").read_text()
ENVOY = Path(sys.executable).parent / "envoy"
#: A path with all that YAML, a shell or a regular expression could take for something else.
ODD = "c 5 #: '\"\\1 {[%41&*!|>]} ünï 😀\t\n-"
COUNTS = ("burst", "rate", "client_burst", "client_rate", "max_request_size", "max_connections")
DURATIONS = [name for name in settings(SOURCE) if name.endswith(("timeout", "duration"))]
PORTS = [name for name in settings(SOURCE) if name.endswith("_port")]
ADDRESSES = [name for name in settings(SOURCE) if name.endswith("_address")]
FILES = ("certificate", "private_key", "drain_script", "edge_script")
#: The least and the most that the settings accept.
LIMITS = [
    {
        **dict.fromkeys(PORTS, "1"),
        **dict.fromkeys(ADDRESSES, "::"),
        **dict.fromkeys(DURATIONS, "0s"),
        **dict.fromkeys([*COUNTS, "max_memory"], "1"),
    },
    {
        **dict.fromkeys(PORTS, "65535"),
        **dict.fromkeys(ADDRESSES, "255.255.255.255"),
        **dict.fromkeys(DURATIONS, "31536000.0s"),
        **dict.fromkeys(COUNTS, str(2**32 - 1)),
        "max_memory": str(2**63 - 1),
    },
    {
        **dict.fromkeys(DURATIONS, "0.001s"),
        **dict.fromkeys(ADDRESSES, "::ffff:192.0.2.7"),
        "cors_origins": "https://cam.example,http://localhost:3000,http://[::1]:80",
    },
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issue(tmp_path_factory.mktemp("edge") / ODD, ["127.0.0.1"], 1)


def edge(*options: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command where no server runs."""
    return run(CAMSERVE, "edge", *options, cwd=cwd, RUN_DIR="/nonexistent")


def test_settings_are_named() -> None:
    assert "port_value: 443 # <listen_port>" in render_config(SOURCE, {"listen_port": "443"})
    with pytest.raises(EdgeError, match="no setting 'port'; accepted: burst"):
        render_config(SOURCE, {"port": "443"})


def test_the_kind_of_each_setting_is_tested() -> None:
    known = {*COUNTS, *DURATIONS, *PORTS, *ADDRESSES, *FILES, "max_memory", "cors_origins"}
    assert known == set(settings(SOURCE))


def test_what_is_shipped_is_accepted() -> None:
    assert settings(render_config(SOURCE, settings(SOURCE))).keys() == settings(SOURCE).keys()


@pytest.mark.parametrize("chosen", LIMITS)
def test_envoy_accepts_what_is_accepted(made: Certificate, chosen: dict[str, str]) -> None:
    scripts = {f"{name}_script": str(path) for name, path in ENVOY_SCRIPTS.items()}
    files = {"certificate": str(made.chain), "private_key": str(made.key), **scripts}
    text = render_config(SOURCE, {**files, **chosen})
    done = run(ENVOY, "--mode", "validate", "--config-yaml", text)
    assert done.returncode == 0, done.stderr[-500:]


NO_NUMBER = (
    "",
    "abc",
    "-1",
    "0x",
    "0x10",
    "010",
    "1e3",
    "1.5",
    " 1",
    "1\n",
    "+1",
    "\u0661",
    "1 # x",
)


@pytest.mark.parametrize(
    ("names", "values", "accepted"),
    [
        (PORTS, [*NO_NUMBER, "0", "65536", "70000", "9" * 5000], "a port from 1 to 65535"),
        (COUNTS, [*NO_NUMBER, "0", str(2**32)], "a whole number from 1 to 4294967295"),
        (["max_memory"], [*NO_NUMBER, "0", str(2**63)], "a number of bytes from 1 to"),
        (
            DURATIONS,
            [*NO_NUMBER, "10", "10ms", "1m", ".5s", "1.s", "-1s", "0.0001s", "31536001s", "10s\n"],
            "seconds, as 10s or 0.5s, up to 31536000s, and 0s for no limit",
        ),
        (
            ADDRESSES,
            ["", "nope", "localhost", "127.1", "1.2.3.4:80", "[::1]", "127.0.0.1\nadmin: {}", "*"],
            "an IP address, as 127.0.0.1 or ::1",
        ),
        (FILES, ["", "\udcff.pem"], "the path of a file, in UTF-8"),
        (
            ["cors_origins"],
            [
                "",
                "*",
                "cam.example",
                "https://cam.example/",
                "https://Cam.example",
                "https://a.example,",
                "https://a.example https://b.example",
                "null",
                "ftp://a",
                "https://a.example:",
                "https://a.example:0",
                'https://a"',
                "https://a.example\n",
            ],
            "origins of pages with commas between",
        ),
    ],
)
def test_each_kind_of_setting_names_what_it_accepts(
    names: list[str], values: list[str], accepted: str
) -> None:
    for name in names:
        for value in values:
            with pytest.raises(EdgeError) as refusal:
                render_config(SOURCE, {name: value})
            assert str(refusal.value).startswith(f"{name}={value!r}: accepted is {accepted}")


def test_a_refused_setting_is_one_line(made: Certificate) -> None:
    done = edge("--tls", made.folder, "--set", "listen_port=70000")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "edge: listen_port='70000': accepted is a port from 1 to 65535\n"


def test_an_ipv6_address_of_the_server_is_accepted() -> None:
    server = LocalServer(1, 0, "", "http://[::1]:8080", "http://[::1]:8081", "[::1]:7070", [])
    upstream = upstream_settings(server)
    assert upstream["inference_address"] == upstream["grpc_address"] == "::1"
    assert 'address: "::1" # <grpc_address>' in render_config(SOURCE, upstream)


def test_an_empty_folder_is_refused(made: Certificate) -> None:
    # The current folder has a certificate, which nobody named.
    done = edge("--tls", "", "--show", cwd=made.folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--tls: its value is empty" in done.stderr


def test_show_has_every_setting_as_it_is_given(tmp_path: Path) -> None:
    # No file needs to be there.
    folder = tmp_path / "c 5"
    done = edge("--tls", folder, "--set", "listen_address=::", "--show")
    assert done.returncode == 0, done.stderr
    shown = dict(line.split("=", 1) for line in done.stdout.splitlines())
    changed = {
        "certificate": f"{folder}/server.pem",
        "private_key": f"{folder}/server.key",
        "listen_address": "::",
        **{f"{name}_script": str(path) for name, path in ENVOY_SCRIPTS.items()},
    }
    assert shown == {**settings(SOURCE), **changed}


def test_it_runs_with_a_folder_of_any_name(made: Certificate, tmp_path: Path) -> None:
    trust = ssl.create_default_context(cafile=made.authority)
    with running_edge(made, tmp_path / "log", {"RUN_DIR": str(tmp_path)}, {}) as proxy:
        reply = httpx.get(f"https://127.0.0.1:{proxy.port}/nothing", verify=trust)
    assert reply.status_code == 404
    assert json.loads(reply.text)["error"]["message"] == "no such path here"


def test_it_says_on_stderr_where_it_listens_and_forwards(made: Certificate, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    folder = tmp_path / "tls"
    shutil.copytree(made.folder, folder)
    process = subprocess.Popen(
        [CAMSERVE, "edge", f"--tls={folder}", f"--set=listen_port={port}"],
        env={**os.environ, "RUN_DIR": "/nonexistent", "INFERENCE_PORT": "18080"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        said = process.stderr.readline() if process.stderr else ""
        process.terminate()
    assert said == (
        f"https://127.0.0.1:{port}, certificate {folder}/server.pem, forwards to 127.0.0.1:18080; "
        "no server of this machine runs there yet (camserve serve start)\n"
    )


def test_without_a_server_the_variables_of_its_ports_count() -> None:
    variables = {"INFERENCE_PORT": "18080", "GRPC_INFERENCE_PORT": "17070"}
    options = ("--show", "--set", "grpc_port=17071")
    for given, grpc_port in ((options[:1], "17070"), (options, "17071")):
        done = run(CAMSERVE, "edge", *given, cwd=ROOT, RUN_DIR="/nonexistent", **variables)
        assert done.returncode == 0, done.stderr
        shown = dict(line.split("=", 1) for line in done.stdout.splitlines())
        assert (shown["inference_port"], shown["grpc_port"]) == ("18080", grpc_port)


def test_a_variable_that_is_no_port_is_refused() -> None:
    done = run(CAMSERVE, "edge", "--show", cwd=ROOT, RUN_DIR="/nonexistent", INFERENCE_PORT="x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "edge: inference_port='x': accepted is a port from 1 to 65535\n"


def test_it_runs_with_another_kind_of_key_and_without_ca_pem(tmp_path: Path) -> None:
    made = self_signed(tmp_path / "elliptic")
    trust = ssl.create_default_context(cafile=made.chain)
    with running_edge(made, tmp_path / "log", {"RUN_DIR": str(tmp_path)}, {}) as proxy:
        reply = httpx.get(f"https://127.0.0.1:{proxy.port}/nothing", verify=trust)
    assert reply.status_code == 404


def self_signed(folder: Path) -> Certificate:
    """A certificate with an elliptic key and no authority."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    address = x509.IPAddress(IPv4Address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(folder)
    folder.mkdir()
    made.chain.write_bytes(signed.public_bytes(Encoding.PEM))
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


@pytest.fixture
def copied(made: Certificate, tmp_path: Path) -> Certificate:
    """The same certificate, to change."""
    for path in (made.chain, made.key, made.authority):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return Certificate(tmp_path)


def refusal(certificate: Certificate, *options: str) -> str:
    """The one line that the command says of a certificate; Envoy would say more."""
    done = edge("--tls", certificate.folder, *options)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


def test_a_file_that_is_no_certificate_is_refused(copied: Certificate) -> None:
    copied.chain.write_text("junk")
    assert refusal(copied).startswith(f"edge: {copied.chain} is no certificate in PEM: ")


def test_a_file_that_is_no_key_is_refused(copied: Certificate) -> None:
    copied.key.write_text("junk")
    assert refusal(copied).startswith(f"edge: {copied.key}: accepted is an open key in PEM; ")


def test_a_missing_file_is_named(copied: Certificate) -> None:
    copied.key.unlink()
    assert refusal(copied) == f"edge: no {copied.key}; camserve certificate makes it"


def test_what_a_client_would_refuse_is_refused(copied: Certificate, tmp_path: Path) -> None:
    other = issue(tmp_path / "other", ["127.0.0.1"], 1)
    copied.authority.write_bytes(other.authority.read_bytes())
    assert "unable to get local issuer" in refusal(copied)


def test_a_key_of_another_certificate_is_refused(copied: Certificate, tmp_path: Path) -> None:
    copied.key.write_bytes(self_signed(tmp_path / "elliptic").key.read_bytes())
    # That file is not needed to tell.
    copied.authority.unlink()
    assert "with server.key: " in refusal(copied)


def test_the_files_that_set_names_are_the_ones_that_count(
    made: Certificate, copied: Certificate
) -> None:
    (copied.folder / "junk").write_text("junk")
    options = ("--set", f"certificate={copied.folder}/junk")
    assert "junk is no certificate in PEM" in refusal(made, *options)
