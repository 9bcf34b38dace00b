"""Which weights made a finding: a content hash of a checkpoint's files, wherever they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

from anomalyr1 import adapters
from anomalyr1.checkpoint import find_hint_folder, resolve_base, resolve_source

_CHUNK = 1 << 20


def hash_weights(source: str) -> str:
    """SHA-256, in hex, of the weights behind "nano", a folder or a hub id.

    It covers names and contents of all safetensors files, of an adapter's base model with them, and
    of the ONNX files of the detector that the checkpoint brings along, or else the bundled one.
    Folders with equal weights have one hash. Empty for a hub id whose files are not in the local
    cache; raises InputError for a folder that is no checkpoint.
    """
    folder = _find_folder(source)
    if folder is None:
        return ""
    whole = hashlib.sha256()
    _add_files(whole, folder, "*.safetensors")
    if adapters.is_adapter(folder):
        base = _find_folder(resolve_base(folder))
        if base is None:
            return ""
        _add_files(whole, base, "*.safetensors")
    _add_files(whole, find_hint_folder(source), "*.onnx")
    return whole.hexdigest()


def _find_folder(source: str) -> Path | None:
    folder = Path(resolve_source(source))
    if folder.is_dir():
        return folder
    from transformers.utils import cached_file

    try:
        found = cached_file(source, "config.json", local_files_only=True)
    except OSError:
        return None
    return None if found is None else Path(found).parent


def _add_files(whole: hashlib._Hash, folder: Path, pattern: str) -> None:
    for path in sorted(folder.glob(pattern)):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        whole.update(f"{path.name} {digest.hexdigest()}\n".encode())
