"""How a process is brought up on some machine. One module a way; `local` is the only one yet."""
