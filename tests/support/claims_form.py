"""The form of the claims ledger, as pydantic checks it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, StrictStr, field_validator

from peftguide import claims
from pefthelpers.errors import UserError

Topic = Literal["memory", "LoRA", "merge", "prefix", "adapters", "QLoRA", "comparison", "practice"]
Text = Annotated[StrictStr, Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CellForm(Strict):
    how: Literal["cell", "traced"]
    notebook: Text
    cell: Text


class PaperForm(Strict):
    how: Literal["paper"]
    source: Text


class ClaimForm(Strict):
    claim: Annotated[int, Field(strict=True, ge=1)]
    topic: Topic
    says: Annotated[StrictStr, Field(pattern=r"\.$", max_length=109)]
    verdict: Literal["true", "only if", "false", "outdated"]
    figure: Text
    evidence: Annotated[
        list[Annotated[CellForm | PaperForm, Field(discriminator="how")]], Field(min_length=1)
    ]

    @field_validator("figure")
    @classmethod
    def its_numbers_are_recorded(cls, figure: str) -> str:
        try:
            claims.resolve(figure)
        except UserError as error:
            raise ValueError(str(error)) from error
        return figure


class LedgerForm(RootModel[list[ClaimForm]]):
    @field_validator("root")
    @classmethod
    def they_are_numbered_from_one(cls, entries: list[ClaimForm]) -> list[ClaimForm]:
        assert [entry.claim for entry in entries] == list(range(1, len(entries) + 1))
        return entries
