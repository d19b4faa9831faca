"""The splitter: prose, abbreviations, numbers, lists, tables, code and markers."""

import pytest

from services.generate.reading.sentences import Kind, split


def texts(text: str) -> list[str]:
    return [sentence.text for sentence in split(text)]


def test_two_sentences_are_two() -> None:
    assert texts("The desk opens at nine. It closes at five!") == [
        "The desk opens at nine.",
        "It closes at five!",
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "Dr. Smith and Prof. Jones met Mr. T. S. Eliot in St. Louis.",
        "It costs $3.50, i.e. about 3.2 euros, as Fig. 3 of vol. 2 shows.",
        "The U.S. Senate met on Jan. 5 at the court.",
        "Version 1.2.3 runs on 127.0.0.1 and reads config.yaml first.",
        "It handles PDF, HTML, etc. without trouble.",
    ],
)
def test_a_full_stop_inside_a_sentence_does_not_end_it(sentence: str) -> None:
    assert texts(sentence) == [sentence]


def test_a_sentence_may_begin_with_a_lower_case_name() -> None:
    assert texts("embed listens on 8001. rerank listens on 8002.") == [
        "embed listens on 8001.",
        "rerank listens on 8002.",
    ]


def test_quotation_marks_stay_with_their_sentence() -> None:
    assert texts('He said "Stop." Then he left.') == ['He said "Stop."', "Then he left."]


def test_citations_after_the_full_stop_belong_to_the_sentence_before() -> None:
    assert texts("One is true. [1][2] Two is false [1, 3]. Three.") == [
        "One is true. [1][2]",
        "Two is false [1, 3].",
        "Three.",
    ]


def test_lines_of_a_paragraph_are_read_on() -> None:
    assert texts("A line\nthat goes on. It\nends.") == [
        "A line\nthat goes on.",
        "It\nends.",
    ]


def test_a_blank_line_ends_a_sentence_without_a_full_stop() -> None:
    assert texts("No stop here\n\nNew paragraph") == ["No stop here", "New paragraph"]


def test_markdown_comes_apart_by_its_layout() -> None:
    page = (
        "# Ports\n\n- embed: 8001\n- rerank: 8002. It is slow.\n\n1. Start it.\n\n"
        "| service | port |\n|---|---|\n| embed | 8001 |\n\n```sh\nmake demo. Then wait.\n```\n"
        "Done."
    )
    found = [(sentence.kind, sentence.text) for sentence in split(page)]
    assert found == [
        (Kind.HEADING, "# Ports"),
        (Kind.ITEM, "embed: 8001"),
        (Kind.ITEM, "rerank: 8002."),
        (Kind.ITEM, "It is slow."),
        (Kind.ITEM, "Start it."),
        (Kind.ROW, "| service | port |"),
        (Kind.ROW, "| embed | 8001 |"),
        (Kind.CODE, "```sh\nmake demo. Then wait.\n```"),
        (Kind.PROSE, "Done."),
    ]
    assert {sentence.heading for sentence in split(page)[1:]} == {"Ports"}


def test_a_table_without_a_frame_comes_apart_by_its_rows() -> None:
    page = "Ports:\nservice | port\nembed | 8001. Fast.\n\nRun `cat log | sort` once. Then wait."
    found = [(sentence.kind, sentence.text) for sentence in split(page)]
    assert found == [
        (Kind.PROSE, "Ports:"),
        (Kind.ROW, "service | port"),
        (Kind.ROW, "embed | 8001. Fast."),
        (Kind.PROSE, "Run `cat log | sort` once."),
        (Kind.PROSE, "Then wait."),
    ]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("It rains.", True),
        ('She said "stop!"', True),
        ("- an item that says something.", True),
        ("\u4ed6\u6765\u4e86\u3002", True),
        ("The dense arm", False),
        ("Which port?", False),
        ("Run this:", False),
        ("| a row. | 1. |", False),
        ("```\ncode.\n```", False),
    ],
)
def test_a_whole_sentence_is_told_from_a_fragment(text: str, whole: bool) -> None:
    assert [sentence.whole for sentence in split(text)] == [whole]


@pytest.mark.parametrize("text", ["", "   \n\n", "---\n***\n", "```", "\n# \n", "?! ... [] ()"])
def test_text_without_words_has_no_sentences(text: str) -> None:
    assert split(text) == []


def test_every_sentence_is_the_slice_it_claims_to_be() -> None:
    text = "Intro: see.\n\n* a. b c\n* D?\n\n\tTabbed \u201cquote.\u201d Next\u2026 End\n```\nx\n"
    for sentence in split(text):
        assert text[sentence.start : sentence.end] == sentence.text
        assert sentence.text == sentence.text.strip()


def test_a_long_text_of_one_repeated_mark_is_split_in_no_time() -> None:
    assert split("." * 200_000) == []
    assert split("# " + "#" * 50_000 + "x") != []
    assert len(split("a. " * 50_000)) > 0
