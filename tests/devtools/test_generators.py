"""The calls that the fuzzer generates, and its valid photos."""

from __future__ import annotations

from devtools.fuzzing.generators import generate_call
from devtools.fuzzing.photos import file_digest, valid_files, valid_photo


def test_a_seed_and_an_index_always_give_the_same_call() -> None:
    calls = [generate_call(1, n, "m") for n in range(200)]
    assert calls == [generate_call(1, n, "m") for n in range(200)]
    assert calls != [generate_call(2, n, "m") for n in range(200)]


def test_no_two_valid_photos_have_the_same_pixels() -> None:
    photos = [valid_photo(n) for n in range(50)]
    assert len({digest for _, digest, _ in photos}) == 50
    assert all(file_digest(photo) == digest for photo, digest, _ in photos)


def test_a_file_of_each_kind_is_damaged() -> None:
    assert {"jpeg", "bit field bmp", "16-bit tiff", "avif", "heic"} <= valid_files().keys()
    assert len(valid_files()) == 32
