"""What a draft is held against, by what was asked for: text, JSON, or tool calls. Pure functions.

A text is verified against the sources, by the step's profile. Of tool calls and JSON a program
reads every character, so that their form is checked in every profile, and no citation is looked
for in them: what a field says is not held against the sources.
"""

from dataclasses import replace

from services.generate.prompting.chat import Chat
from services.generate.reading.citations import Answer, compose
from services.generate.reading.sentences import split
from services.generate.tiers.endpoint import Draft, DraftRequest
from services.generate.verification.checks import leak, length, schema, tools
from services.generate.verification.checks.profile import Profile
from services.generate.verification.verify import Verdict, verify


def judge(draft: Draft, request: DraftRequest, profile: Profile) -> Verdict:
    """What is wrong with a draft for this request. Only a text has claims."""
    chat = request.chat
    arguments = "\n".join(one.arguments for one in draft.tool_calls)
    if too_long := length.held(arguments or draft.text):  # what that holds is not read
        return Verdict((), tuple(too_long))
    calls = tools.held(draft.tool_calls, chat)
    if draft.tool_calls or calls:
        return Verdict((), (*leak.found(arguments, request.secrets), *calls))
    if chat.response_format is not None:
        wrong = schema.held(draft.text, chat.response_format)
        return Verdict((), (*leak.found(draft.text, request.secrets), *wrong))
    return verify(
        draft.text,
        request.passages,
        question=request.question,
        secrets=request.secrets,
        profile=profile,
    )


def finished(draft: Draft, verdict: Verdict, chat: Chat) -> Answer:
    """The text that is shown of a draft that passed; empty where it is tool calls."""
    if draft.tool_calls:
        return Answer("", (), ())
    if chat.response_format is not None:
        return Answer(draft.text, (), ())
    return compose(verdict.claims)


def whole(draft: Draft, chat: Chat) -> Draft:
    """A text that was cut at its last token, without the sentence that was cut; others as they are.

    Where nothing is left of it, `judge` says so. JSON has no sentences: it is torn as a whole.
    """
    if draft.finish_reason != "length" or draft.tool_calls or chat.response_format is not None:
        return draft
    sentences = split(draft.text)
    if not sentences or sentences[-1].text.rstrip("]0123456789,[ ").endswith((".", "!", "?")):
        return draft
    end = sentences[-2].end if len(sentences) > 1 else 0
    return replace(draft, text=draft.text[:end])


def takes_text(chat: Chat) -> bool:
    """Whether a plain text is an answer to it."""
    return chat.response_format is None and chat.tool_choice in (None, "auto")


def shows_early(chat: Chat) -> bool:
    """Whether a draft can only be text, so that it may be shown as it is written."""
    return chat.response_format is None and not chat.tools
