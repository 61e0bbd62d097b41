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

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from camserve_cli.commands.package import package
from camserve_cli.packaging.errors import UnreachableError
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
        typer.echo("quickstart: packaging ResNet50 with its ImageNet weights ..")
        try:
            package()
        except UnreachableError as error:
            typer.echo(f"quickstart: {error}; so it packages EfficientNet-Lite0 instead")
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


def explain_samples(
    server: LocalServer, model: str, photos: Mapping[str, Path], out: Path
) -> list[Path]:
    """Explain photos, print the predictions, and write photos and overlays.

    Args:
        photos: by the transport that each goes by, HTTP and gRPC.
        out: the folder to write to.

    Returns:
        The overlays.
    """
    out.mkdir(parents=True, exist_ok=True)
    token = server.token()
    overlays = []
    table = Table("photo", "over", "prediction", "probability")
    with (
        Client(server.inference, model, token=token, timeout=60) as http,
        GrpcClient(server.grpc, model, token=token, timeout=60) as grpc,
    ):
        for transport, client in (("HTTP", http), ("gRPC", grpc)):
            photo = photos[transport]
            reply = client.explain(photo, outputs=["overlay"])
            for index, prediction in enumerate(reply.predictions):
                first = [photo.name, transport] if index == 0 else ["", ""]
                table.add_row(*first, prediction.label, f"{prediction.probability:.3f}")
            table.add_section()
            (out / photo.name).write_bytes(photo.read_bytes())
            for overlay in filter(None, (one.overlay for one in reply.explanations)):
                file = out / f"{photo.stem}-overlay.{overlay.media_type.removeprefix('image/')}"
                overlay.save(file)
                overlays.append(file)
    Console().print(table)
    return overlays


@app.command(help=__doc__)
def quickstart(
    out: Annotated[Path, typer.Option(help="Where photos and overlays go.")] = Path("out"),
) -> None:
    photos = {"HTTP": sample_photo("chelsea.png"), "gRPC": sample_photo("coffee.png")}
    model = choose_model()
    typer.echo(f"quickstart: starting TorchServe with {model} ..")
    stop_server()
    server, _ = start_server(STORE, [model])
    overlays = explain_samples(server, model, photos, out)
    Console().print(f"Overlays: {', '.join(map(str, overlays))}", soft_wrap=True)
    how = server.how_to_call(model, str(out / photos["gRPC"].name))
    typer.echo(f"The server goes on running. {how}")
