"""JAX's primitives in NumPy, each with a hand-written derivative.

A function such as ``lambda x: jnp.tanh(x) * 2`` is traced to JAX's primitives. Each of them has a forward and a
backward rule here, so the hand-written side of a gradient check does not use autodiff. The rules are grouped into
``elementwise``, ``arrays`` (operations that rearrange entries), ``indexing``, ``reductions``, ``linear`` and
``loops``; ``program`` combines them.

Where a derivative is not unique, at ties and kinks, the rules use the one that JAX uses.
"""

from .program import program

__all__ = ["program"]
