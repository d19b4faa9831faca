"""Request and response bodies of embed. Source: OpenAI's API reference, `POST /embeddings`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_INPUTS = 2048
MAX_CHARACTERS = 1_000_000

Text = Annotated[str, Field(min_length=1)]


class EmbeddingRequest(BaseModel):
    """What to embed. Fields of OpenAI's that mean nothing here (`user`) are ignored.

    dimensions: cut the vectors to their first numbers and bring them back to length 1.
    input_type: which of the model's own prompts to use; all-MiniLM-L6-v2 has none.
    """

    model_config = ConfigDict(extra="ignore")

    input: list[Text] = Field(min_length=1, max_length=MAX_INPUTS)
    model: str | None = Field(None, max_length=256)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    input_type: Literal["query", "document"] | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        """A single text as a list of one; token ids get an answer that helps."""
        if isinstance(value, str):
            return [value]
        if isinstance(value, list) and value and isinstance(value[0], int | list):
            raise ValueError(
                "token ids are refused, because they come from another model's tokenizer; send "
                "texts (in LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
            )
        return value


class Embedding(BaseModel):
    """One vector, as numbers or as base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


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
