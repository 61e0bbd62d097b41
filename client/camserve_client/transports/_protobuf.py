"""The messages of TorchServe's ``Predictions`` call, made when this module is loaded.

They are those of ``inference.proto`` in TorchServe 0.12's ``model-server.jar``, less what that call
does not use. Their pool is private, so stubs that were generated from that file, which registers
itself under the same names in protobuf's one pool, can be loaded beside them.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

_PACKAGE = "org.pytorch.serve.grpc.inference"
_OPTIONAL, _REPEATED = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED
_STRING, _BYTES = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES
_MESSAGE = FieldDescriptorProto.TYPE_MESSAGE

#: The full name of the call.
PREDICTIONS = f"/{_PACKAGE}.InferenceAPIsService/Predictions"


def _file() -> Any:
    """``inference.proto`` as a descriptor.

    .. code-block:: proto

        message PredictionsRequest {
            string model_name = 1;
            string model_version = 2;
            map<string, bytes> input = 3;
        }
        message PredictionResponse {
            bytes prediction = 1;
        }
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="inference.proto", package=_PACKAGE, syntax="proto3"
    )
    request = file.message_type.add(name="PredictionsRequest")
    request.field.add(name="model_name", number=1, type=_STRING, label=_OPTIONAL)
    request.field.add(name="model_version", number=2, type=_STRING, label=_OPTIONAL)
    # On the wire, a map is a list of such pairs.
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_STRING, label=_OPTIONAL)
    entry.field.add(name="value", number=2, type=_BYTES, label=_OPTIONAL)
    request.field.add(
        name="input",
        number=3,
        type=_MESSAGE,
        type_name=f".{_PACKAGE}.PredictionsRequest.InputEntry",
        label=_REPEATED,
    )
    response = file.message_type.add(name="PredictionResponse")
    response.field.add(name="prediction", number=1, type=_BYTES, label=_OPTIONAL)
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


PredictionsRequest = _message("PredictionsRequest")
PredictionResponse = _message("PredictionResponse")
