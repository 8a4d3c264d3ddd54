"""A picture of what was logged shows what was logged."""

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest

from catkit_devices.datalog import Run, RunReader, plot
from catkit_devices.errors import ConfigurationError, DataError


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path, "scan") as run:
        for number in range(5):
            run.log_scalar("power", number, "W", at=1000.0 + number)
            run.log_scalar("offset", -number, "W", at=1000.5 + number)
            run.log_scalar("steps", number)
        run.log_curve("spectrum", [400, 500], [0.0, 1.0], x_unit="nm", x_label="wavelength")
        frame = np.zeros((8, 8))
        run.log_array("frame", frame, "count")
        frame[2, 5] = 1.0
        run.log_array("frame", frame, "count")
        run.log_array("line", np.arange(9))
        run.log_array("cube", np.zeros((2, 3, 4)))
        run.log("state", {"a": 1})
        yield run


def drawn(run, tags, index=-1, **options):
    """What is drawn, before it becomes pixels."""
    from matplotlib.figure import Figure

    from catkit_devices.datalog.plotting import draw_into

    figure = Figure(layout="constrained")
    with RunReader(run.path) as reader:
        draw_into(figure, reader, tags, index, **options)
    return figure


def pixels(file):
    return matplotlib.image.imread(file)[..., :3]


def test_scalars_of_one_unit_share_a_plot_and_others_lie_below_on_the_same_times(run):
    figure = drawn(run, ["power", "steps", "offset"])
    watts, other = figure.axes
    assert [line.get_ydata().tolist() for line in watts.lines] == [[0, 1, 2, 3, 4], [0, -1, -2, -3, -4]]
    assert [text.get_text() for text in watts.get_legend().get_texts()] == ["power", "offset"]
    assert watts.get_ylabel() == "W"
    assert other.get_title(loc="left") == "steps"
    assert watts.get_xlim() == other.get_xlim()


def test_a_curve_is_drawn_with_its_labels(run):
    (axes,) = drawn(run, ["spectrum"]).axes
    assert axes.lines[0].get_xydata().tolist() == [[400, 0], [500, 1]]
    assert axes.get_xlabel() == "wavelength (nm)"


def test_an_array_is_drawn_as_an_image_or_a_line_the_newest_unless_told_otherwise(run):
    assert drawn(run, ["frame"]).axes[0].images[0].get_array()[2, 5] == 1.0
    older = drawn(run, ["frame"], index=0)
    assert older.axes[0].images[0].get_array().max() == 0.0
    assert older.axes[0].get_title(loc="left").startswith("frame, 1 of 2, ")
    assert drawn(run, ["line"]).axes[0].lines[0].get_ydata().tolist() == list(range(9))


@pytest.mark.parametrize("suffix", ["png", *(pytest.param(one, marks=pytest.mark.whole) for one in ("pdf", "svg"))])
def test_the_picture_is_a_file_of_the_kind_that_its_ending_says(run, tmp_path, suffix):
    plot(run.path, ["power", "frame"], tmp_path / f"picture.{suffix}")
    data = (tmp_path / f"picture.{suffix}").read_bytes()
    assert data.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix])
    if suffix == "png":
        assert len(np.unique(pixels(tmp_path / "picture.png").reshape(-1, 3), axis=0)) > 20


def test_a_logged_figure_is_written_unchanged(run, tmp_path):
    mpl.use("agg")
    figure = mpl.figure.Figure(figsize=(2, 1))
    figure.savefig(tmp_path / "logged.png")
    run.log_figure("picture", (tmp_path / "logged.png").read_bytes())
    plot(run.path, "picture", tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "logged.png").read_bytes()
    plot(run.path, "picture", tmp_path / "out.svg")


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("powr", "nothing was logged as 'powr': there is power, .*did you mean 'power'"),
        ("state", "value 'state' cannot be drawn"),
        ("cube", r"expected numbers in one or two dimensions, got float64 of shape \(2, 3, 4\)"),
    ],
)
def test_a_record_that_cannot_be_drawn_is_one_clear_error(run, tmp_path, tag, text):
    with pytest.raises(ConfigurationError, match=text):
        plot(run.path, tag, tmp_path / "picture.png")


@pytest.mark.parametrize("name", ["picture.nope", "nowhere/picture.png"])
def test_a_picture_that_cannot_be_written_is_one_clear_error(run, tmp_path, name):
    with pytest.raises(DataError, match="picture.* cannot be written"):
        plot(run.path, "power", tmp_path / name)


def test_a_record_that_is_not_there_is_one_clear_error(run, tmp_path):
    with pytest.raises(DataError, match="'frame' has no record 7"):
        plot(run.path, "frame", tmp_path / "picture.png", index=7)


def test_an_image_is_drawn_beside_the_row_and_the_column_through_its_brightest_point(run):
    image, row, column = [axes for axes in drawn(run, ["frame"]).axes if axes.images or axes.lines]
    frame = image.images[0].get_array()
    assert row.lines[0].get_ydata().max() == column.lines[0].get_ydata().max() == frame.max()
    assert (len(row.lines[0].get_ydata()), len(column.lines[0].get_ydata())) == frame.shape[::-1]


def test_scalars_over_another_are_paired_by_order_or_by_the_last_before(tmp_path):
    with Run.create(tmp_path, "scan") as run:
        for number in range(3):
            run.log_scalar("position", number, at=number)
            run.log_scalar("power", 10.0**number, at=number + 0.5)
            run.log_scalar("often", number, at=number - 0.1)
            run.log_scalar("often", number, at=number + 0.1)
    (axes,) = drawn(run, ["power"], x="position", log=True).axes
    assert axes.lines[0].get_xydata().tolist() == [[0, 1], [1, 10], [2, 100]]
    assert (axes.get_xlabel(), axes.get_yscale()) == ("position", "log")
    (axes,) = drawn(run, ["often"], x="position").axes
    assert axes.lines[0].get_xydata().tolist() == [[0, 0], [0, 1], [1, 1], [1, 2], [2, 2]]


def test_without_a_tag_all_scalars_are_drawn_if_there_are_any(run, tmp_path):
    assert drawn(run, []).axes
    with Run.create(tmp_path / "other", "scan") as other:
        other.log_array("frame", [1])
    with pytest.raises(ConfigurationError, match="no scalar was logged: say what to draw: frame"):
        drawn(other, [])
    with pytest.raises(ConfigurationError, match="expected a scalar for the x axis, got 'frame': array"):
        drawn(run, [], x="frame")
