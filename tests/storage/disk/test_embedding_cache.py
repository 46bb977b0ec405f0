"""The cache of vectors that were paid for: what survives, what is refused, and how large it gets."""

from __future__ import annotations

import errno
import hashlib
import logging
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from app.domain.errors import IndexingError
from app.domain.vectors import Vector
from app.storage.disk.embedding_cache import EmbeddingCache, cache_scope
from tests.support.serving import ROOT

SCOPE = "openai/text-embedding-3-small@https://api.openai.com/v1"
DIMENSIONS = 300
BATCH = 50


def hash_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def vector_of(number: int) -> Vector:
    return np.arange(number, number + DIMENSIONS, dtype=np.float32)


def items(numbers: Iterable[int]) -> list[tuple[bytes, Vector]]:
    return [(hash_of(number), vector_of(number)) for number in numbers]


def hashes(numbers: Iterable[int]) -> list[bytes]:
    return [hash_of(number) for number in numbers]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "embeddings.sqlite"


def fill(path: Path, count: int) -> None:
    with EmbeddingCache(path) as cache:
        for start in range(0, count, BATCH):
            cache.put(SCOPE, items(range(start, min(count, start + BATCH))))


def numbers_in(cache: EmbeddingCache, count: int) -> set[int]:
    """Which of the first ones there are; each with its own vector."""
    found = right_ones_in(cache, count)
    known = cache.known(SCOPE, hashes(range(count)))
    assert {hash_of(number) for number in found} <= known
    return found


def right_ones_in(cache: EmbeddingCache, count: int) -> set[int]:
    """The same, by one look at a file that may be changed meanwhile."""
    by_hash = {hash_of(number): number for number in range(count)}
    found = {by_hash[hash_]: vector for hash_, vector in cache.get(SCOPE, list(by_hash)).items()}
    for number, vector in found.items():
        assert vector.dtype == np.float32
        assert np.array_equal(vector, vector_of(number))
    return set(found)


def test_vectors_are_found_in_the_next_run(path: Path) -> None:
    """Any number of them can be asked for at once."""
    fill(path, 1234)
    with EmbeddingCache(path) as cache:
        assert numbers_in(cache, 2000) == set(range(1234))
        assert cache.known(SCOPE, hashes([3, 5000])) == {hash_of(3)}
        assert cache.get(SCOPE, []) == {}


def test_the_cache_makes_no_shared_memory_file(path: Path) -> None:
    """Not every file system supports one."""
    with EmbeddingCache(path) as cache:
        cache.put(SCOPE, items(range(10)))
        assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}-wal"}


def test_scopes_are_separate(path: Path) -> None:
    """The same text has another vector from another model."""
    with EmbeddingCache(path) as cache:
        cache.put("one", items([1]))
        cache.put("two", [(hash_of(1), vector_of(2))])
        assert np.array_equal(cache.get("one", [hash_of(1)])[hash_of(1)], vector_of(1))
        cache.forget("one")
        assert cache.known("one", [hash_of(1)]) == set()
        assert np.array_equal(cache.get("two", [hash_of(1)])[hash_of(1)], vector_of(2))


def test_a_later_vector_replaces_the_earlier_one(path: Path) -> None:
    with EmbeddingCache(path) as cache:
        cache.put(SCOPE, items([1]))
        cache.put(SCOPE, [(hash_of(1), vector_of(7))])
        assert np.array_equal(cache.get(SCOPE, [hash_of(1)])[hash_of(1)], vector_of(7))


def test_a_scope_identifies_model_and_server_without_the_key() -> None:
    scope = cache_scope("openai", "some-model", "http://localhost:8000/v1/?key=planted#planted")
    assert scope == "openai/some-model@http://localhost:8000/v1"


WRITER = """
import itertools, os, signal, sys
from pathlib import Path
from app.storage.disk.embedding_cache import EmbeddingCache
from tests.storage.disk.test_embedding_cache import BATCH, SCOPE, items

cache = EmbeddingCache(Path(sys.argv[1]))
for start in itertools.count(0, BATCH):
    cache.put(SCOPE, items(range(start, start + BATCH)))
    print(start + BATCH, flush=True)
    if start + BATCH == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def writer(path: Path, ends_after: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A process that puts one batch after the other, and says how many texts that makes; to be killed.

    Args:
        ends_after: it kills itself after so many texts.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(ends_after)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def killed_while_writing(path: Path, batches: int) -> int:
    """How many texts the process had put when it was killed, not knowing of it."""
    with writer(path) as process:
        assert process.stdout
        for _ in range(batches):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        return BATCH * (batches + len(process.stdout.readlines()))


def killed_between_batches(path: Path, batches: int) -> int:
    """The same, but that nothing was being written."""
    with writer(path, BATCH * batches) as process:
        assert process.wait(60) == -signal.SIGKILL
    return BATCH * batches


@pytest.mark.parametrize("batches", [1, 7, 100])
def test_complete_batches_survive_a_kill(path: Path, batches: int) -> None:
    """Only the batch that was being written may be missing."""
    done = killed_while_writing(path, batches)
    with EmbeddingCache(path) as cache:
        assert numbers_in(cache, done + BATCH) in ({*range(done)}, {*range(done + BATCH)})
        cache.put(SCOPE, items([done + BATCH]))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def snapshot_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything that a change could show in."""
    files = {file.name: file for file in [folder, *folder.iterdir()]}
    return {
        name: (file.stat().st_mtime_ns, file.stat().st_size, b"" if file == folder else file.read_bytes())
        for name, file in files.items()
    }


def read_alone(path: Path, count: int) -> set[int]:
    """Which of the first ones there are, and the check that looking leaves no trace."""
    assert Path(f"{path}-wal").exists()
    before = snapshot_of(path.parent)
    with EmbeddingCache(path, read_only=True) as cache:
        found = numbers_in(cache, count)
        assert snapshot_of(path.parent) == before, "nor for a moment"
    assert snapshot_of(path.parent) == before
    return found


def test_a_read_only_cache_leaves_no_trace(path: Path) -> None:
    """This includes files that a killed run left in the middle of its work."""
    read_alone(path, killed_while_writing(path, 100))


def test_a_read_only_cache_finds_most_vectors_of_a_killed_run(path: Path) -> None:
    """Texts that it does not find are embedded again."""
    done = killed_between_batches(path, 100)
    assert len(read_alone(path, done)) > done / 2


def test_a_read_only_cache_makes_no_file(path: Path) -> None:
    with EmbeddingCache(path, read_only=True) as cache:
        assert numbers_in(cache, 10) == set()
    assert list(path.parent.iterdir()) == []


def test_a_read_only_cache_does_not_disturb_a_writer(path: Path) -> None:
    """`--plan` takes no lock."""
    with writer(path) as process:
        assert process.stdout
        for _ in range(10):
            process.stdout.readline()
            with EmbeddingCache(path, read_only=True) as cache:
                right_ones_in(cache, 500)
        assert process.poll() is None


def with_tables(*tables: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        connection = sqlite3.connect(path)
        for table in tables:
            connection.execute(f"CREATE TABLE {table}")
        connection.close()

    return make


def truncated(path: Path) -> None:
    fill(path, 1000)
    path.write_bytes(path.read_bytes()[:100_000])


def overwritten(path: Path) -> None:
    """The header is that of a good file, and what follows is noise."""
    fill(path, 1000)
    content = path.read_bytes()
    path.write_bytes(content[:100] + random.Random(0).randbytes(len(content) - 100))


def unknown_format(path: Path) -> None:
    """As of a later SQLite."""
    fill(path, 10)
    content = bytearray(path.read_bytes())
    content[47] = 0xFF
    path.write_bytes(content)


def not_utf8(path: Path) -> None:
    """The table's definition, which SQLite then quotes."""
    fill(path, 10)
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE vectors", b"CREATE \xccABLE vectors"))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("This is no database, though it is as long as a header." * 10),
    "short": lambda path: path.write_bytes(b"SQLite"),
    "foreign": with_tables("songs (name)", "singers (name)"),
    "other version": with_tables("vectors (id INTEGER PRIMARY KEY, scope, hash, checksum, vector)"),
    "unknown format": unknown_format,
    "not UTF-8": not_utf8,
    "truncated": truncated,
    "overwritten": overwritten,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_file_is_replaced(
    path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """The log has a warning, since it costs money, but no run fails because of it."""
    DAMAGES[damage](path)
    with caplog.at_level(logging.WARNING), EmbeddingCache(path) as cache:
        cache.put(SCOPE, items(range(2000, 2050)))
        numbers_in(cache, 1000)
        cache.put(SCOPE, items(range(2000, 2050)))
        assert len(cache.known(SCOPE, hashes(range(2000, 2050)))) == 50
        cache.trim(10**9)
    assert f"{path} is replaced by an empty one" in caplog.text
    caplog.clear()
    with EmbeddingCache(path) as cache:
        assert len(cache.get(SCOPE, hashes(range(2000, 2050)))) == 50
    assert caplog.text == ""


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_read_only_cache_replaces_no_file(path: Path, damage: str) -> None:
    DAMAGES[damage](path)
    before = snapshot_of(path.parent)
    with EmbeddingCache(path, read_only=True) as cache:
        numbers_in(cache, 1000)
    assert snapshot_of(path.parent) == before


@pytest.mark.parametrize("what_is_left", ["a write-ahead log", "noise"])
def test_a_stray_write_ahead_log_does_no_harm(path: Path, what_is_left: str) -> None:
    """It may be left if somebody removes the file, and belongs to no other file."""
    killed_while_writing(path, 2)
    path.unlink()
    if what_is_left == "noise":
        Path(f"{path}-wal").write_bytes(random.Random(0).randbytes(50_000))
    with EmbeddingCache(path) as cache:
        cache.put(SCOPE, items(range(1000, 1100)))
    with EmbeddingCache(path) as cache:
        assert numbers_in(cache, 2000) == set(range(1000, 1100))


def test_flipped_bits_never_give_a_wrong_vector(path: Path, tmp_path: Path) -> None:
    """The vector is right or missing, and the cache can still be used."""
    fill(path, 60)
    original = path.read_bytes()
    chance = random.Random(48)
    copy = tmp_path / "copy.sqlite"
    for number in range(80):
        content = bytearray(original)
        for _ in range(chance.choice([1, 1, 10])):
            # Every other time in the first pages, with the table's definition and the index.
            place = chance.randrange(len(content) if number % 2 else 16_384)
            content[place] ^= 1 << chance.randrange(8)
        copy.write_bytes(content)
        for read_only in (True, False):
            with EmbeddingCache(copy, read_only=read_only) as cache:
                numbers_in(cache, 100)
        with EmbeddingCache(copy) as cache:
            for _ in range(2):  # the first time, damage may be found after the vectors are in
                cache.put(SCOPE, items(range(40, 80)))
                cache.trim(100_000)
                found = numbers_in(cache, 80)
            assert found >= set(range(70, 80))


@pytest.mark.parametrize("value", ["5", "0.5", "'text'", "x''"])
def test_an_invalid_vector_counts_as_missing(path: Path, value: str) -> None:
    """It is replaced when it is put again."""
    fill(path, 10)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(f"UPDATE vectors SET vector = {value} WHERE id = 3")
    connection.close()
    with EmbeddingCache(path) as cache:
        assert numbers_in(cache, 10) == set(range(10)) - {2}
        cache.put(SCOPE, items([2]))
        assert numbers_in(cache, 10) == set(range(10))


def test_a_directory_in_place_of_the_file_is_reported(path: Path) -> None:
    """It is not removed, since its owner is not known."""
    path.mkdir()
    with pytest.raises(IndexingError, match=r"embeddings\.sqlite cannot be used"):
        EmbeddingCache(path)


def test_the_cache_is_trimmed_after_a_run(path: Path) -> None:
    """It grows during the run; then the oldest vectors are removed, and the file shrinks."""
    fill(path, 4000)
    assert path.stat().st_size > 4_000_000
    with EmbeddingCache(path) as cache:
        cache.trim(10**9)
        assert numbers_in(cache, 4000) == set(range(4000))
        cache.trim(2_000_000)
        left = numbers_in(cache, 4000)
        assert left == set(range(min(left), 4000))
    assert 1_500_000 < path.stat().st_size <= 2_000_000


def test_putting_a_vector_again_renews_its_age(path: Path) -> None:
    fill(path, 4000)
    with EmbeddingCache(path) as cache:
        cache.put(SCOPE, items([0]))
        cache.trim(2_000_000)
        assert len(cache.known(SCOPE, [hash_of(0)])) == 1


def test_a_size_of_zero_keeps_nothing(path: Path) -> None:
    fill(path, 1000)
    with EmbeddingCache(path) as cache:
        cache.trim(0)
        assert numbers_in(cache, 1000) == set()
    assert path.stat().st_size < 50_000


def test_a_full_disk_raises_enospc_and_loses_nothing(path: Path) -> None:
    """The error is the same as for every other file."""
    fill(path, 100)
    with EmbeddingCache(path) as cache:
        cache._connection.execute("PRAGMA max_page_count = 100")
        with pytest.raises(OSError, match=r"embeddings\.sqlite") as error:
            cache.put(SCOPE, items(range(100, 1000)))
        assert error.value.errno == errno.ENOSPC
        assert numbers_in(cache, 1000) == set(range(100))


def test_complete_batches_survive_a_really_full_disk(small_disk: Path) -> None:
    """The file system has 1 MB."""
    path = small_disk / "embeddings.sqlite"
    with EmbeddingCache(path) as cache:
        with pytest.raises(OSError, match=r"embeddings\.sqlite") as error:
            for start in range(0, 5000, BATCH):
                cache.put(SCOPE, items(range(start, start + BATCH)))
        assert error.value.errno == errno.ENOSPC
        done = numbers_in(cache, 5000)
    with EmbeddingCache(path) as cache:
        assert done == numbers_in(cache, 5000) == set(range(len(done)))
        assert done


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount or not unmount:
        pytest.skip("needs mount")
    command = [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run([unmount, str(folder)], check=True)
