"""The Responses API as bytes. No I/O.

items.py    what a conversation consists of: read, named, and turned into chat messages
request.py  the body of a request, checked
objects.py  the response object
events.py   the events of a stream, and the items they are about
record.py   what is kept of a response for those that follow it
"""
