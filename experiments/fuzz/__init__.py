"""Whatever bytes come: a file decodes or is refused in one line."""
