"""Evaluations: what fresh learners of a dataset score."""
