"""How much XLA optimises a program: what runs only briefly should compile quickly.

These are `compiler_options` of `jax.jit`; without them XLA optimises all it can, which pays in an outer loop. With
other optimisations a sum may be rounded in another way.
"""

FOR_ONE_CALL = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
FOR_FEW_CALLS = {"xla_backend_optimization_level": 1}
"""Half the time to compile and as fast, but for small evaluations of Brax (three quarters of the speed)."""
