"""Masks, boxes and further inputs that move with the image, against SciPy, NumPy and the image itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.ndimage import map_coordinates

import fcnn
from fcnn.data import augment
from fcnn.data.augment import (
    Affine,
    AlternatingFlip,
    ColourJitter,
    Crop,
    Cutout,
    Elastic,
    Flip,
    Mixup,
    Noise,
    Shift,
    compose,
    sometimes,
    together,
)

KEY = jax.random.key(3)
#: augmentations that move whole samples, and some that do not move
WHOLE = {
    "flip": Flip(p=0.5),
    "upside down": Flip(axis=0, p=0.5),
    "shift": Shift(3),
    "crop": Crop(2, mode="edge"),
    "several": compose(Flip(), Shift((2, 4), mode="reflect"), Flip(axis=0)),
    "sometimes": sometimes(0.5, compose(Shift(2, mode="wrap"), Flip(p=1.0))),
}


def labels(batch=6, height=9, width=11, seed=0):
    return np.random.default_rng(seed).integers(1, 5, (batch, height, width)).astype(np.int32)


@pytest.mark.parametrize("name", WHOLE)
def test_a_mask_moves_as_an_image_of_the_same_labels(name):
    """What moves whole samples makes the same of labels in a picture and in a mask."""
    part, mask = WHOLE[name], labels()
    image = jnp.asarray(mask[..., None], jnp.float32)
    (x,), y = jax.jit(together(part, targets="mask"))(KEY, ((image,), jnp.asarray(mask)))
    np.testing.assert_array_equal(x[..., 0], y)
    (alone,), _ = jax.jit(part)(KEY, ((image,), None))
    np.testing.assert_array_equal(x, alone)
    assert y.dtype == jnp.int32
    assert not np.array_equal(y, mask)


@pytest.mark.parametrize("part", [Affine(rotate=30, scale=(0.8, 1.2), translate=2, fill=7.0), Elastic(20, 3)], ids=repr)
def test_a_bent_mask_has_the_labels_of_where_the_image_comes_from(part):
    """The image is its own coordinates, linear so that interpolation gives them exactly where nothing is filled in."""
    rows, columns = np.meshgrid(np.arange(16.0), np.arange(16.0), indexing="ij")
    image = jnp.asarray(np.stack([rows, columns], -1), jnp.float32)[None].repeat(4, 0)
    mask = np.random.default_rng(1).integers(1, 9, (4, 16, 16))
    _, y = together(part, targets="mask", fill=0)(KEY, ((image,), jnp.asarray(mask)))
    (where,), _ = dataclasses.replace(part, fill="edge")(KEY, ((image,), None))
    where, y = np.asarray(where), np.asarray(y)
    for n in range(4):
        expected = map_coordinates(mask[n], np.moveaxis(where[n], -1, 0), order=0, mode="nearest")
        tie = (np.abs(where[n] % 1 - 0.5) < 1e-3).any(-1)
        sure = ((where[n] > 0) & (where[n] < 15)).all(-1) & ~tie  # at 0 and 15 lies what is beyond, too
        assert sure.sum() > 100
        assert (expected == y[n])[sure].all()


def test_boxes_bound_what_they_bounded():
    image = np.zeros((5, 12, 14, 1), np.float32)
    boxes = np.array([[[2, 3, 6, 5]], [[0, 0, 3, 14]], [[5, 5, 6, 6]], [[1, 9, 11, 13]], [[10, 2, 12, 4]]], np.float32)
    for n, ((top, left, bottom, right),) in enumerate(boxes.astype(int)):
        image[n, top:bottom, left:right] = 1
    part = compose(Flip(), Flip(axis=0), Shift(4))
    (x,), y = jax.jit(together(part, targets="boxes"))(KEY, ((jnp.asarray(image),), jnp.asarray(boxes)))
    for picture, ((top, left, bottom, right),) in zip(np.asarray(x[..., 0]), np.asarray(y), strict=True):
        rows, columns = np.nonzero(picture)
        bounds = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1) if len(rows) else (0, 0, 0, 0)
        assert (top, left, bottom, right) == bounds


def test_further_inputs_and_trees_of_targets_follow():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 2)), jnp.float32)
    depth, mask = x[..., :1] * 2, jnp.asarray(labels(3, 8, 8))
    part = together(
        compose(Flip(), Noise(0.5), Shift(1)), inputs=("image", None), targets={"mask": "mask", "class": None}
    )
    (first, second, third), y = jax.jit(part)(KEY, ((x, depth, depth), {"mask": mask, "class": jnp.arange(3)}))
    plain = together(compose(Flip(), lambda_like(), Shift(1)), inputs=("image",))
    (clean, other), _ = jax.jit(plain)(KEY, ((x, depth), None))
    np.testing.assert_allclose(second, other, atol=1e-6)
    np.testing.assert_allclose(second, clean[..., :1] * 2, atol=1e-5)  # moved, and without the noise
    np.testing.assert_array_equal(third, depth)
    assert y["class"].tolist() == [0, 1, 2]
    assert float(jnp.abs(first - clean).max()) > 0.1


def lambda_like():
    """A function of one's own that says that it moves nothing."""

    def same(key, batch):
        return batch

    same.moves = False
    return same


def test_by_example_and_compiled_and_repeated():
    part = together(AlternatingFlip(), targets="mask")
    assert part.by_example
    mask = labels(4)
    image = jnp.asarray(mask[..., None], jnp.float32)
    known = {"examples": jnp.arange(4), "epoch": 1}
    (x,), y = jax.jit(lambda k: part(k, ((image,), jnp.asarray(mask)), **known))(KEY)
    np.testing.assert_array_equal(x[..., 0], y)
    same = together(Flip(), targets={"a": "mask", "b": ("boxes", None)}, fill=255)
    assert eval(repr(same), vars(augment)) == same
    assert hash(eval(repr(same), vars(augment))) == hash(same)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, y: Flip()(KEY, ((x,), y)), ValueError, r'Flip: it moves x, but not the targets.*together'),
        (
            lambda x, y: AlternatingFlip()(KEY, ((x,), y), examples=jnp.arange(2), epoch=0),
            ValueError,
            "but not the targets",
        ),
        (lambda x, y: compose(Noise(0.1), Shift(1))(KEY, ((x,), y)), ValueError, "Shift: it moves x, but not"),
        (lambda x, y: together(Mixup(0.2), targets="mask"), ValueError, "mixes examples"),
        (lambda x, y: together(lambda k, b: b, targets="mask"), TypeError, "does not say whether it moves"),
        (lambda x, y: together(Flip(), targets="masks"), ValueError, "'masks' cannot be moved along; use one of"),
        (lambda x, y: together(Flip(), targets="boxes")(KEY, ((x,), y)), ValueError, r"boxes are \(batch, count, 4\)"),
        (lambda x, y: together(Flip(), targets="mask")(KEY, ((x,), y[:, :3])), ValueError, r"with the space \(6, 6\)"),
        (lambda x, y: together(Flip(), targets={"a": "mask"})(KEY, ((x,), y)), ValueError, "targets= names a"),
        (lambda x, y: together(Flip(), inputs=("mask",))(KEY, ((x,), y)), ValueError, "names 1 inputs after the first"),
        (lambda x, y: ColourJitter(brightness=0.1)(KEY, ((x - 2,), None)), ValueError, "go from -1 to -1"),
    ],
)  # fmt: skip
def test_what_would_go_wrong_silently_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones((2, 6, 6, 3)), jnp.zeros((2, 6, 6), int))


def test_targets_may_stay_when_that_is_said():
    x, y = jnp.ones((2, 6, 6, 3)), jnp.asarray(labels(2, 6, 6))
    (_,), same = together(Flip(p=1.0))(KEY, ((x,), y))
    np.testing.assert_array_equal(same, y)
    (_,), erased = together(Cutout(2), targets="mask")(KEY, ((x,), y))
    np.testing.assert_array_equal(erased, y)


@pytest.mark.parametrize("handed_in", [False, True])
def test_fit_looks_at_the_values_before_training(handed_in):
    x, y = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32), np.arange(32) % 2
    net = fcnn.serial(fcnn.Flatten(), fcnn.Dense(2))
    part = compose(Flip(), sometimes(0.5, ColourJitter(contrast=0.2)))
    with pytest.raises(ValueError, match=r"fit: augment: the values of x go from -.* normalise in the network"):
        fcnn.fit(
            net,
            [(x, y)] if handed_in else (x, y),
            optimizer=optax.sgd(0.1),
            epochs=1,
            key=KEY,
            augment=part,
            progress=False,
        )
