"""What a run leaves for people: findings as JSON lines, overlays, and the report page."""
