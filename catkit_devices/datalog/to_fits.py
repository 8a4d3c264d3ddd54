"""A whole run as FITS.

One extension for each tag, with its name (the card ``TAG`` has it exactly, and ``KIND`` has the kind of record):

* scalars: a table with ``TIME`` (seconds since 1970 UTC), ``TIME_NS`` (the same, exact) and ``VALUE``;
* arrays of one shape: an image with one more axis for the records, and a table of their times called ``TAG times``;
  arrays of several shapes: an image for each, with its time in ``DATE-OBS`` and ``TIME_NS``; complex ones as tables;
* curves: a table for each, with ``X`` and ``Y``; figures: a table of times and the bytes of PNG files;
* FITS files: their own extensions, unchanged; a card of theirs that one of ours replaces, such as ``EXTNAME``, is kept
  as ``HIERARCH LOGGED EXTNAME``; values: a table of times and the bytes of JSON (UTF-8).

``RUN`` is a table with information and configuration as JSON, ``LOG`` one with a row for each line of the log, and
``EVENTS`` one of mutex and safety events.

FITS has printable ASCII only, and drops spaces at the end of a text. Any other text (a tag, a label, a line of the log)
is written as JSON, which begins with a quotation mark: ``json.loads`` returns the text. A unit is written as other
programs understand it (``um`` for ``µm``); if this differs from the logged unit, the card ``UNIT`` (of a curve:
``XUNIT`` and ``YUNIT``) has it exactly.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from catkit_devices.datalog.extras import extra
from catkit_devices.datalog.fits_cubes import ImageType, image_type, write_cube
from catkit_devices.datalog.values import to_json

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from catkit_devices.datalog.reader import RunReader
    from catkit_devices.datalog.records import Tag

__all__ = ["write"]

_BLOCK = 2880
"""Bytes of a block; a FITS file consists of whole blocks (FITS standard 4.0, 3.1)."""


def write(reader: RunReader, tags: list[Tag], file: Path) -> list[str]:
    """Write everything that was logged under the tags; return what was left out, as sentences."""
    fits = extra("astropy.io.fits", "export to FITS")
    with file.open("wb") as stream:
        return _Writer(fits, reader, stream).write(tags)


class _Writer:
    def __init__(self, fits: Any, reader: RunReader, stream: Any) -> None:
        self._astropy = fits
        self._reader = reader
        self._stream = stream
        self._left_out: list[str] = []
        self._headers: dict[tuple[Any, ...], Any] = {}
        """Headers of tables of numbers, by their columns."""
        self._writers = {
            "scalar": self._scalar, "array": self._array, "curve": self._curve, "figure": self._figure,
            "fits": self._fits, "value": self._value,
        }  # fmt: skip

    def write(self, tags: list[Tag]) -> list[str]:
        information = self._reader.information
        primary = self._astropy.PrimaryHDU()
        primary.header["OBJECT"] = (_ascii(information["name"]), "what ran")
        primary.header["DATE-OBS"] = (information["started"].replace("+00:00", ""), "when it started")
        primary.header["TIMESYS"] = "UTC"
        primary.header["OUTCOME"] = _exactly((self._reader.outcome or {}).get("outcome", ""))
        primary.header["ORIGIN"] = "catkit-devices"
        primary.header["EXTEND"] = True
        self._stream.write(primary.header.tostring().encode("ascii"))
        texts = [_json(information, "information"), _json(self._reader.configuration, "configuration")]
        self._table("RUN", {}, [_text("NAME", ["information", "configuration"]), _text("JSON", texts)])
        log = self._reader.log_text()
        if log:
            self._table("LOG", {}, [_text("LINE", log.removesuffix("\n").split("\n"))])
        for tag in tags:
            if tag.kind != "event":  # events of all kinds are written together, below
                self._writers[tag.kind](tag)
        events = self._reader.events()
        if events:
            self._table("EVENTS", {}, [
                *_times([event.time_ns for event in events]),
                _text("KIND", [event.kind for event in events]),
                _text("TEXT", [event.text for event in events]),
                _text("FACTS", [_json(event.facts, "event") for event in events]),
            ])  # fmt: skip
        return self._left_out

    def _scalar(self, tag: Tag) -> None:
        column = self._reader.scalars(tag.tag)
        kind = "K" if column.values.dtype.kind == "i" else "D"
        columns = [*_times(column.times), ("VALUE", kind, column.unit, column.values)]
        self._numbers(tag.tag, _cards(tag), columns)

    def _array(self, tag: Tag) -> None:
        arrays = self._reader.arrays(tag.tag)
        if not arrays.uniform:
            for number, array in enumerate(arrays):
                cards = {**_cards(tag), **_moment(arrays.times[number])}
                self._image(tag, cards, [array], array, arrays.unit)
            return
        first = arrays[0]
        if first.dtype.kind == "c" and _column_code(first) is not None:
            code = "C" if first.dtype.itemsize == 8 else "M"
            kind = f"{first.size}{code}"
            dimensions = f"({','.join(map(str, reversed(first.shape)))})" if first.ndim > 1 else None
            stacked = arrays.stack().astype(f"c{8 if code == 'C' else 16}")
            self._table(
                tag.tag, _cards(tag), [*_times(arrays.times), ("VALUE", kind, arrays.unit, stacked, dimensions)]
            )
        elif self._image(tag, _cards(tag), arrays, first, arrays.unit, count=len(arrays)):
            self._numbers(f"{tag.tag} times", _cards(tag), [*_times(arrays.times)])

    def _image(
        self, tag: Tag, cards: dict[str, Any], arrays: Any, first: npt.NDArray[Any], unit: str | None,
        count: int | None = None,
    ) -> bool:  # fmt: skip
        kind: ImageType | None = image_type(first.dtype)
        if kind is None:
            self._left_out.append(f"array {tag.tag}: FITS cannot hold images of {first.dtype}; try HDF5")
            return False
        shape = first.shape if count is None else (count, *first.shape)
        header = {"EXTNAME": _ascii(tag.tag), **cards, "DTYPE": str(first.dtype), "BUNIT": _ascii(unit or "")}
        write_cube(self._astropy, self._stream, arrays, kind, shape or (1,), header)
        return True

    def _curve(self, tag: Tag) -> None:
        for curve in self._reader.curves(tag.tag):
            codes = _column_code(curve.x), _column_code(curve.y)
            if None in codes:
                kinds = f"{curve.x.dtype} and {curve.y.dtype}"
                self._left_out.append(f"curve {tag.tag}: FITS cannot hold columns of {kinds}; try HDF5")
                continue
            cards = {**_cards(tag), **_moment(curve.time_ns)}
            cards.update({"XLABEL": _exactly(curve.x_label), "YLABEL": _exactly(curve.y_label)})
            cards.update(_unit("XUNIT", curve.x_unit) | _unit("YUNIT", curve.y_unit))
            self._table(tag.tag, cards, [
                ("X", codes[0], curve.x_unit, curve.x), ("Y", codes[1], curve.y_unit, curve.y),
            ])  # fmt: skip

    def _figure(self, tag: Tag) -> None:
        figures = self._reader.figures(tag.tag)
        times = _times([figure.time_ns for figure in figures])
        self._table(tag.tag, _cards(tag), [*times, _bytes("PNG", [figure.png for figure in figures])])

    def _fits(self, tag: Tag) -> None:
        for number, logged in enumerate(self._reader.fits(tag.tag)):
            # The numbers are copied as they are stored, neither scaled nor unpacked: scaling and undoing it would round
            # them.
            with self._astropy.open(
                io.BytesIO(logged.data), lazy_load_hdus=False, do_not_scale_image_data=True,
                disable_image_compression=True,
            ) as hdus:  # fmt: skip
                for position, hdu in enumerate(hdus):
                    if position == 0 and set(hdu.header) <= _EMPTY and len(hdus) > 1:
                        continue  # a primary header that only says that extensions follow
                    extension = self._extension(hdu)
                    name = hdu.name if hdu.name not in ("", "PRIMARY") else ""
                    cards = {"EXTNAME": _ascii(f"{tag.tag} {name}".strip()), "EXTVER": number + 1, **_cards(tag)}
                    for card, value in {**cards, "TIME_NS": logged.time_ns}.items():
                        if card in hdu.header:
                            extension.header[f"HIERARCH LOGGED {card}"] = hdu.header[card]
                        extension.header[card] = value
                    self._append(extension)

    def _extension(self, hdu: Any) -> Any:
        """Return an HDU of a logged file as an extension: of a primary one, an image extension is made."""
        if not isinstance(hdu, self._astropy.PrimaryHDU):
            return hdu
        extension = self._astropy.ImageHDU(hdu.data, hdu.header)
        for card in ("BSCALE", "BZERO"):  # astropy takes them away, as if the numbers had been scaled
            if card in hdu.header:
                extension.header[card] = hdu.header[card]
        return extension

    def _value(self, tag: Tag) -> None:
        values = self._reader.values(tag.tag)
        texts = [to_json(value.value, tag.tag).encode() for value in values]
        self._table(tag.tag, _cards(tag), [*_times([value.time_ns for value in values]), _bytes("JSON", texts)])

    def _table(self, name: str, cards: dict[str, Any], columns: list[tuple[Any, ...]]) -> None:
        made = [
            self._astropy.Column(
                title,
                kind,
                unit=_ascii(unit) if unit else None,
                array=values,
                dim=dimensions[0] if dimensions else None,
            )
            for title, kind, unit, values, *dimensions in columns
        ]
        table = self._astropy.BinTableHDU.from_columns(made)
        for card, value in {"EXTNAME": _ascii(name), **cards}.items():
            table.header[card] = value
        self._append(table)

    def _numbers(self, name: str, cards: dict[str, Any], columns: list[tuple[str, str, str | None, Any]]) -> None:
        """Write a table that has one number in each field; of those a run may have thousands, all with one header."""
        import numpy as np

        units = [_ascii(unit) if unit else None for _, _, unit, _ in columns]
        key = tuple((title, kind, unit) for (title, kind, *_), unit in zip(columns, units, strict=True))
        if key not in self._headers:
            made = [self._astropy.Column(title, kind, unit=unit) for title, kind, unit in key]
            self._headers[key] = self._astropy.BinTableHDU.from_columns(made).header
        header = self._headers[key].copy()
        rows = np.empty(len(columns[0][3]), dtype=[(title, _STORED[kind]) for title, kind, *_ in columns])
        for title, _, _, values in columns:
            rows[title] = values
        for card, value in {"NAXIS2": len(rows), "EXTNAME": _ascii(name), **cards}.items():
            header[card] = value
        self._stream.write(header.tostring().encode("ascii"))
        self._stream.write(rows.tobytes())
        self._stream.write(b"\0" * (-rows.nbytes % _BLOCK))

    def _append(self, hdu: Any) -> None:
        buffer = io.BytesIO()
        # A complete file begins with an empty primary header, which is one block.
        self._astropy.HDUList([self._astropy.PrimaryHDU(), hdu]).writeto(buffer)
        self._stream.write(buffer.getvalue()[_BLOCK:])


_EMPTY = {"SIMPLE", "BITPIX", "NAXIS", "EXTEND"}
"""Cards of a primary header that says nothing of its own (FITS standard 4.0, 4.4.1)."""
_STORED = {"D": ">f8", "K": ">i8"}
"""NumPy's type for the fields of a column of numbers (FITS standard 4.0, 7.3.3)."""
_COLUMNS = {
    "b1": "L", "u1": "B", "i1": "I", "i2": "I", "u2": "J", "i4": "J", "u4": "K", "i8": "K",
    "f2": "E", "f4": "E", "f8": "D", "c8": "C", "c16": "M",
}  # fmt: skip


def _column_code(values: npt.NDArray[Any]) -> str | None:
    """Return the type of table column that stores such numbers exactly, or None if there is none."""
    return _COLUMNS.get(f"{values.dtype.kind}{values.dtype.itemsize}")


def _text(title: str, texts: list[str]) -> tuple[str, str, None, list[str]]:
    plain = [_exactly(text) for text in texts]
    return title, f"{max(map(len, plain)) or 1}A", None, plain


def _bytes(title: str, contents: list[bytes]) -> tuple[str, str, None, Any]:
    import numpy as np

    rows = np.empty(len(contents), dtype=object)
    rows[:] = [np.frombuffer(content, dtype=np.uint8) for content in contents]
    return title, "PB()", None, rows


def _times(times: Any) -> list[tuple[str, str, str, Any]]:
    import numpy as np

    exact = np.asarray(times, dtype="datetime64[ns]").astype(np.int64)
    return [("TIME", "D", "s", exact / 1e9), ("TIME_NS", "K", "ns", exact)]


def _moment(time: Any) -> dict[str, Any]:
    import numpy as np

    exact = np.datetime64(time, "ns")
    return {"DATE-OBS": str(exact), "TIME_NS": int(exact.astype(np.int64))}


def _cards(tag: Tag) -> dict[str, Any]:
    return {"TAG": _exactly(tag.tag), "KIND": tag.kind, **_unit("UNIT", tag.unit)}


def _unit(card: str, unit: str | None) -> dict[str, Any]:
    """Return a card with a unit that FITS cannot hold in the usual place."""
    return {} if unit is None or _exactly(unit) == unit else {card: _exactly(unit)}


def _exactly(text: str) -> str:
    """Return a text in printable ASCII: the text itself, or JSON if it could not be read back exactly."""
    plain = all(" " <= character <= "~" for character in text)
    return text if plain and not text.endswith(" ") and not text.startswith('"') else json.dumps(text)


def _json(value: Any, what: str) -> str:
    """Return a value as JSON in printable ASCII."""
    return json.dumps(json.loads(to_json(value, what)))


def _ascii(text: str) -> str:
    """Return a text in the form that FITS can hold: printable ASCII, everything else escaped as Python does it."""
    plain = text.replace("\N{MICRO SIGN}", "u").replace("\N{GREEK SMALL LETTER MU}", "u")
    return "".join(character if " " <= character <= "~" else ascii(character)[1:-1] for character in plain)
