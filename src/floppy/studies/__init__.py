"""What distilled datasets are good for, as studies: each runs a few distillations and compares them."""

from floppy.studies.rollback import Level, rollback

__all__ = ["Level", "rollback"]
