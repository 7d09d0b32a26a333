"""What is done for each path: one file a family of paths.

running      a request on its way through the service: opened, awaited, closed
generation   chat completions and completions
responses    the Responses API
embeddings   vectors
tokens       tokenize and detokenize
models       what is served
health       live, ready, health, and this node's metrics
"""
