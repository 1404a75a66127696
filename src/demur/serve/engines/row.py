"""A generation under way, as every engine follows it.

In: what the guards say of it. Out: updates of what is new. How it is generated, and when it ends, is the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from demur.defenses import Verdict
from demur.serve.guards import Guards
from demur.serve.job import Job, Reason, Update


@dataclass(eq=False)
class Row:
    """A job under way.

    tokens : of the answer so far; `sent` of them were reported, `cleared` have a verdict. by_prompt : whether the
    prompt's own state was flagged. stop, looked : what the guards said when one of them looked last, as
    `Guards.stopped_at` and `Guards.cleared` give it.
    """

    job: Job
    tokens: list[int] = field(default_factory=list)
    sent: int = 0
    cleared: int = 0
    by_prompt: bool = False
    stop: int = 0
    looked: int | None = 0

    def heard(self, guards: Guards) -> None:
        """A guard has looked at it."""
        self.stop, self.looked = guards.stopped_at(self.job.id), guards.cleared(self.job.id)

    def told(self) -> Update:
        """The tokens that were not reported yet, which now are."""
        new, self.sent = tuple(self.tokens[self.sent :]), len(self.tokens)
        return Update(new, self.cleared)

    def ended(self, reason: Reason, shown: int, stop: int, verdicts: dict[str, Verdict]) -> Update:
        """The last update. shown : tokens that stand where a guard has stopped it; all stand where none has."""
        count, blocked = len(self.tokens), reason == "content_filter"
        shown = min(shown, count) if blocked else count
        cleared = min(self.cleared, shown) if blocked else count
        tokens = tuple(self.tokens[self.sent :])
        return Update(tokens, cleared, reason, shown, stop, verdicts, by_prompt=self.by_prompt)
