"""Runs the command line as python -m anomalyr1."""

from anomalyr1.cli import main

if __name__ == "__main__":
    main()
