"""The server that answers golden requests: the constructed ResNet50, computed in float32.

``handler.precision=auto`` is bfloat16 on some machines, whose replies differ; float32 is the same
on all. A small network input keeps the recorded pictures small.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devtools.ports import free_server_ports
from tests.golden.records import Api
from tests.golden.replay import ReplayClient
from tests.support import color_resnet
from tests.support.scripts import camserve, run_script

#: Part of the recorded requests, so it never changes.
MODEL = "colours"
_SETTINGS = (
    "handler.layers=[layer3.5,layer4.1]",
    "handler.preprocess.resize=99",
    "handler.preprocess.crop=96",
)


@contextmanager
def golden_server(folder: Path, *settings: str) -> Iterator[ReplayClient]:
    """Start a TorchServe in ``folder``, and stop it at the end.

    Args:
        folder: for the archive and the server's files.
        settings: KEY=VALUE of model-config.yaml; they override those of the golden archive.
    """
    weights, labels = color_resnet.write_archive_inputs(folder)
    set_options = [
        word
        for setting in (*_SETTINGS, "handler.precision=float32", *settings)
        for word in ("--set", setting)
    ]
    inputs = ("--weights", weights, "--labels", labels)
    camserve("package", "--name", MODEL, *inputs, "--compress", "--store", folder, *set_options)
    environment = {"RUN_DIR": str(folder / "run"), **free_server_ports()}
    # The recorded description has one worker, whatever the number of cores.
    run_script("serve.sh", "start", "--store", folder, "--workers", "1", **environment)
    try:
        tokens: dict[Api, str] = {
            "inference": run_script("serve.sh", "token", **environment).strip(),
            "management": run_script("serve.sh", "token", "management", **environment).strip(),
        }
        with ReplayClient.open(
            {api: f"http://127.0.0.1:{environment[f'{api.upper()}_PORT']}" for api in tokens},
            {api: f"127.0.0.1:{environment[f'GRPC_{api.upper()}_PORT']}" for api in tokens},
            tokens,
        ) as client:
            yield client
    finally:
        run_script("serve.sh", "stop", **environment)
