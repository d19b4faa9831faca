"""TEI's request and response bodies of embed. Source: `router/src/http/types.rs` of TEI."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from services.embed.protocol import MAX_INPUTS, Dimensions, Flag, Text, Texts


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class Parameters(BaseModel):
    """How texts are read.

    truncate: whether a text that is longer than the model's window is cut; else it is refused.
    truncation_direction: the side at which it is cut. prompt_name: the model's own prompt that goes
    before each text.
    """

    model_config = ConfigDict(extra="ignore")

    truncate: Flag | None = None
    truncation_direction: Annotated[
        Literal["left", "right"],
        BeforeValidator(_lower, json_schema_input_type=Literal["left", "right", "Left", "Right"]),
    ] = "right"
    prompt_name: str | None = Field(None, max_length=256)


class InputsRequest(Parameters):
    """One text or several."""

    inputs: Texts


class EmbedRequest(InputsRequest):
    """What to embed.

    dimensions: cut the vectors to their first numbers. normalize: bring those back to length 1;
    vectors that are not cut have length 1 whatever it says.
    """

    normalize: Flag | None = True
    dimensions: Dimensions | None = None


class SparseValue(BaseModel):
    """The weight of a word of the vocabulary, by its token id."""

    index: int
    value: float


class SimilarityInputs(BaseModel):
    """A sentence, and those that it is compared with."""

    model_config = ConfigDict(extra="ignore")

    source_sentence: Text
    sentences: list[Text] = Field(min_length=1, max_length=MAX_INPUTS - 1)


class SimilarityRequest(BaseModel):
    """What to compare."""

    model_config = ConfigDict(extra="ignore")

    inputs: SimilarityInputs
    parameters: Parameters | None = None


class TokenizeRequest(BaseModel):
    """What to tokenise; add_special_tokens: with the model's own around each text."""

    model_config = ConfigDict(extra="ignore")

    inputs: Texts
    add_special_tokens: Flag = True
    prompt_name: str | None = Field(None, max_length=256)


class TextToken(BaseModel):
    """A token. text: the part of the input that it stands for, its characters `start` to `stop`;
    of a special token, which stands for none, its name.
    """

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None
