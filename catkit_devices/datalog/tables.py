"""Scalars of several tags in one table of pandas or one dataset of xarray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.datalog.extras import extra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.datalog.records import Scalars

__all__ = ["dataset", "frame"]

_EXACT = 2**53 - 1
"""Whole numbers up to this are exact as floats."""


def frame(columns: Sequence[Scalars]) -> Any:
    """Return a DataFrame over time with a column for each tag, NaN where a tag has no record; units in ``attrs``."""
    pd = extra("pandas", "a table of scalars")
    series = []
    for scalars in columns:
        one = scalars.to_pandas()
        if one.dtype == "int64" and (abs(one.astype("float64")) > _EXACT).any():
            one = one.astype("Int64")  # gaps would turn them into floats, which lose digits
        # A tag may have several records with the same time: the first goes into one row with the first of another tag.
        occurrence = one.groupby(level=0).cumcount().rename("occurrence")
        series.append(one.to_frame().set_index(occurrence, append=True))
    if series:
        joined = pd.concat(series, axis=1).sort_index().droplevel("occurrence")
        for number, kind in enumerate(joined.dtypes):
            if kind == "Int64" and joined.iloc[:, number].notna().all():
                joined.isetitem(number, joined.iloc[:, number].astype("int64"))
    else:
        joined = pd.DataFrame(index=pd.DatetimeIndex([], name="time", tz="UTC"))
    joined.attrs["units"] = {scalars.tag: scalars.unit for scalars in columns}
    return joined


def dataset(columns: Sequence[Scalars]) -> Any:
    """Return a Dataset over time with a variable for each tag, NaN where a tag has no record; units in ``attrs``.

    The variable of a tag that is called ``time`` is ``time_``.
    """
    xr = extra("xarray", "a labelled array")
    joined = frame(columns)
    return xr.Dataset(
        {
            "time_" if scalars.tag == "time" else scalars.tag: (
                "time", _plain(joined[scalars.tag]), {"units": scalars.unit or ""},
            )
            for scalars in columns
        },
        coords={"time": joined.index.tz_localize(None).to_numpy()},
    )  # fmt: skip


def _plain(column: Any) -> Any:
    import numpy as np

    return column.to_numpy(dtype=object, na_value=np.nan) if column.dtype == "Int64" else column.to_numpy()
