"""Places of chunks that were joined."""

from services.retrieve.stores.outline import NOWHERE, Place, joined


def test_one_place_stays_as_it_is() -> None:
    place = Place(("Ports",), (2, 3), "python", None, (5, 9))
    assert joined([place]) == place


def test_joined_places_keep_the_headings_that_all_stand_under() -> None:
    places = [Place(("Guide", "Ports", "TCP")), Place(("Guide", "Ports")), Place(("Guide", "Keys"))]
    assert joined(places).headings == ("Guide",)
    # An equal heading below a different one is another heading.
    assert joined([Place(("A", "Notes")), Place(("B", "Notes"))]).headings == ()


def test_joined_places_touch_all_pages_and_bytes_of_their_parts() -> None:
    found = joined([Place(pages=(2, 2), bytes=(10, 20)), Place(pages=(2, 4), bytes=(18, 40))])
    assert (found.pages, found.bytes) == ((2, 4), (10, 40))


def test_rows_are_told_of_parts_of_one_table_alone() -> None:
    assert joined([Place(rows=(0, 4)), Place(rows=(5, 9))]).rows == (0, 9)
    assert joined([Place(rows=(0, 4)), Place(rows=(0, 2))]).rows is None
    assert joined([Place(rows=(0, 4)), NOWHERE]).rows is None


def test_code_is_told_where_all_of_it_is_of_one_language() -> None:
    assert joined([Place(code="python"), Place(code="python")]).code == "python"
    assert joined([Place(code="python"), Place(code="sh")]).code is None
    assert joined([Place(code="python"), NOWHERE]).code is None
