"""What distilled datasets are good for, as studies: each measures one question and keeps its table and figure."""

from floppy.studies.base import Study, draw_study, read_rows, read_study, run_study
from floppy.studies.rollback import Level, rollback
from floppy.studies.transfer import Transfer

STUDIES: dict[str, type[Study]] = {study.name: study for study in (Transfer,)}
"""By their names on the command line."""

__all__ = [
    "STUDIES",
    "Level",
    "Study",
    "Transfer",
    "draw_study",
    "read_rows",
    "read_study",
    "rollback",
    "run_study",
]
