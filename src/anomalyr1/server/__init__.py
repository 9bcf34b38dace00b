"""The inspection station: store, queue, API and pages for operators and quality engineers."""
