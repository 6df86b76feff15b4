"""PPMO: the outer loop by meta-gradients of PPO."""
