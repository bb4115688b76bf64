"""What augmentations compute, against NumPy written out, SciPy, PIL and the standard library's colorsys."""

import colorsys
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcnn.data import augment as a

ndimage = pytest.importorskip("scipy.ndimage")
stats = pytest.importorskip("scipy.stats")


def image(shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, shape)


def batch(n, shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(0, 1, (n, *shape)), "float32")


def by_channel(f, x):
    return np.stack([f(x[..., c]) for c in range(x.shape[-1])], -1)


def drawn(f, key, x):
    """What f draws for each example, by its documented rule: one key for each, split from the key of the batch."""
    return [f.draw(k, x.shape[1:]) for k in jax.random.split(key, len(x))]


# Whole steps.

PAD = {"zeros": "constant", "edge": "edge", "reflect": "reflect", "wrap": "wrap"}


@pytest.mark.parametrize("mode", list(PAD))
@pytest.mark.parametrize("shape", [(7, 2), (5, 6, 3), (4, 5, 3, 2)], ids=str)
def test_shift_is_a_window_of_the_padded_image(mode, shape):
    x, reach = image(shape), 2
    padded = np.pad(x, [(reach, reach)] * (x.ndim - 1) + [(0, 0)], mode=PAD[mode])
    for offset in [(2,) * (x.ndim - 1), (-2, 0, 1)[: x.ndim - 1], (1, -2, 2)[: x.ndim - 1]]:
        window = padded[tuple(slice(reach - o, reach - o + n) for o, n in zip(offset, shape, strict=False))]
        np.testing.assert_array_equal(a.shift(jnp.asarray(x), offset, mode), window.astype("float32"))


def test_reflecting_and_wrapping_go_on_beyond_one_size():
    x = np.arange(4.0)[:, None]
    for mode, name in (("reflect", "reflect"), ("wrap", "wrap")):
        padded = np.pad(x, [(11, 11), (0, 0)], mode=name)
        for offset in (-11, -5, 7, 11):
            np.testing.assert_array_equal(a.shift(jnp.asarray(x), [offset], mode), padded[11 - offset : 15 - offset])
    np.testing.assert_array_equal(a.shift(jnp.ones((1, 1)), [3], "reflect"), [[1]])


@pytest.mark.parametrize("mode", list(PAD))
def test_crop_and_shift_move_each_example_by_what_they_draw(mode):
    x = batch(300, (6, 7, 1))
    for f in (a.Crop((2, 1), mode=mode), a.Shift((2, 1), mode=mode)):
        (y,), _ = f(jax.random.key(1), ((x,), None))
        padded = np.pad(x, [(0, 0), (2, 2), (1, 1), (0, 0)], mode=PAD[mode])
        offsets = np.array(drawn(f, jax.random.key(1), x))
        for i, (down, right) in enumerate(offsets):
            np.testing.assert_array_equal(y[i], padded[i, 2 - down : 8 - down, 1 - right : 8 - right])
        counts = [np.bincount(offsets[:, axis] + n, minlength=2 * n + 1) for axis, n in ((0, 2), (1, 1))]
        assert all(stats.chisquare(c).pvalue > 1e-4 for c in counts)


@pytest.mark.parametrize("axis", [-1, 0, 1, -2])
def test_flip_mirrors_half_of_the_examples(axis):
    x = batch(1000, (3, 4, 2))
    (y,), _ = a.Flip(axis=axis)(jax.random.key(0), ((x,), None))
    mirrored = np.flip(np.asarray(x), {0: 1, -2: 1, 1: 2, -1: 2}[axis])
    flipped = (np.asarray(y) == mirrored).all((1, 2, 3))
    assert ((np.asarray(y) == np.asarray(x)).all((1, 2, 3)) ^ flipped).all()
    assert 430 < flipped.sum() < 570


def test_alternating_flip_shows_both_sides_in_any_two_epochs():
    n = 2000
    x = batch(n, (2, 3, 1))
    positions = np.random.default_rng(0).permutation(n)

    @jax.jit
    def flipped(epoch, positions):
        f = a.AlternatingFlip(seed=5)
        (y,), _ = f(jax.random.fold_in(jax.random.key(9), epoch), ((x,), None), examples=positions, epoch=epoch)
        mirrored = (y == x[:, :, ::-1]).all((1, 2, 3))
        return mirrored, mirrored ^ (y == x).all((1, 2, 3))

    sides = []
    for epoch in range(4):
        mirrored, one_of_both = flipped(epoch, positions)
        assert one_of_both.all()
        sides.append(np.asarray(mirrored))
    assert (sides[0] ^ sides[1]).all()
    assert (sides[0] == sides[2]).all()
    assert (sides[1] == sides[3]).all()
    assert abs(sides[0].sum() - n / 2) < 4 * math.sqrt(n / 4)
    # it belongs to the position in the data set, not to the place in the batch
    again, _ = flipped(0, np.sort(positions))
    np.testing.assert_array_equal(np.asarray(again)[positions], sides[0])
    # neighbours are independent, and so are seeds
    straight, other = np.asarray(again), np.asarray(a.AlternatingFlip(seed=6).draw(jnp.arange(n), 0))
    for pair in ((straight[1:], straight[:-1]), (straight, other)):
        assert abs((pair[0] == pair[1]).mean() - 0.5) < 4 * math.sqrt(0.25 / n)


# Linear interpolation.


@pytest.mark.parametrize("shape", [(9, 2), (6, 7, 2), (4, 5, 6, 1), (1, 3, 1)], ids=str)
@pytest.mark.parametrize(("fill", "mode"), [(0.0, "grid-constant"), (0.7, "grid-constant"), ("edge", "nearest")])
def test_sample_is_map_coordinates(shape, fill, mode):
    with jax.enable_x64(True):
        x, rank = image(shape), len(shape) - 1
        places = np.random.default_rng(1).uniform(-3, np.array(shape[:-1])[:, None] + 2, (rank, 200))
        places[:, :50] = np.round(places[:, :50])  # whole ones, and those on the border
        constant = 0.0 if fill == "edge" else fill
        true = by_channel(lambda c: ndimage.map_coordinates(c, places, order=1, mode=mode, cval=constant), x)
        np.testing.assert_allclose(a.sample(jnp.asarray(x), list(jnp.asarray(places)), fill), true, atol=1e-12)


@pytest.mark.parametrize("shape", [(9, 2), (6, 7, 2), (4, 5, 6, 1)], ids=str)
def test_affine_is_affine_transform(shape):
    with jax.enable_x64(True):
        x, rank = image(shape), len(shape) - 1
        rng = np.random.default_rng(2)
        matrix, offset = np.eye(rank) + rng.normal(0, 0.3, (rank, rank)), rng.normal(0, 1, rank)
        for fill, mode in ((0.3, "grid-constant"), ("edge", "nearest")):
            true = by_channel(
                lambda c, mode=mode: ndimage.affine_transform(c, matrix, offset, order=1, mode=mode, cval=0.3), x
            )
            np.testing.assert_allclose(a.affine(jnp.asarray(x), matrix, offset, fill=fill), true, atol=1e-12)


def test_gradient_of_sample_in_the_coordinates():
    x = jnp.asarray([[0.0], [1.0], [5.0]])
    slope = jax.vmap(jax.grad(lambda q: a.sample(x, [q])[0]))(jnp.array([0.3, 1.6, 2.5, -0.5, 4.0]))
    np.testing.assert_allclose(slope, [1, 4, -5, 0, 0], atol=1e-6)


def turned(degrees=0.0, scale=1.0, shear=0.0, translate=(0.0, 0.0), space=(6, 7)):
    """The map from output to input in x to the right and y up, as in a school book, then as rows and columns."""
    t, h = np.radians(degrees), np.tan(np.radians(shear))
    rotation = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    lean = np.array([[1, -h], [0, 1]])  # below the centre, where y is negative, to the right
    forward = rotation @ (scale * lean)
    swap = np.array([[0, -1], [1, 0]])  # (row, column) = swap (x, y)
    forward = swap @ forward @ swap.T
    centre = (np.array(space) - 1) / 2
    inverse = np.linalg.inv(forward)
    return inverse, centre - inverse @ (centre + np.array(translate))


@pytest.mark.parametrize(
    "numbers",
    [{"degrees": 30.0}, {"scale": 1.3}, {"shear": 20.0}, {"translate": (1.5, -0.5)},
     {"degrees": -50.0, "scale": 0.8, "shear": 10.0, "translate": (0.5, 2.0)}],
    ids=str,
)  # fmt: skip
def test_affine_matrix_is_geometry(numbers):
    ours = a.affine_matrix((6, 7), **numbers)
    for part, true in zip(ours, turned(**numbers), strict=True):
        np.testing.assert_allclose(part, true, atol=2e-6)


def test_quarter_turn_and_moves_as_they_are_seen():
    x = image((5, 5, 2)).astype("float32")
    quarter = a.affine(jnp.asarray(x), *a.affine_matrix((5, 5), degrees=90.0))
    np.testing.assert_allclose(quarter, np.rot90(x), atol=1e-5)  # anticlockwise
    moved = a.affine(jnp.asarray(x), *a.affine_matrix((5, 5), translate=(2.0, -1.0)))
    np.testing.assert_allclose(moved[2:, :-1], x[:-2, 1:], atol=1e-6)
    turn = by_channel(lambda c: ndimage.rotate(c, 25, reshape=False, order=1, mode="grid-constant"), x)
    np.testing.assert_allclose(a.affine(jnp.asarray(x), *a.affine_matrix((5, 5), degrees=25.0)), turn, atol=1e-5)
    still = a.affine(jnp.asarray(x), *a.affine_matrix((5, 5)))
    np.testing.assert_array_equal(still, x)


@pytest.mark.parametrize(
    ("f", "same"),
    [
        (a.Rotate(40), a.Affine(rotate=40)),
        (a.Scale(0.5, 1.5, fill=0.2), a.Affine(scale=(0.5, 1.5), fill=0.2)),
        (a.Shear(20, fill="edge"), a.Affine(shear=20, fill="edge")),
        (a.Translate((2.0, 1.0)), a.Affine(translate=(2.0, 1.0))),
        (a.Affine(rotate=10, scale=(0.9, 1.2), shear=5, translate=1), None),
    ],
    ids=str,
)
def test_affine_augmentations_are_scipys_with_what_they_draw(f, same):
    x = batch(5, (6, 7, 2))
    key = jax.random.key(3)
    (y,), _ = f(key, ((x,), None))
    if same is not None:
        np.testing.assert_array_equal(y, same(key, ((x,), None))[0][0])
    for i, (matrix, offset) in enumerate(drawn(f, key, x)):
        mode, value = ("nearest", 0) if f.fill == "edge" else ("grid-constant", f.fill)
        true = by_channel(
            lambda c, m=matrix, o=offset, mode=mode, value=value: ndimage.affine_transform(
                c, np.float64(m), np.float64(o), order=1, mode=mode, cval=value
            ),
            np.asarray(x[i], "float64"),
        )
        np.testing.assert_allclose(y[i], true, atol=2e-5)


def matrices(f, n=2000, shape=(5, 5, 1)):
    return jax.vmap(lambda k: f.draw(k, shape))(jax.random.split(jax.random.key(4), n))


def test_angles_factors_and_distances_are_drawn_evenly():
    def even(values, low, high):
        assert stats.kstest(np.asarray(values, "float64"), stats.uniform(low, high - low).cdf).pvalue > 1e-3

    turn, _ = matrices(a.Rotate(30))
    even(np.degrees(np.arctan2(-turn[:, 1, 0], turn[:, 0, 0])), -30, 30)
    scale, _ = matrices(a.Scale(0.5, 2))
    even(1 / scale[:, 0, 0], 0.5, 2)
    np.testing.assert_array_equal(scale[:, 0, 0], scale[:, 1, 1])
    lean, _ = matrices(a.Shear(20))
    even(np.degrees(np.arctan(-lean[:, 1, 0])), -20, 20)
    _, offset = matrices(a.Translate((2.0, 3.0)))
    even(-offset[:, 0], -2, 2)
    even(-offset[:, 1], -3, 3)
    assert abs(np.corrcoef(np.asarray(offset).T)[0, 1]) < 0.1
    both, _ = matrices(a.Affine(rotate=30, scale=(0.5, 2)))
    angle = np.arctan2(-both[:, 1, 0], both[:, 0, 0])
    assert abs(np.corrcoef(angle, np.linalg.det(both))[0, 1]) < 0.1  # each number has a key of its own


@pytest.mark.parametrize("shape", [(1, 30), (2, 12, 9), (3, 5, 6, 7)], ids=str)
def test_smooth_is_gaussian_filter(shape):
    with jax.enable_x64(True):
        x = image(shape)
        for sigma in (0.4, 1.0, 3.0):
            true = np.stack([ndimage.gaussian_filter(field, sigma, mode="constant") for field in x])
            np.testing.assert_allclose(a.smooth(jnp.asarray(x), sigma), true, atol=1e-12)
        np.testing.assert_array_equal(a.smooth(jnp.asarray(x), 0), x)


def test_elastic_reads_where_its_field_points():
    x = batch(4, (9, 8, 2))
    f = a.Elastic(8, 2, fill=0.1)
    (y,), _ = f(jax.random.key(1), ((x,), None))
    for i, field in enumerate(drawn(f, jax.random.key(1), x)):
        places = np.indices((9, 8)) + np.asarray(field, "float64")
        true = by_channel(
            lambda c, q=places: ndimage.map_coordinates(c, q, order=1, mode="grid-constant", cval=0.1),
            np.asarray(x[i], "float64"),
        )
        np.testing.assert_allclose(y[i], true, atol=1e-5)


def test_field_of_elastic_has_the_deviation_of_smoothed_noise():
    fields = np.asarray(
        jax.vmap(lambda k: a.Elastic(3, 1).draw(k, (13, 13, 1)))(jax.random.split(jax.random.key(2), 400))
    )
    assert fields.shape == (400, 2, 13, 13)
    kernel = np.zeros((13, 13))
    kernel[6, 6] = 1
    kernel = ndimage.gaussian_filter(kernel, 1, mode="constant")
    # u has variance 1/3, so the middle of the field has alpha^2 sum(kernel^2) / 3
    assert abs(fields[:, :, 6, 6].std() / (3 * np.sqrt((kernel**2).sum() / 3)) - 1) < 0.12
    assert abs(fields.mean()) < 0.02
    assert abs(np.corrcoef(fields[:, 0, 6, 6], fields[:, 1, 6, 6])[0, 1]) < 0.2


# Noise, erased and masked parts.


def test_noise_is_normal():
    noise = np.asarray(a.Noise(0.5)(jax.random.key(0), ((jnp.zeros((20, 999, 1)),), None))[0][0], "float64")
    assert stats.kstest(noise.ravel(), stats.norm(0, 0.5).cdf).pvalue > 1e-3
    assert abs(noise.std() - 0.5) < 0.01
    assert abs(np.corrcoef(noise[:, :, 0])[np.triu_indices(20, 1)]).max() < 0.15
    assert abs(np.corrcoef(noise[:, :499].ravel(), noise[:, 500:].ravel())[0, 1]) < 0.04  # halves of the same words


@pytest.mark.parametrize("size", [1, 4, (2, 5)])
def test_cutout_fills_one_box_around_any_sample(size):
    n, high, wide = 4000, 6, 7
    (y,), _ = a.Cutout(size, fill=0.25)(jax.random.key(0), ((jnp.ones((n, high, wide, 2)),), None))
    assert set(np.unique(y)) == {0.25, 1.0}
    tall, broad = (size, size) if isinstance(size, int) else size
    gone = np.asarray(y == 0.25)
    assert (gone[..., 0] == gone[..., 1]).all()
    boxes = {}
    for i in range(high):
        for j in range(wide):
            box = np.zeros((high, wide), bool)
            box[max(i - tall // 2, 0) : i - tall // 2 + tall, max(j - broad // 2, 0) : j - broad // 2 + broad] = True
            boxes[box.tobytes()] = boxes.get(box.tobytes(), 0) + 1
    found = dict.fromkeys(boxes, 0)
    for mask in gone[..., 0]:
        found[np.ascontiguousarray(mask).tobytes()] += 1  # a mask that is no such box is an error
    assert stats.chisquare(list(found.values()), np.array(list(boxes.values())) * n / (high * wide)).pvalue > 1e-4


def bounds(mask):
    """Start and stop of the box that a mask is; fails where it is none."""
    spans = [np.flatnonzero(mask.any(tuple(k for k in range(mask.ndim) if k != axis))) for axis in range(mask.ndim)]
    box = np.zeros_like(mask)
    box[tuple(slice(s[0], s[-1] + 1) for s in spans)] = True
    assert (box == mask).all()
    return [(s[0], s[-1] + 1) for s in spans]


def test_random_erasing_has_the_area_and_ratio_it_says():
    f = a.RandomErasing(share=(0.1, 0.3), ratio=(0.5, 2.0))
    (y,), _ = f(jax.random.key(0), ((jnp.ones((500, 40, 60, 1)),), None))
    for mask in np.asarray(y[..., 0] == 0):
        (top, bottom), (left, right) = bounds(mask)
        high, wide = bottom - top, right - left
        assert 0.1 * 2400 - 40 <= high * wide <= 0.3 * 2400 + 40
        assert 0.5 <= high / wide * (1 + 0.05) <= 2.0 * 1.1
    assert np.asarray(y == 0).any(0)[5:-5, 5:-5].all()  # every pixel is hidden now and then, the corners seldom


@pytest.mark.parametrize(("f", "axis"), [(a.MaskTime(6), 1), (a.MaskFrequencies(6), 2), (a.MaskTime(6, axis=1), 2)])
def test_masks_are_stretches_of_one_axis(f, axis):
    (y,), _ = f(jax.random.key(0), ((jnp.ones((1400, 12, 10, 2)),), None))
    gone = np.asarray(y == 0)
    along = gone.all(tuple(k for k in (1, 2, 3) if k != axis))
    assert (gone == np.expand_dims(along, tuple(k for k in (1, 2, 3) if k != axis))).all()
    widths = along.sum(1)
    assert stats.chisquare(np.bincount(widths, minlength=7)).pvalue > 1e-4  # 0 to 6, evenly
    assert ((np.diff(along.astype(int), axis=1) == 1).sum(1) + along[:, 0] <= 1).all()  # one stretch
    size = along.shape[1]
    starts = along[widths == 5].argmax(1)
    assert stats.chisquare(np.bincount(starts, minlength=size - 4)).pvalue > 1e-4


def test_time_shift_moves_time_alone():
    x = batch(30, (9, 4, 1))
    for circular in (False, True):
        (y,), _ = a.TimeShift(3, circular=circular)(jax.random.key(0), ((x,), None))
        for before, after in zip(np.asarray(x), np.asarray(y), strict=True):
            ways = []
            for step in range(-3, 4):
                way = np.roll(before, step, axis=0)
                if not circular:
                    way[: max(step, 0)] = 0
                    way[len(way) + min(step, 0) :] = 0
                ways.append((way == after).all())
            assert sum(ways) == 1


def test_gain_is_even_in_decibels():
    (y,), _ = a.Gain(6)(jax.random.key(0), ((jnp.full((2000, 3, 1), 2.0),), None))
    decibels = 20 * np.log10(np.asarray(y, "float64") / 2)
    np.testing.assert_allclose(decibels.max((1, 2)), decibels.min((1, 2)))
    assert stats.kstest(decibels[:, 0, 0], stats.uniform(-6, 12).cdf).pvalue > 1e-3


# Mixing.


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_mixup_mixes_inputs_and_labels_by_the_same_share(alpha):
    n = 1500
    x, labels = np.eye(n, dtype="float32")[:, :, None], np.arange(n) % 7
    f = a.Mixup(alpha, classes=7)
    (y,), t = f(jax.random.key(0), ((jnp.asarray(x),), jnp.asarray(labels)))
    y = np.asarray(y)[..., 0]
    share = np.diag(y)
    other = y - np.diag(share)
    assert ((other > 0).sum(1) <= 1).all()
    np.testing.assert_allclose(y.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(t, y @ np.eye(7)[labels], atol=1e-6)
    assert stats.kstest(share.astype("float64"), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(40, 1), (9, 11, 2), (5, 6, 7, 1)], ids=str)
def test_cutmix_weights_labels_by_the_exact_share_of_the_samples(shape):
    n = 300
    x = np.broadcast_to(np.arange(n, dtype="float32").reshape(-1, *(1,) * len(shape)), (n, *shape))
    (y,), t = a.CutMix(1.0, classes=n)(jax.random.key(0), ((jnp.asarray(x),), jnp.arange(n)))
    areas, t = [], np.asarray(t)
    for i, example in enumerate(np.asarray(y)):
        shares = np.bincount(example.astype(int).ravel(), minlength=n) / example.size
        np.testing.assert_allclose(t[i], shares, atol=1e-6)
        mask = (example != i).any(-1)
        if mask.any():
            bounds(mask)
        areas.append(mask.mean())
    assert min(areas) < 0.02
    assert max(areas) > 0.5


def test_soft_and_real_targets_are_mixed_as_they_are():
    x, key = batch(6, (4, 4, 1)), jax.random.key(0)
    soft = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(3), 6), "float32")
    _, from_labels = a.Mixup(1.0, classes=6)(key, ((x,), jnp.arange(6)))
    for targets in (soft, soft[:, 0]):
        _, mixed = a.Mixup(1.0)(key, ((x,), targets))
        np.testing.assert_allclose(mixed, np.asarray(from_labels) @ np.asarray(targets), atol=1e-6)


# Colours.


def written(name, x, factor):
    r, g, b = np.moveaxis(x, -1, 0)
    grey = (0.2989 * r + 0.587 * g + 0.114 * b)[..., None]
    other = {"brightness": 0.0, "contrast": grey.mean(), "saturation": grey}[name]
    return np.clip(factor * x + (1 - factor) * other, 0, 1)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.7])
def test_colours_are_torchvisions_formulas(name, factor):
    with jax.enable_x64(True):
        x = image((5, 6, 3))
        np.testing.assert_allclose(getattr(a, name)(jnp.asarray(x), factor), written(name, x, factor), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "enhancer"), [("brightness", "Brightness"), ("contrast", "Contrast"), ("saturation", "Color")]
)
def test_colours_are_pils_to_a_level(name, enhancer):
    module = pytest.importorskip("PIL.ImageEnhance")
    from PIL import Image

    levels = np.random.default_rng(0).integers(0, 256, (9, 8, 3), "uint8")
    for factor in (0.5, 1.4):
        theirs = np.asarray(getattr(module, enhancer)(Image.fromarray(levels)).enhance(factor), "float64")
        ours = getattr(a, name)(jnp.asarray(levels / 255, "float32"), factor)
        assert abs(np.asarray(ours) * 255 - theirs).max() < 1.6  # they round the grey, and the result


@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.1, 1 / 3, 0.5])
def test_hue_is_colorsys(turns):
    with jax.enable_x64(True):
        x = image((7, 6, 3))
        x[0, 0], x[0, 1], x[0, 2], x[0, 3] = 0.5, (1, 0, 0), (0, 1, 1), (0.3, 0.3, 0.9)
        true = np.empty_like(x)
        for place in np.ndindex(7, 6):
            h, s, v = colorsys.rgb_to_hsv(*x[place])
            true[place] = colorsys.hsv_to_rgb((h + turns) % 1, s, v)
        np.testing.assert_allclose(a.hue(jnp.asarray(x), turns), true, atol=1e-12)


def test_colour_jitter_does_what_it_draws_in_order():
    x = batch(5, (6, 7, 3))
    f = a.ColourJitter(brightness=0.4, contrast=(0.5, 1.5), saturation=0.3, hue=0.2)
    (y,), _ = f(jax.random.key(0), ((x,), None))
    for i, factors in enumerate(drawn(f, jax.random.key(0), x)):
        true = np.asarray(x[i], "float64")
        for name in ("brightness", "contrast", "saturation"):
            true = written(name, true, float(factors[name]))
        for place in np.ndindex(6, 7):
            h, s, v = colorsys.rgb_to_hsv(*true[place])
            true[place] = colorsys.hsv_to_rgb((h + float(factors["hue"])) % 1, s, v)
        np.testing.assert_allclose(y[i], true, atol=1e-5)
    many = jax.vmap(lambda k: f.draw(k, (6, 7, 3)))(jax.random.split(jax.random.key(1), 2000))
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.7, 1.3),
        ("hue", -0.2, 0.2),
    ):
        assert stats.kstest(np.float64(many[name]), stats.uniform(low, high - low).cdf).pvalue > 1e-3
    assert set(a.ColourJitter(hue=0.1).draw(jax.random.key(0), (6, 7, 3))) == {"hue"}
    dark = jax.vmap(lambda k: a.ColourJitter(brightness=3).draw(k, (6, 7, 3))["brightness"])(
        jax.random.split(jax.random.key(1), 500)
    )
    assert 0 <= dark.min() < 0.1
    assert 3.9 < dark.max() <= 4
