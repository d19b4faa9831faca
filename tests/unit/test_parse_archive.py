"""A ZIP gives its files one at a time; what is hostile in it is left out with the reason."""

import io
import random
import stat
import struct
import zipfile
import zlib

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
    with pytest.raises(ApiError, match="unpacks to over"):
        next(members(archive(("a.txt", noise), ("b.txt", noise)), LIMITS))


class Reads(io.BytesIO):
    """A file that remembers how many bytes were taken at once, at most."""

    largest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.largest = max(self.largest, len(data))
        return data


def test_a_directory_of_more_members_than_it_says_is_not_even_read() -> None:
    entry = b"PK\x01\x02" + bytes(24) + b"\x01" + bytes(17) + b"a"  # of a name of one letter
    for count in (21, 100_000):
        end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(entry) * count, 0, 0)
        made = Reads(entry * count + end)
        with pytest.raises(ApiError, match=r"has over 20 members|has a directory of 4700000 bytes"):
            next(members(made, LIMITS))
        assert made.largest <= 1_048_576


def test_only_the_directory_is_counted_not_what_a_member_holds() -> None:
    data = b"PK\x01\x02" * 1000
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as opened:
        opened.writestr("a.txt", data)
    assert list(members(made, LIMITS)) == [Member("a.txt", data)]


def overlapping() -> bytes:
    """Two members: the first one's data holds the header and the data of the second."""
    made = archive(("b.txt", random.Random(0).randbytes(1000))).getvalue()
    begin = made.index(b"PK\x01\x02")
    header, packed = made[:35], made[35:begin]
    quoted = b"\x00" + struct.pack("<HH", len(header), 0xFFFF - len(header)) + header + packed
    data = header + zlib.decompressobj(-15).decompress(packed)
    sizes = struct.pack("<LLL", zlib.crc32(data), len(quoted), len(data))
    first = header[:14] + sizes + header[26:30] + b"a.txt"
    entry = bytearray(made[begin : begin + 51])
    entry[42:46] = struct.pack("<L", 40)  # behind the first header and the quote's own five bytes
    other = entry[:16] + sizes + entry[28:42] + bytes(4) + b"a.txt"
    directory = bytes(other + entry)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(directory), len(first + quoted), 0)
    return first + quoted + directory + end


def test_an_archive_whose_members_overlap_is_a_bomb() -> None:
    made = overlapping()
    with zipfile.ZipFile(io.BytesIO(made)) as opened:
        assert [len(opened.read(name)) for name in ("a.txt", "b.txt")] == [1035, 1000]
    with pytest.raises(ApiError, match="overlap"):
        next(members(io.BytesIO(made), LIMITS))


def test_whatever_is_damaged_in_an_archive_is_told() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        for way in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            opened.writestr(f"ö{way}.txt", b"hello world " * 200, way)
    whole, chance = made.getvalue(), random.Random(1)
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            assert all(isinstance(one, Member | Refused) for one in members(io.BytesIO(data)))
        except ApiError as error:
            assert error.code in ("broken_file", "archive_too_large")  # noqa: PT017 - a clear end


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04", b"PK\x05\x06" + bytes(5)])
def test_what_is_no_zip_is_refused(data: bytes) -> None:
    with pytest.raises(ApiError) as failure:
        list(members(io.BytesIO(data), LIMITS))
    assert failure.value.code == "broken_file"
