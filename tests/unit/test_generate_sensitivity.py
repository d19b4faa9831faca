"""What is personal or secret in a text, and the class that a request's data gets."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.generate.policy.file import default_policy, parse
from services.generate.prompting.defang import seen
from services.generate.reading.passages import Signals
from services.generate.reading.question import features
from services.generate.reading.sensitivity import Sensitive, find, has_luhn, iban_length, kinds
from services.generate.routing.classify import classify
from services.generate.routing.features import RoutingFeatures
from tests.policies import POLICY_TEXT


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("Write to ada.l+x@mail.example.org.", Sensitive.EMAIL, "ada.l+x@mail.example.org"),
        ("call +49 30 901820 now", Sensitive.PHONE, "+49 30 901820"),
        ("call 0044 20 7946 0958", Sensitive.PHONE, "0044 20 7946 0958"),
        ("call (415) 555-2671 or so", Sensitive.PHONE, "(415) 555-2671"),
        ("to DE89 3704 0044 0532 0130 00 with thanks", Sensitive.IBAN,
         "DE89 3704 0044 0532 0130 00"),
        ("to GB82WEST12345698765432.", Sensitive.IBAN, "GB82WEST12345698765432"),
        ("BE68 5390 0754 7034 with love", Sensitive.IBAN, "BE68 5390 0754 7034"),
        ("card 4111 1111 1111 1111, please", Sensitive.CARD, "4111 1111 1111 1111"),
        ("378282246310005", Sensitive.CARD, "378282246310005"),
        ("SSN 078-05-1120", Sensitive.SSN, "078-05-1120"),
        ("from 8.8.4.4.", Sensitive.IP, "8.8.4.4"),
        ("from 2001:4860:4860::8888", Sensitive.IP, "2001:4860:4860::8888"),
        ("AKIAIOSFODNN7EXAMPLE", Sensitive.SECRET, "AKIAIOSFODNN7EXAMPLE"),
        ("-----BEGIN RSA PRIVATE KEY-----", Sensitive.SECRET, "-----BEGIN RSA PRIVATE KEY-----"),
        ("password: hunter2000", Sensitive.SECRET, "password: hunter2000"),
        ("sk-proj-abcdefgh12345678", Sensitive.SECRET, "sk-proj-abcdefgh12345678"),
        ("write to bob@münchen.de.", Sensitive.EMAIL, "bob@münchen.de"),
        ("почта@пример.рф,", Sensitive.EMAIL, "почта@пример.рф"),
        ("b@mail.example.xn--p1ai", Sensitive.EMAIL, "b@mail.example.xn--p1ai"),
        ("邮件: bob@example.com联系", Sensitive.EMAIL, "bob@example.com"),
        ("ask f.o'hara@example.org", Sensitive.EMAIL, "f.o'hara@example.org"),
        ("call 1-800-555-2671", Sensitive.PHONE, "1-800-555-2671"),
        ("call (+49) 30 901820", Sensitive.PHONE, "+49) 30 901820"),
        ("+49 30 901820, 12 34 56 78 90", Sensitive.PHONE, "+49 30 901820"),
        ("+49 30 901820 11 3456 7890", Sensitive.PHONE, "+49 30 901820 11"),
        ("DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000", Sensitive.IBAN,
         "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000"),
        ("(415) 555\u20112671", Sensitive.PHONE, "(415) 555\u20112671"),
        ("postgresql://app:hunter2@db:5432/x", Sensitive.SECRET, "app:hunter2"),
        ("Authorization: Bearer abcdefgh12345678", Sensitive.SECRET, "abcdefgh12345678"),
        ("Passwort: hunter2000", Sensitive.SECRET, "Passwort: hunter2000"),
    ],
)  # fmt: skip
def test_what_is_sensitive_is_found_where_it_stands(text: str, kind: Sensitive, part: str) -> None:
    assert [(one.kind, text[one.start : one.end]) for one in find(text)] == [(kind, part)]


@pytest.mark.parametrize(
    "text",
    [
        "The rerank service listens on port 8002, at 127.0.0.1:8002 or 10.0.0.7.",
        "It was signed on 2026-05-12 at 12:30:45, in 1843, or on 12.05.2026.",
        "card 4111 1111 1111 1112",  # Luhn's sum is wrong
        "GB82 WEST 1234 5698 7654 33",  # so is the checksum
        "order 0000 0000 0000 0000",
        "SSN 666-05-1120, 000-12-3456, 078-00-1120",
        "version 3.11.2, chapter 4.2.1, sha a3f5, room B-204",
        "a password has 12 characters; the secret is out",
        "@team, mail@ home, x@y, a@b_c.d, @decorated.by",
        "postgresql://user:password@host/db, http://127.0.0.1:8002/a@b",
        "the bearer of this letter",
        "12345678901234567890123456789",
        "::1 and fe80::1",
        "",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert find(text) == []


@given(st.integers(min_value=0, max_value=10**15 - 1), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_luhns_sum_finds_every_wrong_digit(number: int, step: int) -> None:
    body = f"{number:015d}"
    good = next(body + str(check) for check in range(10) if has_luhn(body + str(check)))
    for place in range(16):
        wrong = good[:place] + str((int(good[place]) + step) % 10) + good[place + 1 :]
        assert not has_luhn(wrong)


@given(st.integers(0, 10**18 - 1), st.integers(4, 21), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_the_checksum_of_an_iban_finds_every_wrong_digit(
    account: int, place: int, step: int
) -> None:
    check = 98 - int(f"{account:018d}131400") % 97
    good = f"DE{check:02d}{account:018d}"
    assert iban_length(good) == 22
    wrong = good[:place] + str((int(good[place]) + step) % 10) + good[place + 1 :]
    assert iban_length(wrong) == 0


@pytest.mark.parametrize(
    "text",
    ["a" * 100_000, "1" * 100_000, "1 " * 50_000, "a@" * 50_000, "a." * 50_000, ":" * 100_000,
     "-eyJ" * 50_000, "eyJaaaaaaaaaaaa.eyJ-" * 10_000,
     "+1-" * 30_000, "AB12 " * 20_000, "password is " * 8000, "0:" * 50_000],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    find(text)  # a pattern that backtracks would not come back


@pytest.mark.parametrize("hidden", ["\u00ad", "\u200b", "\u2060", "\U000e0041"])
def test_what_is_not_seen_does_not_part_an_address(hidden: str) -> None:
    assert kinds(seen([f"ada@exam{hidden}ple.org"])) == {Sensitive.EMAIL}
    assert kinds(seen(["8.8.4.4"])) == {Sensitive.IP}


# --- the class ---------------------------------------------------------------------------------


def request(**change: object) -> RoutingFeatures:
    plain = RoutingFeatures("Where?", features("Where?"), Signals(documents=1), 0.5)
    return replace(plain, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "data_class", "source"),
    [
        ({}, "open", "default"),
        ({"mark": "secret"}, "secret", "caller"),
        ({"corpora": frozenset({"handbook", "attic"})}, "secret", "corpus attic"),
        ({"found": frozenset({Sensitive.EMAIL})}, "secret", "detected email"),
        ({"found": frozenset({Sensitive.CARD})}, "open", "default"),  # not in this policy
        # A caller can't mark it down.
        ({"mark": "open", "found": frozenset({Sensitive.EMAIL})}, "secret", "detected email"),
        ({"mark": "of no policy"}, "of no policy", "caller"),
    ],
)
def test_the_strictest_voice_counts(
    change: dict[str, object], data_class: str, source: str
) -> None:
    found = classify(request(**change), parse(POLICY_TEXT, "p"))
    assert (found.data_class, found.source) == (data_class, source)


def test_every_kind_has_a_class_in_the_packaged_policy() -> None:
    assert set(default_policy().detect) == set(Sensitive)
    assert kinds(["a@b.example", "nothing"]) == {Sensitive.EMAIL}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("8.8.4.4 ", Sensitive.IP),
        ("ada@example.org ", Sensitive.EMAIL),
        ("078 05 1120, ", Sensitive.SSN),
        ("DE89 3704 0044 0532 0130 00, ", Sensitive.IBAN),
    ],
)
def test_of_very_many_in_one_text_all_are_found(text: str, kind: Sensitive) -> None:
    found = find(text * 20_000)  # each looked for among all the others, it would take minutes
    assert len(found) == 20_000
    assert {one.kind for one in found} == {kind}


def test_what_looks_like_the_start_of_many_numbers_is_read_once() -> None:
    assert find(("+1 1" + "1" * 32 + " ") * 3000) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("paid by 4111 1111 1111 1111 12/28", Sensitive.CARD),
        ("order 250 4111 1111 1111 1111", Sensitive.CARD),
        ("at 8.8.4.4:53", Sensitive.IP),
        ("http://8.8.4.4:8080/", Sensitive.IP),
        ("DB_PASSWORD=hunter2000", Sensitive.SECRET),
        ('{"password": "hunter2000"}', Sensitive.SECRET),
        ("client_secret=abcdefg12345", Sensitive.SECRET),
        ("AWS_SECRET_ACCESS_KEY=abcdefg12345", Sensitive.SECRET),
        ("FY24 paid from DE89 3704 0044 0532 0130 00", Sensitive.IBAN),
    ],
)
def test_what_stands_beside_something_else_is_found(text: str, kind: Sensitive) -> None:
    assert kind in kinds([text])


@pytest.mark.parametrize(
    "key",
    [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nQIBAA\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\\nMIIEow\\nQIBAA\\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 2.4\n\nlQ+/=\n=ab\n"
        "-----END PGP PRIVATE KEY BLOCK-----",
    ],
)
def test_of_a_private_key_all_is_found(key: str) -> None:
    [found] = find(f"see {key} there")
    assert (found.start, found.end) == (4, 4 + len(key))
