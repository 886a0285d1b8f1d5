"""What the web thread may see: frozen, replaced as a whole after each window, so that nobody locks."""
