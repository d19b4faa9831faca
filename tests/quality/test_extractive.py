"""The extractive writer on SQuAD 2.0's own paragraphs, without a search and without vectors."""

from pathlib import Path

from services.generate.reading.passages import Passage
from tests.quality.extractive import Asked, answer, report
from tests.quality.squad import is_tuning, questions, rows, sample


def test_answers_hold_the_answer_and_misleading_questions_are_declined_more(datasets: Path) -> None:
    folder = datasets / "squad-v2-dev"
    texts = {row["_id"]: row["text"] for row in rows(folder / "corpus.jsonl")}
    reported = [one for one in questions(folder) if not is_tuning(one.article)]
    answered = []
    for answerable in (True, False):
        for one in sample([q for q in reported if bool(q.answers) == answerable], 300):
            text = texts[one.document_id]
            passage = Passage(1, "0", one.document_id, "squad", one.article, None, text, 0.8)
            answered.append(answer(Asked(one, (passage,)), None))
    found = report(answered)
    at = found["curve"][2]
    assert found["retrieved"] == 1.0
    assert found["contained_if_never_declined"] >= 0.85
    assert at["answerable_declined"] <= 0.15
    assert at["answers_that_contain"] >= 0.85
    assert at["unanswerable_declined"] >= 2 * at["answerable_declined"]
