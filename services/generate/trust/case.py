"""One answer on its way to the record: whatever becomes of it, it goes there once."""

from datetime import UTC, datetime

from services.generate.answer.outcome import Outcome, Spending
from services.generate.metrics import settle
from services.generate.pipeline import Prepared
from services.generate.trust.audit import Head
from services.generate.trust.ledger import Entry, Ledger
from services.generate.trust.record import Asked, Status, body, sha256, steps
from shared.context import current, deadline_exceeded
from shared.errors import ApiError
from shared.settings import AuditText
from shared.telemetry import get_logger

log = get_logger(__name__)

_GONE = 499  # the status of an error that nobody is told of: the caller left
_PATIENCE_S = 2.0  # that an error waits for its record


class Case:
    """An answer of the current request, from its question on. For one task.

    form: how texts are kept. prepared: what is known before anybody writes; set once it is.
    spending: what was asked of models so far; it goes on record however the answer ends.
    """

    def __init__(
        self, ledger: Ledger, form: AuditText, *, model: str, streamed: bool, question: str
    ) -> None:
        now = current()
        self.prepared: Prepared | None = None
        self.spending = Spending()
        self._ledger = ledger
        self._form = form
        self._asked = Asked(
            datetime.now(UTC), now.request_id, now.principal.name, model, streamed, question
        )
        self._deadline = now.deadline  # an abandoned stream may end in another context
        self._over = False

    async def answered(self, outcome: Outcome) -> Head | None:
        """Put an answer on record before it is sent; its place there, None without a trail.

        Raises ApiError 503 `audit_unavailable`: then it must not be sent.
        """
        self._over = True
        status = Status.ANSWERED if outcome.answered else Status.DECLINED
        return await self._ledger.keep(self._entry(status, outcome=outcome))

    async def failed(self, error: ApiError) -> None:
        """Put on record that there is no answer, before the error is sent, unless it is there.

        Where it can't be, or not soon, the log says so: the caller is told of the first failure.
        """
        if self._over:
            return
        self._over = True
        status = Status.ABANDONED if error.status == _GONE else Status.FAILED
        try:
            head = await self._ledger.keep(self._entry(status, error=error.code), _PATIENCE_S)
        except TimeoutError:
            log.warning("record_late", status=status, code=error.code)
            return
        except ApiError:
            return  # the ledger has logged it
        log.info("not_answered", status=status, code=error.code, audit=str(head) if head else None)

    def abandoned(self) -> None:
        """Have it put on record that there is no answer, unless it is there; waits for nothing.

        For a task that is being cancelled, as its caller left or the time is up.
        """
        if not self._over:
            self._over = True
            late = self._deadline.remaining_ms() <= 0
            status = Status.FAILED if late else Status.ABANDONED
            code = deadline_exceeded().code if late else None
            self._ledger.submit(self._entry(status, error=code))
            log.info("not_answered", status=status, code=code, audit=None)

    def _entry(
        self, status: Status, *, error: str | None = None, outcome: Outcome | None = None
    ) -> Entry:
        asked, attempts = self._asked, self.spending.attempts
        settle(attempts)
        return Entry(
            asked.at,
            asked.request_id,
            sha256(asked.question),
            body(
                asked,
                status,
                self._form,
                attempts,
                error=error,
                prepared=self.prepared,
                outcome=outcome,
            ),
            steps(outcome) if outcome else (),
        )
