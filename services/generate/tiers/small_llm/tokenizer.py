"""Chats as tokens, by the vocabulary and the chat template of a GGUF file."""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, models
from tokenizers.decoders import ByteLevel as Bytes
from tokenizers.decoders import DecodeStream
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Split
from tokenizers.pre_tokenizers import Sequence as InTurn

from services.generate.prompting.prompt import Message
from services.generate.tiers.small_llm.checkpoint import Checkpoint

# GGUF's kinds of token that matter: what only a template writes, and words beyond the merges.
_CONTROL, _WORD = 3, 4
# Files name one token that ends a text; a chat's turn may end with another.
_ENDS = frozenset({"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"})
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class ChatForm:
    """How a chat becomes one text. template: Jinja. first: the token that every text begins with,
    or None. bos, eos: what a template may ask for. ends: the tokens after which nothing follows."""

    template: str
    first: int | None
    bos: str
    eos: str
    ends: tuple[int, ...]


def vocabulary(checkpoint: Checkpoint) -> tuple[Tokenizer, ChatForm]:
    """The file's own. Raises StartupError where it is of another kind than byte-level BPE."""
    kind = checkpoint.field("tokenizer.ggml.model")
    if kind != "gpt2":
        raise checkpoint.refusal(f"its vocabulary is of the kind {kind}")
    form = checkpoint.field("tokenizer.ggml.pre", "default")
    words = _word_boundaries(form)
    if words is None:
        raise checkpoint.refusal(f"it parts texts into words in the way {form}")
    tokens = checkpoint.field("tokenizer.ggml.tokens")
    merges = [tuple(one.split(" ", 1)) for one in checkpoint.field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(
        models.BPE(
            {token: place for place, token in enumerate(tokens)},
            merges,
            ignore_merges=form == "llama-bpe",
        )
    )
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = Bytes()
    kinds = checkpoint.field("tokenizer.ggml.token_type")
    added = [
        AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in zip(tokens, kinds, strict=True)
        if kind in (_CONTROL, _WORD)
    ]
    tokenizer.add_tokens(added)
    bos = int(checkpoint.field("tokenizer.ggml.bos_token_id", -1))
    eos = int(checkpoint.field("tokenizer.ggml.eos_token_id"))
    ends = {eos} | {place for place, token in enumerate(tokens) if token in _ENDS}
    begins = bos >= 0 and checkpoint.field("tokenizer.ggml.add_bos_token", False)
    return tokenizer, ChatForm(
        template=checkpoint.field("tokenizer.chat_template"),
        first=bos if begins else None,
        bos=tokens[bos] if bos >= 0 else "",
        eos=tokens[eos],
        ends=tuple(sorted(ends)),
    )


def _word_boundaries(form: str) -> PreTokenizer | None:
    """How a text is parted before it is tokenized; None where the name is not known."""
    plain = ByteLevel(add_prefix_space=False)
    if form in ("default", "gpt-2"):
        return plain
    if form == "smollm":
        return InTurn([Digits(individual_digits=True), plain])
    if form == "llama-bpe":
        bytewise = ByteLevel(add_prefix_space=False, use_regex=False)
        return InTurn([Split(Regex(_LLAMA_3), "isolated"), bytewise])
    return None


class ChatTokenizer:
    """Chats to tokens, and tokens to text. Used in one thread.

    Raises ValueError where the template can't be used.
    """

    def __init__(self, tokenizer: Tokenizer, form: ChatForm) -> None:
        self._tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # they are text wherever a text has them
        self._controls = {
            token.content: place
            for place, token in tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._form = form
        self.ends = frozenset(form.ends)
        # The template comes from wherever the model does.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refused
        try:
            self._template = environment.from_string(form.template)
            self.tokens([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])
        except TemplateError as error:
            raise ValueError(f"its chat template can't be used: {error}") from None

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """The chat's tokens, up to where the model's turn begins.

        Only the template's own text has tokens with a meaning, such as the end of a turn: what
        looks like one in a message is text.
        """
        # Random stand-ins for the messages, so that their text is told from the template's.
        stands_for = {secrets.token_hex(16): message["content"] for message in messages}
        stand_ins = re.compile("|".join(stands_for))
        turns = [
            {"role": message["role"], "content": stand_in}
            for message, stand_in in zip(messages, stands_for, strict=True)
        ]
        written = self._template.render(
            messages=turns,
            add_generation_prompt=True,
            bos_token=self._form.bos,
            eos_token=self._form.eos,
        )
        found: list[int] = []
        for part in self._control.split(written):
            if part in self._controls:
                found.append(self._controls[part])
                continue
            text = stand_ins.sub(lambda stand_in: stands_for[stand_in[0]], part)
            found += self._tokenizer.encode(text, add_special_tokens=False).ids
        first = self._form.first
        if first is not None and found[:1] != [first]:
            found.insert(0, first)
        return found

    def reader(self) -> "TokenReader":
        """For the tokens of one draft."""
        return TokenReader(self._tokenizer)


class TokenReader:
    """Tokens to text, one by one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)

    def text(self, token: int) -> str:
        """What the token adds; "" where it ends within a character."""
        return self._stream.step(self._tokenizer, token) or ""


def _refused(message: str) -> NoReturn:
    """What a template calls where a chat is not to its taste."""
    raise TemplateError(message)


def form_to_json(form: ChatForm) -> str:
    """The form as it is kept beside a graph."""
    return json.dumps(vars(form))


def form_from_json(text: str) -> ChatForm:
    """What `form_to_json` wrote."""
    found: Mapping[str, Any] = json.loads(text)
    return ChatForm(**{**found, "ends": tuple(found["ends"])})
