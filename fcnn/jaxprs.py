"""Details of jaxprs that every tool that reads them needs, above all the primitives that call another program.

JAX has renamed these primitives, and the parameter that holds the inner program, from version to version. All names
since the oldest supported version are listed here, and nowhere else.
"""

from __future__ import annotations

from typing import Any

#: primitives that run another program once, on their own inputs, and the parameters that may hold it
CALLS: dict[str, tuple[str, ...]] = {
    "jit": ("jaxpr",),
    "pjit": ("jaxpr",),
    "remat2": ("jaxpr",),
    "remat": ("jaxpr",),
    "checkpoint": ("jaxpr",),
    "call": ("call_jaxpr",),
    "core_call": ("call_jaxpr",),
    "closed_call": ("call_jaxpr",),
    "core_closed_call": ("call_jaxpr",),
    "eval_jaxpr": ("call_jaxpr", "jaxpr"),
    "composite": ("jaxpr", "call_jaxpr"),
    "linear_call": ("callee",),
    "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr",),
    "custom_vjp_call_jaxpr": ("fun_jaxpr",),
}


def called(equation: Any) -> Any:
    """The program that an equation calls, or None where the equation is an operation itself.

    Args:
        equation: an equation of a jaxpr.

    Returns:
        A jaxpr, closed or not.

    Raises:
        NotImplementedError: the program is in none of the parameters that known versions of JAX use.

    Example:
        >>> traced = jax.make_jaxpr(jax.checkpoint(jnp.sin))(1.0)
        >>> [inner.primitive.name for inner in body(called(traced.eqns[0])).eqns], called(body(traced).eqns[0]) is None
        (['sin'], False)
    """
    name = equation.primitive.name
    if name not in CALLS:
        return None
    for place in CALLS[name]:
        if place in equation.params:
            return equation.params[place]
    raise NotImplementedError(
        f"JAX's primitive {name!r} has its program in none of {', '.join(CALLS[name])}, but in one of "
        f"{', '.join(sorted(equation.params))}; this version of JAX is not known to the library"
    )


def body(program: Any) -> Any:
    """The jaxpr of a program, closed or not."""
    return getattr(program, "jaxpr", program)


def constants(program: Any) -> list[Any]:
    """The values of a program's constants; an empty list for a jaxpr that is not closed."""
    return list(getattr(program, "consts", ()))


#: the scope that JAX puts around recomputation in the backward pass
RECOMPUTED = "rematted_computation"


def scopes(equation: Any) -> list[str]:
    """The names of ``jax.named_scope`` around an equation inside its own program, without those of outer programs."""
    stack = equation.source_info.name_stack.stack
    names = [step.name for step in stack if type(step).__name__ == "Scope" and step.name != RECOMPUTED]
    if sum(step.name == "jvp" for step in stack) == 2:  # the backward of a checkpoint: jvp(a/b), and jvp(a/b) again
        half = len(names) // 2
        return names[:half] if names[:half] == names[half:] else names
    return names


def named(program: Any, name: str) -> bool:
    """Whether a program itself (not one that it calls) gives a value this ``jax.ad_checkpoint.checkpoint_name``."""
    return any(eqn.primitive.name == "name" and eqn.params["name"] == name for eqn in body(program).eqns)


def parts_of_scan(params: dict[str, Any]) -> tuple[int, int]:
    """The numbers of constants and of carried values of a ``jax.lax.scan``; versions of JAX store them differently."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)
