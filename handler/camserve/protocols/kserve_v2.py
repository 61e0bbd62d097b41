"""KServe v2: its request body -> the JSON object of each photo, and the answers -> its reply body.

Open Inference over gRPC arrives as the same body.
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeGuard

from camserve.errors import RequestError, short_repr
from camserve.protocols.binary_tensors import HEADER_LENGTH, encode_binary
from camserve.protocols.input_tensors import parse_inputs, split_by_photo
from camserve.protocols.kserve_checks import check_keys
from camserve.protocols.output_tensors import (
    classification_tensor,
    error_tensor,
    output_tensors,
)
from camserve.protocols.replies import (
    BINARY,
    PhotoOutcome,
    Reply,
    combined_status,
    error_body,
    json_reply,
)
from camserve.protocols.requested_outputs import RequestedOutputs, check_outputs, options_of
from camserve.protocols.schema import AnswerBody, ModelBody, TensorBody, V2Body
from camserve.settings import Limits

_KEYS: Final = ("inputs", "outputs", "parameters", "id", "model_name", "model_version")


@dataclass(frozen=True)
class KServeV2:
    """KServe v2, and Open Inference over gRPC.

    Attributes:
        id: the request's id, which the reply repeats.
        requested: the output tensors to send.
        from_grpc: TorchServe's gRPC frontend has made the request: text in BYTES inputs is base64,
            and nothing can stand behind the JSON.
    """

    protocol: ClassVar[str] = "kserve v2"

    id: str
    requested: RequestedOutputs = field(default_factory=RequestedOutputs)
    from_grpc: bool = False

    @classmethod
    def from_body(cls, body: Mapping[str, Any], from_grpc: bool) -> KServeV2:
        """The reply format of a body.

        An invalid body has one as well, because TorchServe needs even its error as KServe v2.
        """
        request_id = body.get("id")
        return cls(
            request_id if _is_encodable_text(request_id) else "",
            RequestedOutputs.read(body),
            from_grpc,
        )

    @property
    def default_options(self) -> dict[str, Any]:
        """Options that the request implies without naming them, by its output tensors."""
        return self.requested.default_options

    def parse(self, body: Mapping[str, Any], limits: Limits) -> tuple[list[Any], dict[str, Any]]:
        """Parse a request body.

        Args:
            body: the parsed JSON; the elements of a binary tensor are a memoryview.
            limits: of the number of photos, and of an option's text.

        Returns:
            A JSON object with the photo and its options for each photo, and the options of all
            photos.

        Raises:
            RequestError: the body does not follow the protocol, its tensors do not fit together,
                or it has too many photos.
        """
        check_keys("KServe v2 key", body, _KEYS)
        if not _is_encodable_text(body.get("id", "")):
            raise RequestError(
                "invalid_request", f"'id' must be a text, not {short_repr(body['id'])}"
            )
        check_outputs(body.get("outputs", []))
        parameters = options_of(body.get("parameters", {}))
        elements, parameters = parse_inputs(
            body.get("inputs"), parameters, limits, from_grpc=self.from_grpc
        )
        return split_by_photo(elements, limits.instances, self.from_grpc), parameters

    def reply(self, outcomes: Sequence[PhotoOutcome], model: ModelBody) -> Reply:
        """The output tensors of all photos; the tensor ``error`` has the errors."""
        answers = [None if isinstance(outcome, RequestError) else outcome for outcome in outcomes]
        tensors = list(self._tensors(answers)) if any(answers) else []
        if None in answers:
            tensors.append(error_tensor(outcomes))
        body: V2Body = {
            "id": self.id,
            "model_name": model["name"],
            "model_version": model["version"],
            "outputs": tensors,
        }
        status = combined_status(outcomes)
        for outcome in outcomes:
            if isinstance(outcome, RequestError) and outcome.status == status:
                # The protocol's clients read it wherever the status is not 200.
                body["error"] = outcome.message
                body["error_detail"] = error_body(outcome)["error"]
                break
        names = [tensor["name"] for tensor in tensors]
        if self.from_grpc or status != 200 or not any(map(self.requested.is_binary, names)):
            return json_reply(body, status)
        content, length = encode_binary(body, self.requested.is_binary)
        return Reply(content, status, BINARY, {HEADER_LENGTH: str(length)})

    def error_reply(self, error: RequestError, model: ModelBody) -> Reply:
        """The reply to a request that failed as a whole."""
        return self.reply([error], model)

    def _tensors(self, answers: Sequence[AnswerBody | None]) -> Iterator[TensorBody]:
        """The requested tensors that these answers have."""
        for tensor in output_tensors(answers):
            name = tensor["name"]
            if not self.requested.includes(name):
                continue
            count = self.requested.classes.get(name)
            yield classification_tensor(name, count, answers) if count else tensor


def _is_encodable_text(value: Any) -> TypeGuard[str]:
    """Whether a value is text that a reply can repeat: JSON may hold half a surrogate pair."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)
