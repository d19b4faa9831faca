"""The route that reads documents into the cache of token vectors before anyone asks about them."""

from fastapi import FastAPI
from pydantic import BaseModel, Field

from services.rerank.models.base import RerankModel
from services.rerank.models.late_interaction import LateInteraction
from services.rerank.protocol import MAX_DOCUMENTS, Text
from shared.errors import ApiError


class TokenVectorsRequest(BaseModel):
    """Documents that will be judged later, as they will be sent then."""

    documents: list[Text] = Field(min_length=1, max_length=MAX_DOCUMENTS)


class TokenVectorsResponse(BaseModel):
    """model: whose vectors they are. new: how many of the documents were not in the cache."""

    model: str
    new: int


def add_token_vectors_route(app: FastAPI, model: RerankModel) -> None:
    """Let callers fill the cache of a model that has one; of others the route says that."""

    @app.post("/v1/token-vectors")
    async def fill(request: TokenVectorsRequest) -> TokenVectorsResponse:
        """Read documents into the cache, so that the first query over them finds them there."""
        if not isinstance(model, LateInteraction):
            raise ApiError(
                404,
                "no_token_vectors",
                f"{model.info.model} is served by {model.info.backend}, which keeps no token "
                "vectors: there is nothing to fill",
            )
        return TokenVectorsResponse(model=model.info.model, new=await model.fill(request.documents))
