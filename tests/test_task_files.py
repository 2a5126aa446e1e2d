"""Data files: where they are looked for, what is said when they are missing or damaged, and downloads."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from autoranger import DataError
from autoranger.search.tasks import cifar, fashion, files, shakespeare
from autoranger.search.tasks.cifar import Cifar
from autoranger.search.tasks.fashion import Fashion
from autoranger.search.tasks.shakespeare import Shakespeare
from tests.data_files import idx, write_cifar, write_text

SYSTEM = fashion.SYSTEM


@pytest.fixture(autouse=True)
def no_files(tmp_path, monkeypatch):
    """Neither the environment nor the system nor the cache has any."""
    monkeypatch.delenv("AUTORANGER_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion, "SYSTEM", (tmp_path / "system",))


# Where files are looked for


def test_a_named_folder_comes_first_then_the_environment_then_the_system(tmp_path, monkeypatch):
    find = functools.partial(
        files.find_folder, "X", ["a", "b"], needs="a and b", folder="x", system=[tmp_path / "system"]
    )
    places = [tmp_path / "named" / "x", tmp_path / "variable", tmp_path / "system"]
    for place in places:
        place.mkdir(parents=True)
        (place / "b").touch()
    assert find(tmp_path / "named") == find(places[0]) == places[0]
    assert find(None) == places[2]
    monkeypatch.setenv("AUTORANGER_DATA", str(places[1]))
    assert find(None) == places[1]
    (places[1] / "b").unlink()
    assert find(None) == places[2], "what the environment names need not have every data set"
    with pytest.raises(DataError, match=r"no X in .*: it must hold a and b"):
        find(places[1])
    (places[2] / "b").unlink()
    with pytest.raises(DataError, match=r"no X in .*variable"):
        find(None)
    monkeypatch.delenv("AUTORANGER_DATA")
    assert find(None) is None


@pytest.mark.parametrize(
    ("kind", "words"), [(Cifar, "no CIFAR-10"), (Fashion, "no Fashion-MNIST"), (Shakespeare, "no tiny Shakespeare")]
)
def test_a_folder_without_the_files_is_one_sentence_with_the_fix(kind, words, tmp_path):
    with pytest.raises(DataError, match=rf"{words} in .*: it must hold .*\(from .*\)\.$"):
        kind(data_dir=tmp_path).data()


# CIFAR-10


@pytest.fixture
def cifar_files(tmp_path, monkeypatch):
    """A folder with the six files, of 20 images each."""
    monkeypatch.setattr(cifar, "RECORDS", 20)
    folder = tmp_path / "good"
    write_cifar(folder)
    return folder


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read .*data_batch_3.bin: No such file"),
        (b"\x00" * (20 * cifar.RECORD - 1), "has 61,459 bytes instead of 61,460"),
        (b"\xc8" * (20 * cifar.RECORD), "labels above 9"),
    ],
)
def test_damaged_cifar_files_are_named(content, words, cifar_files, tmp_path):
    for file in cifar.FILES:
        if file != "data_batch_3.bin":
            (tmp_path / file).symlink_to(cifar_files / file)
        elif content is not None:
            (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=words):
        Cifar(data_dir=tmp_path).data()


# Fashion-MNIST


def test_idx_files_are_read_compressed_or_not(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "plain").write_bytes(idx(images))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx(images)))
    for name in ("plain", "packed.gz"):
        assert torch.equal(fashion.read_idx(tmp_path / name, (2, 3, 4)), torch.from_numpy(images))


GOOD = idx(np.zeros((2, 3), dtype=np.uint8))
PACKED = gzip.compress(GOOD, mtime=0)  # the same at any time


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x", b"", "not an idx file of 2 × 3 bytes"),
        ("x", b"<html>Not found</html>", "not an idx file"),
        ("x", GOOD[:2] + b"\x0d" + GOOD[3:], "not an idx file"),
        ("x", idx(np.zeros((3, 2), dtype=np.uint8)), "not an idx file"),
        ("x", GOOD[:-1], "has 5 bytes of data, not 6"),
        ("x", GOOD + b"\x00", "has 7 bytes of data, not 6"),
        ("x.gz", GOOD, "does not decompress"),
        ("x.gz", PACKED[:-9], "does not decompress"),
        (
            "x.gz",
            gzip.compress(GOOD, mtime=0)[:12] + b"\xff" + gzip.compress(GOOD, mtime=0)[13:],
            "does not decompress",
        ),
        ("x.gz", PACKED[:12] + b"\xff" + PACKED[13:], "does not decompress"),
        ("x.gz", gzip.compress(GOOD[:-1], mtime=0), "has 5 bytes of data"),
    ],
)
def test_damaged_idx_files_are_named(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} .*{words}.*Debian"):
        fashion.read_idx(tmp_path / name, (2, 3))


def test_labels_out_of_range_are_noticed(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((4, 28, 28), dtype=np.uint8)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.array([0, 9, 10, 3], dtype=np.uint8)))
    with pytest.raises(DataError, match="labels above 9"):
        fashion.read_split("train", 4, tmp_path)


def test_fashion_is_found_where_debian_puts_it(tmp_path):
    assert Path("/usr/share/datasets/fashion-mnist") in SYSTEM
    (tmp_path / "system").mkdir()
    path = tmp_path / "system" / "train-labels-idx1-ubyte.gz"
    path.touch()
    assert fashion.locate("train-labels-idx1-ubyte", None) == path


# Tiny Shakespeare


def test_another_text_is_refused(tmp_path):
    write_text(tmp_path / "input.txt")
    with pytest.raises(DataError, match=r"input.txt is damaged or another file .*SHA-256 is not 86c4e6aa9db7"):
        Shakespeare(data_dir=tmp_path).data()


def test_the_text_is_read_as_numbers_of_its_characters(tmp_path, monkeypatch):
    content = b"banana\n"
    (tmp_path / "input.txt").write_bytes(content)
    monkeypatch.setattr(shakespeare, "SHA256", hashlib.sha256(content).hexdigest())
    assert shakespeare.read_text(tmp_path).tolist() == [2, 1, 3, 1, 3, 1, 0]


# Downloads


@pytest.fixture
def server(tmp_path):
    """A web server over a folder."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", [Cifar, Fashion, Shakespeare])
def test_no_network_is_one_sentence_with_the_fix(kind, monkeypatch):
    for module, name in ((cifar, "x.tar.gz"), (fashion, ""), (shakespeare, "input.txt")):
        monkeypatch.setattr(module, "URL", f"http://127.0.0.1:9/{name}")
    with pytest.raises(DataError, match=r"cannot download .* from http.* --data-dir or AUTORANGER_DATA\.$"):
        kind().data()


def test_a_download_happens_once_and_is_checked(server):
    folder, address = server
    (folder / "file").write_bytes(b"right")
    checksum = hashlib.sha256(b"right").hexdigest()
    assert files.download("X", f"{address}/file", checksum).read_bytes() == b"right"
    (folder / "file").write_bytes(b"wrong")
    assert files.download("X", f"{address}/file", checksum).read_bytes() == b"right", "the second time needs no network"
    (folder / "other").write_bytes(b"wrong")
    with pytest.raises(DataError, match=r"cannot download X from .*hash"):
        files.download("X", f"{address}/other", checksum)


def test_a_broken_archive_is_unpacked_again_or_said_to_be_broken(cifar_files, server, monkeypatch):
    folder, address = server
    archive = folder / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for file in cifar.FILES:
            tar.add(cifar_files / file, f"{cifar.FOLDER}/{file}")
    monkeypatch.setattr(cifar, "URL", f"{address}/cifar.tar.gz")
    monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    found = cifar.batches_folder(None)
    first = found / "data_batch_1.bin"
    first.write_bytes(first.read_bytes()[:100])  # an earlier unpacking that was interrupted
    assert cifar.batches_folder(None) == found
    assert first.read_bytes() == (cifar_files / "data_batch_1.bin").read_bytes()
    broken = folder / "broken.tar.gz"
    broken.write_bytes(b"no archive")
    monkeypatch.setattr(cifar, "URL", f"{address}/broken.tar.gz")
    monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(b"no archive").hexdigest())
    first.unlink()
    with pytest.raises(DataError, match="cannot unpack"):
        cifar.batches_folder(None)
