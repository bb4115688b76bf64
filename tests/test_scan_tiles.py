"""A network over an image tile by tile is the network over the image."""

import builtins
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_receptive_field import LARGE, drawn

import fcnn
from fcnn.analysis.bridge import to_reference
from fcnn.scan import Scan, tiles
from fcnn.scan.receptive_field import receptive_field
from fcnn.scan.tile_plan import tile_lines
from fcnn.scan.tiles import scan_tiles


def smallest(net, params, image, **more):
    """The smallest tile that works, as the error about smaller ones says."""
    try:
        scan_tiles(net, params, image, tile=1, progress=False, **more)
    except ValueError as error:
        return tuple(map(int, re.findall(r"\d+", str(error).split("works is")[1])))
    return (1,) * (image.ndim - 1)


def normal(net, shape, numbers):
    """Parameters and state drawn without compiling anything; the states are variances as well, so above 0."""
    params, state = jax.eval_shape(lambda: (net.init(jax.random.key(0), shape), net.init_state(shape)))
    return (
        jax.tree.map(lambda a: numbers.normal(size=a.shape) * 0.7, params),
        jax.tree.map(lambda a: numbers.uniform(0.5, 1, a.shape), state),
    )


# Random networks. The tiles are computed by the reference, in NumPy alone, which compiles nothing.


def on_reference(net, divided, params, state, x):
    return to_reference(net, params, x.shape[1:], state=state)[0].forward(np.asarray(x))


def check_on_reference(seed, monkeypatch):
    net, shape, numbers = drawn(seed, most=LARGE)
    params, state = normal(net, shape, numbers)
    image = numbers.normal(size=shape)
    whole = on_reference(net, None, params, state, image[None])[0]
    monkeypatch.setattr(tiles, "_computed", on_reference)
    least = smallest(net, params, image)
    drawn_tile = tuple(int(numbers.integers(low, high + 1)) for low, high in zip(least, shape[:-1], strict=True))
    found = []
    for tile in (least, drawn_tile):
        count = np.prod(
            [len(line.starts) for line in tile_lines(net, shape, receptive_field(net, shape), whole.shape, tile)]
        )
        if count > 400:  # tiles of one sample each: slow, and the other shows the same
            continue
        out = np.full(whole.shape, np.nan)
        made = scan_tiles(net, params, image, tile=tile, batch=8, out=out, progress=False)
        assert made is out
        np.testing.assert_allclose(
            out, whole, rtol=1e-11, atol=1e-11 * np.max(np.abs(whole)), err_msg=repr((net, tile))
        )
        found.append(count)
    return found


@pytest.mark.parametrize("first", range(0, 80, 10))
def test_random_networks_by_tiles_are_those_on_the_whole(x64, monkeypatch, first):
    counts = [count for seed in range(first, first + 10) for count in check_on_reference(seed, monkeypatch)]
    assert sum(count > 1 for count in counts) >= 5  # they were cut


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1300, 100))
def test_three_hundred_more_random_networks(x64, monkeypatch, first):
    for seed in range(first, first + 100):
        check_on_reference(seed, monkeypatch)


# Networks of every kind, as they are compiled.

CONV, DOWN = fcnn.Conv(3, 3), fcnn.Conv(3, 3, stride=2, padding="SAME")
UP = fcnn.serial(DOWN, jax.nn.relu, CONV, fcnn.ConvTranspose(2, 4, stride=2, padding=(1, 1)))
CASES = {
    "sound": (fcnn.serial(fcnn.Conv(4, 5, stride=2), jax.nn.relu, fcnn.Conv(3, 4, dilation=3)), (231, 2), 40),
    "valid": (fcnn.serial(fcnn.Conv(4, 5), jnp.tanh, fcnn.MaxPool(2), fcnn.Conv(3, 3, dilation=2)), (61, 50, 2), 24),
    "same": (fcnn.serial(fcnn.Conv(4, 5, padding="SAME"), fcnn.MaxPool(3, padding="SAME"), CONV), (61, 50, 2), 26),
    "same, odd strides": (
        fcnn.serial(
            fcnn.Conv(3, 4, padding="SAME", stride=3),
            fcnn.AvgPool(3, padding="SAME", stride=2),
            fcnn.Conv(2, (3, 2), padding="SAME", stride=(1, 2)),
        ),
        (101, 98, 1),
        (50, 60),
    ),
    "causal": (
        fcnn.serial(fcnn.Conv(4, 3, padding="CAUSAL", dilation=4), fcnn.Conv(2, 2, padding="CAUSAL")),
        (90, 1),
        33,
    ),
    "pairs": (
        fcnn.serial(fcnn.Conv(2, 4, padding=((0, 3), (5, 1))), CONV, fcnn.Conv(1, 2, padding=2)),
        (40, 37, 1),
        21,
    ),
    "ceil": (
        fcnn.serial(CONV, fcnn.MaxPool(3, stride=2, ceil_mode=True), fcnn.AvgPool(2, ceil_mode=True)),
        (52, 49, 1),
        25,
    ),
    "mirrored": (
        fcnn.serial(fcnn.Conv(2, 4, padding="REFLECT"), CONV, fcnn.Conv(2, 3, padding="REFLECT")),
        (39, 40, 2),
        15,
    ),
    "volume": (
        fcnn.serial(fcnn.Conv(2, 3), jax.nn.relu, fcnn.LpPool(2), fcnn.Conv(2, 2, padding="SAME")),
        (25, 22, 24, 1),
        14,
    ),
    "residual": (
        fcnn.serial(
            fcnn.residual(fcnn.Conv(4, 3, stride=2, padding="SAME"), fcnn.Conv(4, 1, stride=2)),
            fcnn.repeat(fcnn.residual(fcnn.serial(jnp.tanh, fcnn.Conv(4, 3, padding="SAME"))), 2),
        ),
        (45, 44, 2),
        22,
    ),
    "inception": (
        fcnn.branches(
            fcnn.Conv(1, 1),
            fcnn.serial(fcnn.Conv(2, 1), fcnn.remat(fcnn.Conv(2, 5, padding="SAME"))),
            fcnn.MaxPool(3, stride=1, padding="SAME"),
        ),
        (33, 32, 2),
        12,
    ),
    "norms": (
        fcnn.serial(CONV, fcnn.BatchNorm(), fcnn.LayerNorm(), fcnn.LocalResponseNorm(), fcnn.Dropout(0.5), CONV),
        (30, 35, 2),
        14,
    ),
    "down and up": (fcnn.residual(UP, fcnn.serial(fcnn.Conv(2, 1), fcnn.MaxPool(5, stride=1))), (40, 38, 1), 20),
    "positions alone": (fcnn.serial(fcnn.Dense(4), fcnn.Maxout(2), jax.nn.softmax, lambda x: x * 2), (20, 21, 2), 7),
    "scan": (
        Scan(fcnn.serial(fcnn.Conv(2, 3), jnp.tanh, fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(3)), 8),
        (31, 29, 1),
        14,
    ),
    "scan with strides": (
        fcnn.serial(
            CONV, Scan(fcnn.serial(fcnn.Flatten(), fcnn.Dense(3)), (5, 4), stride=(2, 3)), jax.nn.relu, fcnn.Dense(2)
        ),
        (41, 40, 1),
        19,
    ),
    "scan of maps": (Scan(fcnn.Conv(2, 3), 5, stride=2), (30, 31, 1), 12),
    "scan to numbers": (Scan(fcnn.serial(CONV, lambda x: x.max((1, 2, 3))), 5, method="patches"), (30, 31, 1), 12),
}


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_network_by_tiles_is_that_on_the_whole(x64, name):
    net, shape, tile = CASES[name]
    numbers = np.random.default_rng(0)
    params, state = normal(net, shape, numbers)
    image = numbers.normal(size=shape)
    whole = np.asarray(jax.jit(net.apply)(params, image[None], state=state)[0])
    lines = tile_lines(
        net, shape, receptive_field(net, shape), whole.shape, np.broadcast_to(tile, len(shape) - 1).tolist()
    )
    assert min(len(line.starts) for line in lines) > 1
    parts = scan_tiles(net, params, image, state=state, tile=tile, batch=4, progress=False)
    assert isinstance(parts, np.ndarray)
    assert (parts.shape, parts.dtype) == (whole.shape, whole.dtype)
    np.testing.assert_allclose(parts, whole, rtol=1e-12, atol=1e-13 * np.max(np.abs(whole)))


def test_every_size_of_image_and_of_tile(x64, monkeypatch):
    """Whether strides and padding fall on the same samples depends on all remainders."""
    monkeypatch.setattr(tiles, "_computed", on_reference)
    net = fcnn.serial(
        fcnn.Conv(1, 3, padding="SAME", stride=2),
        fcnn.MaxPool(3, stride=2, ceil_mode=True),
        fcnn.AvgPool(2, padding="SAME", stride=3),
    )
    numbers = np.random.default_rng(0)
    params, _ = normal(net, (60, 1), numbers)
    for size in range(60, 73):
        image = numbers.normal(size=(size, 1))
        whole = on_reference(net, None, params, {}, image[None])[0]
        (least,) = smallest(net, params, image)
        for tile in range(least, size + 1, 3):
            np.testing.assert_allclose(scan_tiles(net, params, image, tile=tile, progress=False), whole, rtol=1e-12)


def test_single_precision_and_half(key):
    net = fcnn.serial(fcnn.Conv(8, 5, padding="SAME"), jax.nn.relu, fcnn.MaxPool(2), fcnn.Conv(4, 3))
    params = net.init(key, (90, 80, 1))
    image = np.random.default_rng(0).normal(size=(90, 80, 1))  # float64: apply computes in float32
    for dtype, bound in (("float64", 2e-6), ("float32", 2e-6), ("bfloat16", 2e-2)):
        own = jax.tree.map(lambda a, dtype=dtype: a.astype("bfloat16" if dtype == "bfloat16" else "float32"), params)
        given = image.astype(jnp.dtype(dtype))
        whole = np.asarray(net.apply(own, given[None])[0])
        parts = scan_tiles(net, own, given, tile=40, progress=False)
        assert parts.dtype == whole.dtype == own["conv1"]["kernel"].dtype
        far = np.abs(parts.astype("float64") - whole.astype("float64")).max() / np.abs(whole.astype("float64")).max()
        assert far < bound


# How it is run.


class Watched:
    """An image that notes how it is read."""

    def __init__(self, array, fail_at=None):
        self.array, self.reads, self._fail_at = array, [], fail_at
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, index):
        self.reads.append(self.array[index].shape)
        if len(self.reads) == self._fail_at:
            raise KeyboardInterrupt
        return self.array[index]


class Once:
    """A result that can be written once."""

    def __init__(self, array):
        self.array, self.written = array, np.zeros(array.shape, int)
        self.shape, self.dtype = array.shape, array.dtype

    def __setitem__(self, index, value):
        assert self.written[index].shape == value.shape
        self.written[index] += 1
        self.array[index] = value


NET = fcnn.serial(fcnn.Conv(3, 5, padding="SAME"), jax.nn.relu, fcnn.MaxPool(2))
IMAGE = np.random.default_rng(0).normal(size=(70, 61, 2)).astype("float32")


@pytest.fixture
def params():
    return normal(NET, IMAGE.shape, np.random.default_rng(1))[0]


def whole_of(params):
    return np.asarray(NET.apply(params, IMAGE[None])[0])


def test_tiles_are_read_one_by_one_and_every_output_is_written_once(params):
    image, out = Watched(IMAGE), Once(np.zeros((35, 30, 3), "float32"))
    assert scan_tiles(NET, params, image, tile=(30, 20), out=out, progress=False) is out
    assert len(set(image.reads)) == 1
    assert image.reads[0][0] <= 30
    assert image.reads[0][1] <= 20
    assert (out.written == 1).all()
    np.testing.assert_allclose(out.array, whole_of(params), atol=1e-5)


def test_one_program_serves_all_tiles(params):
    compiled = tiles._computed._cache_size()
    scan_tiles(NET, params, IMAGE, tile=(26, 23), batch=4, progress=False)
    assert tiles._computed._cache_size() == compiled + 1
    scan_tiles(NET, params, IMAGE, tile=(26, 23), batch=4, progress=False)
    assert tiles._computed._cache_size() == compiled + 1


def test_an_image_no_larger_than_a_tile_is_computed_in_one_go(params):
    image = Watched(IMAGE)
    np.testing.assert_allclose(
        scan_tiles(NET, params, image, tile=(70, 100), progress=False), whole_of(params), atol=1e-5
    )
    assert image.reads == [IMAGE.shape]
    small = Watched(IMAGE)
    scan_tiles(NET, params, small, progress=False)
    assert small.reads == [IMAGE.shape]


def test_tiles_are_as_even_as_they_can_be(params):
    image = Watched(IMAGE)
    scan_tiles(NET, params, image, tile=60, progress=False)
    # two along each axis would do with 60; two of 40 and of 35 do as well: 2 (t - 4) + 4 or more samples in steps of 2
    assert set(image.reads) == {(38, 33, 2)}
    assert len(image.reads) == 4


def test_from_and_to_memory_maps(params, tmp_path):
    np.save(tmp_path / "image.npy", IMAGE)
    image = np.load(tmp_path / "image.npy", mmap_mode="r")
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", "float32", (35, 30, 3))
    assert scan_tiles(NET, params, image, tile=24, out=out, progress=False) is out
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), whole_of(params), atol=1e-5)


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="the system does not say which pages are in memory")
def test_memory_maps_leave_no_more_in_memory_than_the_tiles_at_work(tmp_path, monkeypatch):
    np.save(tmp_path / "image.npy", np.zeros((8192, 1024, 1), "float32"))
    image = np.load(tmp_path / "image.npy", mmap_mode="r")
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", "float32", (8192, 1024, 1))
    write, seen = tiles._write, []

    def watched(*arguments):
        write(*arguments)
        with open("/proc/self/smaps") as maps:
            text = maps.read()
        found = [re.findall(rf"{tmp_path}/{name}.npy\n(?:.*\n)*?Rss: +(\d+) kB", text) for name in ("image", "out")]
        seen.append([1024 * sum(map(int, sizes)) for sizes in found])

    monkeypatch.setattr(tiles, "_write", watched)
    net = fcnn.Conv(1, 1)
    scan_tiles(net, net.init(jax.random.key(0), image.shape), image, tile=(512, 1024), out=out, progress=False)
    assert len(seen) == 16
    for most in map(max, zip(*seen, strict=True)):  # of the pages read, of those written
        assert 0 < most < image.nbytes / 3  # the system may map neighbouring pages as well


def test_an_image_with_its_bytes_the_other_way_round(params):
    swapped = IMAGE.astype(IMAGE.dtype.newbyteorder())
    parts = scan_tiles(NET, params, swapped, tile=24, progress=False)
    assert parts.dtype == np.float32
    np.testing.assert_allclose(parts, whole_of(params), atol=1e-5)


def test_a_result_that_is_in_memory_alone_stays_there(params, tmp_path):
    np.save(tmp_path / "out.npy", np.zeros((35, 30, 3), "float32"))
    out = np.load(tmp_path / "out.npy", mmap_mode="c")  # changes do not reach the file
    scan_tiles(NET, params, IMAGE, tile=24, out=out, progress=False)
    np.testing.assert_allclose(out, whole_of(params), atol=1e-5)


def test_an_interruption_leaves_what_is_written(params, tmp_path):
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", "float32", (35, 30, 3))
    out[...] = np.nan
    with pytest.raises(KeyboardInterrupt):
        scan_tiles(NET, params, Watched(IMAGE, fail_at=5), tile=24, out=out, progress=False)
    kept, whole = np.load(tmp_path / "out.npy"), whole_of(params)
    done = np.isfinite(kept)
    assert 0.1 < done.mean() < 0.9
    np.testing.assert_allclose(kept[done], whole[done], atol=1e-5)


def test_jax_arrays_are_images_and_state_is_used(params, x64):
    net = fcnn.serial(fcnn.Conv(2, 3), fcnn.BatchNorm())
    own, state = normal(net, IMAGE.shape, np.random.default_rng(0))
    parts = scan_tiles(net, own, jnp.asarray(IMAGE, "float64"), state=state, tile=20, progress=False)
    np.testing.assert_allclose(parts, net.apply(own, IMAGE[None].astype("float64"), state=state)[0], rtol=1e-12)
    with pytest.raises(ValueError, match="batch_norm1: needs its mean and variance of the data so far: pass state="):
        scan_tiles(net, own, IMAGE, tile=20, progress=False)


def test_progress_is_a_bar_or_lines(params, capsys, monkeypatch):
    pytest.importorskip("tqdm")
    scan_tiles(NET, params, IMAGE, tile=24)
    said = capsys.readouterr()
    assert "16/16" in said.err
    assert said.out == ""
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("tqdm"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    scan_tiles(NET, params, IMAGE, tile=24, batch=5)
    assert capsys.readouterr().out.splitlines() == [f"scan: {n}/16 tiles" for n in (5, 10, 15, 16)]
    scan_tiles(NET, params, IMAGE, tile=24, progress=False)
    assert capsys.readouterr() == ("", "")


# Bad input: an error before anything is read.

TAKEN = np.zeros((35, 30, 3), "float32")
LOCKED = TAKEN.copy()
LOCKED.flags.writeable = False
BAD = {
    "flatten": (
        {"net": fcnn.serial(NET, fcnn.Flatten(), fcnn.Dense(3))},
        ValueError,
        "flatten1: fcnn.Flatten.* joins all",
    ),
    "no net": ({"net": 3}, TypeError, "neither a layer nor a function"),
    "no params": ({"params": None}, TypeError, "params must be a dict"),
    "channels": ({"image": IMAGE[..., :1]}, ValueError, "conv1: kernel has shape .* must be channels last"),
    "integers": (
        {"image": IMAGE.astype("uint8")},
        TypeError,
        "conv1: x has dtype uint8, layers compute in floating point",
    ),
    "strings": ({"image": IMAGE.astype(str)}, TypeError, "image has dtype <U32, with which nothing can be computed"),
    "long": ({"image": IMAGE.astype(np.longdouble)}, TypeError, "image has dtype float128, .* image.astype"),
    "list": ({"image": [[1.0]]}, TypeError, "image must be an array or a memory map .* not a list"),
    "batch axis": ({"image": IMAGE[None]}, ValueError, "max_pool1: .* if its first axis is a batch, give image"),
    "vector": ({"image": IMAGE[0, 0]}, ValueError, r"image has shape \(2,\), expected \(\*space, channels\)"),
    "empty": ({"image": IMAGE[:0]}, ValueError, r"image has shape \(0, 61, 2\): it has no samples"),
    "small image": ({"net": fcnn.Conv(2, 80), "params": {}}, ValueError, "conv: "),
    "small tile": ({"tile": 5}, ValueError, r"a tile of \(5, 5\) is too small .* smallest that works is \(6, 7\)"),
    "flat tile": (
        {"tile": (30, 3)},
        ValueError,
        r"a tile of \(30, 3\) is too small .* smallest that works is \(6, 7\)",
    ),
    "no tile": ({"tile": 0}, ValueError, "tile is 0, it must be at least 1"),
    "half a tile": ({"tile": 20.5}, TypeError, "tile must be a whole number"),
    "three axes": ({"tile": (20, 20, 20)}, ValueError, r"tile \(20, 20, 20\) is for 3 space axes, the input has 2"),
    "no batch": ({"batch": 0}, ValueError, "batch is 0"),
    "progress": ({"progress": 1}, TypeError, "progress must be True or False"),
    "mesh": ({"mesh": 8}, TypeError, "mesh must be a mesh of devices"),
    "out shape": (
        {"out": TAKEN[:-1]},
        ValueError,
        r"out has shape \(34, 30, 3\) and dtype float32, the result has \(35",
    ),
    "out dtype": ({"out": TAKEN.astype("float64")}, ValueError, "dtype float64, the result has .* and float32"),
    "out locked": ({"out": LOCKED}, ValueError, "out cannot be written"),
    "out of jax": ({"out": "jax"}, TypeError, "out must be a NumPy array or a memory map"),
    "several outputs": (
        {"net": fcnn.graph(conv=fcnn.Conv(2, 3))(lambda layer, x: (layer.conv(x), x))},
        TypeError,
        "gives several arrays",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, params):
    given, kind, message = BAD[name]
    given = {"net": NET, "params": params, "image": IMAGE, "tile": 30, "progress": False, **given}
    if name == "out of jax":
        given["out"] = jnp.zeros((35, 30, 3))
    image = given.pop("image") if name == "list" else Watched(given.pop("image"))
    with pytest.raises(kind, match=rf"(?s)^(scan_tiles.*)?{message}"):
        scan_tiles(given.pop("net"), given.pop("params"), image, **given)
    assert name == "list" or image.reads == []


def test_it_is_no_part_of_a_compiled_function(params):
    with pytest.raises(TypeError, match="scan_tiles: reads and writes NumPy arrays, so it cannot be differentiated"):
        jax.grad(lambda given: scan_tiles(NET, given, IMAGE, progress=False).sum())(jax.tree.map(jnp.asarray, params))
    with pytest.raises(TypeError, match="scan_tiles: reads and writes NumPy arrays"):
        jax.jit(lambda image: scan_tiles(NET, params, image, progress=False))(IMAGE)


def test_the_result_may_not_lie_over_the_image():
    image = np.zeros((40, 30, 2), "float32")
    with pytest.raises(ValueError, match="out and image share memory"):
        scan_tiles(jnp.tanh, {}, image, out=image, progress=False)


def test_the_smallest_tile_works_and_no_smaller():
    net = fcnn.serial(fcnn.Conv(1, 7), fcnn.MaxPool(2), fcnn.Conv(1, 3, padding="SAME", stride=2))
    image = np.random.default_rng(0).normal(size=(103, 1)).astype("float32")
    params = normal(net, image.shape, np.random.default_rng(0))[0]
    (least,) = smallest(net, params, image)
    # a field of 1 + 6 + 1 + 2 * 2 = 12 samples, and 103 = 3 modulo 4: 15 samples hold a field, 11 do not
    assert least == 15
    with pytest.raises(ValueError, match="smallest that works is"):
        scan_tiles(net, params, image, tile=least - 1, progress=False)
    parts = scan_tiles(net, params, image, tile=least, progress=False)
    np.testing.assert_allclose(parts, net.apply(params, image[None])[0], rtol=1e-5, atol=1e-5)


# Several devices, in a process of their own.

CODE = """
import json
import jax, jax.numpy as jnp, numpy as np, fcnn
from jax.sharding import AxisType
from fcnn.scan import Scan
from fcnn.scan.tiles import scan_tiles

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_enable_x64", True)
numbers = np.random.default_rng(0)
image = numbers.normal(size=(90, 83, 2))
net = fcnn.serial(
    fcnn.Conv(4, 3, padding="SAME"), fcnn.BatchNorm(), jax.nn.relu, fcnn.MaxPool(2),
    Scan(fcnn.serial(fcnn.Conv(2, 3), jnp.tanh, fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(3)), 8),
)
params, state = net.init(jax.random.key(0), image.shape), net.init_state(image.shape)
whole = np.asarray(net.apply(params, image[None], state=state)[0])
one = scan_tiles(net, params, image, state=state, tile=40, progress=False)
said = {"whole": float(np.abs(one - whole).max())}
meshes = {kind.name: jax.make_mesh((8,), ("batch",), axis_types=(kind,)) for kind in (AxisType.Auto, AxisType.Explicit)}
meshes["two_axes"] = jax.make_mesh((4, 2), ("hosts", "chips"))
meshes["four"] = jax.sharding.Mesh(np.array(jax.devices()[4:]), ("batch",))
seen = []
from fcnn.scan import tiles
real = tiles._computed
def spied(net, divided, params, state, x):
    y = real(net, divided, params, state, x)
    seen.append((len(x.sharding.device_set), len(y.sharding.device_set), y.addressable_shards[0].data.shape[0]))
    return y
tiles._computed = spied
for name, mesh in meshes.items():
    many = scan_tiles(net, params, image, state=state, tile=40, progress=False, mesh=mesh)
    said[name] = float(np.abs(many - one).max())
    said[name + " devices"] = sorted(set(seen))
    seen.clear()
sixteen = scan_tiles(net, params, image, state=state, tile=40, batch=16, progress=False, mesh=meshes["Auto"])
said["sixteen"] = float(np.abs(sixteen - one).max())
said["sixteen devices"] = sorted(set(seen))
x = jax.device_put(np.zeros((8, 40, 40, 2)), tiles._shardings(jax.devices())[1])
text = real.lower(net, tiles._shardings(jax.devices())[1], params, state, x).compile().as_text()
said["travels"] = [word for word in ("all-gather", "all-to-all", "all-reduce", "collective-permute") if word in text]
try:
    scan_tiles(net, params, image, state=state, tile=40, batch=12, progress=False, mesh=meshes["Auto"])
except ValueError as error:
    said["error"] = str(error)
print(json.dumps(said))
"""


@pytest.mark.slow
def test_eight_devices_share_the_tiles():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert max(said[name] for name in ("whole", "Auto", "Explicit", "two_axes", "four", "sixteen")) < 1e-13
    # devices of the input, of the result, and tiles on each
    assert said["Auto devices"] == said["Explicit devices"] == said["two_axes devices"] == [[8, 8, 1]]
    assert said["four devices"] == [[4, 4, 1]]
    assert said["sixteen devices"] == [[8, 8, 2]]
    assert said["travels"] == []
    assert said["error"] == (
        "scan_tiles: a batch of 12 tiles cannot be shared equally by the 8 devices of the mesh; use 8"
    )
