"""Open pictures and masks safely, find them on disk, write them whole or not at all.

Owns every rule about what a readable picture is: bounded in bytes and pixels before anything is
decoded, upright, 8-bit RGB. Refuses what it cannot show faithfully, with an InputError.
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from anomalyr1.pixels import array_to_rgb, mask_to_grey, picture_to_rgb, turn_upright
from anomalyr1.types import InputError

MAX_BYTES = 200_000_000
MAX_PIXELS = 120_000_000
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"}
)
# A closed list because Pillow would hand an EPS upload to Ghostscript, and more parsers mean more
# ways in for a hostile file.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
_ORIENTATION_TAG = 0x0112
_CONVERT = "save it again as an 8-bit RGB PNG or JPEG"
_SHRINK = "scale it down or cut it into tiles"
_warning_filters = threading.Lock()

ImageSource = str | Path | bytes | Image.Image | NDArray[np.generic]


def load_image(
    source: ImageSource,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
) -> Image.Image:
    """Return the picture upright as 8-bit RGB, in memory, at its full size.

    EXIF orientation is applied. Transparency is composited on white. An animation or multi-page
    file gives its first frame. Grey values deeper than 8 bits are divided by the top of the
    smallest usual range that holds the largest value: 255, 1023, 4095 or 65535 (so a 12-bit
    camera's 16-bit file is not black; a dark and a bright picture of one camera may be scaled
    differently), above that by the largest value itself; floats up to 1.0 are taken as 0..1.

    Arrays are RGB: uint8 (H, W), (H, W, 3) or (H, W, 4); uint16 (H, W) or (H, W, 3); floats in
    [0, 1] of shape (H, W) or (H, W, 3). The array is copied, never altered; so is a PIL picture.

    `name` stands for the picture in messages when `source` is bytes, an array or a PIL picture.
    Raises InputError for a missing, unreadable, too large, damaged or unsupported picture.

    >>> load_image(np.zeros((2, 3), dtype=np.uint8)).size
    (3, 2)
    """
    if isinstance(source, np.ndarray):
        shown = name or "array"
        if source.ndim >= 2 and source.size:
            _check_pixels((source.shape[1], source.shape[0]), max_pixels, shown)
        return array_to_rgb(source, shown)
    if isinstance(source, Image.Image):
        shown = name or "picture"
        _check_pixels(source.size, max_pixels, shown)
        return _decode(source, shown)
    with _opened(source, max_bytes, max_pixels, name) as (image, shown):
        return _decode(image, shown)


def image_size(
    path: str | Path, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Return (width, height) in pixels of the upright picture, from its header only.

    Equals `load_image(path).size`. Raises InputError as `load_image` does, except for damage that
    only decoding would show.
    """
    with _opened(path, max_bytes, max_pixels, None) as (image, _shown):
        return _upright_size(image)


def check_image(
    path: str | Path, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Return the upright (width, height) of a picture that is whole; raise InputError otherwise.

    Finds cut-off files at a fraction of the cost of decoding: a PNG's chunks are read and their
    checksums compared without inflating them; a JPEG is decoded at an eighth of its size, which
    still reads every byte of it; other formats, rarely large, are decoded.
    """
    with _opened(path, max_bytes, max_pixels, None) as (image, shown):
        size_wh = _upright_size(image)
        with _reading(shown):
            if image.format == "PNG":
                image.verify()
            else:
                if image.format in ("JPEG", "MPO"):
                    image.draft("L", (image.width // 8 + 1, image.height // 8 + 1))
                image.load()
        return size_wh


def load_mask(
    path: str | Path, size_wh: tuple[int, int], threshold: int = 127, *, image_name: str = ""
) -> NDArray[np.bool_]:
    """Return a mask as a bool array (H, W), True where the value is above `threshold` of 255.

    Of a folder the union of its pictures. Soft edges are cut at the threshold. A mask whose
    largest value is 1 is True where nonzero. A colour counts by its brightest channel; with a
    coloured palette everything that is not black is True, because label colours may be dim.
    Transparent pixels are False. EXIF orientation is
    applied. `size_wh` is the picture's (width, height).

    Raises InputError for another size, an unreadable file, and for a mask that holds values but
    none above the threshold (label numbers 2, 3, ...): reading it as empty would hide a defect.
    """
    path = Path(path)
    if path.is_dir():
        return _unite_masks(path, size_wh, threshold, image_name)
    with _opened(path, MAX_BYTES, MAX_PIXELS, None) as (image, shown):
        found_wh = _upright_size(image)
        if found_wh != tuple(size_wh):
            raise InputError(
                f"mask {path.name} is {found_wh[0]}x{found_wh[1]}, image {image_name or 'picture'} "
                f"is {size_wh[0]}x{size_wh[1]}: give both one size (mask at {path})"
            )
        orientation = _orientation(image)
        with _reading(shown):
            image.load()
            mask = mask_to_grey(turn_upright(image, orientation), shown)
    top = int(mask.max())
    if top <= 1:
        return mask > 0
    if top <= threshold:
        raise InputError(
            f"mask {path} holds values up to {top}, none above {threshold}: if they are label "
            "numbers, save the mask with 255 where the defect is"
        )
    return mask > threshold


def _unite_masks(
    folder: Path, size_wh: tuple[int, int], threshold: int, image_name: str
) -> NDArray[np.bool_]:
    united = np.zeros((size_wh[1], size_wh[0]), dtype=bool)
    for path in find_images([folder]):
        united |= load_mask(path, size_wh, threshold, image_name=image_name)
    return united


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """Return the pictures under `paths`, in the order given, each folder walked in sorted order.

    In folders, hidden files and folders are skipped and only known suffixes kept
    (`IMAGE_SUFFIXES`, any case). A file named itself is kept whatever its suffix. Nothing is
    listed twice. Raises InputError for a path that does not exist or when nothing is found.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found.update(dict.fromkeys(walk_images(path)))
        elif path.exists():
            found[path] = None
        else:
            raise InputError(f"{path}: no such file or folder; check the spelling")
    if not found:
        places = ", ".join(map(str, paths)) or "no path"
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"no picture found in {places}; looked for {suffixes}")
    return list(found)


def limit_size(image: Image.Image, max_side: int) -> Image.Image:
    """Return the picture with its longer side at most `max_side` pixels, proportions kept.

    A picture within the limit comes back as it is. No side falls below 1 pixel.

    >>> limit_size(Image.new("RGB", (400, 100)), 200).size
    (200, 50)
    """
    if max_side < 1:
        raise InputError(f"max_side is {max_side}: give 1 or more pixels")
    longest = max(image.size)
    if longest <= max_side:
        return image
    width, height = (max(1, round(side * max_side / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def write_png_atomic(path: str | Path, image: Image.Image | NDArray[np.generic]) -> None:
    """Write a PIL picture, a uint8 array (H, W[, 3 or 4]) or a bool mask (as 0 and 255) as PNG.

    A reader sees the old file or the whole new one. The folder is made where missing.
    """
    if isinstance(image, np.ndarray):
        values = image.astype(np.uint8) * 255 if image.dtype == np.bool_ else image
        image = Image.fromarray(values)
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    write_bytes_atomic(path, buffer.getvalue())


def write_bytes_atomic(path: str | Path, payload: bytes) -> None:
    """Write `payload` under a temporary name beside `path`, flush it to disk, then rename it.

    The folder is made where missing. On any failure the old file stays and no other is left; the
    OSError names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        # Not tempfile: its files are readable by their owner alone, and a rename keeps that.
        with partial.open("xb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:  # of a write it names no file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def walk_images(folder: Path) -> Iterator[Path]:
    """The pictures of one folder as `find_images` finds them, one by one."""
    yield from _walk(folder, frozenset())


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:  # a link back to a folder we are in
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot list this folder ({error.strerror})") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, above | {real})
        elif entry.suffix.lower() in IMAGE_SUFFIXES:
            yield entry


@contextmanager
def _reading(shown: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an InputError that names the picture."""
    try:
        yield
    except InputError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise InputError(f"{shown}: too large to open; scale it down ({error})") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{shown}: not a picture in a format we read; {_CONVERT}") from error
    except PermissionError as error:
        raise InputError(f"{shown}: no permission to read it; change its access rights") from error
    # Decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError and more on damaged
    # files, so no list of types would stay complete.
    except Exception as error:
        raise InputError(f"{shown}: damaged or cut off ({error}); copy it again") from error


@contextmanager
def _opened(
    source: str | Path | bytes, max_bytes: int, max_pixels: int, name: str | None
) -> Iterator[tuple[Image.Image, str]]:
    """Open a file or bytes, limits checked, nothing decoded; yields it and its name."""
    if isinstance(source, bytes):
        shown = name or "picture in memory"
        _check_bytes(len(source), max_bytes, shown)
        file: Path | BytesIO = BytesIO(source)
    elif isinstance(source, (str, Path)):
        shown = name or str(source)
        file = Path(source)
        _check_bytes(_file_size(file, shown), max_bytes, shown)
    else:
        raise InputError(f"cannot read a picture from a {type(source).__name__}; give a path")
    # Our own limit is checked below; Pillow's warning would only repeat it. Its hard limit stays
    # on. The filters belong to the whole process, hence the lock.
    with _reading(shown), _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(file, formats=_FORMATS)
        except Image.DecompressionBombError as error:
            # Pillow's message names its own limit, which is another one.
            limit = f"the limit is {max_pixels:,} pixels"
            raise InputError(f"{shown}: too large, {limit}; {_SHRINK}") from error
    with image:
        _check_pixels(image.size, max_pixels, shown)
        yield image, shown


def _file_size(path: Path, shown: str) -> int:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{shown}: no such file; check the path") from error
    except PermissionError as error:
        raise InputError(f"{shown}: no permission to read it; change its access rights") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{shown}: cannot be opened ({error}); check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{shown}: is a folder; name a picture in it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{shown}: is not a plain file; save the picture to a file first")
    return status.st_size


def _check_bytes(num_bytes: int, max_bytes: int, shown: str) -> None:
    if num_bytes == 0:
        raise InputError(f"{shown}: is empty (0 bytes); copy it again")
    if num_bytes > max_bytes:
        raise InputError(
            f"{shown}: has {num_bytes:,} bytes, the limit is {max_bytes:,}; compress or crop it"
        )


def _check_pixels(size_wh: tuple[int, int], max_pixels: int, shown: str) -> None:
    width, height = size_wh
    if width < 1 or height < 1:
        raise InputError(f"{shown}: is {width}x{height}, it has no pixels")
    if width * height > max_pixels:
        raise InputError(
            f"{shown}: is {width}x{height} = {width * height:,} pixels, the limit is "
            f"{max_pixels:,}; {_SHRINK}"
        )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 as the header tells it; 1 where it is absent or unreadable."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFFs itself while loading and reports the upright size
    try:
        # The base class's method: PNG's own would decode the picture to look behind its pixels.
        value = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - damaged metadata must not cost the picture; viewers agree
        return 1
    return value if value in range(1, 9) else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def _decode(image: Image.Image, shown: str) -> Image.Image:
    orientation = _orientation(image)
    with _reading(shown):
        image.load()
        return turn_upright(picture_to_rgb(image, shown), orientation)
