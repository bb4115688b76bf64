"""One step of training as a pure function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from ..geometry import Shape, integer
from ..given import Params, State, check_key, fold
from ..layer import Call, Layer
from ..ops.dtypes import wide
from .objective import Loss, Metric, cross_entropy, measure
from .optimizers import loss_scale
from .precision import check_precision, lowered, restored
from .trainable import Trainable, check_trainable

if TYPE_CHECKING:
    import optax

#: (key, (x, y)) -> (x, y)
Augment = Callable[..., Any]
#: ((x, ...), y), or (x, y) for networks of one input
Batch = tuple[Any, Any]


class TrainState(NamedTuple):
    """Everything that training changes, as one pytree.

    Attributes:
        params: the parameters.
        state: the network's state, such as running statistics; ``{}`` for networks without.
        optimizer_state: what the optimizer remembers.
        key: random key, from which the key of every step is folded.
        step: steps taken, int32.
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
    """The state before the first step.

    Args:
        net: the network.
        optimizer: an optax optimizer.
        key: random key, for the initial parameters and for dropout.
        shapes: shape of one example of each input.
        params: parameters to begin with; None: ``net.init``.
        state: state to begin with; None: ``net.init_state``.
        trainable: parts that are trained, as for ``fit``; the optimizer keeps nothing for the others. None: all.

    Returns:
        The train state.

    Raises:
        ValueError: a path in ``trainable`` that matches nothing.

    Example:
        >>> import fcnn, optax
        >>> int(start(fcnn.Dense(2), optax.sgd(0.1), jax.random.key(0), (3,)).step)
        0
    """
    params = net.init(fold(key, "init"), *shapes) if params is None else params
    state = net.init_state(*shapes) if state is None else state
    chosen = check_trainable(trainable)
    if chosen is not None:
        chosen.check(params, state)
    seen = params if chosen is None else chosen.only(params)
    return TrainState(params, state, optimizer.init(seen), fold(key, "train"), jnp.zeros((), "int32"))


@lru_cache(maxsize=8)
def make_step(
    net: Layer,
    optimizer: optax.GradientTransformation,
    loss: Loss = cross_entropy,
    augment: Augment | None = None,
    *,
    metrics: tuple[tuple[str, Metric], ...] = (),
    accumulate: int = 1,
    precision: str | None = None,
    trainable: Trainable | str | None = None,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    r"""The step (train state, batch) to (train state, metrics), pure and not yet compiled.

    .. math:: g = \nabla_\theta \tfrac{1}{n} \sum_i \ell(f_\theta(x_i), y_i)

    Args:
        net: the network.
        optimizer: an optax optimizer.
        loss: (outputs, targets) to one number for each example, or one for the batch.
        augment: (key, batch) to batch, or None.
        metrics: pairs of a name and a function (outputs, targets) to a number, or one for each example.
        accumulate: parts that a batch is computed in, one after another; the gradients are averaged, and the
            memory is that of one part. Batch normalisation sees a part at a time.
        precision: "bfloat16" or "float16" to compute in it; parameters, gradients' sums, the optimizer and running
            statistics stay as they are. "float16" needs an optimizer made by ``training.scaled``, which keeps small
            gradients from becoming zero. None: the precision of the parameters.
        trainable: parts that are trained, as for ``fit`` and for ``start``; None: all.

    Returns:
        The step; its batch is ((x, ...), y), or (x, y). Metrics are those of the batch before the update.

    Raises:
        ValueError: a number out of range.

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
    accumulate, precision = integer(accumulate, "accumulate"), check_precision(precision)

    chosen = check_trainable(trainable)

    def trained(params: Params) -> Any:
        return params if chosen is None else chosen.only(params)

    def whole(part: Any, params: Params) -> Params:
        return part if chosen is None else chosen.merged(part, params)

    def call(key: jax.Array, params: Params, state: State) -> Call:
        resting = frozenset() if chosen is None else chosen.resting(params, state)
        return Call(train=True, root=check_key(key), resting=resting)

    def gradient_of(
        params: Params, state: State, inputs: tuple[Any, ...], targets: Any, key: jax.Array, scale: Any
    ) -> tuple[Params, dict[str, jax.Array], State]:
        def objective(part: Any) -> tuple[jax.Array, tuple[dict[str, jax.Array], State]]:
            low, x = lowered((whole(part, params), inputs), precision)
            outputs, after = net.start(call(key, params, state), low, state, x)
            found = measure(loss, outputs, targets, metrics)
            value = found["loss"] if scale is None else found["loss"] * scale.astype(found["loss"].dtype)
            return value, (found, restored(after, state))

        gradient, (found, after) = jax.grad(objective, has_aux=True)(trained(params))
        return gradient, found, after

    def step(
        before: TrainState, batch: Batch, *, examples: Any = None, epoch: Any = None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(before.key, before.step)
        inputs, targets = augmented(augment, fold(key, "augment"), batch, examples, epoch)
        scale = loss_scale(before.optimizer_state)
        dropout = fold(key, "dropout")
        if accumulate == 1:
            gradient, found, state = gradient_of(before.params, before.state, inputs, targets, dropout, scale)
        else:
            gradient, found, state = _in_parts(
                lambda state, x, y, i: gradient_of(before.params, state, x, y, jax.random.fold_in(dropout, i), scale),
                before,
                inputs,
                targets,
                accumulate,
            )

        def value_of(part: Any) -> jax.Array:
            walk = call(dropout, before.params, before.state)
            outputs, _ = net.start(walk, whole(part, before.params), before.state, inputs)
            return measure(loss, outputs, targets)["loss"]

        # optax counts on JAX's standard promotion, whatever the program has set
        part = trained(before.params)
        with jax.numpy_dtype_promotion("standard"):
            updates, optimizer_state = optimizer.update(
                gradient,
                before.optimizer_state,
                part,
                **_wanted(optimizer, value=found["loss"], grad=gradient, value_fn=value_of),
            )
        params = whole(jax.tree.map(lambda p, u: p + u.astype(p.dtype), part, updates), before.params)
        return TrainState(params, state, optimizer_state, before.key, before.step + 1), found

    return step


def augmented(augment: Augment | None, key: jax.Array, batch: Batch, examples: Any = None, epoch: Any = None) -> Batch:
    """A batch ((x, ...), y), augmented.

    Args:
        augment: (key, batch) to batch; one with the attribute ``by_example`` is also told ``examples`` and ``epoch``.
        key: random key.
        batch: ((x, ...), y), or (x, y).
        examples: the places of the examples in the data, (batch,) int32; None: 0, 1, ...
        epoch: times that the data have been gone through before.

    Returns:
        The batch, its inputs a tuple.
    """
    inputs, targets = batch
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if augment is None:
        return inputs, targets
    told: dict[str, Any] = {}
    if getattr(augment, "by_example", False):
        told["examples"] = jnp.arange(inputs[0].shape[0], dtype="int32") if examples is None else examples
        told["epoch"] = jnp.zeros((), "int32") if epoch is None else epoch
    made = augment(key, (inputs, targets), **told)
    if not isinstance(made, (tuple, list)) or len(made) != 2:
        raise TypeError(f"augment returned a {type(made).__name__}, it must return the batch as a pair (x, y)")
    inputs, targets = made
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), targets


def _in_parts(
    gradient_of: Callable[..., Any], before: TrainState, inputs: tuple[Any, ...], targets: Any, count: int
) -> tuple[Params, dict[str, jax.Array], State]:
    """Mean gradient and metrics of the parts of a batch, one after another in a loop; the state goes through all."""
    size = inputs[0].shape[0]
    if size % count:
        raise ValueError(
            f"accumulate is {count}, which does not divide a batch of {size} examples; "
            "give a batch_size that is a multiple of it"
        )
    # every count-th example is a part: on a mesh each device then has its share of each
    parts = jax.tree.map(lambda a: a.reshape(size // count, count, *a.shape[1:]).swapaxes(0, 1), (inputs, targets))

    def part(carry: Any, given: Any) -> Any:
        (total, sums, state), ((x, y), i) = carry, given
        gradient, found, state = gradient_of(state, x, y, i)
        # in float32 or wider: a sum of many parts in a half stands still
        wider = jax.tree.map(lambda old, new: old + new.astype(old.dtype), (total, sums), (gradient, found))
        return (*wider, state), None

    first = jax.eval_shape(gradient_of, before.state, *jax.tree.map(lambda a: a[0], parts), 0)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, _summed_in(a.dtype)), first[:2])
    (total, sums, state), _ = jax.lax.scan(part, (*zeros, before.state), (parts, jnp.arange(count)))
    means = jax.tree.map(lambda a: a / jnp.asarray(count, a.dtype), (total, sums))
    return *jax.tree.map(lambda a, one: a.astype(_kept_in(a.dtype, one.dtype)), means, first[:2]), state


def _summed_in(dtype: Any) -> Any:
    return wide(dtype) if jnp.issubdtype(dtype, jnp.floating) else dtype


def _kept_in(mean: Any, one: Any) -> Any:
    """The dtype of a mean of numbers: theirs, but that of the mean where they are integers."""
    return one if jnp.issubdtype(one, jnp.floating) else mean


def _wanted(optimizer: Any, **extra: Any) -> dict[str, Any]:
    """What an optimizer's update takes beside the gradient, the state and the params: line searches ask for more."""
    taken = inspect.signature(optimizer.update).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return extra
    return {parameter.name: extra[parameter.name] for parameter in taken if parameter.name in extra}
