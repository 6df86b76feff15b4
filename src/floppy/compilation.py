"""How much XLA optimises a program: what runs only briefly should compile quickly."""

import functools
from collections.abc import Callable
from typing import Any

import jax

FOR_ONE_CALL = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Options of XLA for a program that is called once."""
FOR_FEW_CALLS = {"xla_backend_optimization_level": 1}
"""For evaluations: half the time to compile. They play as fast, but for small ones of Brax, which lose a quarter."""


def compiled(
    function: Callable[..., Any], options: dict[str, Any], *, static_argnums: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """As `jax.jit`, but on a CPU with options of XLA, which by itself optimises all it can.

    Sums may be rounded in another way. Accelerators' compilers want to optimise.

    Args:
      function: of positional arguments.
      options: see `FOR_ONE_CALL` and `FOR_FEW_CALLS`.
      static_argnums: as for `jax.jit`.

    Returns:
      The compiled function; JAX is not asked for its devices before the first call.
    """

    @functools.cache
    def program() -> Callable[..., Any]:
        chosen = options if jax.default_backend() == "cpu" else None
        return jax.jit(function, static_argnums=static_argnums, compiler_options=chosen)

    return lambda *arguments: program()(*arguments)
