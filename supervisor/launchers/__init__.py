"""How a process is brought up on some machine. One module a way."""
