"""Many random networks, forward and gradients by autodiff, against the backpropagation written by hand.

    python tests/soak.py --cases 20000 --seed 0 --jobs 2 --out benchmarks/results/soak.json
    python tests/soak.py --cases 1 --seed 4711              # one case again
    python tests/soak.py --cases 30000 --seed 0 --out more.json --resume benchmarks/results/soak.json

Case i is drawn from the seed S + i alone: one layer, or a small network (serial, residual, branches, repeat, graph), in
1, 2 or 3 space dimensions, trained or used. In float64, one function compiled by jit gives its output and the
gradients of its input and parameters twice: plainly, and by autodiff through a lax.scan over two batches. Both are
compared with the reference. The relative error of an array is its largest difference over its largest entry, or over a
ten-thousandth of the largest entry of all gradients where that is more: a gradient that is truly zero holds
rounding errors alone. It may be 1e-10.

One case in 20 is compiled as users compile; the others without most of LLVM's and the fusing optimisations, which
takes a sixth of the time. One case in 20 is computed eagerly as well, operation by operation without jit.
"""

import argparse
import importlib.util
import itertools
import json
import multiprocessing
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xla_flags

import fcnn
from fcnn.analysis import to_reference
from fcnn.compose.graph import Graph
from fcnn.compose.parallel import Branches, Residual
from fcnn.compose.repeat import Repeat
from fcnn.compose.serial import Serial
from fcnn.selftest.drawn import KINDS, VECTORS, fitting, input_shape, pick

BOUND = 1e-10
STEPS = 2  # batches that the scan goes over
EVERY = 20  # cases: the first of so many is fully optimised, the one half way is computed eagerly as well
#: cases between two clearings of JAX's caches; the compiled code of so many fits in some hundred megabytes
CLEAR_EVERY = 200
ACTIVATIONS = (
    jax.nn.relu, jnp.tanh, jax.nn.sigmoid, jax.nn.gelu, jax.nn.silu, jax.nn.softplus, jax.nn.elu,
    jax.nn.leaky_relu, jnp.square, jnp.abs, jnp.sin,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What one seed stands for."""

    seed: int
    kind: str
    net: fcnn.Layer
    shapes: tuple
    batch: int
    train: bool

    def __str__(self):
        how = "trained" if self.train else "used"
        return f"seed {self.seed}: {self.net!r} {how} on {self.batch} examples of {' and '.join(map(str, self.shapes))}"


# Networks.


def draw(seed):
    """The case of a seed."""
    generator = np.random.default_rng(seed)
    while True:
        batch = int(generator.integers(2, 4))
        rank = pick(generator, 1, 1, 2, 2, 2, 3)
        kind = pick(generator, *WEIGHTED)
        shape = input_shape(generator, rank)
        if kind in VECTORS and generator.integers(4) == 0:
            shape = (int(generator.integers(3, 9)),)
        draw_net = NETWORKS.get(kind)
        net = fitting(kind, generator, shape, batch) if draw_net is None else draw_net(generator, shape, batch)
        if net is not None:
            inputs = 2 if isinstance(net, Graph) and net.wiring is two_towers else 1
            return Case(seed, kind, net, (shape,) * inputs, batch, bool(generator.integers(2)))


def chain(generator, shape, batch, kinds=tuple(KINDS), depth=None):
    """A list of layers and activations one after another; None where they did not fit."""
    parts = []
    for _ in range(depth or int(generator.integers(1, 4))):
        possible = [kind for kind in kinds if len(shape) > 1 or kind in VECTORS]
        layer = fitting(pick(generator, *possible), generator, shape, batch)
        if layer is None:
            return None
        parts.append(layer)
        shape = layer.out_shape(shape)
        if generator.integers(2):
            parts.append(pick(generator, *ACTIVATIONS))
    return parts


def keeping(generator, channels, rank):
    """A few layers that keep the shape of their input."""
    parts = []
    for _ in range(int(generator.integers(1, 3))):
        options = {"padding": pick(generator, "SAME", "CAUSAL", "CIRCULAR"), "bias": bool(generator.integers(2))}
        groups = pick(generator, *(d for d in range(1, channels + 1) if channels % d == 0))
        size = tuple(int(n) for n in generator.integers(1, 4, rank))
        parts += pick(
            generator,
            [fcnn.Conv(channels, size, groups=groups, dilation=int(generator.integers(1, 3)), **options)],
            [fcnn.Dense(channels), fcnn.Dropout(0.3)],
            [fcnn.ConvTranspose(channels, size, padding="SAME")],
            [fcnn.AvgPool(size, stride=1, padding=options["padding"])],
            [fcnn.BatchNorm()],
            [fcnn.GroupNorm(groups)],
        )
        parts.append(pick(generator, *(f for f in ACTIVATIONS if f is not jnp.square)))
    return fcnn.serial(*parts)


def serial(generator, shape, batch):
    parts = chain(generator, shape, batch)
    if parts is None:
        return None
    if len(fcnn.serial(*parts).out_shape(shape)) > 1 and generator.integers(2):
        parts.append(fcnn.Flatten())
    if generator.integers(2):
        parts.append(fcnn.Dense(int(generator.integers(1, 6))))
    if generator.integers(4) == 0 and fcnn.serial(*parts).out_shape(shape)[-1] > 1:
        parts.append(pick(generator, jax.nn.softmax, jax.nn.log_softmax))
    return fcnn.serial(*parts)


def residual(generator, shape, batch):
    body = keeping(generator, shape[-1], len(shape) - 1)
    if generator.integers(2):
        return fcnn.residual(body)
    stride, features = int(generator.integers(1, 3)), int(generator.integers(1, 6))
    last = fcnn.Conv(features, 3, stride=stride, padding="SAME")
    return fcnn.residual(fcnn.serial(body, last), fcnn.Conv(features, 1, stride=stride, padding="SAME"))


def branches(generator, shape, batch):
    stride, join = int(generator.integers(1, 3)), pick(generator, "concat", "sum")
    features = [int(n) for n in generator.integers(1, 5, 3)]
    if join == "sum":
        features = [shape[-1]] * 3
    parts = [
        fcnn.Conv(features[0], 3, stride=stride, padding=pick(generator, "SAME", "CIRCULAR", "REFLECT")),
        fcnn.serial(fcnn.Dense(features[1]), jnp.tanh, fcnn.Conv(features[1], 2, stride=stride, padding="SAME")),
        fcnn.MaxPool(3, stride=stride, padding="SAME"),
        fcnn.AvgPool(2, stride=stride, padding="SAME", count_padding=bool(generator.integers(2))),
    ]
    chosen = generator.permutation(len(parts))[: int(generator.integers(2, 5))]
    return fcnn.branches(*(parts[i] for i in chosen), join=join)


def repeat(generator, shape, batch):
    return fcnn.repeat(keeping(generator, shape[-1], len(shape) - 1), int(generator.integers(2, 4)))


def two_towers(layer, a, b):
    """One encoder at two places, and its kernel once more."""
    h = layer.encode(a) * jnp.tanh(layer.encode(b))
    return layer.mix(h) @ layer.params["encode"]["kernel"].T


def applied_twice(layer, x):
    """One layer after itself, around a function."""
    return layer.body(jnp.sin(layer.body(x))) + x


def around(layer, x):
    """Two paths that meet."""
    h = layer.first(x)
    return layer.last(jnp.concatenate([jnp.tanh(h), h * h], -1))


def graph(generator, shape, batch):
    wiring = pick(generator, two_towers, applied_twice, around)
    if wiring is two_towers:
        features = int(generator.integers(1, 6))
        return fcnn.graph(encode=fcnn.Dense(features), mix=fcnn.Dense(features, bias=False))(wiring)
    if wiring is applied_twice:
        size = tuple(int(n) for n in generator.integers(1, 4, len(shape) - 1))
        body = fcnn.Conv(shape[-1], size, padding=pick(generator, "SAME", "CIRCULAR"))
        return fcnn.graph(body=body)(wiring)
    first = fitting(pick(generator, *KINDS), generator, shape, batch)
    if first is None:
        return None
    inner = first.out_shape(shape)
    parts = chain(generator, (*inner[:-1], 2 * inner[-1]), batch, depth=1)
    return None if parts is None else fcnn.graph(first=first, last=fcnn.serial(*parts))(wiring)


NETWORKS = {"serial": serial, "residual": residual, "branches": branches, "repeat": repeat, "graph": graph}

#: every kind of layer, and more often those whose geometry has most to draw
WEIGHTED = (
    *KINDS, *NETWORKS, *NETWORKS, *NETWORKS,
    *("Conv", "Conv", "Conv", "Conv", "ConvTranspose", "ConvTranspose", "LocallyConnected", "MaxPool", "AvgPool"),
)  # fmt: skip


def layers_of(net):
    """The names of all layers in a network, compositions included."""
    yield type(net).__name__
    inner = [net.layer] if isinstance(net, Repeat) else []
    if isinstance(net, (Serial, Residual, Branches, Graph)):
        inner = [part for _, part in net.named_parts()]
    for part in inner:
        yield from layers_of(part)


# Values.


def errors(case):
    """The relative errors of a case by the name of what is compared."""
    net, generator = case.net, np.random.default_rng([case.seed, 1])
    tree = jax.eval_shape(lambda key: net.init(key, *case.shapes), jax.random.key(0))
    params = jax.tree.map_with_path(lambda path, leaf: _value(generator, path[-1].key, leaf), tree)
    fixed = jax.eval_shape(lambda: net.init_state(*case.shapes))
    state = jax.tree.map(lambda leaf: np.abs(generator.normal(size=leaf.shape)) + 0.5, fixed)
    batches = tuple(generator.normal(size=(STEPS, case.batch, *shape)) for shape in case.shapes)
    cotangents = generator.normal(size=(STEPS, case.batch, *net.out_shape(*case.shapes)))
    key = jax.random.key(case.seed)

    plain, scanned = functions(case)
    arguments = (params, batches, cotangents, state, key)
    lowered = jax.jit(lambda *arguments: {"jit": plain(*arguments), "scan": scanned(*arguments)}).lower(*arguments)
    found = lowered.compile(None if fully_optimised(case.seed) else xla_flags.options())(*arguments)
    if eager_too(case.seed):
        found["eager"] = eagerly(plain, *jax.tree.map(jnp.asarray, arguments))
    expected = by_hand(case, *arguments)
    expected["eager"] = expected["jit"]
    worst = {}
    for way, (value, gradients) in jax.tree.map(np.asarray, found).items():
        right, right_gradients = expected[way]
        worst[f"{way} value"] = relative(value, right)
        assert jax.tree.structure(gradients) == jax.tree.structure(right_gradients), case
        largest = [np.abs(leaf).max(initial=0) for leaf in jax.tree.leaves(right_gradients)]
        pairs = zip(jax.tree.leaves_with_path(gradients), jax.tree.leaves(right_gradients), strict=True)
        for (path, gradient), right_gradient in pairs:
            name = f"{way} gradient of {('params', 'x')[path[0].idx]}{jax.tree_util.keystr(path[1:])}"
            worst[name] = relative(gradient, right_gradient, 1e-4 * max(largest))
    return worst


def fully_optimised(seed):
    return seed % EVERY == 0


def eager_too(seed):
    return seed % EVERY == EVERY // 2


def functions(case):
    """Output and gradients plainly on the first batch, and through a scan over all."""

    def output(params, inputs, state, key):
        if case.train:
            return case.net.apply_train(params, *inputs, key=key, state=state)
        return case.net.apply(params, *inputs, state=state), state

    def plain(params, batches, cotangents, state, key):
        first = tuple(x[0] for x in batches)
        value, pull = jax.vjp(lambda p, i: output(p, i, state, key)[0], params, first)
        return value, pull(cotangents[0])

    def scanned(params, batches, cotangents, state, key):
        def whole(params, batches):
            def step(state, inputs):
                value, state = output(params, inputs, state, key)
                return state, value

            return jax.lax.scan(step, state, batches)[1]

        values, pull = jax.vjp(whole, params, batches)
        return values, pull(cotangents)

    return plain, scanned


def eagerly(function, *arguments):
    """Call a function without jit. Each operation is compiled by itself then, which need not take long."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        return function(*arguments)
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def by_hand(case, params, batches, cotangents, state, key):
    """The same as both functions, by the reference."""
    node, gradients = to_reference(
        case.net, params, *case.shapes, state=state, key=key, batch=case.batch, train=case.train
    )
    values, input_gradients = [], []
    for i in range(STEPS):  # the gradients of the parameters add up from batch to batch
        values.append(node.forward(*(x[i] for x in batches)))
        input_gradients.append(tuple(node.backward(cotangents[i])))
        if i == 0:
            first = values[0], (jax.tree.map(np.copy, gradients()), input_gradients[0])
    along = tuple(np.stack(shares) for shares in zip(*input_gradients, strict=True))
    return {"jit": first, "scan": (np.stack(values), (gradients(), along))}


def relative(found, expected, least=0.0):
    """The largest difference over the largest entry."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    difference = float(np.abs(found - expected).max(initial=0))
    return difference / max(float(np.abs(expected).max(initial=0)), least) if difference else 0.0


def _value(generator, name, leaf):
    """A parameter's value: such that a few layers neither explode nor vanish, or rounding errors would grow with them.

    A scale close to 0 makes a channel nearly constant, which the next normalisation divides by its deviation.
    """
    if name == "scale":
        return generator.uniform(0.5, 1.5, leaf.shape) * generator.choice([-1, 1], leaf.shape)
    fan_in = max(1, int(np.prod(leaf.shape[:-1])))
    return generator.normal(size=leaf.shape) / min(fan_in, 12) ** 0.5


# The run.


def run(seed):
    """One case, as plain values: its kind and layers, the worst error and where, and how to see a failure again."""
    done = {"seed": seed, "kind": "none", "layers": [], "rank": "none", "train": False}
    case = None
    try:
        case = draw(seed)
        done |= {"kind": case.kind, "layers": sorted(set(layers_of(case.net))), "train": case.train}
        done["rank"] = f"{len(case.shapes[0]) - 1}-D"
        worst = errors(case)
        where = max(worst, key=worst.get)
        done |= {"error": worst[where], "where": where}
    except Exception:  # whatever one case raises is a failure of that case, and the others go on
        done |= {"error": float("inf"), "where": traceback.format_exc(limit=-2).strip()}
    if not done["error"] <= BOUND:
        done["case"] = str(case)
    if next(_count) % CLEAR_EVERY == 0:
        jax.clear_caches()
    return done


_count = itertools.count(1)


def prepare():
    """Float64, in this process and in those that it starts."""
    jax.config.update("jax_enable_x64", True)


def new(seed):
    """The result of no cases."""
    counts = {name: {} for name in ("kinds", "layers", "space_dimensions")}
    ways = {"trained": 0, "fully_optimised": 0, "eager_too": 0}
    return {
        "first_seed": seed,
        "cases": 0,
        "seconds": 0.0,
        "bound": BOUND,
        "failures": [],
        **ways,
        **counts,
        "worst": {},
    }


def soak(cases, result, *, jobs=1, report=print, save=lambda result: None):
    """Go on with a result until it holds so many cases; float64 must be on. Returns the result."""
    first = result["first_seed"]
    seeds = range(first + result["cases"], first + cases)
    began, spoken, before = time.time(), time.time(), result["seconds"]
    for done in _all(seeds, jobs):
        add(result, done)
        result["seconds"] = round(before + time.time() - began, 1)
        if "case" in done:
            report(f"WRONG {done['case']}\n  {done['error']:.1e}: {done['where']}")
            report(f"  again: python tests/soak.py --cases 1 --seed {done['seed']}")
        if time.time() - spoken > 5:
            spoken = time.time()
            speed = (done["seed"] + 1 - seeds.start) / (spoken - began)
            left = (seeds.stop - done["seed"] - 1) / speed / 60
            largest = max(worst["error"] for worst in result["worst"].values())
            report(f"{result['cases']} cases, {speed:.2f} a second, {left:.1f} minutes left, worst {largest:.1e}")
            save(result)
    return result


def add(result, done):
    """Count one case in."""
    seed = done["seed"]
    result["cases"] += 1
    result["trained"] += done["train"]
    result["fully_optimised"] += fully_optimised(seed)
    result["eager_too"] += eager_too(seed)
    names = {"kinds": [done["kind"]], "layers": done["layers"], "space_dimensions": [done["rank"]]}
    for table, keys in names.items():
        for key in keys:
            result[table][key] = result[table].get(key, 0) + 1
    if done["error"] > result["worst"].get(done["kind"], {"error": -1})["error"]:
        result["worst"][done["kind"]] = {"error": done["error"], "seed": seed, "where": done["where"]}
    if "case" in done:
        result["failures"].append({name: done[name] for name in ("seed", "case", "error", "where")})


def _all(seeds, jobs):
    if jobs == 1 or len(seeds) < 2:
        yield from map(run, seeds)
        return
    # started anew and not forked, because JAX runs threads
    with multiprocessing.get_context("spawn").Pool(jobs, prepare) as pool:
        yield from pool.imap(run, seeds)  # in order, so that a result can be resumed


def summary(result):
    """The table that is printed at the end."""
    yield f"{'kind':18} {'cases':>6} {'worst':>8}  seed"
    for kind, worst in sorted(result["worst"].items()):
        where = worst["where"].splitlines()[-1][:80]
        yield f"{kind:18} {result['kinds'][kind]:6} {worst['error']:8.1e}  {worst['seed']}: {where}"
    speed = result["cases"] / max(result["seconds"], 1e-9)
    last = result["first_seed"] + result["cases"] - 1
    yield f"{result['cases']} cases, seeds {result['first_seed']} to {last}, {speed:.2f} cases a second"
    yield f"{len(result['failures'])} above the bound of {BOUND:g}"


def main(argv=None):
    parser = argparse.ArgumentParser(description="Random networks against backpropagation by hand, in float64.")
    parser.add_argument("--cases", type=int, default=1000, help="in all, those of a resumed result included")
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, help="write the result here, also on the way")
    parser.add_argument("--resume", type=Path, help="a result to go on with; its first seed holds")
    options = parser.parse_args(argv)
    prepare()
    source = provenance()

    def save(result):
        if options.out:
            text = json.dumps({**result, **source}, indent=2)
            options.out.with_suffix(".part").write_text(text + "\n")
            options.out.with_suffix(".part").replace(options.out)  # an interrupted run leaves a whole file

    result = new(options.seed)
    if options.resume:
        result = {name: json.loads(options.resume.read_text())[name] for name in result}
    result = soak(options.cases, result, jobs=options.jobs, report=lambda text: print(text, flush=True), save=save)
    save(result)
    print("\n".join(summary(result)))
    return int(bool(result["failures"]))


def provenance():
    """What benchmarks/machine.py says of versions, machine and source."""
    path = Path(__file__).parents[1] / "benchmarks" / "machine.py"
    spec = importlib.util.spec_from_file_location("machine", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.provenance("numpy")


if __name__ == "__main__":
    sys.exit(main())
