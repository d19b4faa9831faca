"""OpenAI's request and response bodies of embed. Source: its API reference, `POST /embeddings`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from services.embed.inputs import InputType
from services.embed.models.base import Kind

MAX_INPUTS = 16_384

Text = Annotated[str, Field(min_length=1)]
# As JSON has them: 0 is no false, and "yes" no true.
Flag = Annotated[bool, Field(strict=True)]
Dimensions = Annotated[int, Field(strict=True, ge=1)]


def _as_list(value: Any) -> Any:
    """A single text as a list of one; token ids get an answer that helps."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and isinstance(value[0], int | list):
        raise ValueError(
            "token ids are refused, because they come from another model's tokenizer; send "
            "texts (in LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
        )
    return value


# A text or several, as a list.
Texts = Annotated[
    list[Text],
    Field(min_length=1, max_length=MAX_INPUTS),
    BeforeValidator(
        _as_list,
        json_schema_input_type=Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)],
    ),
]


class EmbeddingRequest(BaseModel):
    """What to embed. Fields of OpenAI's that mean nothing here (`user`) are ignored.

    dimensions: cut the vectors to their first numbers and bring them back to length 1.
    truncate: whether a text that is longer than the model's window is cut; else it is refused.
    prompt_name: the model's own prompt that goes before each text. input_type: the same by use,
    where the model has a prompt for it; `prompt_name` goes before. outputs: what to make of each
    text, all of it in one pass of the model.
    """

    model_config = ConfigDict(extra="ignore")

    input: Texts
    model: str | None = Field(None, max_length=256)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Dimensions | None = None
    truncate: Flag = True
    prompt_name: str | None = Field(None, max_length=256)
    input_type: InputType | None = None
    outputs: list[Kind] = Field(["dense"], min_length=1, max_length=8)


class Sparse(BaseModel):
    """The weights of a text's words, above 0: `values` by token id, in the order of these."""

    indices: list[int]
    values: list[float]


class Embedding(BaseModel):
    """What was made of one text. Vectors are numbers or base64 of little-endian float32.

    sparse, token_embeddings: extensions, for those who ask for them in `outputs`. Of what was not
    asked for, the field is absent.
    """

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str | None = None
    sparse: Sparse | None = None
    token_embeddings: list[list[float] | str] | None = None


class Usage(BaseModel):
    """Tokens that the model read, special ones included."""

    prompt_tokens: int
    total_tokens: int


class Truncated(BaseModel):
    """An input that did not fit the model's window, and how many of its tokens were cut."""

    index: int
    tokens_cut: int


class EmbeddingResponse(BaseModel):
    """The vectors in the order of the input.

    Extensions: revision, the state of the model that made the vectors, see ModelInfo; truncated,
    only where something was.
    """

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    revision: str
    usage: Usage
    truncated: list[Truncated] | None = None
