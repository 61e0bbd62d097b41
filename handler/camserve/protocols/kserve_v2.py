"""KServe v2: its request body -> the JSON object of each photo, and the answers -> its reply body.

Open Inference over gRPC arrives as the same body.
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeGuard, get_args

from camserve.errors import RequestError, short_repr, unknown_name_message
from camserve.options import Output
from camserve.protocols.input_tensors import parse_inputs, split_by_photo
from camserve.protocols.kserve_checks import check_keys, copy_options
from camserve.protocols.output_tensors import OUTPUT_NAMES, error_tensor, output_tensors
from camserve.protocols.replies import PhotoOutcome, Reply, combined_status, error_body, json_reply
from camserve.protocols.schema import ModelBody, V2Body
from camserve.settings import Limits

_KEYS: Final = ("inputs", "outputs", "parameters", "id", "model_name", "model_version")


@dataclass(frozen=True)
class KServeV2:
    """KServe v2, and Open Inference over gRPC.

    Attributes:
        id: the request's id, which the reply repeats.
        requested_outputs: the names of the output tensors to send; empty for all tensors.
        base64_text: text in BYTES inputs is base64, as TorchServe passes on BYTES from gRPC.
    """

    protocol: ClassVar[str] = "kserve v2"

    id: str
    requested_outputs: tuple[str, ...] = ()
    base64_text: bool = False

    @classmethod
    def from_body(cls, body: Mapping[str, Any], base64_text: bool) -> KServeV2:
        """The reply format of a body.

        An invalid body has one as well, because TorchServe needs even its error as KServe v2.
        """
        request_id = body.get("id")
        outputs = body.get("outputs")
        names = [
            output.get("name") if isinstance(output, dict) else None
            for output in (outputs if isinstance(outputs, list) else [])
        ]
        requested_outputs = tuple(name for name in names if isinstance(name, str))
        return cls(
            request_id if _is_encodable_text(request_id) else "", requested_outputs, base64_text
        )

    @property
    def default_options(self) -> dict[str, Any]:
        """Options that the request implies without naming them: the outputs of its tensors."""
        outputs = [name for name in self.requested_outputs if name in get_args(Output)]
        return {"outputs": outputs} if outputs else {}

    def parse(self, body: Mapping[str, Any], limits: Limits) -> tuple[list[Any], dict[str, Any]]:
        """Parse a request body.

        Args:
            body: the parsed JSON.
            limits: of the number of photos, and of an option's text.

        Returns:
            A JSON object with the photo and its options for each element of the input ``image``,
            and the options of all photos.

        Raises:
            RequestError: the body does not follow the protocol, its tensors do not fit together,
                or it has too many photos.
        """
        check_keys("KServe v2 key", body, _KEYS)
        if not _is_encodable_text(body.get("id", "")):
            raise RequestError(
                "invalid_request", f"'id' must be a text, not {short_repr(body['id'])}"
            )
        self._check_outputs(body)
        parameters = copy_options("parameters", body.get("parameters", {}))
        elements, parameters = parse_inputs(body.get("inputs"), parameters, limits)
        return split_by_photo(elements, limits.instances, self.base64_text), parameters

    def reply(self, outcomes: Sequence[PhotoOutcome], model: ModelBody) -> Reply:
        """The output tensors of all photos; the tensor ``error`` has the errors."""
        answers = [None if isinstance(outcome, RequestError) else outcome for outcome in outcomes]
        tensors = list(output_tensors(answers)) if any(answers) else []
        if self.requested_outputs:
            tensors = [tensor for tensor in tensors if tensor["name"] in self.requested_outputs]
        if None in answers:
            tensors.append(error_tensor(outcomes))
        body: V2Body = {
            "id": self.id,
            "model_name": model["name"],
            "model_version": model["version"],
            "outputs": tensors,
        }
        if len(outcomes) == 1 and isinstance(outcomes[0], RequestError):
            body["error"] = error_body(outcomes[0])["error"]
        return json_reply(body, combined_status(outcomes))

    def error_reply(self, error: RequestError, model: ModelBody) -> Reply:
        """The reply to a request that failed as a whole."""
        return self.reply([error], model)

    def _check_outputs(self, body: Mapping[str, Any]) -> None:
        outputs = body.get("outputs", [])
        if not isinstance(outputs, list) or len(outputs) != len(self.requested_outputs):
            raise RequestError(
                "invalid_request", "'outputs' must be a list of objects with the name of a tensor"
            )
        for name in self.requested_outputs:
            if name not in OUTPUT_NAMES:
                raise RequestError(
                    "invalid_request", unknown_name_message("output tensor", name, OUTPUT_NAMES)
                )


def _is_encodable_text(value: Any) -> TypeGuard[str]:
    """Whether a value is text that a reply can repeat: JSON may hold half a surrogate pair."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)
