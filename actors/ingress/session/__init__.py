"""The life of one sequence, as the ingress that owns its client sees it. Pure.

    submitted ──Assigned──▶ assigned ──last chunk──▶ over
        ▲ ▲                    │
        │ └────── replay ──────┤   a worker fell, a gap, no progress, an engine's error
        │                      │
      waiting ◀──nobody ready──┘   (only for a sequence that had begun)

The state is what was delivered, and which attempt (`epoch`) is under way. A replay submits the
prompt again with the delivered tokens behind it and a higher epoch; chunks of older epochs are
dropped, repeats within an epoch are cut off, chunks that come early wait for those before them
(the first token and the rest come from two workers, and nothing orders the two). So the client
sees every token once and in order, or an explicit error.

Messages may be lost where processes live on (NATS restarted, say), so a session that sees a gap or
a silence first asks the worker for what it has sent (`Ask`). It answers with what is missing, with
an empty chunk (it lives, and there is nothing new), or with an error (it does not know the
request). Only when that does not help is the attempt given up.

    policy.py    how long, how often
    events.py    what happens
    actions.py   what is to be done about it
    machine.py   the machine between the two
"""

from actors.ingress.session.actions import (
    Action,
    Ask,
    Deliver,
    Fail,
    Finish,
    Forget,
    Learn,
    Submit,
)
from actors.ingress.session.events import (
    Abandon,
    Arrived,
    Assigned,
    Event,
    Fell,
    Opening,
    Regained,
    Rejected,
    Tick,
    Unheard,
)
from actors.ingress.session.machine import MAX_EARLY_CHUNKS, Phase, Session
from actors.ingress.session.policy import Policy

__all__ = [
    "MAX_EARLY_CHUNKS",
    "Abandon",
    "Action",
    "Arrived",
    "Ask",
    "Assigned",
    "Deliver",
    "Event",
    "Fail",
    "Fell",
    "Finish",
    "Forget",
    "Learn",
    "Opening",
    "Phase",
    "Policy",
    "Regained",
    "Rejected",
    "Session",
    "Submit",
    "Tick",
    "Unheard",
]
