"""What distilled datasets are good for, as studies: each measures one question and keeps its table and figure."""

from floppy.studies.base import Study, draw_study, read_rows, read_study, run_study
from floppy.studies.budget import Budget
from floppy.studies.compare import Compare
from floppy.studies.cost import Cost
from floppy.studies.ensemble import Ensemble
from floppy.studies.minimum_size import MinimumSize
from floppy.studies.multitask import Multitask
from floppy.studies.rollback import Level, rollback
from floppy.studies.search import Search
from floppy.studies.transfer import Transfer

STUDIES: dict[str, type[Study]] = {
    study.name: study for study in (Transfer, Cost, Compare, Budget, Search, MinimumSize, Multitask, Ensemble)
}
"""By their names on the command line."""

__all__ = [
    "STUDIES",
    "Budget",
    "Compare",
    "Cost",
    "Ensemble",
    "Level",
    "MinimumSize",
    "Multitask",
    "Search",
    "Study",
    "Transfer",
    "draw_study",
    "read_rows",
    "read_study",
    "rollback",
    "run_study",
]
