"""QCoDeS's drivers as devices: every parameter read and set through a proxy, beside QCoDeS alone.

    pip install 'catkit-devices[qcodes]'
    python benchmarks/qcodes_hosted.py

Prints a table in Markdown for docs/reference/foreign-drivers.md, and every difference. It takes two minutes.
"""

import logging
import sys
import warnings
from importlib import import_module
from pathlib import Path

from catkit_devices.multiprocessing import SharedMemoryManager

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "foreign"))
hosted = import_module("hosted_qcodes")


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    worked = kept = 0
    differences = {}
    print(
        "| driver | parameters | read | hosted | set | hosted | refused | hosted |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    )
    with SharedMemoryManager("qcodes") as manager:
        for driver in hosted.DRIVERS:
            with manager.get_object(driver, hosted.make_device, driver) as device:
                one = hosted.compared(driver, device)
            worked += one.read + one.set
            kept += one.read_hosted + one.set_hosted
            differences |= {f"{driver} {name}": why for name, why in one.differences.items()}
            counts = (one.read, one.read_hosted, one.set, one.set_hosted, one.refused, one.refused_hosted)
            print(f"| `{driver}` | {one.parameters} | " + " | ".join(map(str, counts)) + " |", flush=True)
    print(f"\n{kept} of {worked} that work with QCoDeS alone work hosted ({100 * kept / worked:.2f} %).\n")
    for name, why in differences.items():
        print(f"* `{name}`: {why}")


if __name__ == "__main__":
    main()
