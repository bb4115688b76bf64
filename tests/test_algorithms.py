"""Every algorithm for a convolution and its gradients: values, transformations, rounding, and which one is chosen."""

import functools
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xla_flags
from jax import lax

import fcnn
from fcnn import ops, reference
from fcnn.analysis import algorithms
from fcnn.ops.convolution import (
    ALGORITHMS,
    Geometry,
    Problem,
    choose,
    convolve,
    explain,
    refusal,
    use_algorithm,
    winograd,
)


def geometry(rank=2, *, stride=1, pads=((0, 0),), dilation=1, groups=1, input_dilation=1, phases=1):
    """A geometry that is the same along every axis, where not given for each."""

    def each(value):
        return value if isinstance(value, tuple) else (value,) * rank

    pads = tuple(pads) if len(pads) == rank else tuple(pads) * rank
    return Geometry(each(stride), pads, each(dilation), groups, each(input_dilation), each(phases))


def to_polyphase(y, phases):
    """The positions of each phase together, (features, phases, *out, batch); y as it is where there is one phase."""
    if max(phases) == 1:
        return y
    y = y.swapaxes(0, -1)
    starts = product(*map(range, phases))
    steps = [(slice(None), *(slice(a, None, b) for a, b in zip(start, phases, strict=True))) for start in starts]
    return (np if isinstance(y, np.ndarray) else jnp).stack([y[step] for step in steps], 1)


def by_lax(x, kernel, how):
    """The same by XLA's own operation, differentiated by JAX."""
    axes = "DHW"[-how.rank :]
    y = lax.conv_general_dilated(
        x,
        kernel,
        how.stride,
        how.pads,
        how.input_dilation,
        how.dilation,
        (f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=how.groups,
    )
    return to_polyphase(y, how.phases)


def by_definition(x, kernel, how, g=None):
    """The result, or for an output gradient g (positions in order) the gradients of x and kernel, in NumPy alone."""
    spread = [(n - 1) * u + 1 for n, u in zip(x.shape[1:-1], how.input_dilation, strict=True)]
    samples = (slice(None), *(slice(None, None, u) for u in how.input_dilation))
    wide = np.zeros((x.shape[0], *spread, x.shape[-1]))
    wide[samples] = x
    options = {"stride": how.stride, "pads": how.pads, "dilation": how.dilation, "groups": how.groups}
    if g is None:
        return reference.conv_by_definition(wide, kernel, None, **options)
    dx, dkernel, _ = reference.conv_gradients_by_definition(wide, kernel, g, **options)
    return dx[samples], dkernel


#: LLVM's optimizations take longer here than what they make faster; those of XLA stay
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def with_gradients(function):
    def all_three(x, kernel, g):
        y, pull = jax.vjp(function, x, kernel)
        return y, *pull(g)

    return all_three


def close(actual, wanted, tolerance=1e-10):
    """Equal up to a share of the largest number of each array."""
    actual, wanted = jax.tree.leaves(actual), jax.tree.leaves(wanted)
    for a, b in zip(actual, wanted, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(float(np.abs(b).max(initial=0)), 1e-30))


# Values.


def drawn_problem(algorithm, seed):
    """A random problem that the algorithm takes: x, kernel, an output gradient and the geometry."""
    rng = np.random.default_rng([ALGORITHMS.index(algorithm), seed])
    dense = algorithm in ("blocks", "winograd", "fourier")
    rank = 2 if algorithm == "winograd" else 1 + seed % 3

    def each(low, high):
        return tuple(int(n) for n in rng.integers(low, high, rank))

    while True:
        sizes = each(3, 6) if algorithm == "winograd" else each(1, 6 if rank < 3 else 3)
        one = (1,) * rank
        stride, dilation = (one, one) if dense else (each(1, 4), each(1, 3))
        spread = one if dense or rng.random() < 0.6 else each(1, 4)
        limits = (0, 10) if algorithm == "winograd" else (-1, 4)
        pads = tuple((int(lo), int(hi)) for lo, hi in rng.integers(*limits, (rank, 2)))
        groups = 1 if dense else int(rng.integers(1, 4))
        depth = 1 if algorithm == "depthwise" else int(rng.integers(1, 4))
        space = each(3, 9 if rank < 3 else 5)
        how = Geometry(stride, pads, dilation, groups, spread, one)
        out = how.out(space, sizes)
        if min(out) < 1:
            continue
        if all(n % 2 == 0 for n in out):
            how = replace(how, phases=(2,) * rank)
        x = rng.normal(size=(int(rng.integers(1, 3)), *space, depth * groups))
        kernel = rng.normal(size=(*sizes, depth, groups * int(rng.integers(1, 3))))
        return x, kernel, rng.normal(size=(x.shape[0], *out, kernel.shape[-1])), how


@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "onednn"])  # which has no float64
def test_every_algorithm_computes_the_definition_and_its_gradients(algorithm, seed, x64):
    x, kernel, g, how = drawn_problem(algorithm, seed)
    problem = Problem("forward", x.shape, kernel.shape, how, "float64", "cpu")
    assert refusal(algorithm, problem) is None
    defined = (to_polyphase(by_definition(x, kernel, how), how.phases), *by_definition(x, kernel, how, g))
    g = to_polyphase(g, how.phases)
    own = compiled(with_gradients(lambda x, kernel: convolve(x, kernel, how, algorithm)))(x, kernel, g)
    xla = with_gradients(lambda x, kernel: by_lax(x, kernel, how))
    close(own, defined)
    close(own, compiled(xla)(x, kernel, g))


def test_the_random_problems_are_of_every_kind():
    hows = [drawn_problem(algorithm, seed)[3] for algorithm in ALGORITHMS for seed in range(9)]
    assert {how.rank for how in hows} == {1, 2, 3}
    for kind in ("stride", "dilation", "input_dilation", "phases"):
        assert sum(max(getattr(how, kind)) > 1 for how in hows) > 5, kind
    assert sum(how.groups > 1 for how in hows) > 5
    assert sum(min(min(pair) for pair in how.pads) < 0 for how in hows) > 5


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_batch_of_no_examples_has_a_gradient_of_zeros(algorithm):
    how = geometry(pads=((1, 1),), groups=2 if algorithm == "depthwise" else 1)
    kernel = jnp.ones((3, 3, 2 // how.groups, 2))
    y, dx, dkernel = with_gradients(lambda x, kernel: convolve(x, kernel, how, algorithm))(
        jnp.ones((0, 4, 4, 2)), kernel, jnp.ones((0, 4, 4, 2))
    )
    assert y.shape == dx.shape == (0, 4, 4, 2)
    assert dkernel.shape == kernel.shape
    assert not dkernel.any()


# Transformations. Each is a function of the convolution f(x, kernel), of x and kernel, and of tangents like them.


def derivatives(f, x, kernel, dx, dkernel):
    def gradient(x, kernel):
        return jax.grad(lambda x, kernel: jnp.sum(f(x, kernel) ** 3), (0, 1))(x, kernel)

    forward = jax.jvp(f, (x, kernel), (dx, dkernel))
    return gradient(x, kernel), forward, jax.jvp(gradient, (x, kernel), (dx, dkernel))


def gradients(f):
    def of(x, kernel):
        return jax.grad(lambda x, kernel: jnp.sum(f(x, kernel) ** 3), (0, 1))(x, kernel)

    return of


def vmap_one(f, x, kernel, dx, dkernel):
    xs, kernels = jnp.stack([x, dx, x + dx]), jnp.stack([kernel, dkernel], -1)
    of = with_gradients(f)
    g = f(dx, kernel)
    over_x, over_kernels = jax.vmap(of, (0, None, None))(xs, kernel, g), jax.vmap(of, (None, -1, None))(x, kernels, g)
    return over_x, over_kernels, jax.vmap(of, (None, None, 0), -1)(x, kernel, jnp.stack([g, 2 * g, -g]))


def vmap_both(f, x, kernel, dx, dkernel):
    xs, kernels = jnp.stack([x, dx], 1), jnp.stack([kernel, dkernel])
    of = gradients(f)
    nested = jax.vmap(jax.vmap(of, (None, 0)), (1, None))
    return jax.vmap(of, (1, 0))(xs, kernels), nested(xs, kernels)


def vmap_nested(f, x, kernel, dx, dkernel):
    xs, kernels = jnp.stack([x, dx]), jnp.stack([kernel, dkernel])
    more = jnp.stack([xs, 2 * xs, xs - 1])  # (3, 2, ...)
    return jax.vmap(jax.vmap(gradients(f)), (0, None))(more, kernels)


def per_example(f, x, kernel, dx, dkernel):
    def loss(kernel, one):
        return jnp.sum(f(one[None], kernel) ** 2)

    each = jax.vmap(jax.grad(loss), (None, 0))
    ensemble = jax.vmap(each, (0, None))  # of networks, for the gradients of each example
    return each(kernel, x), ensemble(jnp.stack([kernel, dkernel]), x)


def scan(f, x, kernel, dx, dkernel):
    def loss(x, kernels):
        return lax.scan(lambda total, kernel: (total + jnp.sum(f(x, kernel) ** 2), None), jnp.zeros(()), kernels)[0]

    return jax.grad(loss, (0, 1))(x, jnp.stack([kernel, dkernel, kernel - dkernel]))


def checkpoint(f, x, kernel, dx, dkernel):
    return gradients(jax.checkpoint(f))(x, kernel), jax.linearize(jax.checkpoint(f), x, kernel)[1](dx, dkernel)


TRANSFORMATIONS = {
    t.__name__: t for t in (derivatives, vmap_one, vmap_both, vmap_nested, per_example, scan, checkpoint)
}

#: x, kernel and geometry that between them are all that a rule has to keep apart
PROBLEMS = {
    "dense": ((2, 6, 7, 3), (3, 3, 3, 4), geometry(pads=((1, 0), (2, 1)))),
    "polyphase": ((2, 6, 4, 3), (3, 3, 3, 4), geometry(pads=((1, 1),), phases=2)),
    "in groups": (
        (2, 7, 6, 4),
        (2, 3, 2, 6),
        geometry(stride=(2, 1), pads=((1, 1), (0, 2)), dilation=(1, 2), groups=2, input_dilation=(1, 2)),
    ),
    "depthwise": ((2, 6, 5, 3), (3, 2, 1, 6), geometry(stride=(1, 2), pads=((1, 0), (1, 1)), groups=3)),
}
CASES = [
    ("direct", "dense"),
    ("direct", "in groups"),
    ("patches", "polyphase"),
    ("depthwise", "depthwise"),
    ("blocks", "dense"),
    ("blocks", "polyphase"),
    ("winograd", "dense"),
    ("winograd", "polyphase"),
    ("fourier", "dense"),
]


def operands(problem):
    x, kernel, how = PROBLEMS[problem]
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in (x, kernel, x, kernel)], how


@functools.cache
def truth(transformation, problem):
    arrays, how = operands(problem)
    function = TRANSFORMATIONS[transformation]
    return compiled(lambda *arrays: function(lambda x, kernel: by_lax(x, kernel, how), *arrays))(*arrays)


@pytest.mark.parametrize(("algorithm", "problem"), CASES)
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
def test_every_algorithm_keeps_every_transformation(transformation, algorithm, problem, x64):
    arrays, how = operands(problem)
    function = TRANSFORMATIONS[transformation]
    own = compiled(lambda *arrays: function(lambda x, kernel: convolve(x, kernel, how, algorithm), *arrays))
    close(own(*arrays), truth(transformation, problem))


def test_without_jit_and_with_jit_disabled_the_result_is_the_same(x64):
    arrays, how = operands("dense")
    x, kernel, dx, dkernel = map(jnp.asarray, arrays)

    def f(x, kernel):
        return convolve(x, kernel, how)

    wanted = truth("derivatives", "dense")
    for disabled in (False, True):
        with jax.disable_jit(disabled):
            close(derivatives(f, x, kernel, dx, dkernel), wanted)
            close(jax.vmap(f)(jnp.stack([x, dx]), jnp.stack([kernel, dkernel]))[0], f(x, kernel))


ON_TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from functools import partial
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from fcnn.ops.convolution import ALGORITHMS, Geometry, convolve

jax.config.update("jax_enable_x64", True)
rng, one = np.random.default_rng(0), (1, 1)
kind = getattr(AxisType, __import__("sys").argv[1])
mesh = jax.make_mesh((2,), ("batch",), axis_types=(kind,))
x = rng.normal(size=(4, 6, 6, 4))
spread = jax.device_put(x, NamedSharding(mesh, P("batch")))

def close(got, wanted):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-10), got, wanted)

for algorithm, phases in [*((name, one) for name in ALGORITHMS), ("direct", (2, 2)), ("blocks", (2, 2))]:
    groups = 4 if algorithm == "depthwise" else 1
    how = Geometry(one, ((1, 1), (1, 1)), one, groups, one, phases)
    kernel = rng.normal(size=(3, 3, 4 // groups, 4))
    everywhere = jax.device_put(kernel, NamedSharding(mesh, P()))

    def loss(x, kernel):
        return jnp.sum(convolve(x, kernel, how, algorithm) ** 3)

    def each_example(x, kernel):
        return jax.vmap(lambda one: jax.grad(loss, 1)(one[None], kernel))(x)

    def by_hand(x, kernel):  # x is the share of one device; summing the kernel's gradient is up to JAX
        dx, dkernel = jax.grad(loss, (0, 1))(x, kernel)
        return dx, dkernel, jax.lax.psum(loss(x, kernel), "batch")

    def every(x, kernel):
        return jax.grad(loss, (0, 1))(x, kernel), each_example(x, kernel), loss(x, kernel)

    wanted, own, total = jax.jit(every)(x, kernel)
    with jax.set_mesh(mesh):
        close(jax.jit(every)(spread, everywhere), (wanted, own, total))
        parts = jax.shard_map(by_hand, in_specs=(P("batch"), P()), out_specs=(P("batch"), P(), P()), check_vma=True)
        close(jax.jit(parts)(spread, everywhere), (*wanted, total))
print(len(spread.sharding.device_set), "devices agree with one")
"""


@pytest.mark.slow
@pytest.mark.parametrize("axes", ["Auto", "Explicit"])
def test_every_algorithm_on_two_devices(axes):
    flags = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags.known()} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_TWO_DEVICES, axes]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout == "2 devices agree with one\n", done.stderr


# Rounding, on a CPU: other platforms may compute float32 in fewer digits.


def float32_bound(terms):
    """The error of a sum of so many products, as a share of the largest result.

    The sum up to term i is about sqrt(i) terms large and rounded by at most half a unit of that, of either sign; all
    roundings together are about 0.2 n units of a term, where the result is sqrt(n) terms large. Twice that, and one
    unit for short sums.
    """
    return (1 + 0.5 * np.sqrt(terms)) * float(jnp.finfo("float32").eps)


#: the largest result is itself rounded to half a unit in the last place; the CPU sums in float32
HALF = 0.51
#: Winograd's transforms for the points 2 and -2 multiply by up to 8 and subtract again: measured 7e-6 for 256 channels
WINOGRAD = 2e-5


def rounding(algorithm, dtype, problem):
    """The largest errors of the result and both gradients, each as a share of its largest number."""
    x, kernel, how = problem
    rng = np.random.default_rng(0)
    narrow = [jnp.asarray(rng.normal(size=shape), dtype) for shape in (x, kernel)]
    node = reference.Conv(kernel=np.asarray(narrow[1], np.float64), padding=how.pads, groups=how.groups)
    y = node.forward(np.asarray(narrow[0], np.float64))
    g = jnp.asarray(rng.normal(size=y.shape), dtype)
    (dx,) = node.backward(np.asarray(g, np.float64))
    own = jax.jit(with_gradients(lambda x, kernel: convolve(x, kernel, how, algorithm)))(*narrow, g)
    assert all(a.dtype == dtype for a in own)
    pairs = zip(own, (y, dx, node.gradients["kernel"]), strict=True)
    return [float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()) for a, b in pairs]


def rounding_problem(algorithm, size=3):
    if algorithm == "winograd":
        return (2, 8, 8, 256), (size, size, 256, 256), geometry(pads=((size // 2, size // 2),))
    if algorithm == "depthwise":
        return (8, 12, 12, 32), (5, 5, 1, 32), geometry(pads=((2, 2),), groups=32)
    return (8, 12, 12, 32), (5, 5, 32, 32), geometry(pads=((2, 2),))


on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the bounds are those of a CPU")


@on_cpu
@pytest.mark.parametrize(("algorithm", "size"), [*((name, 3) for name in ALGORITHMS), ("winograd", 4), ("winograd", 5)])
def test_rounding_in_float32(algorithm, size):
    (batch, *space, _), (*sizes, depth, features), how = given = rounding_problem(algorithm, size)
    of_input, of_output = (int(np.prod([*sizes, n])) for n in (depth, features // how.groups))
    terms = of_input, of_output, batch * int(np.prod(space))  # of a result and of both gradients
    bounds = [WINOGRAD if algorithm == "winograd" else float32_bound(n) for n in terms]
    errors = rounding(algorithm, "float32", given)
    assert all(error < bound for error, bound in zip(errors, bounds, strict=True)), (errors, bounds)


@on_cpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name not in ("winograd", "fourier")])
def test_rounding_in_sixteen_bits(algorithm, dtype):
    x, kernel, how = rounding_problem(algorithm)
    small = (*x[:-1], 8), (*kernel[:-2], 1 if how.groups > 1 else 8, 8), replace(how, groups=min(how.groups, 8))
    assert max(rounding(algorithm, dtype, small)) < HALF * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("size", winograd.KERNELS)
def test_winograds_matrices_multiply_polynomials(size):
    """The product of every unit input and every unit kernel is exactly the correlation of the two."""
    for_input, for_kernel, for_output = winograd.transforms(size)
    samples = winograd.TILE + size - 1
    found = np.einsum("ip,pk,pd->idk", for_output, for_kernel, for_input)
    i, d, k = np.ogrid[: winograd.TILE, :samples, :size]
    np.testing.assert_allclose(found, d == i + k, atol=1e-14)


@pytest.mark.parametrize(
    ("height", "batch", "together", "parts"), [(45, 1, 5e6, [12]), (45, 1, 3e3, [2] * 6), (9, 16, 5e6, [1, 1, 1])]
)
def test_winograd_in_one_part_in_rows_and_in_parts_of_several_rows(height, batch, together, parts, x64, monkeypatch):
    monkeypatch.setattr(winograd, "_TOGETHER", together)
    rng = np.random.default_rng(height)
    x, kernel = rng.normal(size=(batch, height, 6, 20)), rng.normal(size=(3, 3, 20, 30))
    how = geometry(pads=((2, 1), (0, 1)))
    plan = winograd._Plan((height, 6, batch, 20), kernel.shape, how)
    assert [last - first for first, last in plan.parts()] == parts
    g = rng.normal(size=(batch, *how.out((height, 6), (3, 3)), 30))
    f = with_gradients(lambda x, kernel: convolve(x, kernel, how, "winograd"))
    node = reference.Conv(kernel=kernel, padding=how.pads)  # in matrices: the definition takes seconds for so many maps
    y = node.forward(x)
    close(compiled(f)(x, kernel, g), (y, *node.backward(g), node.gradients["kernel"]), 1e-11)


# The choice.


def problem(x, kernel, operation="forward", dtype="float32", platform="cpu", ensemble=1, **options):
    options.setdefault("pads", ((1, 1),))
    return Problem(operation, x, kernel, geometry(len(kernel) - 2, **options), dtype, platform, ensemble)


LARGE, WIDE = (64, 16, 16, 128), (3, 3, 128, 128)
CHOICES = [
    (problem(LARGE, WIDE), "winograd", "128 channels"),
    (problem(LARGE, WIDE, "input"), "winograd", "128 channels"),
    (problem(LARGE, WIDE, "kernel"), "winograd", "128 channels"),
    (problem(LARGE, WIDE, dtype="bfloat16"), "direct", "XLA"),
    (problem(LARGE, WIDE, stride=2), "direct", "XLA"),
    (problem(LARGE, (5, 5, 128, 128)), "winograd", "5x5 over 128 channels"),
    (problem(LARGE, (7, 7, 128, 128)), "direct", "XLA"),
    (problem(LARGE, (7, 7, 128, 128), "kernel"), "direct", "inside loops"),
    (problem((64, 28, 28, 1), (5, 5, 1, 6)), "blocks", "blocks of positions"),
    (problem((64, 28, 28, 1), (5, 5, 1, 6), "kernel"), "direct", "inside loops"),
    (problem((64, 28, 28, 1), (5, 5, 1, 6), "kernel", phases=2), "blocks", "blocks of positions"),
    (problem((64, 14, 14, 6), (5, 5, 6, 16), "input"), "blocks", "blocks of positions"),
    (problem((64, 28, 28, 16), (3, 3, 16, 16)), "direct", "XLA"),
    (problem((16, 64, 64, 16), (11, 11, 16, 16)), "fourier", "121 samples"),
    (problem((16, 64, 64, 16), (11, 11, 16, 16), "kernel"), "fourier", "121 samples"),
    (
        problem((1, 64, 64, 16), (11, 11, 16, 16)),
        "direct",
        "XLA",
    ),  # one example does not pay for the kernel's transform
    (problem((16, 64, 64, 256), (11, 11, 256, 256)), "direct", "XLA"),  # nor is there memory for it
    (problem((4, 16, 16, 16, 16), (3, 3, 3, 16, 16)), "direct", "two dimensions"),
    (problem((64, 32, 32, 3), (3, 3, 3, 64)), "patches", "3 channels are few"),
    (problem((64, 14, 14, 8), (5, 5, 8, 16)), "winograd", "5x5 over 8 channels"),
    (problem((1, 48, 40, 16), (5, 5, 16, 120)), "winograd", "5x5 over 16 channels"),
    (problem((1, 40, 49, 16), (5, 5, 16, 120)), "direct", "XLA's convolution"),  # transforms of long rows cost more
    (problem((1, 96, 96, 128), WIDE), "winograd", "3x3 over 128 channels"),
    (problem((1, 97, 97, 128), WIDE), "direct", "XLA's convolution"),
    (problem(LARGE, (1, 1, 128, 32), pads=((0, 0),)), "patches", "matrix product"),
    (problem(LARGE, (1, 1, 128, 32), stride=2, pads=((0, 0),)), "patches", "matrix product"),
    (problem(LARGE, (3, 3, 1, 128), groups=128), "depthwise", "one channel"),
    (problem(LARGE, (3, 3, 32, 128), groups=4), "direct", "4 groups, a convolution each"),
    (problem(LARGE, (3, 3, 4, 128), groups=32), "patches", "groups"),
    (problem(LARGE, (5, 5, 128, 128), dtype="float64"), "patches", "float64"),
    (problem(LARGE, WIDE, ensemble=4), "patches", "batched product"),
    *((problem(LARGE, WIDE, platform=p), "direct", "platform") for p in ("cuda", "rocm", "tpu")),
    *((problem(LARGE, (3, 3, 1, 128), "input", groups=128, platform=p), "direct", "platform") for p in ("cuda", "tpu")),
    (problem(LARGE, WIDE, ensemble=4, platform="cuda"), "direct", "platform"),
    (problem(LARGE, WIDE, "kernel", ensemble=4, platform="tpu"), "patches", "batched product"),
]


@pytest.mark.parametrize(("asked", "algorithm", "why"), CHOICES)
def test_the_choice_and_its_reason(asked, algorithm, why):
    choice = choose(asked)
    assert choice.algorithm == algorithm
    assert why in choice.reason
    assert refusal(choice.algorithm, asked) is None
    assert explain(asked) == choice


@pytest.mark.parametrize(
    ("algorithm", "asked", "why"),
    [
        ("fft", problem(LARGE, WIDE), "unknown algorithm 'fft'; choose one of direct, "),
        ("depthwise", problem(LARGE, WIDE), "depthwise needs as many groups as channels, not 1 for 128"),
        ("blocks", problem(LARGE, WIDE, stride=2), "blocks needs stride 1, dilation 1 and one group"),
        ("winograd", problem(LARGE, WIDE, dilation=2), "winograd needs stride 1, dilation 1 and one group"),
        (
            "winograd",
            problem(LARGE, (7, 7, 128, 128)),
            "winograd needs a kernel of 3, 4 or 5 samples along two axes, not",
        ),
        ("fourier", problem(LARGE, WIDE, dtype="bfloat16"), "fourier has no transforms in bfloat16"),
        ("winograd", problem(LARGE, WIDE, dtype="float16"), "winograd loses too many digits in float16"),
    ],
)
def test_a_refusal_says_why(algorithm, asked, why):
    reason = refusal(algorithm, asked)
    assert reason is not None
    assert reason.startswith(why)


def convolutions(function, *arguments):
    """The lines of a lowered program that are convolutions of XLA."""
    text = jax.jit(function).lower(*arguments).as_text()
    return [line for line in text.splitlines() if "stablehlo.convolution" in line]


def test_use_algorithm_changes_what_jit_traces():
    traced = []

    @jax.jit
    def f(x, kernel):
        traced.append(str(jax.make_jaxpr(ops.conv)(x, kernel)))
        return ops.conv(x, kernel)

    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 2))
    f(x, kernel)
    with use_algorithm("direct"):
        f(x, kernel)
        assert convolutions(ops.conv, x, kernel)
        with use_algorithm("patches"):
            f(x, kernel)
            assert not convolutions(ops.conv, x, kernel)
        with use_algorithm(None):
            f(x, kernel)
        f(x, kernel)
    f(x, kernel)
    asked = [re.search(r"algorithm=(\w+)", text).group(1) for text in traced]
    assert asked == ["None", "direct", "patches"]


def test_use_algorithm_reaches_the_gradients():
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 2))

    def gradient(x, kernel):
        return jax.grad(lambda x, kernel: jnp.sum(ops.conv(x, kernel) ** 2), (0, 1))(x, kernel)

    with use_algorithm("direct"):
        assert len(convolutions(gradient, x, kernel)) == 3
    with use_algorithm("patches"):
        assert not convolutions(gradient, x, kernel)


def test_use_algorithm_ends_with_its_context_also_after_an_error():
    with pytest.raises(RuntimeError), use_algorithm("patches"):
        raise RuntimeError
    assert explain(problem(LARGE, WIDE)).algorithm == "winograd"


def test_an_unknown_algorithm_is_an_error():
    with pytest.raises(ValueError, match=r"unknown algorithm 'fft'; choose one of direct, .*, or None"):
        use_algorithm("fft").__enter__()


def test_an_algorithm_that_cannot_do_it_leaves_the_usual_choice():
    x, kernel = jnp.ones((16, 8, 8, 3)), jnp.ones((7, 7, 3, 4))
    asked = problem(x.shape, kernel.shape)
    usual = jax.jit(ops.conv).lower(x, kernel).as_text()
    with use_algorithm("winograd"):
        assert explain(asked) == choose(asked)
        assert jax.jit(ops.conv).lower(x, kernel).as_text() == usual
        assert explain(problem(LARGE, WIDE)) == ("winograd", "asked for")


#: the layout of XLA:CPU's fast paths; in the body of a loop it computes any other with plain loops
FAST = re.compile(
    r"dim_numbers = \[b, 0, 1, f\]x\[0, 1, i, o\]->\[b, 0, 1, f\].*batch_group_count = 1 : i64.*"
    r"feature_group_count = 1 : i64"
)


@on_cpu
@pytest.mark.parametrize("how", [geometry(pads=((3, 3),)), geometry(stride=2, pads=((3, 3),)), geometry(dilation=2)])
def test_convolutions_in_loops_stand_in_the_layout_that_is_fast_there(how, without_onednn):
    def loss(x, kernels):
        y, _ = lax.scan(lambda y, kernel: (jnp.sum(y) + convolve(x, kernel, how), None), jnp.zeros(shape), kernels)
        return jnp.sum(y**2)

    x, kernels = jnp.ones((4, 16, 16, 24)), jnp.ones((3, 7, 7, 24, 64))
    shape = jax.eval_shape(lambda: convolve(x, kernels[0], how)).shape
    found = convolutions(jax.grad(loss, (0, 1)), x, kernels)
    assert len(found) == 3  # in a loop each way: the convolution, and its two gradients
    assert all(FAST.search(line) for line in found), found


@on_cpu
def test_the_layout_that_jax_gives_a_kernel_gradient_is_another():
    def loss(kernel):
        return jnp.sum(by_lax(jnp.ones((4, 16, 16, 32)), kernel, geometry()) ** 2)

    found = convolutions(jax.grad(loss), jnp.ones((5, 5, 32, 64)))
    assert len(found) == 2
    assert not all(FAST.search(line) for line in found)


# The table of a network.


def network():
    body = fcnn.Conv(8, 3, padding="SAME")
    return fcnn.serial(
        fcnn.Conv(8, 5), jax.nn.relu, fcnn.MaxPool(2), fcnn.repeat(fcnn.residual(body), 3), fcnn.BatchNorm(),
        fcnn.Conv(16, 3, groups=4), fcnn.Dropout(0.5), fcnn.ConvTranspose(4, 2, stride=2), fcnn.Flatten(),
        fcnn.Dense(3),
    )  # fmt: skip


def test_the_table_has_every_convolution_with_those_gradients_that_training_computes(without_onednn):
    table = algorithms(network(), (16, 16, 1), batch=32, platform="cpu")
    both = ("forward", "input gradient", "kernel gradient")
    paths = ["conv1"] * 2 + ["repeat1/body"] * 3 + ["conv2"] * 3 + ["conv_transpose1"] * 3
    assert [row.path for row in table.rows] == paths
    assert [row.operation for row in table.rows] == ["forward", "kernel gradient", *both * 3]
    by_path = {row.path: row for row in table.rows}
    assert [by_path[path].x for path in dict.fromkeys(paths)] == [
        (32, 16, 16, 1), (32, 6, 6, 8), (32, 6, 6, 8), (32, 4, 4, 16)
    ]  # fmt: skip
    assert by_path["conv1"].kernel == (5, 5, 1, 8)
    assert by_path["conv1"].output == (32, 12, 12, 8)
    assert by_path["conv_transpose1"].output == (32, 8, 8, 4)
    assert by_path["repeat1/body"].times == 3
    assert by_path["conv2"].geometry.groups == 4
    assert {row.algorithm for row in table.rows if row.path == "conv2"} <= {"patches", "direct"}
    for row in table.rows:
        kind = row.operation.split()[0]
        asked = Problem(kind, row.x, row.kernel, row.geometry, "float32", "cpu")
        assert (row.algorithm, row.reason) == choose(asked)


def test_the_table_of_a_layer_used_twice_alone_or_under_jax_checkpoint():
    twice = fcnn.graph(c=fcnn.Conv(8, 3, padding="SAME"))(lambda layer, x: layer.c(jnp.tanh(layer.c(x))))
    rows = algorithms(twice, (8, 8, 8)).rows
    assert [(row.path, row.operation.split()[0]) for row in rows] == [
        ("c", "forward"), ("c", "kernel"), ("c#2", "forward"), ("c#2", "input"), ("c#2", "kernel")
    ]  # fmt: skip
    assert [row.path for row in algorithms(fcnn.Conv(8, 3), (8, 8, 8)).rows] == ["conv"] * 2
    assert algorithms(fcnn.Dense(3), (8,)).rows == ()
    inner = jax.checkpoint(lambda x: jnp.tanh(ops.conv(x, jnp.ones((3, 3, 8, 8), x.dtype))))
    rows = algorithms(fcnn.serial(fcnn.Conv(8, 1), remembered=inner), (8, 8, 8)).rows
    assert [(row.path, row.operation) for row in rows][2:] == [
        ("remembered", "forward"), ("remembered", "input gradient")
    ]  # fmt: skip


def test_the_table_says_what_platform_dtype_and_context_change(without_onednn):
    net = fcnn.serial(fcnn.Conv(128, 3), fcnn.Conv(128, 3))
    shape = (12, 12, 128)

    def used(**options):
        return {row.algorithm for row in algorithms(net, shape, **options).rows}

    assert used(platform="cpu") == {"winograd"}
    assert used(platform="cpu", dtype="float64") == {"patches"}
    assert used(platform="cuda", dtype="bfloat16") == used(platform="tpu") == {"direct"}
    with use_algorithm("patches"):
        table = algorithms(net, shape)
    assert {(row.algorithm, row.reason) for row in table.rows} == {("patches", "asked for")}
    assert not jax.config.jax_enable_x64
    with pytest.raises(ValueError, match="unknown platform 'abacus'; choose one of cpu, "):
        used(platform="abacus")
    with pytest.raises(ValueError, match="dtype int32 is not of floating point"):
        used(dtype="int32")


def test_the_table_prints_aligned_and_as_html():
    table = algorithms(fcnn.serial(a=fcnn.Conv(6, 5), b=fcnn.Conv(8, 3, stride=2)), (28, 28, 1), platform="cpu")
    caption, header, rule, *lines = str(table).splitlines()
    assert caption == "2 convolutions, float32 on cpu"
    assert set(rule) == {"-"}
    assert len(lines) == len(table.rows) == 5
    for name in ("operation", "input", "kernel", "output", "algorithm"):
        column = header.index(name)
        assert all(line[column - 1] == " " for line in lines)
    assert lines[0].startswith("a")
    assert "(128, 28, 28, 1)" in lines[0]
    page = table._repr_html_()
    assert page.count("<tr>") == 6
    assert "XLA&#x27;s" in page or "'" not in page.split("<tbody>")[1]
    assert str(algorithms(fcnn.Dense(3), (8,), platform="cpu")).startswith("no convolutions, float32 on cpu")
