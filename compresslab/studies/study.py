"""A study as programs and notebooks have it: its record, which shows itself and gives tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Self

from compresslab.errors import BadInput
from compresslab.records import StudyRecord
from compresslab.suggestions import suggest

if TYPE_CHECKING:
    import pandas as pd


class Study(StudyRecord):
    """The record of a study, as `run_study` and `read_study` return it. A notebook shows it as its table of verdicts with a chart.

    Its fields are those of `StudyRecord`.
    """

    @classmethod
    def of(cls, record: StudyRecord) -> Self:
        """The same record as a study that shows itself."""
        return cls(**dict(record))

    def frame(self, table: str = "variants") -> pd.DataFrame:
        """One of the study's tables as a tidy frame: one row an observation, one column a quantity.

        Args:
            table: one of `compresslab.tables.TABLES`. "variants" has one row a variant: size, mean quality, density, r to its parent and
                the verdict. The functions in `compresslab.tables` say what the rows and columns of each are, with units.

        Raises:
            BadInput: there is no such table.
        """
        from compresslab.report.tables import TABLES  # imports pandas

        if table not in TABLES:
            raise BadInput(f"no table {table!r};{suggest(table, TABLES)} there are: {', '.join(TABLES)}")
        return TABLES[table](self)

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        from compresslab.studies.notebook import as_html  # imports the templates

        return as_html(self)

    def __repr__(self) -> str:
        """One line: the name, the number of variants, and how many steps have which verdict against their parent."""
        from compresslab.report.facts import comparison_with  # imports numpy

        steps = [variant for variant in self.variants if variant.parent and not variant.replicate_of]
        found = (comparison_with(variant, "parent") for variant in steps)
        verdicts = Counter(one.headline[1] for one in found if one is not None and one.headline[0] is not None)
        failed = sum(bool(variant.failures) for variant in self.variants)
        parts = [f"{verdicts[word]} {word}" for word in ("raised", "lowered", "inconclusive") if verdicts[word]]
        parts += [f"{failed} failed"] if failed else []
        noun = "variant" if len(self.variants) == 1 else "variants"
        return f"<Study {self.study!r}: {len(self.variants)} {noun}; {', '.join(parts) or 'no verdict'}>"

    __str__ = __repr__
