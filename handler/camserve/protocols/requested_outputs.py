"""What a request of KServe v2 says of its reply: which output tensors, and how they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard, get_args

from camserve.errors import RequestError, short_repr, unknown_name_message
from camserve.options import Output
from camserve.protocols.kserve_checks import copy_options
from camserve.protocols.output_tensors import OUTPUT_NAMES, RANKED_NAMES

#: The parameter of a request that asks for tensors behind the JSON, and that of one output.
_BINARY_REPLY: Final = "binary_data_output"
_BINARY_OUTPUT: Final = "binary_data"
#: Triton's parameter of an output: the best k classes, as texts.
_CLASSIFICATION: Final = "classification"
_OUTPUT_PARAMETERS: Final = (_BINARY_OUTPUT, _CLASSIFICATION, "content_type")
#: Reserved by the protocol for schedulers and sequences, which mean nothing here: each request is
#: answered by itself, in the order of arrival. ``timeout`` is for what stands before the server.
_SCHEDULING: Final = (
    "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers",
)  # fmt: skip
_TRITON: Final = "triton_"


@dataclass(frozen=True)
class RequestedOutputs:
    """The output tensors of a reply.

    Attributes:
        names: of the tensors; empty for all.
        binary: a tensor's name -> whether it stands behind the JSON, where its output says so.
        binary_by_default: whether all others do.
        classes: a tensor's name -> how many of the best classes are sent as texts in its place.
    """

    names: tuple[str, ...] = ()
    binary: Mapping[str, bool] = field(default_factory=dict)
    binary_by_default: bool = False
    classes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> RequestedOutputs:
        """What can be read of a body, which may be invalid: its error has a format as well."""
        parameters = body.get("parameters")
        parameters = parameters if isinstance(parameters, dict) else {}
        names: list[str] = []
        binary: dict[str, bool] = {}
        classes: dict[str, int] = {}
        if _is_count(count := parameters.get(_CLASSIFICATION)):
            classes = dict.fromkeys(RANKED_NAMES, count)
        outputs = body.get("outputs")
        for output in outputs if isinstance(outputs, list) else []:
            name = output.get("name") if isinstance(output, dict) else None
            if not isinstance(name, str):
                continue
            names.append(name)
            of_output = output.get("parameters")
            of_output = of_output if isinstance(of_output, dict) else {}
            if isinstance(of_output.get(_BINARY_OUTPUT), bool):
                binary[name] = of_output[_BINARY_OUTPUT]
            if _is_count(of_output.get(_CLASSIFICATION)):
                classes[name] = of_output[_CLASSIFICATION]
        return cls(tuple(names), binary, parameters.get(_BINARY_REPLY) is True, classes)

    @property
    def default_options(self) -> dict[str, Any]:
        """Options that the outputs imply: the pictures to draw, and how many classes are named."""
        outputs = [name for name in self.names if name in get_args(Output)]
        most = max(self.classes.values(), default=0)
        return {**({"outputs": outputs} if outputs else {}), **({"top_k": most} if most else {})}

    def includes(self, name: str) -> bool:
        """Whether the reply has a tensor of this name."""
        return not self.names or name in self.names

    def is_binary(self, name: str) -> bool:
        """Whether a tensor stands behind the JSON."""
        return self.binary.get(name, self.binary_by_default)


def check_outputs(outputs: Any) -> None:
    """Reject a request's list of outputs that is none, or asks for what there is not.

    Raises:
        RequestError: ``invalid_request``.
    """
    if not isinstance(outputs, list) or not all(
        isinstance(output, dict) and isinstance(output.get("name"), str) for output in outputs
    ):
        raise RequestError(
            "invalid_request", "'outputs' must be a list of objects with the name of a tensor"
        )
    for output in outputs:
        name = output["name"]
        if name not in OUTPUT_NAMES:
            raise RequestError(
                "invalid_request", unknown_name_message("output tensor", name, OUTPUT_NAMES)
            )
        parameters = copy_options(f"parameters of output {name}", output.get("parameters", {}))
        for parameter, value in parameters.items():
            if parameter not in _OUTPUT_PARAMETERS:
                raise RequestError(
                    "invalid_request",
                    unknown_name_message(
                        f"parameter of output {name!r}", parameter, _OUTPUT_PARAMETERS
                    ),
                )
            _check_parameter(parameter, value)
        if _CLASSIFICATION in parameters and name not in RANKED_NAMES:
            raise RequestError(
                "invalid_request",
                f"output {name!r} has no {_CLASSIFICATION!r}; accepted: it is a parameter of "
                f"{' and '.join(RANKED_NAMES)}",
            )


def options_of(parameters: Any) -> dict[str, Any]:
    """The options among a request's parameters, which may hold those of the protocol too.

    Raises:
        RequestError: ``invalid_request``.
    """
    options = {}
    for name, value in copy_options("parameters", parameters).items():
        if name in (_BINARY_REPLY, _CLASSIFICATION):
            _check_parameter(name, value)
        elif name not in _SCHEDULING and not name.startswith(_TRITON):
            options[name] = value
    return options


def _check_parameter(name: str, value: Any) -> None:
    if name == _CLASSIFICATION and not _is_count(value):
        accepted = "a number of classes, 1 or more"
    elif name in (_BINARY_REPLY, _BINARY_OUTPUT) and not isinstance(value, bool):
        accepted = "true or false"
    else:
        return
    raise RequestError(
        "invalid_request",
        f"parameter {name!r}: {short_repr(value)} is not accepted; accepted: {accepted}",
    )


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value > 0
