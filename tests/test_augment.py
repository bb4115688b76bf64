"""Augmentations as values and as parts of a compiled step: what holds for every one of them."""

import functools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcnn.data import augment as a

IMAGES = [
    a.Affine(rotate=20, scale=(0.8, 1.2), shear=10, translate=(1, 2)),
    a.Affine(rotate=20, fill="edge"),
    a.ColourJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1),
    a.Crop(2),
    a.Crop((1, 2), mode="zeros"),
    a.CutMix(1.0, classes=5),
    a.Cutout(3),
    a.Elastic(10, 2),
    a.Flip(),
    a.Flip(axis=0, p=0.3),
    a.Mixup(0.5, classes=5),
    a.Noise(0.1),
    a.RandomErasing(),
    a.Rotate(30),
    a.Scale(0.8, 1.25),
    a.Shear(15, fill=0.5),
    a.Shift(3, mode="wrap"),
    a.Translate(2.5),
    a.Gain(6),
    a.TimeShift(3),
    a.MaskTime(4, masks=2),
    a.MaskFrequencies(4),
    a.compose(a.Crop(2), a.Flip()),
    a.sometimes(0.5, a.Cutout(4)),
    a.sometimes(0.5, a.Mixup(0.5, classes=5)),
    a.on_input(0, a.Flip()),
]
EVERY = [*IMAGES, a.AlternatingFlip(), a.compose(a.AlternatingFlip(axis=0, seed=3), a.Noise(0.1))]
EVERY.sort(key=lambda f: "Mix" in repr(f))  # last, those that mix examples
NAMES = [repr(f) for f in EVERY]
# of module scope, so that all tests of one come together and find its operations compiled
ALL = pytest.mark.parametrize("f", EVERY, ids=NAMES, scope="module")


def batch(n=6, shape=(8, 9, 3), dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    return (jnp.asarray(rng.uniform(0.1, 0.9, (n, *shape)), dtype),), jnp.asarray(rng.integers(0, 5, n))


def call(f, key, given):
    n = len(given[0][0])
    known = {"examples": jnp.arange(n), "epoch": 1} if getattr(f, "by_example", False) else {}
    return f(key, given, **known)


@functools.cache
def compiled(f):
    return jax.jit(functools.partial(call, f))


def same(one, other, **tolerance):
    jax.tree.map(lambda p, q: np.testing.assert_allclose(np.float64(p), np.float64(q), **tolerance), one, other)


def public():
    return {
        name
        for name in a.__all__
        if isinstance(getattr(a, name), type) and issubclass(getattr(a, name), a.Augmentation)
    } - {"Augmentation", "PerExample"}


def test_every_augmentation_is_among_the_cases():
    assert {type(f).__name__ for f in EVERY} >= public()


@ALL
def test_is_a_value(f):
    again = eval(repr(f), vars(a))
    assert again == f
    assert hash(again) == hash(f)
    assert pickle.loads(pickle.dumps(f)) == f
    assert jax.tree.leaves(f) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@ALL
def test_keeps_shape_and_dtype(f, dtype):
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("strict"):
        given = batch(dtype=dtype)
        (x,), y = jax.eval_shape(lambda key, b: call(f, key, b), jax.random.key(3), given)
        assert x.shape == given[0][0].shape
        assert x.dtype == dtype
        if y.ndim == 2:
            assert y.shape == (6, 5)
            assert y.dtype == ("float64" if dtype == "float64" else "float32")
        else:
            assert (y.shape, y.dtype) == (given[1].shape, given[1].dtype)


@pytest.mark.slow
@ALL
def test_halves_agree_with_single_precision(f):
    given = batch(dtype="bfloat16")
    wide = ((given[0][0].astype("float32"),), given[1])
    # operation by operation, so that every one of them rounds
    ours, true = call(f, jax.random.key(3), given), compiled(f)(jax.random.key(3), wide)
    same(ours[0], true[0], atol=0.02)
    same(ours[1], true[1], atol=1e-6)
    assert np.isfinite(np.float64(ours[0][0])).all()
    if ours[1].ndim == 2:
        np.testing.assert_allclose(np.asarray(ours[1]).sum(1), 1, atol=1e-6)
    else:
        np.testing.assert_array_equal(ours[1], given[1])


@ALL
def test_changes_something_and_is_its_key_alone(f):
    given = batch()
    key = jax.random.key(5)
    once, twice, other = call(f, key, given), call(f, key, given), call(f, jax.random.key(6), given)
    same(once, twice, rtol=0, atol=0)
    assert (np.asarray(once[0][0]) != np.asarray(given[0][0])).any()
    if not isinstance(f, a.AlternatingFlip):
        assert (np.asarray(once[0][0]) != np.asarray(other[0][0])).any()


@ALL
def test_compiled_mapped_and_in_a_loop(f):
    given = batch()
    keys = jax.random.split(jax.random.key(7), 3)
    true = [compiled(f)(key, given) for key in keys]
    same(true[0], call(f, keys[0], given), atol=2e-5)
    mapped = jax.jit(jax.vmap(lambda key: call(f, key, given)))(keys)
    same([jax.tree.map(lambda leaf, i=i: leaf[i], mapped) for i in range(3)], true, atol=2e-5)
    if not isinstance(f, (a.Affine, a.Crop, a.Elastic, a.Mixup, a.ColourJitter)):
        return  # one of each way of computing goes through a loop

    def body(i, total):
        return total + call(f, keys[i], given)[0][0]

    total = jax.lax.fori_loop(0, 3, body, jnp.zeros_like(given[0][0]))
    same(total, sum(np.asarray(x) for (x,), _ in true), atol=1e-4)


@pytest.mark.parametrize(
    "f",
    [f for f in EVERY if "Mix" not in repr(f)],
    ids=[name for name in NAMES if "Mix" not in name],
    scope="module",
)
def test_an_example_does_not_depend_on_the_others(f):
    given = batch(6)
    changed = ((given[0][0].at[1:].set(0.5),), given[1])
    key, run = jax.random.key(8), compiled(f)
    np.testing.assert_array_equal(np.asarray(run(key, given)[0][0])[0], np.asarray(run(key, changed)[0][0])[0])
    fewer = ((given[0][0][:3],), given[1][:3])
    np.testing.assert_allclose(np.asarray(run(key, given)[0][0])[:3], run(key, fewer)[0][0], atol=1e-6)


@ALL
def test_x_may_come_without_a_tuple(f):
    given = batch()
    told = {"examples": jnp.arange(6), "epoch": 1} if getattr(f, "by_example", False) else {}
    key = jax.random.key(1)
    plain, form = jax.make_jaxpr(lambda k, x, y: f(k, (x, y), **told), return_shape=True)(key, given[0][0], given[1])
    wrapped = jax.make_jaxpr(lambda k, x, y: f(k, ((x,), y), **told))(key, given[0][0], given[1])
    assert re.sub(r"0x[0-9a-f]+", "", str(plain)) == re.sub(r"0x[0-9a-f]+", "", str(wrapped))
    assert form[0].shape == given[0][0].shape


@pytest.mark.parametrize(
    "f",
    [a.Flip(axis=0), a.Crop(2), a.Shift(2), a.Noise(0.1), a.Cutout(3), a.Scale(0.8, 1.2), a.Translate(1.5),
     a.Elastic(5, 2), a.Mixup(0.5, classes=5), a.CutMix(1.0, classes=5), a.TimeShift(2), a.AlternatingFlip()],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("shape", [(9, 2), (5, 6, 7, 2)], ids=["sound", "volume"])
def test_sound_and_volumes(f, shape):
    given = batch(shape=shape)
    (x,), _ = compiled(f)(jax.random.key(2), given)
    assert x.shape == given[0][0].shape
    assert (np.asarray(x) != np.asarray(given[0][0])).any()


@pytest.mark.parametrize(
    "f",
    [a.Affine(rotate=20, scale=(0.8, 1.2)), a.Elastic(4, 2), a.Crop(2), a.Flip(), a.Noise(0.1), a.Mixup(0.5, classes=5),
     a.ColourJitter(contrast=0.2, saturation=0.2, hue=0.05)],
    ids=repr,
)  # fmt: skip
def test_gradient_in_the_images_agrees_with_differences(f):
    with jax.enable_x64(True):
        (x,), y = batch(2, (5, 6, 3), "float64")
        weights = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))
        way = jnp.asarray(np.random.default_rng(2).normal(size=x.shape))

        @jax.jit
        def value(images):
            return (f(jax.random.key(4), ((images,), y))[0][0] * weights).sum()

        by_autodiff = (jax.jit(jax.grad(value))(x) * way).sum()
        by_differences = (value(x + 1e-6 * way) - value(x - 1e-6 * way)) / 2e-6
        np.testing.assert_allclose(by_autodiff, by_differences, rtol=1e-5)
        assert abs(by_autodiff) > 1e-3


def test_grey_pixels_have_a_finite_gradient_of_hue():
    gradient = jax.grad(lambda image: a.hue(image, 0.1).sum())(jnp.full((2, 2, 3), 0.5))
    assert bool(jnp.isfinite(gradient).all())


def test_a_compiled_function_is_found_again_for_an_equal_augmentation():
    traces = []

    @jax.jit
    def run(f, key, x):
        traces.append(f)
        return f(key, ((x,), 0))[0][0]

    x = batch()[0][0]
    run(a.compose(a.Crop(2), a.Flip()), jax.random.key(0), x)
    run(a.compose(a.Crop(2), a.Flip()), jax.random.key(1), x)
    assert len(traces) == 1
    run(a.compose(a.Crop(3), a.Flip()), jax.random.key(1), x)
    assert len(traces) == 2


# Compositions.


def test_compose_gives_each_place_a_key_of_its_own_and_keeps_the_order():
    given = batch()
    key = jax.random.key(9)
    flip, shift = a.Flip(), a.Shift(2)
    by_hand = shift(jax.random.fold_in(key, 1), flip(jax.random.fold_in(key, 0), given))
    same(a.compose(flip, shift)(key, given), by_hand, atol=0, rtol=0)
    seen = []

    def note(key, given):
        seen.append(tuple(jax.random.key_data(key).tolist()))
        return given

    a.compose(note, note, a.compose(note, note))(key, given)
    assert len(set(seen)) == 4
    assert a.compose()(key, given) is given


def test_positions_and_epoch_reach_the_parts_that_ask():
    def plain(key, given):
        return given

    class Asks:
        by_example = True

        def __call__(self, key, given, *, examples, epoch):
            (x,), y = given
            return (x + examples[:, None, None, None] + 10 * epoch,), y

    f = a.compose(plain, a.sometimes(1.0, a.on_input(0, Asks())))
    assert f.by_example
    assert not a.compose(plain, a.Flip()).by_example
    assert not a.sometimes(0.5, a.Flip()).by_example
    given = batch(3)
    (x,), _ = f(jax.random.key(0), given, examples=jnp.array([4.0, 5.0, 6.0]), epoch=2.0)
    np.testing.assert_allclose(x - given[0][0], np.broadcast_to([[[[24]]], [[[25]]], [[[26]]]], x.shape), atol=1e-5)


@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
def test_sometimes_augments_the_share_it_says(p):
    given = (jnp.ones((2000, 2, 2, 1)),), jnp.zeros(2000, int)
    (x,), _ = a.sometimes(p, a.Gain(6))(jax.random.key(0), given)
    share = (np.asarray(x) != 1).all((1, 2, 3)).mean()
    assert (np.asarray(x) != 1).any((1, 2, 3)).mean() == share  # whole examples
    assert abs(share - p) <= 4 * np.sqrt(p * (1 - p) / 2000)


def test_sometimes_makes_shares_of_the_labels_it_leaves_alone():
    given = batch(200)
    (x,), y = a.sometimes(0.5, a.Mixup(1.0, classes=5))(jax.random.key(0), given)
    left = (np.asarray(x) == np.asarray(given[0][0])).all((1, 2, 3))
    assert 60 < left.sum() < 140
    np.testing.assert_array_equal(y[left], np.eye(5)[np.asarray(given[1])[left]])


def test_on_input_changes_only_its_input():
    image, sound = batch(4)[0][0], batch(4, (9, 1))[0][0]
    (one, two), y = a.on_input(1, a.Flip(p=1.0))(jax.random.key(0), ((image, sound), jnp.arange(4)))
    assert one is image
    np.testing.assert_array_equal(two, np.asarray(sound)[:, ::-1])
    np.testing.assert_array_equal(y, range(4))
    (first, second), _ = a.Flip(p=1.0)(jax.random.key(0), ((image, sound), None))
    np.testing.assert_array_equal(first, np.asarray(image)[:, :, ::-1])
    assert second is sound


# Mistakes.


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: a.Crop(-1), ValueError, "Crop: padding is -1, it must be at least 0"),
        (lambda: a.Crop(1.5), TypeError, "whole number"),
        (lambda: a.Crop(2, mode="mirror"), ValueError, "'mirror' is unknown; use one of zeros, edge, reflect, wrap"),
        (lambda: a.Flip(p=1.5), ValueError, r"Flip: p is 1.5, it must be from 0 to 1"),
        (lambda: a.sometimes(-0.1, a.Flip()), ValueError, r"p is -0.1"),
        (lambda: a.sometimes(0.5, a.Flip), TypeError, r"write Flip\(...\)"),
        (lambda: a.compose(3), TypeError, "not 3"),
        (lambda: a.Rotate(200), ValueError, "Rotate: degrees is 200, it must be from 0 to 180"),
        (lambda: a.Rotate("ten"), TypeError, "degrees must be a number"),
        (lambda: a.Rotate(10, fill="mirror"), ValueError, 'or "edge"'),
        (lambda: a.Scale(1.2, 0.8), ValueError, "the lower number comes first"),
        (lambda: a.Scale(0, 1), ValueError, "above 0"),
        (lambda: a.Affine(scale=1.2), TypeError, r"scale must be a pair \(low, high\)"),
        (lambda: a.Shear(90), ValueError, "below 90"),
        (lambda: a.Translate(-1), ValueError, "pixels is -1"),
        (lambda: a.Elastic(-1, 2), ValueError, "alpha is -1"),
        (lambda: a.Noise(float("nan")), ValueError, "deviation is nan"),
        (lambda: a.Cutout(0), ValueError, "size is 0"),
        (lambda: a.Mixup(0), ValueError, "alpha is 0, it must be above 0"),
        (lambda: a.CutMix(1.0, classes=1), ValueError, "classes is 1"),
        (lambda: a.ColourJitter(hue=0.7), ValueError, "hue is 0.7, it must be from 0 to 0.5"),
        (lambda: a.ColourJitter(brightness=-1), ValueError, "brightness is -1"),
        (lambda: a.TimeShift(3, circular=1), TypeError, "circular must be True or False"),
        (lambda: a.MaskTime(-1), ValueError, "size is -1"),
        (lambda: a.RandomErasing(share=(0, 2)), ValueError, "share is 2"),
    ],
)
def test_bad_numbers(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


@pytest.mark.parametrize(
    ("f", "given", "kind", "words"),
    [
        (a.Rotate(10), batch(shape=(9, 1)), ValueError, r"Rotate: it turns images .*, x has shape \(6, 9, 1\)"),
        (a.Affine(shear=5), batch(shape=(3, 4, 5, 1)), ValueError, "Affine: it turns images"),
        (a.Translate((1, 2)), batch(shape=(9, 1)), ValueError, "2 distances .* for the 1 space axes"),
        (a.Crop((1, 2, 3)), batch(), ValueError, "for 3 space axes, the input has 2"),
        (a.Crop(8), batch(), ValueError, "would copy 8 samples of an axis of 8"),
        (a.Flip(axis=2), batch(), ValueError, "axis 2 is not among the 2 space axes"),
        (a.Flip(), batch(shape=(3,)), ValueError, r"x has shape \(6, 3\), expected \(batch, \*space, channels\)"),
        (a.Noise(0.1), batch(dtype="uint8"), TypeError, r"dtype uint8, .* x.astype\('float32'\) / 255"),
        (a.Mixup(1.0), batch(), ValueError, "Mixup: mixed labels are shares .* give classes=10"),
        (a.CutMix(1.0, classes=4), ((batch()[0]), jnp.ones((6, 5))), ValueError, r"\(6, 5\), expected \(6, 4\)"),
        (a.Mixup(1.0, classes=4), (batch()[0], jnp.ones((6, 5), int)), ValueError, r"expected \(batch,\)"),
        (a.Mixup(1.0, classes=4), (batch()[0], jnp.ones(5, int)), ValueError, "one for each of the 6 examples"),
        (a.Mixup(1.0), (batch()[0], None), TypeError, "targets must be one array"),
        (a.ColourJitter(hue=0.1), batch(shape=(4, 4, 1)), ValueError, "three channels"),
        (a.ColourJitter(contrast=0.1), batch(shape=(4, 4, 2)), ValueError, "1 or 3 channels"),
        (a.MaskTime(9), batch(), ValueError, "size 9 is more than the 8 samples"),
        (a.MaskTime(2), batch(shape=(9, 1)), ValueError, "spectrograms"),
        (a.AlternatingFlip(), batch(), TypeError, "call it with examples="),
        (a.on_input(1, a.Flip()), batch(), ValueError, "the batch has 1 inputs, none at position 1"),
        (a.Flip(), batch()[0][0], TypeError, r"a batch is \(\(x, ...\), y\)"),
        (a.Flip(), ((), 1), ValueError, "no inputs"),
        (a.Flip(), (("x",), 1), TypeError, "x must be an array"),
    ],
)  # fmt: skip
def test_bad_batches(f, given, kind, words):
    with pytest.raises(kind, match=words):
        f(jax.random.key(0), given)
    if kind is ValueError and hasattr(given[0], "__len__") and given[0]:
        with pytest.raises(kind, match=words):  # found while tracing, before anything is computed
            jax.eval_shape(f, jax.random.key(0), given)


def test_bytes_may_be_moved_but_not_computed_with():
    (x,), y = batch(dtype="uint8")
    for f in (a.Flip(), a.Crop(2), a.Shift(1), a.Cutout(2, fill=7), a.TimeShift(1)):
        assert f(jax.random.key(0), ((x,), y))[0][0].dtype == jnp.uint8
    for f in (a.Rotate(5), a.Elastic(1, 1), a.Mixup(1.0, classes=5), a.ColourJitter(brightness=0.1), a.Gain(1)):
        with pytest.raises(TypeError, match="convert it first"):
            f(jax.random.key(0), ((x,), y))


def test_a_list_in_a_subclass_is_refused():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Listed(a.PerExample):
        levels: object

    with pytest.raises(TypeError, match="levels is a list, which cannot be hashed"):
        Listed([1, 2])
