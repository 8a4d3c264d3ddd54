"""The time that calls, arrays, frames and telemetry take: what ``catkit-devices bench`` measures, with more rounds.

python benchmarks/frames.py [--rounds 200]
"""

import argparse

from catkit_devices.cli.application import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    raise SystemExit(main(["bench", "--rounds", str(parser.parse_args().rounds)]))
