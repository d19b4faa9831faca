"""Personal data and secrets in a text, masked: the form of an audit record's text `redacted`."""

from services.generate.routing.sensitivity import find


def masked(text: str) -> str:
    """`text` with each e-mail address, phone, IBAN and card number and the like as `[email]`, …

    What has no form, such as a name, stays; see routing/sensitivity.py for what is found.
    """
    parts = []
    done = 0
    for match in find(text):
        parts += [text[done : match.start], f"[{match.kind}]"]
        done = match.end
    return "".join((*parts, text[done:]))
