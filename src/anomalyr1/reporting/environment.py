"""What a run was made with: the versions that can change a result."""

from __future__ import annotations

import importlib.metadata
import platform

_PACKAGES = ("torch", "transformers", "onnxruntime", "numpy", "pillow", "opencv-python-headless")


def describe_environment() -> dict[str, object]:
    """Versions that can change a result."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "anomalyr1": importlib.metadata.version("anomalyr1"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": versions,
    }
