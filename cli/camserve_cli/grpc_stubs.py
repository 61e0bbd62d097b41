"""Make Python stubs of TorchServe's gRPC services from the definitions inside its jar.

python -m camserve_cli.grpc_stubs DIRECTORY
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

PROTOS = ("inference.proto", "management.proto", "open_inference_grpc.proto")


def generate(directory: Path) -> None:
    """Write inference_pb2.py, inference_pb2_grpc.py and their like into a directory.

    Raises:
        RuntimeError: TorchServe is not installed, or the compiler refused.
    """
    spec = find_spec("ts")
    if spec is None or spec.submodule_search_locations is None:
        raise RuntimeError("torchserve is not installed in this Python")
    jar = Path(spec.submodule_search_locations[0]) / "frontend" / "model-server.jar"
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(jar) as archive:
        for proto in PROTOS:
            (Path(scratch) / proto).write_bytes(archive.read(f"proto/{proto}"))
        includes = [
            scratch,
            str(files("grpc_tools") / "_proto"),  # google/protobuf
            str(Path(status_pb2.__file__).parents[2]),  # google/rpc/status.proto
        ]
        arguments = [f"-I{include}" for include in includes]
        arguments += [f"--python_out={directory}", f"--grpc_python_out={directory}", *PROTOS]
        if protoc.main(["protoc", *arguments]) != 0:
            raise RuntimeError("protoc could not compile TorchServe's definitions")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m camserve_cli.grpc_stubs DIRECTORY")
    generate(Path(sys.argv[1]))
