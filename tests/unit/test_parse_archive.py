"""A ZIP gives its files one at a time; what is hostile in it is left out with the reason."""

import io
import random
import stat
import zipfile

import pytest

from services.retrieve.corpus.parsing.archive import ArchiveLimits, Member, Refused, members
from shared.errors import ApiError

LIMITS = ArchiveLimits(members=20, member_bytes=4_000_000, total_bytes=6_000_000, ratio=100)


def archive(*files: tuple[str | zipfile.ZipInfo, bytes]) -> io.BytesIO:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in files:
            opened.writestr(name, data, zipfile.ZIP_DEFLATED)
    return made


def verdicts(made: io.BytesIO, limits: ArchiveLimits = LIMITS) -> dict[str, str]:
    return {
        one.name: one.code if isinstance(one, Refused) else "taken" for one in members(made, limits)
    }


def test_the_files_of_a_zip_come_in_their_order_without_folders() -> None:
    made = archive(("b/", b""), ("b/two.md", b"2"), ("a.txt", b"1"), ("leer ö.txt", b""))
    assert list(members(made, LIMITS)) == [
        Member("b/two.md", b"2"),
        Member("a.txt", b"1"),
        Member("leer ö.txt", b""),
    ]


def test_names_that_lead_elsewhere_links_and_archives_are_left_out() -> None:
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    made = archive(
        ("../up.txt", b"x"),
        ("a/../../up.txt", b"x"),
        ("..\\up2.txt", b"x"),
        ("/etc/passwd", b"x"),
        ("C:\\x.txt", b"x"),
        ("bad\x07name.txt", b"x"),
        (link, b"/etc/passwd"),
        ("inner.zip", b"PK"),
        ("inner.tar.GZ", b"x"),
        ("good.txt", b"x"),
    )
    assert verdicts(made) == {
        "../up.txt": "bad_name",
        "a/../../up.txt": "bad_name",
        "../up2.txt": "bad_name",
        "/etc/passwd": "bad_name",
        "C:/x.txt": "bad_name",
        "bad\x07name.txt": "bad_name",
        "link.txt": "not_a_file",
        "inner.zip": "nested_archive",
        "inner.tar.GZ": "nested_archive",
        "good.txt": "taken",
    }


def test_of_two_members_of_a_name_the_second_is_left_out() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        made = archive(("a.txt", b"1"), ("a.txt", b"2"))
    first, second = members(made, LIMITS)
    assert first == Member("a.txt", b"1")
    assert isinstance(second, Refused)
    assert second.code == "duplicate_name"


def test_bombs_and_large_members_are_left_out_unread() -> None:
    made = archive(
        ("bomb.txt", b"0" * 3_000_000), ("long.txt", b"0" * 5_000_000), ("good.txt", b"x")
    )
    assert verdicts(made) == {
        "bomb.txt": "file_too_large",
        "long.txt": "file_too_large",
        "good.txt": "taken",
    }


def test_a_member_that_is_longer_than_it_says_is_left_out() -> None:
    data = b"0123456789" * 1000
    made = archive(("liar.txt", data), ("good.txt", b"x"))
    raw = made.getvalue().replace(len(data).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert verdicts(io.BytesIO(raw))["liar.txt"] in ("broken_file", "file_too_large")


def test_an_encrypted_member_is_left_out() -> None:
    raw = bytearray(archive(("secret.txt", b"words"), ("good.txt", b"x")).getvalue())
    raw[raw.index(b"PK\x03\x04") + 6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    assert verdicts(io.BytesIO(bytes(raw))) == {
        "secret.txt": "encrypted_file",
        "good.txt": "taken",
    }


def test_a_damaged_member_costs_itself_alone() -> None:
    raw = bytearray(archive(("a.txt", b"words " * 99), ("good.txt", b"x")).getvalue())
    raw[40] ^= 0xFF
    assert verdicts(io.BytesIO(bytes(raw))) == {"a.txt": "broken_file", "good.txt": "taken"}


def test_names_in_utf8_that_do_not_say_so_are_read_as_such() -> None:
    raw = archive(("Straße.txt", b"x")).getvalue()
    unsaid = bytearray(raw)
    unsaid[raw.index(b"PK\x03\x04") + 7] &= ~0x08
    unsaid[raw.index(b"PK\x01\x02") + 9] &= ~0x08
    assert list(verdicts(io.BytesIO(bytes(unsaid)))) == ["Straße.txt"]


def test_too_many_members_or_bytes_refuse_the_archive() -> None:
    with pytest.raises(ApiError) as failure:
        list(members(archive(*((f"{n}.txt", b"") for n in range(21))), LIMITS, param="file"))
    assert (failure.value.code, failure.value.param) == ("archive_too_large", "file")
    noise = random.Random(0).randbytes(3_500_000)
    found = members(archive(("a.txt", noise), ("b.txt", noise)), LIMITS)
    assert isinstance(next(found), Member)
    with pytest.raises(ApiError, match="unpacks to over"):
        next(found)


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04", b"PK\x05\x06" + bytes(5)])
def test_what_is_no_zip_is_refused(data: bytes) -> None:
    with pytest.raises(ApiError) as failure:
        list(members(io.BytesIO(data), LIMITS))
    assert failure.value.code == "broken_file"
