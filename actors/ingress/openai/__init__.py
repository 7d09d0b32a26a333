"""The OpenAI HTTP API as bytes: requests read, responses and errors written. No I/O."""
