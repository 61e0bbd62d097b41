"""Make a certificate for TLS: a small authority, and what it signs for one server.

Writes server.pem and server.key, which the server shows, and ca.pem, which
its clients trust. The authority's own key is forgotten as soon as it has
signed: nobody can sign another certificate with it, and a new certificate
comes with a new ca.pem.

A certificate that somebody else signed does as well: put it into a folder
under these names, as server.pem with the certificates between it and its
authority, as server.key its RSA key in PEM, and as ca.pem the authority's
own.

Examples:

  camserve certificate
  camserve certificate --host cam.example --host 192.0.2.7 --days 90
  camserve certificate --host cam.example --out certificates --force
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camserve_cli import paths
from camserve_cli.serving.certificate_authority import issue
from camserve_cli.serving.certificates import LOOPBACK, Certificate, CertificateError

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def certificate(
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address of the server, beside those of loopback; repeatable."),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="The folder to write to.",
            show_default=paths.TLS_SHOWN,
        ),
    ] = paths.TLS,
    days: Annotated[int, typer.Option(min=1, max=825, help="How long it is good for.")] = 365,
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
) -> None:
    made = Certificate(out)
    there = [path for path in (made.chain, made.key, made.authority) if path.exists()]
    if there and not force:
        raise CertificateError(f"{there[0]} exists; --force writes over it")
    hosts = list(dict.fromkeys([*(host or []), *LOOPBACK]))
    try:
        made = issue(out, hosts, days)
    except OSError as failure:
        raise CertificateError(f"--out {failure.filename}: {failure.strerror}") from None
    made.validate()
    typer.echo(
        f"{made.chain} and {made.key.name}, for {', '.join(hosts)}, good for {days} days; "
        f"clients trust {made.authority}"
    )
