"""A service that is disturbed on purpose, streams that are checked token by token, and a judge."""
