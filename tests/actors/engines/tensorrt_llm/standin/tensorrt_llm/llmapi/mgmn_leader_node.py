"""What the script runs on rank 0; with `--action stop`, what it runs when the command has ended."""

import sys

from tensorrt_llm import remote

if __name__ == "__main__":
    if sys.argv[1:] == ["--action", "stop"]:
        with remote.connect() as server:
            server.send(remote.STOP)
    else:
        remote.serve()
