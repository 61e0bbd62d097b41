"""The protobuf messages of TorchServe's ``Predictions`` call, built when this module is imported.

They follow ``inference.proto`` in TorchServe 0.12's ``model-server.jar``, without the fields that
the call does not use. They are in a descriptor pool of their own: generated stubs of that file
register the same names in protobuf's default pool, and can be imported beside this module.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

_PACKAGE = "org.pytorch.serve.grpc.inference"
_OPTIONAL, _REPEATED = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED
_STRING, _BYTES = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES
_MESSAGE = FieldDescriptorProto.TYPE_MESSAGE

#: The full name of the gRPC method.
PREDICTIONS = f"/{_PACKAGE}.InferenceAPIsService/Predictions"


def _file_descriptor() -> Any:
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
    # On the wire, a map is a list of such entries.
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
_pool.Add(_file_descriptor())


def _message_class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


PredictionsRequest = _message_class("PredictionsRequest")
PredictionResponse = _message_class("PredictionResponse")
