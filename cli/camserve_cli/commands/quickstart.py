"""Package a model, serve it, and explain two photos: one over HTTP, one over gRPC.

ResNet50 with its ImageNet weights where they can be reached; elsewhere an
ImageNet CNN that a Python package carries. An archive that is in the model
store is used again. The server is left running; one that runs already is
stopped first. Photos and overlays are written into --out.

Examples:

  camserve quickstart
  camserve quickstart --out pictures
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from camserve_cli.errors import CommandError
from camserve_cli.paths import STORE
from camserve_cli.sample_photos import sample_photo
from camserve_cli.serving.launch import start_server, stop_server
from camserve_cli.serving.local_server import LocalServer
from camserve_client import Client, GrpcClient

MODEL, FALLBACK = "resnet50", "efficientnet-lite0"

app = typer.Typer(add_completion=False)


def choose_model() -> str:
    """The model to try, once its archive is in the store.

    Raises:
        CommandError: neither it nor the fallback can be packaged.
    """
    if (STORE / f"{MODEL}.mar").is_file():
        return MODEL
    if not (STORE / f"{FALLBACK}.mar").is_file():
        # They import torch, which archives that are there already do without.
        from camserve_cli.commands.package import package
        from camserve_cli.packaging.pretrained import UnreachableError

        try:
            package()
        except UnreachableError as error:
            typer.echo(f"package: {error}", err=True)
            package(fallback_model=True)
        else:
            return MODEL
    for line in (
        "ResNet50's ImageNet weights could not be reached from this machine, so this is",
        "EfficientNet-Lite0, an ImageNet CNN that a Python package carries. To try for",
        f"ResNet50 again: rm {STORE / FALLBACK}.mar",
    ):
        typer.echo(f"quickstart: {line}")
    return FALLBACK


def explain_samples(server: LocalServer, model: str, out: Path) -> None:
    """Explain a photo by each transport; print the predictions, write photos and overlays."""
    out.mkdir(parents=True, exist_ok=True)
    token = server.token()
    table = Table("photo", "over", "prediction", "probability")
    written = []
    with (
        Client(server.inference, model, token=token, timeout=60) as http,
        GrpcClient(server.grpc, model, token=token, timeout=60) as grpc,
    ):
        for name, transport, client in (
            ("chelsea.png", "HTTP", http),
            ("coffee.png", "gRPC", grpc),
        ):
            photo = sample_photo(name)
            reply = client.explain(photo)
            for index, prediction in enumerate(reply.predictions):
                first = [name, transport] if index == 0 else ["", ""]
                table.add_row(*first, prediction.label, f"{prediction.probability:.3f}")
            table.add_section()
            (out / name).write_bytes(photo.read_bytes())
            overlay = reply.explanations[0].overlay
            if overlay is None:
                raise CommandError(f"{model} explains {name} without an overlay")
            file = out / f"{photo.stem}-overlay.{overlay.media_type.removeprefix('image/')}"
            overlay.save(file)
            written.append(file)
    console = Console()
    console.print(table)
    console.print(f"Overlays: {', '.join(map(str, written))}", soft_wrap=True)
    typer.echo(f"The server goes on running. {server.how_to_call(model, str(out / name))}")


@app.command(help=__doc__)
def quickstart(
    out: Annotated[Path, typer.Option(help="Where photos and overlays go.")] = Path("out"),
) -> None:
    model = choose_model()
    stop_server()
    server, _ = start_server(STORE, [model])
    explain_samples(server, model, out)
