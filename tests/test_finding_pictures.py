"""Which files of folders are pictures to look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalyr1.images import (
    find_images,
)
from anomalyr1.types import InputError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_walked_in_order_and_hidden_files_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.PNG", "b/10.jpg", "a.tiff", ".hidden.png", ".cache/x.png", "notes.txt")
    touch(tmp_path, "b/._2.png", "z.webp")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])]
    assert found == ["a.tiff", "b/10.jpg", "b/2.PNG", "z.webp"]


def test_a_file_named_itself_is_kept_and_nothing_is_listed_twice(tmp_path: Path) -> None:
    touch(tmp_path, "scan.dat", "a.png")
    found = find_images([tmp_path / "scan.dat", tmp_path, tmp_path / "a.png"])
    assert [path.name for path in found] == ["scan.dat", "a.png"]


def test_links_that_lead_back_do_not_trap_the_walk(tmp_path: Path) -> None:
    touch(tmp_path, "parts/a.png")
    try:
        (tmp_path / "parts" / "again").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be made here")
    assert len(find_images([tmp_path])) == 1


def test_nothing_found_is_an_error_that_names_the_places(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(InputError, match="no picture found in"):
        find_images([tmp_path])
    with pytest.raises(InputError, match="no such file"):
        find_images([tmp_path / "absent"])
    with pytest.raises(InputError, match="no path"):
        find_images([])
