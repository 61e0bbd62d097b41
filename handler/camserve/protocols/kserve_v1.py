"""KServe v1, both ways.

Its body -> the JSON objects of the plain contract, and the answers -> its body.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from camserve.errors import RequestError
from camserve.protocols.kserve_bodies import check_count, check_keys, options_object
from camserve.protocols.replies import PhotoOutcome, Reply, combined_status, error_body, json_reply
from camserve.protocols.schema import AnswerBody, ErrorBody, ModelBody

_KEYS: Final = ("instances", "parameters")


@dataclass(frozen=True)
class KServeV1:
    """KServe v1.

    Attributes:
        key: under which the answers stand.
    """

    protocol: ClassVar[str] = "kserve v1"

    key: Literal["predictions", "explanations"]

    @property
    def default_options(self) -> dict[str, Any]:
        """The options of a request that names none of them: nothing but the defaults."""
        return {}

    def parse(
        self, body: Mapping[str, Any], max_instances: int
    ) -> tuple[list[Any], dict[str, Any]]:
        """The instances, each a JSON object with its photo, and the options of all of them.

        Raises:
            RequestError: the body does not follow the protocol, or has more than
                ``max_instances`` photos.
        """
        check_keys("KServe v1 key", body, _KEYS)
        instances = body["instances"]
        if not isinstance(instances, list) or not instances:
            raise RequestError(
                "invalid_request",
                '\'instances\' must be a list of one or more objects like {"image": {"b64": ".."}}',
            )
        check_count(len(instances), max_instances)
        return instances, options_object("parameters", body.get("parameters", {}))

    def reply(self, outcomes: Sequence[PhotoOutcome], model: ModelBody) -> Reply:
        answers = [_json(outcome) for outcome in outcomes]
        return json_reply({self.key: answers}, combined_status(outcomes))

    def error_reply(self, error: RequestError, model: ModelBody) -> Reply:
        return json_reply(error_body(error), error.status)


def _json(outcome: PhotoOutcome) -> AnswerBody | ErrorBody:
    return error_body(outcome) if isinstance(outcome, RequestError) else outcome
