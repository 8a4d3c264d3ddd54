"""A run exported to HDF5, FITS or CSV holds the numbers that were logged, with their units and times."""

import csv
import functools
import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from catkit_devices.datalog import Run, RunReader, export
from catkit_devices.errors import ConfigurationError, DataError

PLAIN_TYPES = ["?", "u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]


def extremes(dtype):
    """An array with the smallest and the largest number of a type."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.array([[False, True]])
    if dtype.kind == "c":
        return np.array([[1 + 2j, -3j]], dtype)
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return np.array([[limits.min, limits.max, 1]], dtype)


@pytest.fixture
def run(tmp_path):
    with Run.create(
        tmp_path / "runs", "scan", configuration={"testbed": {"name": "bänch"}}, parameters={"repeats": 3}
    ) as run:
        for number in range(3):
            run.log_scalar("power/nd/1", number / 10, unit="µW", at=1000.25 + number)
            run.log_scalar("power", 2**60 + number)
            run.log_array("frame", np.full((2, 3), number, dtype="u2"), unit="count", at=2000.5 + number)
        run.log_scalar("time", math.nan)
        run.log_array("ragged", np.zeros((2, 3)))
        run.log_array("ragged", np.arange(4))
        run.log_curve("spectrum", [1, 2, 3], [0.5, 0.25, 1.0], x_unit="nm", y_unit="W", x_label="wavelength")
        run.log("state", {"gain": 0.5, "name": "größe"})
        run.log_event("mutex_broken", "the mutex 'wheel' was broken", mutex="wheel")
        yield run


def test_hdf5_holds_everything(run, tmp_path):
    h5py = pytest.importorskip("h5py")
    assert export(run.path, tmp_path / "scan.h5") == []
    with h5py.File(tmp_path / "scan.h5") as file:
        power = file["scalars/power/nd/1"]
        assert power["value"][:].tolist() == [0.0, 0.1, 0.2]
        assert power["value"].attrs["unit"] == "µW"
        assert power["time"][:].tolist() == [1000_250_000_000, 1001_250_000_000, 1002_250_000_000]
        assert file["scalars/power/value"][:].tolist() == [2**60, 2**60 + 1, 2**60 + 2]
        assert file["arrays/frame/value"].shape == (3, 2, 3)
        assert file["arrays/frame/value"].dtype == np.uint16
        assert file["arrays/frame/value"][2].tolist() == [[2, 2, 2], [2, 2, 2]]
        assert file["arrays/ragged/value/1"][:].tolist() == [0, 1, 2, 3]
        curve = file["curves/spectrum/value/0"]
        assert curve["y"][:].tolist() == [0.5, 0.25, 1.0]
        assert (curve["x"].attrs["unit"], curve["x"].attrs["label"]) == ("nm", "wavelength")
        assert json.loads(file["values/state/value"][0]) == {"gain": 0.5, "name": "größe"}
        assert file["events/text"][0] == b"the mutex 'wheel' was broken"
        assert json.loads(file["run/configuration"][()]) == {"testbed": {"name": "bänch"}}
        assert json.loads(file["run/information"][()])["parameters"] == {"repeats": 3}


@pytest.mark.parametrize("text", ["a\0b", "caf\udce9.fits", '"\\u0000\0"'])
def test_text_that_hdf5_cannot_hold_is_written_and_marked_as_json(run, tmp_path, text):
    h5py = pytest.importorskip("h5py")
    run.log_event("failed", text, file=text)
    run.log_curve("named", np.array(["plain", text]), [3, 4])
    run.log_array("names", np.array([["plain"], [text]]))
    run.log_array("names", np.array([["plain"], ["plain"]], f"U{max(5, len(text))}"))
    run.log_array("ragged names", np.array(["plain"]))
    run.log_array("ragged names", np.array(["plain", text]))
    run.log("note", {text: text})
    run.set_outcome(text, text)
    assert export(run.path, tmp_path / "scan.h5") == []
    with h5py.File(tmp_path / "scan.h5") as file:
        assert file["events/text"].attrs["json"]
        assert json.loads(file["events/text"][1]) == text
        assert "json" not in file["events/kind"].attrs
        named = file["curves/named/value/0/x"]
        assert [named.attrs["json"], *map(json.loads, named[:])] == [True, "plain", text]
        names = file["arrays/names/value"]
        assert names.attrs["json"]
        assert [json.loads(name) for name in names[:].ravel()] == ["plain", text, "plain", "plain"]
        ragged = file["arrays/ragged names/value"]
        assert [ragged.attrs["json"], json.loads(ragged["0"][0]), json.loads(ragged["1"][1])] == [True, "plain", text]
        assert json.loads(file["values/note/value"][0]) == {text: text}
        assert json.loads(file.attrs["outcome"]) == text
        assert file["scalars/power/nd/1/value"][:].tolist() == [0.0, 0.1, 0.2]


def test_tags_with_the_names_of_parts_of_the_file_do_not_collide_in_hdf5(run, tmp_path):
    h5py = pytest.importorskip("h5py")
    for tag in ("a", "a/value", "a//b", "a/%76alue", "./..", "a/value/0"):
        run.log_scalar(tag, len(tag))
    export(run.path, tmp_path / "scan.h5")
    found = {}
    with h5py.File(tmp_path / "scan.h5") as file:
        file["scalars"].visititems(
            lambda _, thing: found.update({thing.attrs["tag"]: thing["value"][0]}) if "tag" in thing.attrs else None
        )
    for tag in ("a", "a/value", "a//b", "a/%76alue", "./..", "a/value/0"):
        assert found[tag] == len(tag)


@pytest.mark.parametrize("dtype", [*PLAIN_TYPES, "c8", "c16"])
def test_fits_holds_numbers_of_every_type_exactly(tmp_path, dtype):
    fits = pytest.importorskip("astropy.io.fits")
    array = extremes(dtype)
    with Run.create(tmp_path, "types") as run:
        run.log_array("it", array, unit="count")
        run.log_array("it", array[:, ::-1])
    assert export(run.path, tmp_path / "types.fits") == []
    with fits.open(tmp_path / "types.fits") as hdus:
        hdus.verify("exception")
        data = hdus["it"].data if array.dtype.kind != "c" else hdus["it"].data["VALUE"]
        assert data.shape == (2, *array.shape)
        np.testing.assert_array_equal(data[0].astype(array.dtype), array)
        np.testing.assert_array_equal(data[1].astype(array.dtype), array[:, ::-1])
        assert len(hdus["it times"].data) == 2 if array.dtype.kind != "c" else True


@pytest.mark.parametrize("dtype", [*PLAIN_TYPES, "c8", "c16"])
@pytest.mark.parametrize("shapes", [((), ()), ((), (1,)), ((0, 2), (0, 2))])
def test_fits_holds_arrays_without_dimensions_and_without_elements_too(tmp_path, dtype, shapes):
    fits = pytest.importorskip("astropy.io.fits")
    with Run.create(tmp_path, "types") as run:
        for shape in shapes:
            run.log_array("it", np.full(shape, 5, dtype))
    uniform = shapes[0] == shapes[1]
    left_out = export(run.path, tmp_path / "types.fits")
    if not uniform and dtype.startswith("c"):
        assert len(left_out) == 2
        return
    with fits.open(tmp_path / "types.fits") as hdus:
        images = [hdu for hdu in hdus if hdu.name.lower() == "it"]
        assert images
        for image in images:
            data = image.data["VALUE"] if dtype.startswith("c") else image.data
            assert data is None or np.all(data.astype(dtype) == np.full(data.shape, 5, dtype))


def test_fits_holds_everything(run, tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    run.log_fits("image", fits.HDUList([fits.PrimaryHDU(np.eye(3)), fits.ImageHDU(np.ones(2), name="DARK")]))
    run.log_figure("picture", png())
    assert export(run.path, tmp_path / "scan.fits") == []
    with fits.open(tmp_path / "scan.fits") as hdus:
        hdus.verify("exception")
        power = next(hdu for hdu in hdus if hdu.header.get("TAG") == "power/nd/1")
        assert power.data["VALUE"].tolist() == [0.0, 0.1, 0.2]
        assert power.data["TIME"].tolist() == [1000.25, 1001.25, 1002.25]
        assert power.columns["VALUE"].unit == "uW"
        assert hdus["power"].data["VALUE"].tolist() == [2**60, 2**60 + 1, 2**60 + 2]
        assert hdus["frame"].data[2].tolist() == [[2, 2, 2], [2, 2, 2]]
        assert hdus["frame times"].data["TIME_NS"].tolist() == [2000_500_000_000, 2001_500_000_000, 2002_500_000_000]
        assert [hdu.data.shape for hdu in hdus if hdu.header.get("TAG") == "ragged"] == [(2, 3), (4,)]
        assert hdus["spectrum"].data["Y"].tolist() == [0.5, 0.25, 1.0]
        np.testing.assert_array_equal(hdus["image"].data, np.eye(3))
        assert hdus["image DARK"].data.tolist() == [1.0, 1.0]
        assert bytes(hdus["picture"].data["PNG"][0]) == png()
        assert json.loads(bytes(hdus["state"].data["JSON"][0])) == {"gain": 0.5, "name": "größe"}
        assert hdus["EVENTS"].data["TEXT"].tolist() == ["the mutex 'wheel' was broken"]
        assert json.loads(hdus["RUN"].data["JSON"][0])["parameters"] == {"repeats": 3}


TAGS = [
    "u",
    "µ",
    "\\xb5",
    "a ",
    "  ",
    '"q"',
    "it's",
    "amp&",
    "日本",
    "x" * 69,
    "y" * 70 + "&" + "z" * 70,
    "\N{LINE SEPARATOR}",
]


def exact(text):
    return json.loads(text) if text.startswith('"') else text


def test_every_text_of_a_run_comes_back_from_fits_as_it_was(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    log = "2026-01-01T00:00:00.000Z INFO a\tb µ  \n  second\x0bpart\n\n"
    parameters = {"name": "µ \\xb5 ", "third": 1 / 3, "long": 2**63 + 1, "none": math.inf}
    with Run.create(tmp_path, "texts", parameters=parameters, configuration={"µ": "Ω"}) as run:
        for tag in TAGS:
            run.log_scalar(tag, 1, "µm")
        run.log_array("omega", [1], "Ω ")
        run.log_curve("curve", [1], [2], x_unit="°C", y_unit="V", x_label="Länge ", y_label="y" * 80)
        run.log_event("µ ", "text µ ", name="µ ")
        (run.path / "log.txt").write_text(log)
        export(run.path, tmp_path / "texts.fits")
        with fits.open(tmp_path / "texts.fits") as hdus:
            hdus.verify("exception")
            headers = [hdu.header for hdu in hdus if "TAG" in hdu.header]
            scalars = [header for header in headers if header["KIND"] == "scalar"]
            assert [exact(header["TAG"]) for header in scalars] == TAGS
            assert {(exact(header["UNIT"]), header["TUNIT3"]) for header in scalars} == {("µm", "um")}
            assert exact(next(header for header in headers if header["TAG"] == "omega")["UNIT"]) == "Ω "
            curve = next(header for header in headers if header["TAG"] == "curve")
            assert [exact(curve[card]) for card in ("XLABEL", "YLABEL", "XUNIT")] == ["Länge ", "y" * 80, "°C"]
            assert "YUNIT" not in curve
            assert "\n".join(map(exact, hdus["LOG"].data["LINE"])) + "\n" == log
            events = hdus["EVENTS"].data
            assert (exact(events["KIND"][0]), exact(events["TEXT"][0])) == ("µ ", "text µ ")
            assert json.loads(events["FACTS"][0]) == {"name": "µ "}
            assert json.loads(hdus["RUN"].data["JSON"][0])["parameters"] == parameters
            assert json.loads(hdus["RUN"].data["JSON"][1]) == {"µ": "Ω"}


def test_a_logged_fits_file_is_exported_with_its_stored_numbers_and_every_card(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    stored = np.arange(6, dtype=">i2").reshape(2, 3)
    own = {"BSCALE": 0.1, "BZERO": 5.0, "EXTNAME": "SCI", "EXTVER": 7, "TAG": "mine", "GAIN": 1 / 3}
    image, primary, with_data = fits.ImageHDU(stored), fits.PrimaryHDU(), fits.PrimaryHDU(stored)
    table = fits.BinTableHDU.from_columns([fits.Column("A", "I", array=np.array([1, 2]))], name="T")
    compressed = fits.CompImageHDU(np.arange(100, dtype="i4").reshape(10, 10), name="C")
    primary.header["OBSERVER"] = "Ada"
    image.header.update(own)
    with_data.header.update({"BSCALE": 0.1, "BZERO": 5.0})
    table.header.update({"TSCAL1": 0.5, "TZERO1": 1.0, "KIND": "theirs"})
    with Run.create(tmp_path, "files") as run:
        for tag, hdus in (("several", [primary, image, table, compressed]), ("one", [with_data])):
            buffer = io.BytesIO()
            fits.HDUList(hdus).writeto(buffer)
            run.log_fits(tag, buffer.getvalue())
    assert export(run.path, tmp_path / "files.fits") == []
    options = {"do_not_scale_image_data": True, "disable_image_compression": True}
    with fits.open(tmp_path / "files.fits", **options) as hdus:
        hdus.verify("exception")
        for name in ("several SCI", "one"):
            np.testing.assert_array_equal(hdus[name].data, stored)
            assert (hdus[name].header["BSCALE"], hdus[name].header["BZERO"]) == (0.1, 5.0)
        header = hdus["several SCI"].header
        assert header["GAIN"] == 1 / 3
        assert [header[f"LOGGED {card}"] for card in ("EXTNAME", "EXTVER", "TAG")] == ["SCI", 7, "mine"]
        assert header["TAG"] == "several"
        assert hdus["several"].header["OBSERVER"] == "Ada"
        assert (hdus["several T"].header["TSCAL1"], hdus["several T"].header["LOGGED KIND"]) == (0.5, "theirs")
        assert hdus["several T"].data["A"].tolist() == [1.5, 2.0]
        assert hdus["several C"].header["ZIMAGE"] is True


def test_values_that_fits_cannot_hold_are_reported_and_the_rest_is_written(run, tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    run.log_array("names", np.array(["a", "b"]))
    run.log_array("long", np.array([np.longdouble(1) / 3 + 1j]))
    left_out = export(run.path, tmp_path / "scan.fits")
    assert [line.partition(":")[0] for line in left_out] == ["array names", "array long"]
    with fits.open(tmp_path / "scan.fits") as hdus:
        hdus.verify("exception")
        assert hdus["power"].data["VALUE"].tolist() == [2**60, 2**60 + 1, 2**60 + 2]


def test_csv_holds_the_scalars_exactly_and_says_what_it_leaves_out(run, tmp_path):
    run.log_scalar("third", 1 / 3, 'a, "b"')
    (left_out,) = export(run.path, tmp_path / "scan.csv")
    assert "array (2 tags), curve (1 tag), value (1 tag)" in left_out
    with (tmp_path / "scan.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0].values()) == ["1970-01-01T00:16:40.250000000Z", "power/nd/1", "0.0", "µW"]
    assert [int(row["value"]) for row in rows if row["tag"] == "power"] == [2**60, 2**60 + 1, 2**60 + 2]
    assert math.isnan(float(next(row["value"] for row in rows if row["tag"] == "time")))
    assert (float(rows[-1]["value"]), rows[-1]["unit"]) == (1 / 3, 'a, "b"')


def test_pandas_reads_the_csv_file_without_options(run, tmp_path):
    pandas = pytest.importorskip("pandas")
    export(run.path, tmp_path / "scan.csv", tags=["power/nd/1"])
    frame = pandas.read_csv(tmp_path / "scan.csv", parse_dates=["time"])
    assert frame["value"].tolist() == [0.0, 0.1, 0.2]
    assert [moment.timestamp() for moment in frame["time"]] == [1000.25, 1001.25, 1002.25]


def test_only_the_tags_that_are_asked_for_are_exported(run, tmp_path):
    h5py = pytest.importorskip("h5py")
    export(run.path, tmp_path / "scan.h5", tags=["frame"])
    with h5py.File(tmp_path / "scan.h5") as file:
        assert list(file["arrays"]) == ["frame"]
        assert "scalars" not in file
    with pytest.raises(ConfigurationError, match=r"nothing was logged as 'fram' \(did you mean 'frame'"):
        export(run.path, tmp_path / "other.h5", tags=["fram"])
    assert not (tmp_path / "other.h5").exists()


def test_an_existing_file_is_replaced_only_when_asked_for(run, tmp_path):
    file = tmp_path / "scan.csv"
    file.write_text("mine")
    with pytest.raises(DataError, match=r"scan\.csv exists already"):
        export(run.path, file)
    assert file.read_text() == "mine"
    export(run.path, file, replace=True)
    assert file.read_text().startswith("time,tag,value,unit")


@pytest.mark.skipif(sys.platform == "win32", reason="no limit for the size of a file")
@pytest.mark.parametrize(
    ("suffix", "size"),
    [
        ("h5", 0),
        ("h5", 5_000),
        pytest.param("h5", 100_000, marks=pytest.mark.whole),
        pytest.param("h5", 900_000, marks=pytest.mark.whole),
        ("fits", 5_000),
        ("csv", 5_000),
    ],
)
def test_a_full_disk_is_one_clear_error_and_leaves_nothing_behind(tmp_path, suffix, size):
    with Run.create(tmp_path, "full") as run:
        for number in range(20):
            run.log_array("frame", np.random.default_rng(number).random((80, 80)))
            run.log_array("other", np.zeros(number))
            run.log_fits("fits", b"SIMPLE  =" + bytes(1000)) if suffix == "h5" else None
        for number in range(40_000 if suffix == "csv" else 1000):
            run.log_scalar("power", number / 3)
    program = (
        "import resource, sys\nimport h5py, astropy.io.fits\nfrom catkit_devices.datalog import export\n"
        "from catkit_devices.errors import DataError\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
        "try:\n    export(*sys.argv[1:])\nexcept DataError as error:\n    print(error)\n"
    )
    # -B: a module that is imported must not leave a compiled file behind that is cut off.
    arguments = [sys.executable, "-B", "-c", program, run.path, tmp_path / f"full.{suffix}"]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"full.{suffix} cannot be written: File too large" in result.stdout
    assert [path.name for path in tmp_path.iterdir() if "full." in path.name] == []


@pytest.mark.parametrize(("name", "error"), [("scan.txt", ConfigurationError), ("nowhere/scan.csv", DataError)])
def test_a_file_that_cannot_be_written_is_one_clear_error_and_leaves_nothing_behind(run, tmp_path, name, error):
    with pytest.raises(error, match="scan"):
        export(run.path, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("runs", "rt")] == []


@pytest.mark.parametrize(("suffix", "missing"), [("h5", "h5py"), ("fits", "astropy")])
def test_without_the_library_the_error_says_what_to_install(run, tmp_path, suffix, missing):
    program = (
        "import sys; sys.modules[sys.argv[3]] = None  # as if it were not installed\n"
        "from catkit_devices.cli import main\n"
        "sys.exit(main(['export', sys.argv[1], '--to', sys.argv[2]]))\n"
    )
    arguments = [str(run.path), str(tmp_path / f"scan.{suffix}"), missing]
    result = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60,
                            check=False)  # fmt: skip
    assert result.returncode == 2
    assert "pip install 'catkit-devices[export]'" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("runs", "rt")] == []


def test_a_run_is_exported_while_it_is_written(run, tmp_path):
    with RunReader(run.path) as reader:
        for number in range(3):
            run.log_scalar("live", number)
            export(reader, tmp_path / f"{number}.csv", tags=["live"])
            rows = list(csv.reader(io.StringIO((tmp_path / f"{number}.csv").read_text())))
            assert len(rows) == 2 + number


@functools.cache
def png():
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(buffer, format="png")
    return buffer.getvalue()
