"""Runs the command line as python -m anomalyr1."""

from anomalyr1.cli import main

main()
