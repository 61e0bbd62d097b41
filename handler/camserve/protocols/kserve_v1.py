"""KServe v1: its request body -> the JSON object of each photo, and the answers -> its reply body.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from camserve.errors import RequestError
from camserve.options import Options
from camserve.protocols.kserve_checks import check_keys, check_photo_count, copy_options
from camserve.protocols.option_sources import merge
from camserve.protocols.photo_tensors import INPUT_KIND
from camserve.protocols.replies import PhotoOutcome, Reply, combined_status, error_body, json_reply
from camserve.protocols.schema import AnswerBody, ErrorBody, ModelBody
from camserve.settings import Limits

#: TensorFlow Serving's clients name a signature, of which there is one here.
_SIGNATURE: Final = "signature_name"
_OPTIONS: Final = (*Options.model_fields, INPUT_KIND)
_KEYS: Final = ("instances", "parameters", _SIGNATURE, *_OPTIONS)


@dataclass(frozen=True)
class KServeV1:
    """KServe v1.

    Attributes:
        key: the key of the reply body that holds the answers.
    """

    protocol: ClassVar[str] = "kserve v1"

    key: Literal["predictions", "explanations"]

    @property
    def default_options(self) -> dict[str, Any]:
        """Options that the request implies without naming them: none."""
        return {}

    def parse(self, body: Mapping[str, Any], limits: Limits) -> tuple[list[Any], dict[str, Any]]:
        """Parse a request body.

        Args:
            body: the parsed JSON.
            limits: of the number of photos, and of an option's text.

        Returns:
            The instances, each a JSON object with a photo and its options, or a photo alone in
            base64 or nested lists of numbers, and the options of all instances.

        Raises:
            RequestError: the body does not follow the protocol, has too many photos, or two values
                of an option of all instances.
        """
        check_keys("KServe v1 key", body, _KEYS)
        instances = body["instances"]
        if not isinstance(instances, list) or not instances:
            raise RequestError(
                "invalid_request",
                '\'instances\' must be a list of one or more objects like {"image": {"b64": ".."}}',
            )
        check_photo_count(len(instances), limits.instances)
        parameters = copy_options("parameters", body.get("parameters", {}))
        beside = {name: value for name, value in body.items() if name in _OPTIONS}
        return instances, merge([beside, parameters], limits)

    def reply(self, outcomes: Sequence[PhotoOutcome], model: ModelBody) -> Reply:
        """The answer or the error of each photo, in the order of the instances."""
        answers = [_outcome_body(outcome) for outcome in outcomes]
        return json_reply({self.key: answers}, combined_status(outcomes))

    def error_reply(self, error: RequestError, model: ModelBody) -> Reply:
        """The reply to a request that failed as a whole."""
        return json_reply(error_body(error), error.status)


def _outcome_body(outcome: PhotoOutcome) -> AnswerBody | ErrorBody:
    return error_body(outcome) if isinstance(outcome, RequestError) else outcome
