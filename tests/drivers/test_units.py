import pickle
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pint
import pytest

from catkit_devices import Control, Measurement, units


@pytest.mark.parametrize(
    ("value", "unit", "number"),
    [
        (5, "mA", 5.0),
        ("50 mA", "A", 0.05),
        ("50mA", "mA", 50.0),
        ("-1.5e-3 A", "mA", -1.5),
        ("25 degC", "K", 298.15),
        ("1.1 um", "nm", 1100.0),
        ("50 %", None, 0.5),
        ("1e-3", "W", 0.001),
        (np.float32(2), "A", 2.0),
        (np.int64(2), "A", 2.0),
        (np.array(3), "A", 3.0),
        (Decimal("1.5"), None, 1.5),
    ],
)
def test_numbers_quantities_and_text_become_plain_numbers_in_the_unit(value, unit, number):
    converted = units.convert(value, unit)

    assert type(converted) is float
    assert converted == number


@pytest.mark.parametrize(
    "value",
    [True, np.True_, float("nan"), float("inf"), "nan", "inf", "", "five", "5 m", "5 blargh", "5 mA)",
     "5 mA; import os", 1j, None, np.ones(1), [1], "1_0"],
)  # fmt: skip
def test_a_value_that_is_not_a_finite_number_in_the_unit_is_refused(value):
    with pytest.raises(ValueError, match="must be"):
        units.convert(value, "mA")


def test_a_quantity_of_any_registry_is_converted():
    assert units.convert(units.quantity(5, "mA"), "A") == 0.005
    assert units.convert(pint.UnitRegistry().Quantity(5, "mA"), "A") == 0.005


def test_quantities_pickle_into_the_application_registry():
    quantity = units.quantity(5, "mA")

    assert pickle.loads(pickle.dumps(quantity)) == quantity
    assert pint.application_registry.get() is units.registry()


def test_plain_numbers_never_load_pint():
    code = (
        "import sys; from catkit_devices import units; units.convert(5, 'mA'); units.convert('5', 'mA');"
        "units.convert('5 mA', 'mA'); sys.exit('pint' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_common_units_are_units():
    without = [unit for unit in units._COMMON if not units.registry().Unit(unit)._units]
    assert without == ["dimensionless"]


def test_a_unit_that_does_not_exist_is_refused_where_the_quantity_is_declared():
    for wrong in ("nanometerr", "mm/", 5, "°Celsius"):
        with pytest.raises(ValueError, match="unit"):
            Control("Q?", "Q {}", unit=wrong, doc="A quantity.")
    for right in ("nm", "mm/s", "volt", "degC", "percent", "µm", "°C", "dBm", None):
        Measurement("Q?", unit=right, doc="A quantity.")


def test_declaring_quantities_in_common_units_never_loads_pint():
    code = (
        "import sys; from catkit_devices.drivers import Plugins; Plugins(); from catkit_devices import Measurement;"
        "Measurement('Q?', unit='mW', doc='x'); assert 'pint' not in sys.modules;"
        "Measurement('Q?', unit='furlong', doc='x'); assert 'pint' in sys.modules"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("dtype", ["f2", "f4", "u1"])
def test_an_array_in_another_unit_neither_overflows_nor_loses_digits(dtype):
    volts = units.registry().Quantity(np.array([200, 3], dtype), "V")

    assert units.magnitude(volts, "uV").tolist() == pytest.approx([2e8, 3e6], rel=1e-14)


def test_a_unit_that_is_spelt_with_a_capital_names_the_right_spelling():
    with pytest.raises(ValueError, match="'Volt' is not a unit: .*did you mean 'volt'"):
        units.check_unit("Volt")
