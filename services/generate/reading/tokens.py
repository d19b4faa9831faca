"""How long a text is for a model, where nobody has counted its tokens. Pure."""

from collections.abc import Iterable

# English has about four bytes a token, Chinese about three, a character each; a bound should be
# kept rather than missed.
_BYTES_PER_TOKEN = 3


def estimated_tokens(texts: Iterable[str]) -> int:
    """Tokens of some texts together, rather too many than too few."""
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return -(-size // _BYTES_PER_TOKEN)
