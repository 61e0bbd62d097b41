"""The server that answers golden requests: the constructed ResNet50, computed in float32.

Float32 is what all machines agree on: ``handler.precision=auto`` is bfloat16 on some. A small input
keeps the recorded pictures small.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.golden.replay import Wire
from tests.support import color_resnet
from tests.support.scripts import camserve, free_ports, script

#: It stands in the recorded requests, so it never changes.
MODEL = "colours"
_SETTINGS = (
    "handler.layers=[layer3.5,layer4.1]",
    "handler.preprocess.resize=99",
    "handler.preprocess.crop=96",
)


@contextmanager
def serving(folder: Path, *settings: str) -> Iterator[Wire]:
    """A TorchServe of its own, in ``folder``, until the context ends.

    Args:
        folder: for the archive and the server's files.
        settings: KEY=VALUE of model-config.yaml, over those of the golden archive.
    """
    weights, labels = color_resnet.write_archive_inputs(folder)
    given = [
        word
        for setting in (*_SETTINGS, "handler.precision=float32", *settings)
        for word in ("--set", setting)
    ]
    inputs = ("--weights", weights, "--labels", labels)
    camserve("package", "--name", MODEL, *inputs, "--compress", "--store", folder, *given)
    environment = {"RUN_DIR": str(folder / "run"), **free_ports()}
    # As many workers as were recorded, on whatever machine.
    script("serve.sh", "start", "--store", folder, "--workers", "1", **environment)
    try:
        tokens = {
            "inference": script("serve.sh", "token", **environment).strip(),
            "management": script("serve.sh", "token", "management", **environment).strip(),
        }
        with Wire.open(
            {api: f"http://127.0.0.1:{environment[f'{api.upper()}_PORT']}" for api in tokens},
            {api: f"127.0.0.1:{environment[f'GRPC_{api.upper()}_PORT']}" for api in tokens},
            tokens,
        ) as wire:
            yield wire
    finally:
        script("serve.sh", "stop", **environment)
