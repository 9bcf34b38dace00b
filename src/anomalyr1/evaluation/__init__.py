"""Numbers for what was found: verdicts, scores, boxes, maps and masks, each with an interval."""
