"""What an answer consists of: text, reasoning, and calls of tools, as models write them.

    parts.py      the parts, in the order in which a client is told of them
    scanning.py   finding markers in text that comes in pieces
    calls.py      one call as a JSON object, read while it is written
    tools/        one file a family
    reasoning.py  what stands between the marks of thinking
    parser.py     reasoning and tools put together
    names.py      the families, as a topology names them

Everything here is pure and incremental: the parts put together are the same whatever pieces the
text came in. Only answers to requests that ask for it are read at all.
"""
