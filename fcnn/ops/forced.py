"""The algorithm that the user requests, as part of the context in which JAX traces.

JAX caches traced and compiled programs by context, and a new user context becomes part of that context. This one is
created when the library is imported. Created with the first convolution, it would cause the first program of every
process to be traced and compiled twice.
"""

import jax

forced = jax.make_user_context(None)
