"""examples/find_faces.py: networks, boxes and faces are those of facenet-pytorch, whose weights it reads."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import fcnn

torch = pytest.importorskip("torch", reason="comparisons with PyTorch: pip install torch==2.13.0")
pytest.importorskip("PIL", reason="reads pictures: pip install pillow")
if any(importlib.util.find_spec(name) is None for name in ("facenet_pytorch", "skimage")):
    pytest.skip(
        "weights and pictures: pip install --no-deps facenet-pytorch==2.6.0 scikit-image==0.26.0",
        allow_module_level=True,
    )
import originals  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return __import__("find_faces")


@pytest.fixture
def theirs(monkeypatch):
    return originals.facenet(monkeypatch)


def outputs(module, x):
    """All outputs of one of their networks side by side, (batch, *space, outputs): probabilities, edges, landmarks."""
    with torch.no_grad():
        edges, *landmarks, probabilities = module(torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
    return np.moveaxis(torch.cat([probabilities, edges, *landmarks], 1).numpy(), 1, -1)


def test_the_networks_give_what_the_originals_give(example, theirs):
    params, random = example.read_weights(), np.random.default_rng(0)
    for name, module in (("pnet", theirs[0].PNet()), ("rnet", theirs[0].RNet()), ("onet", theirs[0].ONet())):
        net, side = example.SIDES[name]
        x = random.uniform(-1, 1, (5, side, side, 3)).astype(np.float32)
        wanted = outputs(module, x).reshape(5, -1)
        np.testing.assert_allclose(jax.jit(net.apply)(params[name], x), wanted, atol=1e-5)
        assert np.ptp(wanted, axis=0).max() > 0.05  # it depends on x


@pytest.mark.parametrize("shape", [(26, 30), (27, 31)])
def test_a_scan_is_the_original_on_a_whole_picture_but_for_windows_over_its_edge(example, theirs, shape):
    params, module = example.read_weights()["pnet"], theirs[0].PNet()
    x = np.random.default_rng(0).uniform(-1, 1, (2, *shape, 3)).astype(np.float32)
    whole = outputs(module, x)
    found = example.apply_scan(params, x)
    rows, columns = ((n - 12) // 2 + 1 for n in shape)
    assert found.shape == (2, rows, columns, 6)
    assert whole.shape == (2, rows + shape[0] % 2, columns + shape[1] % 2, 6)
    np.testing.assert_allclose(found, whole[:, :rows, :columns], atol=1e-5)
    net, converted = fcnn.fully_convolutional(example.PNET, params, (12, 12, 3))
    np.testing.assert_allclose(jax.jit(net.apply)(converted, x), whole, atol=1e-5)


def test_sizes_are_means_over_what_a_pixel_touches(example):
    picture = np.random.default_rng(0).integers(0, 256, (37, 53, 3)).astype(np.float32)
    given = torch.from_numpy(picture).permute(2, 0, 1)[None]
    for height, width in ((37, 53), (20, 31), (9, 60), (48, 48)):
        wanted = torch.nn.functional.interpolate(given, size=(height, width), mode="area")[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(example.resized(picture, height, width), (wanted - 127.5) / 128, atol=2e-6)


def test_all_sizes_in_one_scan_are_each_by_itself(example, theirs):
    params, module = example.read_weights()["pnet"], theirs[0].PNet()
    picture = np.random.default_rng(0).integers(0, 256, (75, 61, 3), dtype=np.uint8)
    levels = example.look_everywhere(params, picture)
    assert [level.shape for level in levels] == [
        (46, 37),
        (32, 26),
        (23, 19),
        (17, 14),
    ]  # in the next the shorter side is below 12
    np.testing.assert_allclose([level.scale for level in levels], 0.6 * 0.709 ** np.arange(4))
    for _, shape, heat in levels:
        small = torch.nn.functional.interpolate(
            torch.from_numpy(picture).float().permute(2, 0, 1)[None], size=shape, mode="area"
        )
        wanted = outputs(module, ((small - 127.5) / 128)[0].permute(1, 2, 0)[None].numpy())[0]
        np.testing.assert_allclose(heat, wanted[: heat.shape[0], : heat.shape[1]], atol=1e-5)


def test_suppression_against_the_original_and_the_definition(example, theirs):
    random = np.random.default_rng(0)
    first = random.uniform(0, 60, (80, 2))
    boxes = np.concatenate([first, first + random.uniform(5, 30, (80, 2))], axis=1).astype(np.float32)
    scores = random.permutation(80).astype(np.float32)
    for most in (0.3, 0.5, 0.7):
        tensors = (torch.from_numpy(boxes), torch.from_numpy(scores), torch.zeros(80))
        kept = example.suppressed(boxes, scores, most)
        np.testing.assert_array_equal(kept, originals.batched_nms(*tensors, most))
        of_smaller = example.suppressed(boxes, scores, most, of_smaller=True)
        np.testing.assert_array_equal(of_smaller, theirs[1].batched_nms_numpy(*tensors, most, "Min"))
        assert 5 < len(of_smaller) < len(kept) < 80
    assert example.suppressed(boxes[:0], scores[:0], 0.5).shape == (0,)


def check(found, wanted):
    """The same faces, to a hundredth of a pixel."""
    assert len(found.boxes) == len(wanted.boxes)
    nearest = np.abs(found.boxes[:, None] - wanted.boxes).max(-1).argmin(1)
    assert sorted(nearest.tolist()) == list(range(len(nearest)))
    np.testing.assert_allclose(found.boxes, wanted.boxes[nearest], atol=0.01)
    np.testing.assert_allclose(found.landmarks, wanted.landmarks[nearest], atol=0.01)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities[nearest], atol=1e-5)


def test_the_faces_of_a_small_picture_are_the_originals(example, theirs):
    picture = example.photographs.collage()[170:290, 260:420]  # two heads, one of them mirrored
    params = example.read_weights()
    found = example.find_faces(params, picture, example.look_everywhere(params["pnet"], picture))
    assert len(found.boxes) == 2
    check(found, example.original(picture))


def test_nothing_is_found_where_nothing_is(example):
    params, grey = example.read_weights(), np.full((40, 40, 3), 127, np.uint8)
    found = example.find_faces(params, grey, example.look_everywhere(params["pnet"], grey))
    assert [part.shape for part in found] == [(0, 4), (0,), (0, 5, 2)]


def test_windows_over_the_edge_are_counted(example, theirs, monkeypatch):
    params, module = example.read_weights()["pnet"], theirs[0].PNet()
    picture = example.photographs.collage()[170:231, 330:391]
    size = example.pyramid(61, 61)[0][1]
    assert size == (37, 37)  # with a last row and a last column of 14 windows beyond 13 x 13
    whole = outputs(module, example.resized(picture, *size)[None])[0, ..., 1]
    faces = (whole[13] >= 0.6).sum() + (whole[:13, 13] >= 0.6).sum()
    monkeypatch.setattr(example, "pyramid", lambda *_: [(0.6, size)])
    assert example.over_the_edge(params, picture) == {"windows": 27, "taken_for_faces": faces}
    assert faces > 0


@pytest.mark.slow
def test_the_faces_of_both_photographs_are_the_originals(example, theirs, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(example, "over_the_edge", lambda *_: None)  # it has a test of its own
    monkeypatch.setattr("sys.argv", ["", "--original", "--out", str(tmp_path)])
    assert example.main() == 0
    result = json.loads((tmp_path / "result.json").read_text())
    for name, faces in (("astronaut", 1), ("collage", 8)):
        found = result["pictures"][name]
        ours, wanted = (
            example.Faces(*(np.array(found[of][part]) for part in example.Faces._fields))
            for of in ("found", "original")
        )
        assert len(ours.boxes) == faces
        check(ours, wanted)
        assert found["largest_difference"]["one_to_one"]
        assert found["largest_difference"]["boxes"] < 0.01
        assert (tmp_path / f"{name}.png").stat().st_size > 100_000
    assert result["packages"]["facenet-pytorch"] == "2.6.0"
    assert result["versions"]["jax"] == jax.__version__


def test_missing_weights_are_said_in_one_line(example, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["", "--out", str(tmp_path / "out")])
    assert example.main() == 1
    said = "facenet-pytorch is not installed: pip install --no-deps facenet-pytorch\n"
    assert capsys.readouterr().err == f"cannot read the weights or pictures: {said}"
    assert not (tmp_path / "out").exists()
