"""Understanding the question: what is searched for, made of what was asked."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.retrieve.protocol import RetrieveRequest, Skipped
from services.retrieve.search.assistant import Assistant
from services.retrieve.search.conversation import Message, said
from services.retrieve.search.expansion import Note, expand, rewrite
from shared.errors import ApiError


@dataclass(frozen=True)
class Question:
    """What is searched for.

    query: what the arms and the curator get. how: what was done to the question for it. variants:
    other wordings, which the arms get, too. passage: a made-up answer, whose vector is searched
    for. skipped: wishes that came to nothing.
    """

    query: str
    how: str = "as asked"
    variants: Sequence[str] = ()
    passage: str | None = None
    skipped: Sequence[Skipped] = ()

    @property
    def queries(self) -> list[str]:
        """The question and its other wordings."""
        return [self.query, *self.variants]


async def understand(request: RetrieveRequest, assistant: Assistant | None) -> Question:
    """The question of a request: made standalone where it ends a conversation, and put into other
    words where that was asked for. Raises ApiError 422 where no message of the user has a word."""
    query, how = request.query, "as asked"
    notes: list[Note] = []
    if request.messages is not None:
        turns = [Message(turn.role, said(turn.content)) for turn in request.messages]
        try:
            made, found = await rewrite(assistant, turns)
        except ValueError as error:
            text = f"messages: {error}"
            raise ApiError(422, "invalid_request", text, param="messages") from None
        query, how = made.query, made.how
        notes += found
    wanted = request.expand
    expanded = await expand(assistant, query, queries=wanted.queries, hyde=wanted.hyde)
    notes += expanded.notes
    skipped = [Skipped(stage=note.stage, reason=note.reason) for note in notes]
    return Question(query, how, expanded.queries, expanded.passage, skipped)
