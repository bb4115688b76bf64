"""Data sets: what is read, what is refused, and that nothing half written stays."""

import gzip
import hashlib
import http.client
import os
import struct
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from fcnn import data
from fcnn.data import files
from fcnn.data import idx as idx_files

FOLDER = os.environ.get("FCNN_DATA", "")
SETS = {
    "mnist": (data.mnist, "MNIST_CHECKSUMS", "MNIST_MIRRORS"),
    "fashion_mnist": (data.fashion_mnist, "FASHION_CHECKSUMS", "FASHION_MIRRORS"),
}


def needs(name):
    return pytest.mark.skipif(
        not (FOLDER and (Path(FOLDER) / name).is_dir()),
        reason=f"the data set is not there: set FCNN_DATA to a folder with {name}/",
    )


class Small(NamedTuple):
    name: str
    load: Callable[[], data.Dataset]
    folder: Path
    files: list[str]
    mirrors: tuple[str, ...]


def idx(array):
    header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


@pytest.fixture(params=SETS)
def small(tmp_path, monkeypatch, request):
    """A data set in idx form with six images, in a folder of its own; no network, an empty cache."""
    load, checksums, mirrors = SETS[request.param]
    made = tmp_path / "given" / request.param
    made.mkdir(parents=True)
    arrays = {
        "train-images-idx3-ubyte.gz": np.arange(4 * 28 * 28).reshape(4, 28, 28) % 256,
        "train-labels-idx1-ubyte.gz": np.array([1, 2, 3, 9]),
        "t10k-images-idx3-ubyte.gz": np.full((2, 28, 28), 255),
        "t10k-labels-idx1-ubyte.gz": np.array([0, 7]),
    }
    for name, array in arrays.items():
        (made / name).write_bytes(idx(array))
    sums = {name: hashlib.sha256((made / name).read_bytes()).hexdigest() for name in arrays}
    monkeypatch.setattr(idx_files, checksums, sums)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FCNN_DATA", str(tmp_path / "given"))
    monkeypatch.setattr(files.urllib.request, "urlopen", offline)
    return Small(request.param, load, made, sorted(arrays), getattr(idx_files, mirrors))


def offline(address, timeout):
    raise urllib.error.URLError("no network")


class Answer:
    """What urlopen returns: a file that is read in blocks."""

    def __init__(self, content):
        self.content = content

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def read(self, size):
        block, self.content = self.content[:size], self.content[size:]
        return block


def test_digits_are_split_by_the_rule_every_fifth():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    found = data.digits()
    assert found.train[0].shape == (1438, 8, 8, 1)
    np.testing.assert_array_equal(found.test[1], labels[4::5])
    np.testing.assert_array_equal(found.test[0].reshape(-1, 64) * 16, images[4::5])
    assert found.train[0].dtype == np.float32
    assert found.train[1].dtype == np.int32
    assert len(found.train[1]) + len(found.test[1]) == 1797


@needs("mnist")
def test_mnist_is_the_published_set():
    found = data.mnist()
    assert found.train[0].shape == (60000, 28, 28, 1)
    assert found.test[0].shape == (10000, 28, 28, 1)
    # class counts as in the literature: 5,923 zeros, 6,742 ones in training; 980 and 1,135 in test
    assert np.bincount(found.train[1])[:2].tolist() == [5923, 6742]
    assert np.bincount(found.test[1])[:2].tolist() == [980, 1135]
    # mean 0.1307 and deviation 0.3081, as quoted everywhere
    np.testing.assert_allclose(found.train[0].mean(dtype=np.float64), 0.1307, atol=5e-5)
    np.testing.assert_allclose(found.train[0].std(dtype=np.float64), 0.3081, atol=5e-5)


@needs("fashion_mnist")
def test_fashion_mnist_is_the_published_set():
    found = data.fashion_mnist()
    assert found.train[0].shape == (60000, 28, 28, 1)
    assert found.test[0].shape == (10000, 28, 28, 1)
    # the paper's section 3: as many of every class
    assert np.bincount(found.train[1]).tolist() == [6000] * 10
    assert np.bincount(found.test[1]).tolist() == [1000] * 10
    # mean 0.2860 and deviation 0.3530, as quoted everywhere
    np.testing.assert_allclose(found.train[0].mean(dtype=np.float64), 0.2860, atol=5e-5)
    np.testing.assert_allclose(found.train[0].std(dtype=np.float64), 0.3530, atol=5e-5)
    # the training set begins with an ankle boot and a T-shirt
    assert [found.classes[y] for y in found.train[1][:2]] == ["Ankle boot", "T-shirt/top"]
    assert "MIT" in found.licence
    assert "Zalando" in found.licence


def test_files_come_from_the_given_folder(small):
    found = small.load()
    assert found.train[1].tolist() == [1, 2, 3, 9]
    assert found.test[0].max() == 1.0
    assert found.train[0][0, 0, 5, 0] == np.float32(5 / 255)
    assert found.train[0].dtype == np.float32
    assert found.train[1].dtype == np.int32
    assert len(found.classes) == 10


def test_files_may_lie_in_the_given_folder_itself(small, monkeypatch):
    monkeypatch.setenv("FCNN_DATA", str(small.folder))
    assert small.load().test[1].tolist() == [0, 7]


def online(small, asked=None):
    def urlopen(address, timeout):
        if asked is not None:
            asked.append(address)
        return Answer((small.folder / address.rsplit("/", 1)[1]).read_bytes())

    return urlopen


def test_files_of_the_same_names_of_another_set_in_the_given_folder_are_passed_over(small, monkeypatch, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in small.files:
        (other / name).write_bytes(b"of another set")
    monkeypatch.setenv("FCNN_DATA", str(other))
    with pytest.raises(data.DataDamagedError, match="other/train-images"):  # and nothing else is to be had
        small.load()
    monkeypatch.setattr(files.urllib.request, "urlopen", online(small))
    assert small.load().train[1].tolist() == [1, 2, 3, 9]
    assert {path.read_bytes() for path in other.iterdir()} == {b"of another set"}


def test_without_files_and_network_one_sentence_says_what_to_put_where(small, monkeypatch, tmp_path):
    monkeypatch.setenv("FCNN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(data.DataNotFoundError) as caught:
        small.load()
    message = str(caught.value)
    assert "\n" not in message
    for part in (*small.files, *small.mirrors, "no network", "FCNN_DATA", f"'{small.name}'", str(tmp_path / "cache")):
        assert part in message


def test_a_cache_that_cannot_be_written_is_no_crash(small, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.delenv("FCNN_DATA")
    monkeypatch.setattr(files.urllib.request, "urlopen", online(small))
    with pytest.raises(data.DataNotFoundError, match=r"Not a directory|exists"):
        small.load()


def test_a_download_is_cached_and_used_offline_afterwards(small, monkeypatch, tmp_path):
    asked = []
    monkeypatch.delenv("FCNN_DATA")
    monkeypatch.setattr(files.urllib.request, "urlopen", online(small, asked))
    assert small.load().train[1].tolist() == [1, 2, 3, 9]
    assert sorted(asked) == [small.mirrors[0] + name for name in small.files]
    monkeypatch.setattr(files.urllib.request, "urlopen", offline)
    assert small.load().train[1].tolist() == [1, 2, 3, 9]
    assert sorted(p.name for p in (tmp_path / "cache" / "fcnn" / small.name).iterdir()) == small.files


@pytest.mark.parametrize("fault", ["other bytes", "cut short", "breaks off", "ends inside an answer"])
def test_a_faulty_download_is_not_kept_and_the_next_mirror_is_asked(small, monkeypatch, tmp_path, fault):
    def first_mirror_is_faulty(address, timeout):
        content = (small.folder / address.rsplit("/", 1)[1]).read_bytes()
        if address.startswith(small.mirrors[0]):
            if fault == "breaks off":
                raise ConnectionResetError("reset")
            if fault == "ends inside an answer":
                raise http.client.IncompleteRead(b"abc", 100)
            content = b"<html>not here</html>" if fault == "other bytes" else content[:-5]
        return Answer(content)

    monkeypatch.delenv("FCNN_DATA")
    monkeypatch.setattr(files.urllib.request, "urlopen", first_mirror_is_faulty)
    assert small.load().test[1].tolist() == [0, 7]
    assert not list((tmp_path / "cache").rglob(".*"))


def test_a_damaged_file_is_refused_with_both_checksums(small):
    path = small.folder / "t10k-labels-idx1-ubyte.gz"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(data.DataDamagedError, match=r"t10k-labels.*SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}"):
        small.load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "not a whole gzip file"),
        (idx(np.zeros((3, 4)))[:-6], "not a whole gzip file"),
        (gzip.compress(b"\0\0\x09\x01abcd"), "not an idx file"),
        (gzip.compress(b"ab"), "not an idx file"),
        (gzip.compress(struct.pack(">II", 0x0801, 10) + b"123"), "should hold 10 bytes.*holds 3"),
    ],
    # gzip writes the time into its header: as names of tests the contents would differ from process to process
    ids=["no gzip", "cut short", "type not of bytes", "two bytes", "too few labels"],
)
def test_idx_files_that_are_none(tmp_path, content, message):
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(data.DataDamagedError, match=message):
        idx_files.read_idx(path)
