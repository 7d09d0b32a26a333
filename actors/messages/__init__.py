"""The whole protocol, one file an edge of the picture.

    ingress ──Submit──▶ preprocessor ──Route──▶ router ──Prefill──▶ context worker
       ▲  ▲                  │                   │ │                     │ Decode
       │  └──────Rejected────┴───────────────────┘ └──Decode/Generate──▶ generation worker
       │         Assigned ◀── router                                     │
       └────────────────────────Frame────────────────────────────────────┘

    submit.py    ingress → preprocessor
    route.py     preprocessor → router
    assign.py    router, preprocessor → ingress: who does it, or why not
    work.py      router → workers, context → generation, ingress → workers (Cancel,
                 Resend)
    frame.py     workers → ingress: tokens
    cache.py     blocks and load, as an engine says them
    events.py    workers → routers: the same, numbered; routers → routers: what they placed
    hints.py     what a client wishes of the placement; part of Submit and Route
    explain.py   router → ingress: what it would do, and why
    sampling.py  how a token is chosen; part of every request
    cards.py     what the roles publish of themselves in the registry

A request is named by a `RequestKey`: the ingress that owns its client, a number, and the attempt
(`epoch`). Token ids travel packed: little-endian u32, four bytes each.
"""
