"""The settings of limits: how much may run at once and in a time, and when an upstream is given a rest (docs/limits.md)."""

from pydantic import BaseModel, Field, field_validator

from tools.breaker import BreakerRules
from tools.rates import rate_of
from tools.traffic import TrafficRules


class LimitSettings(BaseModel):
    """All are counted in each process."""

    key_concurrency: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Calls of one key at once, in each process; further ones wait. 0: no limit.",
    )
    integration_concurrency: int = Field(
        default=100,
        ge=0,
        le=100_000,
        description="Calls of one integration at once, in each process; further ones wait. 0: no limit.",
    )
    workspace_concurrency: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Calls of one workspace at once, in each process; further ones wait. 0: no limit.",
    )
    key_rate: str = Field(
        default="", description="Calls of one key in a time, in each process: 10/s, 600/min or 1000/h; empty: no limit."
    )
    integration_rate: str = Field(
        default="", description="The same for one integration; its own `limits` can be lower."
    )
    workspace_rate: str = Field(default="", description="The same for one workspace.")
    slot_wait: float = Field(
        default=10, ge=0, le=600, description="Seconds that a call over a limit of concurrency waits for its turn."
    )
    breaker_failures: int = Field(
        default=5,
        ge=0,
        le=1000,
        description="Failed calls in a row after which an upstream is given a rest; 0: never.",
    )
    breaker_rest: float = Field(
        default=10, ge=0.1, le=3600, description="Seconds of the first rest; they double up to six times as many."
    )

    @property
    def traffic_rules(self) -> TrafficRules:
        return TrafficRules(
            self.key_concurrency,
            self.integration_concurrency,
            self.workspace_concurrency,
            rate_of(self.key_rate) if self.key_rate else None,
            rate_of(self.integration_rate) if self.integration_rate else None,
            rate_of(self.workspace_rate) if self.workspace_rate else None,
            self.slot_wait,
        )

    @property
    def breaker_rules(self) -> BreakerRules:
        return BreakerRules(self.breaker_failures, self.breaker_rest)

    @field_validator("key_rate", "integration_rate", "workspace_rate")
    @classmethod
    def _rates(cls, text: str) -> str:
        if text:
            rate_of(text)
        return text
