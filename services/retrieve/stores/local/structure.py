"""Outlines and places as they are stored: short JSON, and nothing where there is none."""

import json

from services.retrieve.stores.outline import NOWHERE, Mark, Outline, Place


def packed_outline(outline: Outline) -> str:
    """An outline as it is stored."""
    marks = [[mark.kind, mark.start, mark.end, mark.name, mark.number] for mark in outline]
    return _json(marks) if marks else ""


def outline_of(stored: str) -> Outline:
    """What `packed_outline` was made of."""
    return tuple(Mark(*mark) for mark in json.loads(stored)) if stored else ()


def packed_place(place: Place) -> str:
    """A place as it is stored."""
    if place == NOWHERE:
        return ""
    return _json([place.headings, place.pages, place.code, place.rows, place.bytes])


def place_of(stored: str) -> Place:
    """What `packed_place` was made of."""
    if not stored:
        return NOWHERE
    headings, pages, code, rows, span = json.loads(stored)
    return Place(
        tuple(headings), pages and tuple(pages), code, rows and tuple(rows), span and tuple(span)
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
