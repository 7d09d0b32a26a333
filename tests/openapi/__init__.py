"""schemathesis against a service, by the service's own OpenAPI document: see `__main__`."""
