"""The status page and the REST API; nothing is imported before a server is wanted."""
