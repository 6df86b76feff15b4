"""Distillation runs: configuration, loop, folder."""
