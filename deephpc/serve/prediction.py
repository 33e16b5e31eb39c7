"""The answer to one prediction."""

import json
from dataclasses import dataclass

from pydantic import JsonValue


@dataclass(frozen=True)
class Prediction:
    """An answer: its type and its content as it came."""

    content_type: str
    content: bytes

    @property
    def is_text(self) -> bool:
        """Whether it is JSON or other text."""
        return self.content_type == "application/json" or self.content_type.startswith("text/")

    @property
    def value(self) -> JsonValue:
        """What a JSON answer says; text for any other.

        Of DEEPaaS's `{"status": …, "predictions": …}` these are the predictions.
        """
        if self.content_type != "application/json":
            return self.content.decode("utf-8", "replace")
        answer = json.loads(self.content)
        is_wrapped = isinstance(answer, dict) and set(answer) == {"status", "predictions"}
        found: JsonValue = answer["predictions"] if is_wrapped else answer
        return found
