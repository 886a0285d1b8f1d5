"""Where packets come from, and what is counted."""
