"""Who may use a service: keys in a file, and what each may take."""
