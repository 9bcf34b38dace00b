"""Records, data set layouts, and synthetic training pictures."""
