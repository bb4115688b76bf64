"""Additions to optax's optimizers: averages of the parameters, loss scaling, and a mask for weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from ..errors import layer_path
from ..geometry import integer
from ..layers.hyperparameters import check_number
from ..ops.dtypes import wide

if TYPE_CHECKING:
    import optax


def decay_mask(params: Any) -> Any:
    """A mask for weight decay: True for kernels; False for biases, scales of norms and everything else.

    It goes by the name: entries called "kernel" are True, wherever they are in the tree. The number of axes would not
    tell, because biases of a ``LocallyConnected``, of a ``repeat`` or of an ensemble have several.

    Args:
        params: nested dicts of arrays, or a tree like them.

    Returns:
        A tree of the same structure, of True and False.

    Source:
        Goyal et al., "Accurate, large minibatch SGD", 2017, section 5.1, and He et al., "Bag of tricks for image
        classification", 2019, section 3.1, on excluding biases and norms.

    Example:
        >>> import fcnn, optax
        >>> net = fcnn.serial(fcnn.Conv(4, 3, bias=False), fcnn.BatchNorm(), fcnn.Flatten(), fcnn.Dense(2))
        >>> params = net.init(jax.random.key(0), (5, 5, 1))
        >>> decay_mask(params)["dense1"], decay_mask(params)["batch_norm1"]
        ({'bias': False, 'kernel': True}, {'bias': False, 'scale': False})
        >>> optimizer = optax.adamw(1e-3, weight_decay=0.05, mask=decay_mask)
    """
    return jax.tree.map_with_path(
        lambda path, _: bool(path) and getattr(path[-1], "key", getattr(path[-1], "name", None)) == "kernel", params
    )


class AveragedState(NamedTuple):
    """The state of :func:`averaged`.

    Attributes:
        updates: number of updates.
        average: the average of the parameters, in float32 or wider.
        inner: the state of the optimizer inside.
    """

    updates: jax.Array
    average: Any
    inner: Any


def averaged(
    optimizer: optax.GradientTransformation, decay: float = 0.999, *, every: int = 1, warm_up: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Keep a moving average of the parameters. The updates of the optimizer do not change.

    .. math:: \bar\theta \leftarrow d_t \bar\theta + (1 - d_t) \theta, \qquad
        d_t = \min\Bigl(d, \frac{1 + t}{10 + t}\Bigr), \quad t = 0, 1, \ldots

    where t counts the averages taken. The average starts at the initial parameters, which it soon forgets because
    :math:`d_t` starts at 0.1. It is kept in float32 or wider, because half precision would round small steps away.
    Running statistics belong to the parameters they were measured with: ``recompute_statistics`` measures those of the
    average.

    The average follows only the updates of the optimizer inside, so wrap all of it: ``averaged(optax.chain(...))``.

    Args:
        optimizer: an optax optimizer.
        decay: d, the fraction of the old average that is kept, in [0, 1).
        every: number of updates between two averages.
        warm_up: whether d grows as above; else it is ``decay`` from the start.

    Returns:
        An optax optimizer; :func:`averaged_params` reads the average from its state.

    Raises:
        ValueError: a number out of range; an update without params.
        TypeError: not an optimizer, or a number of the wrong kind.

    Source:
        Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992, and Ruppert, "Efficient
        estimations from a slowly convergent Robbins-Monro process", 1988, for averaging; TensorFlow,
        ``tf.train.ExponentialMovingAverage``, for :math:`d_t`; Morales-Brotons, Vogels and Hendrikx, "Exponential
        moving average of weights in deep learning", 2024, on its effect.

    Example:
        >>> import optax
        >>> optimizer, params = averaged(optax.sgd(1.0), 0.9), {"kernel": jnp.zeros(())}
        >>> updates, state = optimizer.update({"kernel": jnp.array(-5.0)}, optimizer.init(params), params)
        >>> print(averaged_params(state)["kernel"])  # 0.1 x 0 + 0.9 x 5
        4.5
    """
    import optax

    with layer_path("averaged"):
        _check_optimizer(optimizer)
        decay, every = check_number(decay, "decay"), integer(every, "every")
        if not 0 <= decay < 1:
            raise ValueError(
                f"decay is {decay:g}, it must be in [0, 1); it is the fraction of the old average that is kept"
            )
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> AveragedState:
        # copies, because a step that takes over the memory of its train state must not contain an array twice
        average = jax.tree.map(lambda p: jnp.array(p, wide(p.dtype), copy=True), params)
        return AveragedState(jnp.zeros((), "int32"), average, inner.init(params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, AveragedState]:
        if params is None:
            raise ValueError(
                "averaged: the update needs the parameters; call optimizer.update(gradient, state, params)"
            )
        updates, inner_state = inner.update(updates, state.inner, params, **extra)
        count = state.updates + 1
        taken = (state.updates // every).astype("float32")  # number of averages before this one
        kept = jnp.minimum(jnp.float32(decay), (1 + taken) / (10 + taken)) if warm_up else jnp.float32(decay)
        share = jnp.where(count % every == 0, 1 - kept, jnp.zeros_like(kept))

        def moved(old: jax.Array, p: jax.Array, u: jax.Array) -> jax.Array:
            new = (p + u.astype(p.dtype)).astype(old.dtype)  # rounded as in the step
            return old + share.astype(old.dtype) * (new - old)

        return updates, AveragedState(count, jax.tree.map(moved, state.average, params, updates), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def averaged_params(optimizer_state: Any, params: Any = None) -> Any:
    """The average of the parameters that :func:`averaged` keeps, from the state of any optimizer around it.

    Args:
        optimizer_state: the state of ``averaged``, or of an optimizer around it.
        params: parameters whose dtypes the average is cast to, and from which frozen parameters, which have no average,
            are taken. None: the average as it is kept, in float32 or wider.

    Returns:
        A tree like the parameters.

    Raises:
        ValueError: a state without an average, or with more than one.

    Example:
        >>> import optax
        >>> optimizer = optax.chain(optax.clip(1.0), averaged(optax.adam(1e-3)))
        >>> averaged_params(optimizer.init({"kernel": jnp.ones(2, "bfloat16")}))["kernel"].dtype
        dtype('float32')
    """
    found = _states(optimizer_state, AveragedState)
    if len(found) != 1:
        way_out = "wrap the optimizer: averaged(optax.adam(1e-3))" if not found else "wrap the whole optimizer once"
        raise ValueError(
            f"averaged_params: the optimizer's state has {len(found) or 'no'} averages of parameters; {way_out}"
        )
    if params is None:
        return found[0].average
    import optax

    def given(average: Any, p: Any) -> Any:
        return p if isinstance(average, optax.MaskedNode) else average.astype(p.dtype)

    return jax.tree.map(given, found[0].average, params, is_leaf=lambda a: isinstance(a, optax.MaskedNode))


class LossScalingState(NamedTuple):
    """The state of :func:`loss_scaling`.

    Attributes:
        scale: factor of the loss in the next step.
        good: number of finite gradients in a row since the scale last changed.
        inner: the state of the optimizer inside.
    """

    scale: jax.Array
    good: jax.Array
    inner: Any


def loss_scaling(
    optimizer: optax.GradientTransformation, initial: float = 2.0**15, period: int = 2000, factor: float = 2.0
) -> optax.GradientTransformationExtraArgs:
    r"""Dynamic loss scaling, for training in float16, where small gradients would underflow to zero.

    The optimizer expects the gradient of the loss times :func:`loss_scale` of its state. It divides the gradient by the
    scale, in float32 or wider, and passes gradients and parameters to the optimizer inside in that dtype. If a gradient
    is not finite, the update is zero, the state inside does not change, and the scale is divided by ``factor``, but not
    below 1. After ``period`` finite gradients in a row, the scale is multiplied by ``factor``, as long as it is finite.

    .. math:: g = \frac{1}{s} \nabla_\theta (s \ell)

    bfloat16 has the range of float32 and needs no scaling.

    Args:
        optimizer: an optax optimizer.
        initial: the initial s.
        period: number of finite gradients in a row after which s grows.
        factor: the factor by which s grows and shrinks.

    Returns:
        An optax optimizer. The extra argument ``grad`` of its update is scaled like the gradient; ``value`` and
        ``value_fn`` are not.

    Raises:
        ValueError: a number out of range.
        TypeError: not an optimizer, or a number of the wrong kind.

    Source:
        Micikevicius et al., "Mixed precision training", 2018, section 3.2.

    Example:
        >>> import optax
        >>> optimizer, params = loss_scaling(optax.sgd(1.0), initial=8.0), {"kernel": jnp.ones(())}
        >>> state = optimizer.init(params)
        >>> gradient = jax.grad(lambda p: loss_scale(state) * jnp.square(p["kernel"]))(params)
        >>> updates, state = optimizer.update(gradient, state, params)
        >>> print(updates["kernel"], loss_scale(state))
        -2.0 8.0
        >>> updates, state = optimizer.update({"kernel": jnp.array(jnp.inf)}, state, params)
        >>> print(updates["kernel"], loss_scale(state))
        0.0 4.0
    """
    import optax

    with layer_path("loss_scaling"):
        _check_optimizer(optimizer)
        initial, period = check_number(initial, "initial"), integer(period, "period")
        factor = check_number(factor, "factor", above=1)
        if initial < 1:
            raise ValueError(f"initial is {initial:g}, it must be at least 1, below which the scale never falls")
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> LossScalingState:
        return LossScalingState(jnp.float32(initial), jnp.zeros((), "int32"), inner.init(_wider(params)))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, LossScalingState]:
        def unscaled(tree: Any) -> Any:
            return jax.tree.map(lambda g: g / state.scale.astype(g.dtype), _wider(tree))

        gradient = unscaled(updates)
        if extra.get("grad") is not None:
            extra = {**extra, "grad": unscaled(extra["grad"])}
        finite = jnp.array(True)
        for leaf in jax.tree.leaves(gradient):
            finite = finite & jnp.isfinite(leaf).all()
        steps, inner_state = inner.update(gradient, state.inner, _wider(params), **extra)
        steps = jax.tree.map(lambda u: jnp.where(finite, u, jnp.zeros_like(u)), steps)
        inner_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), inner_state, state.inner)
        grows = state.good + 1 >= period
        larger = state.scale * factor
        larger = jnp.where(grows & jnp.isfinite(larger), larger, state.scale)
        scale = jnp.where(finite, larger, jnp.maximum(state.scale / factor, jnp.ones_like(state.scale)))
        good = jnp.where(finite & ~grows, state.good + 1, jnp.zeros_like(state.good))
        return steps, LossScalingState(scale, good, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def still_overflows(before: Any, after: Any) -> jax.Array:
    """Whether an update skipped a gradient that is not finite although the scale is 1 already.

    Args:
        before: the state of an optimizer.
        after: the state after the update.

    Returns:
        A bool; False for optimizers without ``loss_scaling``.
    """
    found = jnp.array(False)
    for old, new in zip(_states(before, LossScalingState), _states(after, LossScalingState), strict=True):
        found |= jnp.any((old.scale <= 1) & (new.scale <= 1) & (new.good == 0))
    return found


def loss_scale(optimizer_state: Any) -> jax.Array | None:
    """The factor of the loss that :func:`loss_scaling` asks for, from the state of any optimizer around it.

    Args:
        optimizer_state: the state of any optimizer.

    Returns:
        The scale; None for optimizers without ``loss_scaling``.

    Raises:
        ValueError: a state with more than one scale.

    Example:
        >>> import optax
        >>> params = {"kernel": jnp.ones(2)}
        >>> print(loss_scale(loss_scaling(optax.adam(1e-3)).init(params)), loss_scale(optax.adam(1e-3).init(params)))
        32768.0 None
    """
    found = _states(optimizer_state, LossScalingState)
    if len(found) > 1:
        raise ValueError(
            f"loss_scale: the optimizer's state has {len(found)} scales of the loss; wrap the whole optimizer once"
        )
    return found[0].scale if found else None


def _states(optimizer_state: Any, kind: type) -> list[Any]:
    """All states of a class in a tree of states, also nested ones."""
    found = []
    for node in jax.tree.leaves(optimizer_state, is_leaf=lambda node: isinstance(node, kind)):
        if isinstance(node, kind):
            found += [node, *_states(tuple(node), kind)]  # type: ignore[arg-type]
    return found


def _wider(tree: Any) -> Any:
    """A tree with half precision cast to float32; None stays None."""
    return jax.tree.map(lambda a: a.astype(wide(a.dtype)), tree)


def _check_optimizer(optimizer: Any) -> None:
    if not hasattr(optimizer, "init") or not hasattr(optimizer, "update"):
        raise TypeError(f"optimizer must be an optax optimizer such as optax.adam(1e-3), not {optimizer!r}")
