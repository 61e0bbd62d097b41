"""The types of options and settings: validated once, immutable afterwards."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


def not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a boolean is not a number")
    return value


IntNotBool = Annotated[int, BeforeValidator(not_bool)]
FloatNotBool = Annotated[float, BeforeValidator(not_bool)]


class FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
