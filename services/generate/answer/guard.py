"""A draft asked for behind masks and marks, and brought back to what it stands for.

Between the request and its writer, so that no writer knows of it: what leaves is masked, what comes
back is restored before anybody verifies or shows it.
"""

from collections.abc import Callable
from dataclasses import fields, replace

from services.generate.policy.models import Model
from services.generate.prompting.chat import Chat
from services.generate.prompting.datamark import draw, unmarked
from services.generate.prompting.defang import defanged
from services.generate.prompting.masking import Restorer, Vault
from services.generate.prompting.prompt import declines
from services.generate.reading.evidence import gather
from services.generate.reading.passages import Passage
from services.generate.tiers.endpoint import Draft, DraftRequest, Endpoint


async def drafted(endpoint: Endpoint, request: DraftRequest, model: Model) -> Draft:
    """The endpoint's draft, asked for as the policy's model says: `Model.mask`, `Model.datamark`,
    `Model.thinking_tokens`, `Model.thinks_first`, `Model.image_tokens`.

    Raises what the endpoint raises.
    """
    request = replace(
        request,
        max_tokens=request.max_tokens + model.thinking_tokens,
        thinks_first=model.thinks_first,
        image_tokens=model.image_tokens,
    )
    if not model.mask and not model.datamark:
        return await endpoint.draft(request)
    as_json = (request.chat.response_format or {}).get("type", "text") != "text"
    vault = Vault(frozenset(model.mask), request.salt)
    mark = ""
    if model.datamark:
        mark = draw([request.question, *(f"{one.title} {one.text}" for one in request.passages)])

    def clear(text: str, as_json: bool = as_json) -> str:
        return vault.restore(unmarked(text, mark), as_json=as_json)

    hidden = _masked(request, vault) if model.mask else request
    restorer = Restorer(vault, as_json=as_json)
    draft = await endpoint.draft(
        replace(
            hidden,
            datamark=mark,
            worth_finishing=lambda text: request.worth_finishing(clear(text)),
            show=_cleared(request.show, restorer, mark) if request.show else None,
        )
    )
    if request.show and (rest := restorer.close()):
        request.show(rest)
    text = clear(draft.text).strip()
    calls = tuple(
        replace(call, arguments=clear(call.arguments, as_json=True)) for call in draft.tool_calls
    )
    return replace(draft, text="" if declines(text) else text, tool_calls=calls)


def _masked(request: DraftRequest, vault: Vault) -> DraftRequest:
    """The request with placeholders. Its evidence is gathered anew: it holds words of the texts."""
    question = vault.mask(request.question)
    passages = [_passage(one, vault) for one in request.passages]
    held = {one.name: vault.mask_all(getattr(request.chat, one.name)) for one in fields(Chat)}
    return replace(
        request,
        question=question,
        passages=passages,
        evidence=gather(question, passages),
        chat=Chat(**held),
    )


def _passage(passage: Passage, vault: Vault) -> Passage:
    # What is not seen is taken out of the prompt anyway; before it, it would hide an address.
    title = vault.mask(defanged(passage.title)) if passage.title else None
    return replace(passage, title=title, text=vault.mask(defanged(passage.text)))


def _cleared(show: Callable[[str], None], restorer: Restorer, mark: str) -> Callable[[str], None]:
    def shown(piece: str) -> None:
        if ready := restorer.feed(unmarked(piece, mark)):
            show(ready)

    return shown
