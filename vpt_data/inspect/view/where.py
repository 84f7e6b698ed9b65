"""A filter on rows: the condition of an SQL `WHERE`, as DuckDB understands it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from vpt_data.columns import Bools
from vpt_data.errors import UsageError


class Where:
    """A condition on the columns of a table; `empty` is such a table without rows.

    Raises UsageError where DuckDB is not installed, or cannot make sense of the condition.
    """

    def __init__(self, condition: str, empty: pa.Table) -> None:
        try:
            import duckdb
        except ModuleNotFoundError as error:
            raise UsageError("--where needs DuckDB; install it with `pip install 'vpt-data[where]'`.") from error
        self._error, self._condition = duckdb.Error, condition
        self._database = duckdb.connect(config={"enable_external_access": "false"})
        self(empty)

    def __call__(self, table: pa.Table) -> Bools:
        """Which rows of a table fit: bool[N]; from any thread."""
        numbered = table.append_column("_row", pa.array(np.arange(len(table))))
        found = np.zeros(len(table), bool)
        with self._database.cursor() as cursor:
            cursor.register("rows", numbered)
            try:
                # The condition may end with a comment, which must not take the bracket with it.
                rows = cursor.execute(f"SELECT _row FROM rows WHERE ({self._condition}\n)").fetchnumpy()["_row"]
            except self._error as error:
                first = str(error).strip().partition("\n")[0].rstrip(".!")
                names = ", ".join(table.column_names)
                raise UsageError(
                    f"--where {self._condition!r}: {first}; give an SQL condition on the columns {names}."
                ) from error
        found[np.asarray(rows, np.int64)] = True
        return found
