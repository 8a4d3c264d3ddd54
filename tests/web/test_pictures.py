"""Frames as PNG pictures, read by another library than the one that writes them."""

import io

import numpy as np
import pytest
from PIL import Image

from catkit_devices.web.pictures import picture_of
from catkit_devices.web.problems import Problem


def read(picture):
    return np.asarray(Image.open(io.BytesIO(picture.png)))


@pytest.mark.parametrize("kind", ["u1", "<u2", ">u2"])
def test_values_without_sign_are_in_the_picture_as_they_are(kind):
    frame = (np.arange(35).reshape(5, 7) * 7).astype(kind)
    picture = picture_of(frame)
    assert picture.exact
    assert np.array_equal(read(picture), frame)


def test_a_part_of_a_larger_array_is_seen_as_that_part():
    frame = np.arange(200, dtype="u1").reshape(10, 20)[2:8, 4:10]
    assert np.array_equal(read(picture_of(frame)), frame)


def test_colours_stay_in_their_planes():
    frame = np.arange(60, dtype="u1").reshape(4, 5, 3)
    assert np.array_equal(read(picture_of(frame)), frame)


def test_other_numbers_are_scaled_and_what_is_no_number_is_black():
    picture = picture_of(np.array([[-1.0, 0.0, 1.0], [np.nan, np.inf, -np.inf]]))
    assert (picture.low, picture.high, picture.exact) == (-1.0, 1.0, False)
    assert read(picture).tolist() == [[0, 127, 255], [0, 255, 0]]
    assert read(picture_of(np.array([[0, 5, 20]], "u2"), 0, 10)).tolist() == [[0, 127, 255]]
    assert read(picture_of(np.array([[True, False]]))).tolist() == [[255, 0]]
    assert read(picture_of(np.full((2, 2), 7.0))).tolist() == [[0, 0], [0, 0]]


def test_of_a_large_frame_every_nth_pixel_is_taken():
    frame = np.arange(10_000, dtype="u2").reshape(100, 100)
    picture = picture_of(frame, most=30)
    assert picture.step == 4
    assert np.array_equal(read(picture), frame[::4, ::4])


@pytest.mark.parametrize("shape", [(3,), (2, 0), (2, 2, 4), ()])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(Problem, match="expected a frame with rows and columns"):
        picture_of(np.zeros(shape, "u1"))
