"""OTP's own test suite for its supervisor, case by case, against our tree.

The cases are those of lib/stdlib/test/supervisor_SUITE.erl in Erlang/OTP (OTP 30 in development),
listed in `cases.py`. Each has a test of its name here, whose docstring is its one line; where the
case is about something that only Erlang processes have, the docstring says after "Adapted:" what
is shown instead. All sentences and code are ours; nothing is a translation of the suite's code.

Not applicable:
    auto_hibernate        compaction of an idle process's heap
    get_callback_module   hook of OTP's release handler

What is about processes (a stop that times out, a brutal kill, races at the end, a restart that
never succeeds) is held against real ones, too: see `processes/`.

`python -m tests.conformance.summary` counts what is held.
"""
