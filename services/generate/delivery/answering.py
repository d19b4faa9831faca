"""From a chat as it is asked to an answer on its way, whichever route the chat came by."""

import time

from fastapi import Request, Response
from pydantic import BaseModel

from services.generate.answer.reading_aside import read_aside
from services.generate.delivery.delivery import Delivery
from services.generate.delivery.wire import Answering, Wire
from services.generate.pipeline import Engine, Query
from services.generate.policy.schema import AUTO
from services.generate.protocol import ChatRequest
from services.generate.trust.case import Case
from services.generate.trust.ledger import Ledger
from shared.settings import AuditText


def answering(engine: Engine, ledger: Ledger, form: AuditText) -> Answering:
    """What answers chats, and puts each answer on record. form: how texts are kept there."""

    async def answer(body: ChatRequest, wire: Wire, request: Request) -> Response | BaseModel:
        started = time.perf_counter()
        body.refuse_what_is_not_done()
        query = await query_of(body)
        case = Case(ledger, form, model=body.model, streamed=body.stream, question=query.question)
        delivery = Delivery(engine, case, request, wire, streamed=body.stream, started=started)
        return await delivery.answer(query)

    return answer


async def query_of(body: ChatRequest) -> Query:
    """The question of a chat, and what the pipeline is told beside it. Raises ApiError."""
    question = body.question()
    images = await read_aside(body.images, body.image_characters)
    options = body.refdesk
    return Query(
        question=question,
        corpora=options.corpora or (),
        top_k=options.top_k,
        passage_tokens=options.max_tokens,
        curate=options.curate,
        requested=None if body.model == AUTO else body.model,
        draft_tokens=body.max_completion_tokens or body.max_tokens,
        turns=body.turns,
        flagged=options.flagged,
        mark=options.data_class,
        tiers=None if options.tiers is None else frozenset(options.tiers),
        budget=options.budget_nano_dollars,
        chat=body.chat(images),
        cache=options.cache,
    )
