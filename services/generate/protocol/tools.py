"""Tools that a model may call, and the format of its answer, as a request brings them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from services.generate.protocol.base import Foreign
from services.generate.verification.schemas import refuse_schema

MOST_TOOLS, MOST_TOOL_BYTES = 128, 262_144  # all together, as JSON
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]  # OpenAI's
_Description = Annotated[str, Field(max_length=4096)]


def _usable(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    refuse_schema(schema)
    return schema


Schema = Annotated[dict[str, Any], AfterValidator(_usable)]


class Function(Foreign):
    """What a tool does. parameters: the JSON Schema of its arguments, None for any object."""

    name: ToolName
    description: _Description | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class Tool(Foreign):
    """A tool of the client's. Other kinds of tools are not known here."""

    type: Literal["function"]
    function: Function


class NamedFunction(Foreign):
    """The function that must be called."""

    name: ToolName


class NamedTool(Foreign):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


ToolWord = Literal["none", "auto", "required"]


class NamedSchema(Foreign):
    """What an answer must fit. schema: None for any JSON."""

    name: ToolName
    description: _Description | None = None
    schema_: Annotated[Schema | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Foreign):
    """The form of the answer's text: any text, a JSON object, or JSON that fits a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("the type json_schema needs the field json_schema")
        return self
