"""One training step as a pure function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from ..checks import check_key
from ..errors import layer_path
from ..geometry import Shape, integer
from ..identity import cached
from ..initialization import fold
from ..layer import Context, Layer
from ..native import native
from ..ops.dtypes import wide
from ..types import Params, State
from .accumulation import in_parts
from .augmentation import Augment, Batch, augmented, check_unmixed
from .losses import cross_entropy
from .measure_arguments import check_measures
from .measures import Measured, Measures, Weighted
from .optimizers import loss_scale
from .precision import check_precision, lowered, restored
from .trainable import Trainable, check_trainable

if TYPE_CHECKING:
    import optax


class TrainState(NamedTuple):
    """Everything that training changes, as a pytree.

    Attributes:
        params: the parameters.
        state: the network's state, such as running statistics; ``{}`` for networks without.
        optimizer_state: the state of the optimizer.
        key: random key, from which the key of every step is derived.
        step: number of steps taken, int32.
    """

    params: Params
    state: State
    optimizer_state: Any
    key: jax.Array
    step: jax.Array


def start(
    net: Layer,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    *shapes: Shape,
    params: Params | None = None,
    state: State | None = None,
    trainable: Trainable | str | None = None,
) -> TrainState:
    """The train state before the first step.

    Args:
        net: the network.
        optimizer: an optax optimizer.
        key: random key, for the initial parameters and for dropout.
        shapes: shape of one example of each input.
        params: initial parameters; None: ``net.init``.
        state: initial state; None: ``net.init_state``. If the network has running statistics, give it together with
            params.
        trainable: the parts to train, as for ``fit``; the optimizer keeps no state for the others. None: all.

    Returns:
        The train state.

    Raises:
        ValueError: parameters without the state that belongs to them, a path in ``trainable`` that matches nothing.

    Example:
        >>> import fcnn, optax
        >>> int(start(fcnn.Dense(2), optax.sgd(0.1), jax.random.key(0), (3,)).step)
        0
    """
    with layer_path("start"):
        check_begin(net, params, state, shapes)
    params, state = jax.tree.map(native, (params, state))
    params = net.init(fold(key, "init"), *shapes) if params is None else params
    state = net.init_state(*shapes) if state is None else state
    chosen = check_trainable(trainable)
    if chosen is not None:
        chosen.check(params, state)
    seen = params if chosen is None else chosen.only(params)
    with jax.numpy_dtype_promotion("standard"):  # which optax relies on
        begun = optimizer.init(seen)
    return TrainState(params, state, begun, fold(key, "train"), jnp.zeros((), "int32"))


def check_begin(net: Layer, params: Params | None, state: State | None, shapes: Sequence[Shape]) -> None:
    """Raise if parameters are given without the running statistics that belong to them.

    Raises:
        ValueError: they are.
    """
    if params is None or state is not None:
        return
    if jax.tree.leaves(jax.eval_shape(lambda: net.init_state(*shapes))):
        raise ValueError(
            "params are given without state, but this network has running statistics that belong to them; give "
            "state=run.state together with params=run.params, or state=net.init_state(shape) for initial ones"
        )


def make_step(
    net: Layer,
    optimizer: optax.GradientTransformation,
    loss: Any = cross_entropy,
    augment: Augment | None = None,
    *,
    loss_weights: Any = None,
    metrics: Any = None,
    ignore_label: int | None = None,
    accumulate: int = 1,
    precision: str | None = None,
    trainable: Trainable | str | None = None,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    r"""A pure function from (train state, batch) to (train state, metrics): one step, not yet compiled.

    .. math:: g = \nabla_\theta \tfrac{1}{n} \sum_i \ell(f_\theta(x_i), y_i)

    Args:
        net: the network.
        optimizer: an optax optimizer.
        loss: as for ``fit``.
        augment: (key, batch) to batch, or None.
        loss_weights: as for ``fit``.
        metrics: as for ``fit``, a dict; their values are those of the batch.
        ignore_label: as for ``fit``.
        accumulate: number of parts that a batch is computed in, one after another. The gradient is that of the whole
            batch, the memory that of one part. Batch normalisation sees one part at a time.
        precision: "bfloat16" or "float16" to compute in it. Parameters, sums of gradients, optimizer state and running
            statistics keep their precision. "float16" needs an optimizer made by ``training.loss_scaling``, which keeps
            small gradients from becoming zero. None: the precision of the parameters.
        trainable: the parts to train, as for ``fit`` and ``start``; None: all.

    Returns:
        The step. Its batch is ((x, ...), y), or (x, y), with weights (x, y, w). Metrics are those of the batch before
        the update. Equal arguments give the same function, so ``jax.jit`` compiles it once. An augmentation that
        depends on the indices of the examples in the data (``by_example``) needs them: ``step(train, batch,
        examples=indices, epoch=epoch)``; without them it takes the batch for all the data.

    Raises:
        ValueError: a number out of range.
        TypeError: arguments of the wrong kind.

    Source:
        Mixed precision: Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.

    Example:
        >>> import fcnn, optax
        >>> net, optimizer = fcnn.Dense(1), optax.sgd(0.5)
        >>> step = jax.jit(make_step(net, optimizer, optax.losses.squared_error))
        >>> before = start(net, optimizer, jax.random.key(0), (1,), params={"kernel": jnp.zeros((1, 1)),
        ...                "bias": jnp.zeros(1)})
        >>> after, metrics = step(before, (jnp.ones((4, 1)), jnp.ones((4, 1))))
        >>> after.params["bias"].tolist(), metrics["loss"].item()
        ([1.0], 1.0)
    """
    measures = check_measures(loss, loss_weights, metrics, ignore_label)
    return _reporting(
        measures,
        make_measured(
            net,
            optimizer,
            measures,
            augment,
            integer(accumulate, "accumulate"),
            check_precision(precision),
            check_trainable(trainable),
        ),
    )


@cached(maxsize=8)
def _reporting(measures: Measures, step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that returns metrics instead of sums."""

    def reporting(
        before: TrainState, batch: Batch, *, examples: Any = None, epoch: Any = None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        after, found = step(before, batch, examples=examples, epoch=epoch)
        return after, measures.results(*found)

    reporting.measured = step  # type: ignore[attr-defined]
    return reporting


@cached(maxsize=8)
def make_measured(
    net: Layer,
    optimizer: optax.GradientTransformation,
    measures: Measures,
    augment: Augment | None = None,
    accumulate: int = 1,
    precision: str | None = None,
    chosen: Trainable | None = None,
) -> Callable[..., tuple[TrainState, Measured]]:
    """The step of :func:`make_step`, but with sums over the batch instead of metrics.

    Returns:
        A function of (train state, batch, examples=, epoch=, accumulators=) that returns (train state, measured).
        ``accumulators`` are those of metrics before the step; None: before the first.
    """

    def trained(params: Params) -> Any:
        return params if chosen is None else chosen.only(params)

    def whole(part: Any, params: Params) -> Params:
        return part if chosen is None else chosen.merged(part, params)

    def call(key: jax.Array, params: Params, state: State) -> Context:
        resting = frozenset() if chosen is None else chosen.resting(params, state)
        return Context(train=True, root=check_key(key), resting=resting)

    def gradient_of(
        params: Params,
        state: State,
        inputs: tuple[Any, ...],
        targets: Any,
        key: jax.Array,
        scale: Any,
        accumulators: Any,
        shares: Any = None,
    ) -> tuple[Params, jax.Array, Measured, State]:
        def lost(part: Any) -> tuple[jax.Array, tuple[jax.Array, Measured, State]]:
            low, x = lowered((whole(part, params), inputs), precision)
            outputs, after = net.start_walk(call(key, params, state), low, state, x)
            value, found = measures.measure(outputs, targets, accumulators, shares)
            scaled = value if scale is None else value * scale.astype(value.dtype)
            return scaled, (value, found, restored(after, state))

        gradient, (value, found, after) = jax.grad(lost, has_aux=True)(trained(params))
        return gradient, value, found, after

    def step(
        before: TrainState, batch: Batch, *, examples: Any = None, epoch: Any = None, accumulators: Any = None
    ) -> tuple[TrainState, Measured]:
        key = jax.random.fold_in(before.key, before.step)
        inputs, targets = augmented(augment, fold(key, "augment"), batch, examples, epoch)
        if measures.ignore_label is not None or isinstance(targets, Weighted):
            check_unmixed(batch, targets)
        scale = loss_scale(before.optimizer_state)
        dropout = fold(key, "dropout")
        if accumulate == 1:
            gradient, value, found, state = gradient_of(
                before.params, before.state, inputs, targets, dropout, scale, accumulators
            )
        else:
            gradient, value, found, state = in_parts(
                lambda state, x, y, i, accumulators, shares: gradient_of(
                    before.params, state, x, y, jax.random.fold_in(dropout, i), scale, accumulators, shares
                ),
                measures,
                before,
                inputs,
                targets,
                measures.accumulators() if accumulators is None else accumulators,
                accumulate,
            )

        def value_of(part: Any) -> jax.Array:
            walk = call(dropout, before.params, before.state)
            outputs, _ = net.start_walk(walk, whole(part, before.params), before.state, inputs)
            return measures.measure(outputs, targets)[0]

        found = found._replace(sums={**found.sums, "gradient_norm": _norm(gradient, scale)})
        # optax relies on JAX's standard promotion, whatever the program has set
        part = trained(before.params)
        with jax.numpy_dtype_promotion("standard"):
            updates, optimizer_state = optimizer.update(
                gradient,
                before.optimizer_state,
                part,
                **_wanted(optimizer, value=value, grad=gradient, value_fn=value_of),
            )
        params = whole(jax.tree.map(lambda p, u: p + u.astype(p.dtype), part, updates), before.params)
        return TrainState(params, state, optimizer_state, before.key, before.step + 1), found

    return step


def _norm(gradient: Any, scale: Any) -> dict[str, jax.Array]:
    """The Euclidean norm of a gradient that may be scaled, as a sum of one; an overflow does not count."""
    squares = [jnp.sum(jnp.square(g.astype(wide(g.dtype))), dtype="float32") for g in jax.tree.leaves(gradient)]
    norm = jnp.sqrt(sum(squares, jnp.zeros((), "float32")))
    norm = norm if scale is None else norm / scale
    finite = jnp.isfinite(norm)
    return {"sum": jnp.where(finite, norm, jnp.zeros_like(norm)), "weight": finite.astype("float32")}


def _wanted(optimizer: Any, **extra: Any) -> dict[str, Any]:
    """The extra arguments that the update of an optimizer takes; line searches need some."""
    taken = inspect.signature(optimizer.update).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return extra
    return {parameter.name: extra[parameter.name] for parameter in taken if parameter.name in extra}
