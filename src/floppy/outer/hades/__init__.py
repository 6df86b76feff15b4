"""HaDES: the outer loop by evolution."""
