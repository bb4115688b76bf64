"""CIFAR-10 in all its forms: forged archives in the official layouts, and the real set where it is there."""

import gzip
import hashlib
import importlib
import io
import os
import pickle
import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from fcnn import data
from fcnn.data import cifar_batches, files

cifar = importlib.import_module("fcnn.data.cifar")

FOLDER = Path(os.environ.get("FCNN_DATA", "")) / "cifar10"
PYTHON, BINARY = "cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"
IMAGES = 3  # in each batch of the forged set


def needs(file):
    return pytest.mark.skipif(
        not (os.environ.get("FCNN_DATA") and (FOLDER / file).exists()),
        reason=f"set FCNN_DATA to a folder with cifar10/{file}",
    )


def offline(address, timeout):
    raise urllib.error.URLError("no network")


@pytest.fixture
def pixels():
    """The truth: images as they should come out, (six batches, images, 32, 32, 3), and labels."""
    made = np.random.default_rng(0)
    return made.integers(0, 256, (6, IMAGES, 32, 32, 3), np.uint8), made.integers(0, 10, (6, IMAGES))


def rows(images):
    """Images as the official layouts hold them: all of red row by row, then green, then blue."""
    return np.stack([np.concatenate([image[:, :, c].ravel() for c in range(3)]) for image in images])


def python_files(pixels, protocol=2):
    batches = [
        {"batch_label": b"batch", "labels": labels.tolist(), "data": rows(images), "filenames": ["a.png"] * IMAGES}
        for images, labels in zip(*pixels, strict=True)
    ]
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {name: pickle.dumps(batch, protocol) for name, batch in zip(names, batches, strict=True)}


def binary_files(pixels):
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    return {
        name: b"".join(bytes([y]) + row.tobytes() for row, y in zip(rows(images), labels, strict=True))
        for name, images, labels in zip(names, *pixels, strict=True)
    }


def archive(folder, contents):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in {"batches.meta": b"not read", **contents}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder for the set; no network, an empty cache, batches of three images, any checksum by `put`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FCNN_DATA", str(tmp_path / "given"))
    monkeypatch.setattr(files.urllib.request, "urlopen", offline)
    monkeypatch.setattr(cifar_batches, "IMAGES", IMAGES)
    folder = tmp_path / "given" / "cifar10"
    folder.mkdir(parents=True)
    return folder


def put(place, monkeypatch, name, content):
    """Write a file and take it for the right one."""
    (place / name).write_bytes(content)
    monkeypatch.setitem(cifar.CHECKSUMS, name, hashlib.sha256(content).hexdigest())


def put_folder(place, monkeypatch, name, contents):
    (place / name).mkdir()
    for file, content in contents.items():
        (place / name / file).write_bytes(content)
        if name.endswith("-py"):
            monkeypatch.setitem(cifar.BATCHES, file, hashlib.md5(content).hexdigest())


def assert_is(found, pixels):
    images, labels = pixels
    np.testing.assert_array_equal(found.train[0], np.float32(images[:5].reshape(-1, 32, 32, 3)) / np.float32(255))
    np.testing.assert_array_equal(found.test[0], np.float32(images[5]) / np.float32(255))
    assert found.train[1].tolist() == labels[:5].ravel().tolist()
    assert found.test[1].tolist() == labels[5].tolist()
    assert (found.train[0].dtype, found.train[1].dtype) == (np.float32, np.int32)
    assert found.classes[:2] == ("airplane", "automobile")


FORMS = {
    "python archive": lambda place, patch, p: put(
        place, patch, PYTHON, archive("cifar-10-batches-py", python_files(p))
    ),
    "binary archive": lambda place, patch, p: put(
        place, patch, BINARY, archive("cifar-10-batches-bin", binary_files(p))
    ),
    "python folder": lambda place, patch, p: put_folder(place, patch, "cifar-10-batches-py", python_files(p)),
    "binary folder": lambda place, patch, p: put_folder(place, patch, "cifar-10-batches-bin", binary_files(p)),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_layout_gives_the_images_that_were_written(place, monkeypatch, pixels, form):
    FORMS[form](place, monkeypatch, pixels)
    before = sorted(place.parent.rglob("*"))
    assert_is(data.cifar10(), pixels)
    assert_is(data.cifar10(variant=form.split()[0]), pixels)
    assert sorted(place.parent.rglob("*")) == before  # read in memory
    with pytest.raises(data.DataNotFoundError):
        data.cifar10(variant="binary" if form.startswith("python") else "python")


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_every_protocol_are_read(place, monkeypatch, pixels, protocol):
    put(place, monkeypatch, PYTHON, archive("cifar-10-batches-py", python_files(pixels, protocol)))
    assert_is(data.cifar10(), pixels)


def test_the_first_form_that_is_there_is_read(place, monkeypatch, pixels):
    images, labels = pixels
    order = list(FORMS)
    for i in reversed(range(4)):  # a form that comes earlier in the list is put there later and wins
        marked = (images.copy(), labels)
        marked[0][5, 0, 0, 0, 0] = i
        FORMS[order[i]](place, monkeypatch, marked)
        assert data.cifar10().test[0][0, 0, 0, 0] == np.float32(i) / np.float32(255)


def test_files_may_lie_in_the_given_folder_itself(place, monkeypatch, pixels):
    FORMS["binary archive"](place, monkeypatch, pixels)
    monkeypatch.setenv("FCNN_DATA", str(place))
    assert_is(data.cifar10(), pixels)


@pytest.mark.parametrize("variant", [None, "python", "binary"])
def test_the_archive_is_downloaded_checked_and_kept(place, monkeypatch, tmp_path, pixels, variant):
    name = BINARY if variant == "binary" else PYTHON
    form = FORMS["binary archive" if variant == "binary" else "python archive"]
    form(place, monkeypatch, pixels)
    content = (place / name).read_bytes()
    (place / name).unlink()
    asked = []

    def online(address, timeout):
        asked.append(address)
        return io.BytesIO(content)

    monkeypatch.setattr(files.urllib.request, "urlopen", online)
    assert_is(data.cifar10(variant=variant), pixels)
    assert asked == [f"https://www.cs.toronto.edu/~kriz/{name}"]
    monkeypatch.setattr(files.urllib.request, "urlopen", offline)
    assert_is(data.cifar10(variant=variant), pixels)
    assert [path.name for path in (tmp_path / "cache" / "fcnn" / "cifar10").iterdir()] == [name]


def test_a_short_download_is_not_kept(place, monkeypatch, tmp_path, pixels):
    FORMS["python archive"](place, monkeypatch, pixels)
    content = (place / PYTHON).read_bytes()
    (place / PYTHON).unlink()
    monkeypatch.setattr(files.urllib.request, "urlopen", lambda address, timeout: io.BytesIO(content[:-9]))
    with pytest.raises(data.DataNotFoundError, match="another checksum"):
        data.cifar10()
    assert not list((tmp_path / "cache" / "fcnn" / "cifar10").iterdir())


@pytest.mark.parametrize("variant", [None, "python", "binary", "jpeg", "subset"])
def test_without_files_and_network_one_sentence_says_what_to_put_where(place, tmp_path, variant):
    with pytest.raises(data.DataNotFoundError) as caught:
        data.cifar10(variant=variant)
    message = str(caught.value)
    wanted = {"binary": BINARY, "jpeg": "cifar10_jpeg.npz", "subset": "cifar10_exact_subset.npz"}.get(variant, PYTHON)
    for part in (wanted, "FCNN_DATA", "'cifar10'", str(tmp_path / "cache" / "fcnn" / "cifar10")):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("variant", ["Python", "", 1, "png"])
def test_an_unknown_variant_is_refused(place, variant):
    with pytest.raises(ValueError, match=r"cifar10: variant is .* must be None or one of 'python'"):
        data.cifar10(variant=variant)


@pytest.mark.parametrize("name", [PYTHON, BINARY, "cifar10_jpeg.npz", "cifar10_exact_subset.npz"])
def test_a_file_with_another_checksum_is_refused(place, name):
    (place / name).write_bytes(b"something else")
    with pytest.raises(data.DataDamagedError, match=rf"{name} is damaged.*SHA-256 is [0-9a-f]{{64}}, expected"):
        data.cifar10()


@pytest.mark.parametrize("form", FORMS)
def test_a_flipped_byte_is_refused(place, monkeypatch, pixels, form):
    FORMS[form](place, monkeypatch, pixels)
    path = max((p for p in place.rglob("*") if p.is_file()), key=lambda p: (p.stat().st_size, p.name))
    raw = bytearray(path.read_bytes())
    raw[0 if form == "binary folder" else len(raw) // 2] ^= 0x55  # nothing is published to check binary pixels with
    path.write_bytes(raw)
    with pytest.raises(data.DataDamagedError, match=r"damaged"):
        data.cifar10()


def reconstructed(form, pixels, change):
    contents = python_files(pixels) if form == "python" else binary_files(pixels)
    return archive(f"cifar-10-batches-{form[:2] if form == 'python' else 'bin'}", change(contents))


def shortened(name):
    return lambda contents: {**contents, name: contents[name][:-100]}


def without(name):
    return lambda contents: {k: v for k, v in contents.items() if k != name}


def fewer(pixels):
    images, labels = pixels
    return images[:, :2], labels[:, :2]


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        ("python", shortened("data_batch_3"), r"data_batch_3 of .* is damaged: not a pickle"),
        ("python", without("test_batch"), r"lacks test_batch in its folder cifar-10-batches-py"),
        ("binary", shortened("data_batch_2.bin"), r"data_batch_2.bin of .* damaged: 9,119 bytes are no multiple"),
        ("binary", without("data_batch_5.bin"), r"lacks data_batch_5.bin"),
        ("binary", lambda c: {**c, "test_batch.bin": b"\x0b" + c["test_batch.bin"][1:]}, r"a label is 11"),
        ("binary", lambda c: {**c, "test_batch.bin": c["test_batch.bin"][3073:]}, r"holds 2 images, expected 3"),
        ("python", lambda c: {**c, "test_batch": pickle.dumps([1])}, r"holds no dict but a list"),
        ("python", lambda c: {**c, "test_batch": pickle.dumps({"data": 1})}, r'"data" is not an array'),
        (
            "python",
            lambda c: {**c, "test_batch": pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]})},
            r"numbers from 0 to 9",
        ),
        (
            "python",
            lambda c: {**c, "test_batch": pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]})},
            r"2 images and 1 labels",
        ),
        (
            "python",
            lambda c: {**c, "test_batch": pickle.dumps({"data": np.zeros((1, 3072)), "labels": [1]})},
            r"only arrays of bytes",
        ),
    ],
    ids=[
        "python batch cut",
        "python batch missing",
        "binary batch cut",
        "binary batch missing",
        "binary label 11",
        "binary image missing",
        "a list",
        "no array",
        "label 10",
        "label missing",
        "float64",
    ],
)
def test_archives_of_the_right_checksum_but_wrong_content_are_refused(
    place, monkeypatch, pixels, form, change, message
):
    put(place, monkeypatch, PYTHON if form == "python" else BINARY, reconstructed(form, pixels, change))
    with pytest.raises(data.DataDamagedError, match=message):
        data.cifar10()


@pytest.mark.parametrize("cut", [0, 10, 1000, -1])
@pytest.mark.parametrize("form", ["python", "binary"])
def test_a_cut_archive_is_refused(place, monkeypatch, pixels, form, cut):
    whole = reconstructed(form, pixels, dict)
    put(place, monkeypatch, PYTHON if form == "python" else BINARY, whole[:cut] if cut else b"")
    with pytest.raises(data.DataDamagedError, match=r"not a whole \.tar\.gz archive|lacks"):
        data.cifar10()


def test_a_batch_that_is_a_link_is_not_followed(place, monkeypatch, tmp_path, pixels):
    contents = python_files(pixels)
    secret = tmp_path / "elsewhere"
    secret.write_bytes(contents["test_batch"])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in without("test_batch")(contents).items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
    put(place, monkeypatch, PYTHON, out.getvalue())
    with pytest.raises(data.DataDamagedError, match="lacks test_batch"):
        data.cifar10()


def test_a_folder_without_a_batch_is_refused(place, monkeypatch, pixels):
    put_folder(place, monkeypatch, "cifar-10-batches-py", without("data_batch_4")(python_files(pixels)))
    with pytest.raises(data.DataDamagedError, match="data_batch_4"):
        data.cifar10()


class Shout:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_malicious_batch_is_refused_and_nothing_of_it_runs(place, monkeypatch, tmp_path, pixels):
    mark = tmp_path / "ran"
    contents = {**python_files(pixels), "data_batch_1": pickle.dumps({"data": Shout(mark), "labels": [1]}, 2)}
    put(place, monkeypatch, PYTHON, archive("cifar-10-batches-py", contents))
    with pytest.raises(data.DataDamagedError, match=r"data_batch_1 .* asks for (posix|nt)\.system"):
        data.cifar10()
    assert not mark.exists()


def test_npz_files_of_the_right_checksum_but_wrong_content_are_refused(place, monkeypatch):
    written = io.BytesIO()
    np.savez(written, x_train=np.zeros((1, 32, 32, 3), np.uint8))
    objects = io.BytesIO()
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(objects, **dict.fromkeys(names, np.array([Shout(place / "ran")], object)))
    bare = io.BytesIO()
    np.save(bare, np.zeros(3))
    for content in (written.getvalue(), written.getvalue()[:-30], objects.getvalue(), bare.getvalue(), b""):
        put(place, monkeypatch, "cifar10_exact_subset.npz", content)
        with pytest.raises(data.DataDamagedError, match=r"cifar10_exact_subset\.npz is not the archive of x_train"):
            data.cifar10()


def jpeg_set(place, monkeypatch, broken=False):
    """A forged lossy set of five grey images, which JPEG keeps exactly, and the right checksums."""
    image_module = pytest.importorskip("PIL.Image")
    arrays, truth = {}, {}
    for split, greys in {"train": (0, 64, 255), "test": (16, 128)}.items():
        images = np.stack([np.full((32, 32, 3), grey, np.uint8) for grey in greys])
        encoded = []
        for image in images:
            out = io.BytesIO()
            image_module.fromarray(image).save(out, "JPEG", quality=75)
            encoded.append(b"\xff\xd8 no more" if broken and split == "test" else out.getvalue())
        arrays[f"{split}_jpeg"] = np.frombuffer(b"".join(encoded), np.uint8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, encoded)])
        arrays[f"{split}_labels"] = np.arange(len(greys), dtype=np.uint8)
        truth[split] = images
        monkeypatch.setitem(cifar.DECODED, split, hashlib.sha256(images.tobytes()).hexdigest())
    out = io.BytesIO()
    np.savez(out, **arrays)
    put(place, monkeypatch, "cifar10_jpeg.npz", out.getvalue())
    return truth


def test_the_lossy_form_is_decoded_and_says_what_it_is(place, monkeypatch):
    truth = jpeg_set(place, monkeypatch)
    found = data.cifar10()
    np.testing.assert_array_equal(found.train[0] * np.float32(255), truth["train"])
    np.testing.assert_array_equal(found.test[0] * np.float32(255), truth["test"])
    assert found.train[1].tolist() == [0, 1, 2]
    assert "JPEG q75 copy" in found.licence


def test_a_decoder_that_rounds_otherwise_is_pointed_out(place, monkeypatch):
    jpeg_set(place, monkeypatch)
    monkeypatch.setitem(cifar.DECODED, "test", "0" * 64)
    with pytest.warns(UserWarning, match="images of test .* decoded otherwise") as caught:
        data.cifar10()
    assert caught[0].filename == __file__


def test_a_broken_jpeg_is_refused_by_number(place, monkeypatch):
    jpeg_set(place, monkeypatch, broken=True)
    with pytest.raises(data.DataDamagedError, match="image 0 of test"):
        data.cifar10()


def test_without_pillow_the_way_to_it_is_named(place, monkeypatch):
    jpeg_set(place, monkeypatch)
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'fcnn\[data\]'"):
        data.cifar10()


@pytest.mark.slow
@needs("cifar10_jpeg.npz")
def test_the_lossy_form_is_the_published_set():
    pytest.importorskip("PIL")
    found = data.cifar10(variant="jpeg")
    assert found.train[0].shape == (50000, 32, 32, 3)
    assert found.test[0].shape == (10000, 32, 32, 3)
    assert np.bincount(found.train[1]).tolist() == [5000] * 10
    assert np.bincount(found.test[1]).tolist() == [1000] * 10
    # quoted for the original: mean 0.4914, 0.4822, 0.4465, deviation 0.2470, 0.2435, 0.2616; JPEG loses a little
    np.testing.assert_allclose(found.train[0].mean((0, 1, 2), np.float64), [0.4914, 0.4822, 0.4465], atol=2e-4)
    np.testing.assert_allclose(found.train[0].std((0, 1, 2), np.float64), [0.2470, 0.2435, 0.2616], atol=2e-3)
    decoded = np.round(found.test[0] * np.float32(255)).astype(np.uint8)
    assert hashlib.sha256(decoded.tobytes()).hexdigest() == (
        "b7018a062865e9348a704e72416eb53c816b43cc8ac42ab43276a2b967508ab6"
    )
    assert "JPEG q75 copy" in found.licence
    exact = data.cifar10(variant="subset")
    np.testing.assert_array_equal(exact.test[1], found.test[1][: len(exact.test[1])])
    # lossy, but picture for picture the same: the mean error is 5.8 of 255
    error = np.abs(exact.test[0] - found.test[0][: len(exact.test[0])]).mean((1, 2, 3)) * 255
    assert error.max() < 13


@needs("cifar10_exact_subset.npz")
def test_the_exact_subset_is_what_is_written_about_it():
    found = data.cifar10(variant="subset")
    assert found.train[0].shape == (8068, 32, 32, 3)
    assert found.test[0].shape == (1017, 32, 32, 3)
    # the first images of data_batch_1, as everybody knows them: a frog, two trucks, a deer, a car
    assert [found.classes[y] for y in found.train[1][:5]] == ["frog", "truck", "truck", "deer", "automobile"]
    # and of test_batch: a cat, two ships, an airplane
    assert [found.classes[y] for y in found.test[1][:4]] == ["cat", "ship", "ship", "airplane"]
    # the first pixel of the training set is (59, 62, 63)
    assert np.round(found.train[0][0, 0, 0] * 255).tolist() == [59, 62, 63]
    assert "subset" in found.licence


@needs(PYTHON)
def test_the_original_archive_is_the_published_set():
    found = data.cifar10(variant="python")
    assert np.bincount(found.train[1]).tolist() == [5000] * 10
    np.testing.assert_allclose(found.train[0].mean((0, 1, 2), np.float64), [0.4914, 0.4822, 0.4465], atol=5e-5)


def test_gzip_that_is_no_archive_is_refused(place, monkeypatch):
    put(place, monkeypatch, PYTHON, gzip.compress(b"not a tar file" * 100))
    with pytest.raises(data.DataDamagedError, match=r"not a whole \.tar\.gz archive"):
        data.cifar10()
