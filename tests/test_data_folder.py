"""Folders of pictures, written with Pillow and NumPy, read back."""

import hashlib
import os
import struct
import sys
import unicodedata
import warnings
import zlib

import numpy as np
import pytest

from fcnn import data

Image = pytest.importorskip("PIL.Image", reason="Pillow: pip install 'fcnn[data]'")


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(path, pixels, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **how)


def write_set(folder, counts, size=(4, 5)):
    """Pictures of noise, `counts` of each class; returns {class/file: pixels}."""
    truth = {}
    for name, count in counts.items():
        for i in range(count):
            truth[f"{name}/{i}.png"] = noise(*size, seed=len(truth))
            write(folder / name / f"{i}.png", truth[f"{name}/{i}.png"])
    return truth


def share(name):
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) / 2**256


def one(folder, **how):
    """The only picture in a folder, as numbers from 0 to 255."""
    how = {"size": 4, "test": 0} | how
    (x, _), _, _, _ = data.load_image_folder(folder, **how)
    return x[0] * 255


def test_pictures_labels_and_classes_are_those_that_were_written(tmp_path):
    truth = write_set(tmp_path, {"dog": 3, "ant": 2, "Cat": 1})
    (x, y), (test_x, test_y), classes, _ = data.load_image_folder(tmp_path, size=(4, 5), test=0)
    assert classes == ("Cat", "ant", "dog")
    assert y.tolist() == [0, 1, 1, 2, 2, 2]
    np.testing.assert_array_equal(x, [np.float32(truth[name]) / np.float32(255) for name in sorted(truth)])
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    assert test_x.shape == (0, 4, 5, 3)
    assert test_y.shape == (0,)


def test_the_split_is_by_the_hash_of_class_and_name(tmp_path):
    truth = write_set(tmp_path, {"a": 60, "b": 40})
    names = sorted(truth)
    train, test, _, _ = data.load_image_folder(tmp_path, size=(4, 5), test=0.3)
    chosen = np.array([share(name) < 0.3 for name in names])
    assert 0 < chosen.sum() < 100
    pixels = np.stack([truth[name] for name in names])
    np.testing.assert_array_equal(np.round(train[0] * 255), pixels[~chosen])
    np.testing.assert_array_equal(np.round(test[0] * 255), pixels[chosen])
    assert test[1].tolist() == [int(name[0] == "b") for name, c in zip(names, chosen, strict=True) if c]


def test_pictures_that_are_added_move_no_other(tmp_path):
    write_set(tmp_path, {"a": 30, "b": 30})
    before = data.load_image_folder(tmp_path, size=(4, 5))
    for i in range(20):
        write(tmp_path / "a" / f"new{i}.png", noise(4, 5, seed=1000 + i))
    after = data.load_image_folder(tmp_path, size=(4, 5))

    def contents(part):
        return {image.tobytes() for image in part[0]}

    assert contents(before.train) < contents(after.train)
    assert contents(before.test) <= contents(after.test)


def test_every_class_keeps_a_picture_for_training(tmp_path):
    names = [f"{name}/{i}.png" for name in "ab" for i in range(3)]
    write_set(tmp_path, {"a": 3, "b": 3})
    train, test, _, _ = data.load_image_folder(tmp_path, size=4, test=max(map(share, names)) + 1e-6)
    assert train[1].tolist() == [0, 1]
    assert test[1].tolist() == [0, 0, 1, 1]


def test_train_and_test_folders_are_the_split(tmp_path):
    truth = write_set(tmp_path, {"train/a": 2, "train/b": 1, "train/c": 1, "test/c": 2, "elsewhere": 1})
    train, test, classes, _ = data.load_image_folder(tmp_path, size=(4, 5), test=0.9)
    assert classes == ("a", "b", "c")
    assert train[1].tolist() == [0, 0, 1, 2]
    assert test[1].tolist() == [2, 2]
    np.testing.assert_array_equal(np.round(test[0] * 255), [truth["test/c/0.png"], truth["test/c/1.png"]])


def test_a_folder_called_train_alone_is_a_class(tmp_path):
    write_set(tmp_path, {"train": 1, "plane": 1})
    assert data.load_image_folder(tmp_path, size=4).classes == ("plane", "train")


def test_folders_in_a_class_are_read_and_hidden_and_other_files_are_not(tmp_path):
    write_set(tmp_path, {"a": 1, "a/old/older": 1, ".git": 1, "a/.thumbs": 1})
    write(tmp_path / "a" / ".hidden.png", noise(4, 5))
    (tmp_path / "a" / "notes.txt").write_text("words")
    write(tmp_path / "on the top.png", noise(4, 5))
    found = data.load_image_folder(tmp_path, size=4, test=0)
    assert found.classes == ("a",)
    assert found.train[1].tolist() == [0, 0]


def test_names_in_any_script_and_either_spelling_are_read_alike(tmp_path):
    names = ["Übung", "猫", "cœur d'été"]
    for form, folder in (("NFC", tmp_path / "c"), ("NFD", tmp_path / "d")):
        for name in names:
            for i in range(8):
                path = folder / unicodedata.normalize(form, name) / unicodedata.normalize(form, f"é{i}.PNG")
                write(path, noise(4, 4, seed=i + 100 * names.index(name)))
    composed, decomposed = (data.load_image_folder(tmp_path / which, size=4, test=0.5) for which in "cd")
    assert composed.classes == tuple(sorted(names))
    assert decomposed.classes == composed.classes
    for part in range(2):
        np.testing.assert_array_equal(composed[part][0], decomposed[part][0])
        np.testing.assert_array_equal(composed[part][1], decomposed[part][1])


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "webp", "jpg", "JPEG"])
def test_every_format_is_read(tmp_path, ending):
    pixels = np.full((4, 4), 100, np.uint8)  # of one grey: lossy formats keep it
    write(tmp_path / "a" / f"1.{ending}", pixels)
    np.testing.assert_allclose(one(tmp_path), 100, atol=1)


def test_a_moving_picture_gives_its_first(tmp_path):
    (tmp_path / "a").mkdir()
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a" / "1.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(one(tmp_path, colour=False), 10, atol=1e-4)


def triangle(pixels, size, start, length):
    """Shrink a stretch of the last axis to `size` with the triangle filter, written out: 1 - |distance| / scale."""
    scale = length / size
    centres = start + (np.arange(size) + 0.5) * scale
    weights = (1 - np.abs(np.arange(pixels.shape[-1]) + 0.5 - centres[:, None]) / scale).clip(0)
    return pixels @ (weights / weights.sum(1, keepdims=True)).T


def test_the_short_side_is_scaled_and_the_middle_cut_out(tmp_path):
    pixels = noise(12, 40, channels=1)
    write(tmp_path / "a" / "1.png", pixels)
    found = one(tmp_path, size=4, colour=False)[..., 0]
    # by a third; of the long side the 12 columns from 14 on are kept
    expected = triangle(triangle(pixels.astype(float), 4, 14, 12).T, 4, 0, 12).T
    np.testing.assert_allclose(found, expected, atol=1.01)  # Pillow rounds after each axis


def test_the_size_may_be_taller_than_wide(tmp_path):
    pixels = noise(30, 30, channels=1)
    write(tmp_path / "a" / "1.png", pixels)
    found = one(tmp_path, size=(12, 6), colour=False)
    assert found.shape == (12, 6, 1)
    expected = triangle(triangle(pixels.astype(float), 6, 7.5, 15).T, 12, 0, 30).T
    np.testing.assert_allclose(found[..., 0], expected, atol=1.01)


def test_a_picture_of_the_right_size_is_not_touched_and_a_small_one_grows(tmp_path):
    write(tmp_path / "a" / "1.png", noise(2, 2))
    np.testing.assert_allclose(one(tmp_path, size=2), noise(2, 2), atol=1e-4)
    assert one(tmp_path, size=(9, 5)).shape == (9, 5, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_exif_is_honoured(tmp_path, orientation):
    upright = noise(4, 4)
    # how the camera stored it, from the definition in EXIF 2.3: where the stored first row and column belong
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    write(tmp_path / "a" / "1.png", np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_allclose(one(tmp_path), upright, atol=1e-4)


def test_transparent_parts_lie_on_white(tmp_path):
    pixels = noise(4, 4, channels=4)
    pixels[0, 0, 3], pixels[0, 1, 3] = 0, 255
    write(tmp_path / "a" / "1.png", pixels)
    alpha = pixels[..., 3:] / 255
    np.testing.assert_allclose(one(tmp_path), pixels[..., :3] * alpha + 255 * (1 - alpha), atol=1.01)


def test_palettes_and_grey_pictures_are_read(tmp_path):
    indices = (noise(4, 4, channels=1) % 4).astype(np.uint8)
    colours = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30], [7, 7, 7]], np.uint8)
    image = Image.new("P", (4, 4))
    image.putpalette(colours.ravel().tolist())
    image.putdata(indices.ravel().tolist())
    (tmp_path / "p" / "a").mkdir(parents=True)
    image.save(tmp_path / "p" / "a" / "1.png")
    np.testing.assert_allclose(one(tmp_path / "p"), colours[indices], atol=1e-4)
    image.save(tmp_path / "p" / "a" / "1.png", transparency=2)
    on_white = np.where(indices[..., None] == 2, 255, colours[indices])
    np.testing.assert_allclose(one(tmp_path / "p"), on_white, atol=1e-4)
    grey = noise(4, 4, channels=1)
    write(tmp_path / "g" / "a" / "1.png", grey)
    np.testing.assert_allclose(one(tmp_path / "g"), np.repeat(grey[..., None], 3, -1), atol=1e-4)
    np.testing.assert_allclose(one(tmp_path / "g", colour=False), grey[..., None], atol=1e-4)
    write(tmp_path / "b" / "a" / "1.png", grey > 127)
    np.testing.assert_allclose(one(tmp_path / "b", colour=False)[..., 0], 255 * (grey > 127), atol=1e-4)


def test_colours_become_grey_by_their_luma(tmp_path):
    pixels = noise(4, 4)
    write(tmp_path / "a" / "1.png", pixels)
    np.testing.assert_allclose(one(tmp_path, colour=False)[..., 0], pixels @ [0.299, 0.587, 0.114], atol=1)


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    values = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 2, 2, 16, 0, 0, 0, 0)  # 2 x 2 pixels of 16 bits of grey
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(png)
    np.testing.assert_allclose(one(tmp_path, size=2, colour=False)[..., 0], [[0, 100], [200, 255]], atol=1e-4)


def broken(path):
    """Files that are no whole pictures, by what is wrong with them."""
    write(path, noise(30, 30))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    return {"empty": b"", "words": b"not a picture", "cut": whole[:-200], "head": whole[:20], "flipped": bytes(flipped)}


@pytest.mark.parametrize("fault", ["empty", "words", "cut", "head", "flipped"])
def test_a_broken_picture_is_named_or_left_out(tmp_path, fault):
    truth = write_set(tmp_path, {"a": 2, "b": 1})
    path = tmp_path / "a" / "broken.png"
    path.write_bytes(broken(path)[fault])
    with pytest.raises(data.DataDamagedError, match=r"a.broken\.png cannot be read"):
        data.load_image_folder(tmp_path, size=(4, 5), test=0)
    with pytest.warns(UserWarning, match=r"left out: .*broken\.png") as caught:
        found = data.load_image_folder(tmp_path, size=(4, 5), test=0, skip_damaged=True)
    assert caught[0].filename == __file__
    assert found.train[1].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(np.round(found.train[0] * 255), list(truth.values()))


def test_a_link_to_nowhere_is_named(tmp_path):
    write_set(tmp_path, {"a": 1})
    os.symlink(tmp_path / "gone", tmp_path / "a" / "link.png")
    with pytest.raises(data.DataDamagedError, match=r"link\.png cannot be read \(FileNotFoundError"):
        data.load_image_folder(tmp_path, size=4)


@pytest.mark.parametrize("layout", ["", "train/"])
def test_a_class_of_nothing_but_broken_pictures_is_refused(tmp_path, layout):
    write_set(tmp_path, {f"{layout}a": 1, f"{layout}b": 1, **({"test/a": 1} if layout else {})})
    (tmp_path / f"{layout}b" / "0.png").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"no picture in .* of b can be read"):
            data.load_image_folder(tmp_path, size=4, skip_damaged=True)


@pytest.mark.parametrize(
    ("counts", "error", "message"),
    [
        (None, FileNotFoundError, "there is no folder"),
        ("file", NotADirectoryError, "is a file"),
        ({}, ValueError, "holds no folders; put the pictures of each class into a folder"),
        ({".hidden": 1}, ValueError, "holds no folders"),
        ({"a": 1, "b": 0}, ValueError, r"the class .*b holds no pictures \(\.png"),
        ({"train/a": 1, "test/a": 1, "test/z": 1}, ValueError, "test has the classes z, which train has not"),
    ],
    ids=["missing", "a file", "empty", "hidden", "empty class", "unknown class"],
)
def test_folders_that_will_not_do_are_explained(tmp_path, counts, error, message):
    folder = tmp_path / "set"
    if counts == "file":
        folder.write_text("words")
    elif counts is not None:
        folder.mkdir()
        for name, count in counts.items():
            (folder / name).mkdir(parents=True)
            write_set(folder, {name: count})
    with pytest.raises(error, match=f"load_image_folder: .*{message}"):
        data.load_image_folder(folder, size=4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": 0}, ValueError, "size is 0, it must be at least 1"),
        ({"size": (4, -1)}, ValueError, "size is"),
        ({"size": 4.0}, TypeError, r"size is 4\.0, it must be an integer or \(height, width\)"),
        ({"size": (1, 2, 3)}, TypeError, "size is"),
        ({"size": "44"}, TypeError, "size is '44'"),
        ({"size": True}, TypeError, "size is True"),
        ({"size": 4, "test": 1}, ValueError, "test is 1, it must be a share from 0 to below 1"),
        ({"size": 4, "test": -0.1}, ValueError, "test is"),
        ({"size": 4, "test": float("nan")}, ValueError, "test is nan"),
        ({"size": 4, "test": "0.2"}, TypeError, "test is '0.2', it must be a number"),
    ],
)
def test_wrong_arguments_are_explained(tmp_path, arguments, error, message):
    write_set(tmp_path, {"a": 1})
    with pytest.raises(error, match=f"load_image_folder: {message}"):
        data.load_image_folder(tmp_path, **arguments)


def test_without_pillow_the_way_to_it_is_named(tmp_path, monkeypatch):
    write_set(tmp_path, {"a": 1})
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pictures need Pillow: pip install 'fcnn\[data\]'"):
        data.load_image_folder(tmp_path, size=4)


def test_a_picture_alone_is_the_one_of_the_folder(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    pixels = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a" / "1.png")
    for colour in (True, False):
        (x, _), *_ = data.load_image_folder(tmp_path, size=(9, 8), test=0, colour=colour)
        np.testing.assert_array_equal(data.load_image(tmp_path / "a" / "1.png", size=(9, 8), colour=colour), x[0])
    with pytest.raises(FileNotFoundError, match="there is no file"):
        data.load_image(tmp_path / "2.png", size=8)


@pytest.mark.parametrize(
    ("parts", "held_out", "second"),
    [
        (("train", "val"), None, "val"),
        (("Training", "Validation"), None, "Validation"),
        (("TRAIN", "valid", "test"), None, "test"),
        (("train", "val", "testing"), "val", "val"),
    ],
)
def test_the_folders_of_a_split_are_recognised(tmp_path, parts, held_out, second):
    write_set(tmp_path, {f"{part}/{name}": 1 + i for i, part in enumerate(parts) for name in ("ants", "bees")})
    found = data.load_image_folder(tmp_path, size=4, held_out=held_out)
    assert found.classes == ("ants", "bees")
    assert found.train[1].tolist() == [0, 1]
    assert len(found.test[1]) == 2 * (1 + parts.index(second))


def test_one_part_of_a_split_alone_is_not_a_class(tmp_path):
    write_set(tmp_path, {"train/ants": 1, "train/bees": 1})
    with pytest.raises(ValueError, match=r"holds train, one part of a split; give .*train, whose folders are"):
        data.load_image_folder(tmp_path, size=4)
    with pytest.raises(ValueError, match=r"there is no folder .*val; .* holds train"):
        data.load_image_folder(tmp_path, size=4, held_out="val")
    assert data.load_image_folder(tmp_path / "train", size=4).classes == ("ants", "bees")


def test_folders_of_one_name_in_two_spellings_are_one_class(tmp_path):
    for form in ("NFC", "NFD"):
        write(tmp_path / unicodedata.normalize(form, "café") / f"{form}.png", noise(4, 4))
    found = data.load_image_folder(tmp_path, size=4, test=0)
    assert found.classes == (unicodedata.normalize("NFC", "café"),)
    assert len(found.train[1]) == 2


def test_what_lies_behind_links_is_read_once(tmp_path):
    write_set(tmp_path / "elsewhere", {"more": 2})
    write_set(tmp_path / "set", {"a": 1, "b": 1})
    (tmp_path / "set" / "a" / "linked").symlink_to(tmp_path / "elsewhere" / "more", target_is_directory=True)
    (tmp_path / "set" / "a" / "round").symlink_to(tmp_path / "set" / "a", target_is_directory=True)
    (tmp_path / "set" / "c").symlink_to(tmp_path / "elsewhere" / "more", target_is_directory=True)
    found = data.load_image_folder(tmp_path / "set", size=4, test=0)
    assert np.bincount(found.train[1]).tolist() == [3, 1, 2]


def sixteen_bits(values, *chunks):
    """A PNG of 16 bits of grey with further chunks, written byte by byte."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *values.shape[::-1], 16, 0, 0, 0, 0))
    body = b"".join(chunk(*each) for each in chunks) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def test_all_levels_of_sixteen_bits_are_kept(tmp_path):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "deep.png").write_bytes(sixteen_bits(values))
    write(tmp_path / "a" / "plain.png", noise(64, 64, 1))
    (x, _), _, _, _ = data.load_image_folder(tmp_path, size=64, test=0)
    np.testing.assert_allclose(x[0], np.repeat(values[..., None] / 65535, 3, -1), rtol=1e-6)
    np.testing.assert_array_equal(np.round(x[1, ..., 0] * 255), noise(64, 64, 1))
    single = data.load_image(tmp_path / "a" / "deep.png", size=64, colour=False)
    assert len(np.unique(single)) == 4096


def test_transparent_grey_of_sixteen_bits_lies_on_white(tmp_path):
    values = np.array([[1000, 30000], [30000, 5]], np.uint16)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(sixteen_bits(values, (b"tRNS", struct.pack(">H", 1000))))
    np.testing.assert_allclose(one(tmp_path, size=2, colour=False)[0, 0, 0], 255)
    np.testing.assert_allclose(one(tmp_path, size=2, colour=False)[1, 1, 0], 5 / 257, rtol=1e-5)


def test_a_faulty_tag_beside_the_orientation_is_left_alone(tmp_path):
    """An EXIF block whose XResolution, a fraction, is declared as text: Pillow cannot write it again."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x011A, 2, 1, 72)
    tiff = b"II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)
    image = Image.fromarray(noise(6, 4))
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "1.png", exif=b"Exif\0\0" + tiff)
    np.testing.assert_array_equal(one(tmp_path, size=(4, 6)), np.rot90(noise(6, 4), -1))


@pytest.mark.parametrize("ending", ["tif", "TIFF", "ppm", "jfif", "avif"])
def test_further_formats_are_read(tmp_path, ending):
    from PIL import features

    if ending == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    smooth = np.linspace(0, 255, 8 * 8 * 3).reshape(8, 8, 3).astype(np.uint8)
    kind = {"tif": "TIFF", "TIFF": "TIFF", "ppm": "PPM", "jfif": "JPEG", "avif": "AVIF"}[ending]
    write(tmp_path / "a" / f"1.{ending}", smooth, format=kind)
    np.testing.assert_allclose(one(tmp_path, size=8), smooth, atol=0 if kind in ("TIFF", "PPM") else 12)


def test_pictures_that_cannot_be_read_are_counted_in_a_warning(tmp_path):
    write_set(tmp_path, {"a": 1})
    (tmp_path / "a" / "phone.HEIC").write_bytes(b"")
    (tmp_path / "a" / "notes.txt").write_text("words")
    with pytest.warns(UserWarning, match=r"1 pictures in .*a are left out, such as .*phone.HEIC: Pillow does not read"):
        data.load_image_folder(tmp_path, size=4, test=0)


def test_numbers_of_no_known_range_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a" / "1.tif")
    with pytest.raises(data.DataDamagedError, match="floating-point numbers, whose range is not known"):
        data.load_image_folder(tmp_path, size=4)
