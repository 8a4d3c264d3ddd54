"""Whether simulation files that others wrote answer here as they do in pyvisa-sim, byte by byte.

    python benchmarks/pyvisa_sim_files.py [--differences] [FILE OR DIRECTORY ...]

It reads the pyvisa-sim files of the packages that are installed (pyvisa-sim, QCoDeS, its contributed drivers,
PyMeasure, tm_devices), then those that are named. Each resource of each file is opened twice: with pyvisa-sim, and with
a simulated VISA library of catkit_devices. In a file that lists no resources, each device is opened at one address of
each kind of interface for which it says how messages end.

Both get every dialogue, every getter and setter of the device and of its channels (with the default, the smallest, the
largest and each allowed value, and one beyond each limit), a command that no file has, and what asks for errors and
status registers. Random numbers are drawn from equal generators, so they are compared too. A reply counts as the same
when all its bytes are. Where pyvisa-sim raises an error instead of a reply, an error here is the same.

docs/reference/pyvisa-sim-files.md has what this prints.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyvisa
import yaml
from pyvisa_sim import component
from pyvisa_sim.parser import Loader

from catkit_devices.errors import CatkitDevicesError, ConfigurationError
from catkit_devices.simulation import Bench, Instrument, VirtualClock, build_library

PACKAGES = ("pyvisa_sim", "qcodes", "qcodes_contrib_drivers", "pymeasure", "tm_devices")
UNKNOWN = "a command that no instrument has"
ADDRESSES = {
    "ASRL INSTR": "ASRL{}::INSTR",
    "GPIB INSTR": "GPIB::{}::INSTR",
    "TCPIP INSTR": "TCPIP::10.0.0.{}::INSTR",
    "TCPIP SOCKET": "TCPIP::10.0.0.{}::5025::SOCKET",
    "USB INSTR": "USB::0x1111::0x2222::{}::INSTR",
}
"""Addresses for files that list none, by the kind of interface as such files name it."""


@dataclass
class Comparison:
    """What came out for a number of files."""

    title: str
    files: int = 0
    resources: int = 0
    opened: int = 0
    messages: int = 0
    same: int = 0
    refused: int = 0
    """Messages to which both raise an error, because the file asks for something that cannot be done."""
    differences: list[str] = field(default_factory=list)

    def row(self):
        figures = (self.files, self.resources, self.opened, self.messages, self.same + self.refused, self.refused)
        return f"| {self.title} | " + " | ".join(f"{figure:,}".replace(",", " ") for figure in figures) + " |"


HEADER = "| files of | files | resources | opened | messages | same answer | of these: an error |\n| :- |" + " -: |" * 6


class EqualNumbers(Bench):
    """A bench that draws the numbers that pyvisa-sim is made to draw as well."""

    def rng(self, name):  # one generator is enough for one instrument
        if not self._streams:
            self._streams[""] = np.random.default_rng(self.seed)
        return self._streams[""]


def compare(title, paths):
    """Compare the files of ``paths``; directories are searched for them."""
    result = Comparison(title)
    logging.getLogger("pyvisa").setLevel(logging.ERROR)  # pyvisa-sim warns of each missing terminator
    for path in paths:
        for file in sorted(path.rglob("*.y*ml")) if path.is_dir() else [path]:
            if is_simulation(file):
                compare_file(file, result)
    return result


def is_simulation(path):
    """Return whether a YAML file is one of pyvisa-sim's, not a configuration of something else."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # makes texts only
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
    return isinstance(content, dict) and "spec" in content and bool({"devices", "resources"} & set(content))


def compare_file(path, result):
    result.files += 1
    content = Loader(path, bundled=False).data
    if "resources" in content:
        compare_resources(path, path, result)
    else:
        with tempfile.TemporaryDirectory() as directory:
            index = Path(directory, "index.yaml")
            kinds = [(name, kind) for name, device in content["devices"].items() for kind in device.get("eom", {})]
            resources = {
                ADDRESSES[kind].format(number): {"device": name, "filename": str(path.absolute())}
                for number, (name, kind) in enumerate(kinds, start=1)
            }
            index.write_text(yaml.safe_dump({"spec": "1.1", "resources": resources}), encoding="utf-8")
            compare_resources(path, index, result)


def compare_resources(file, path, result):
    """Compare the resources that ``path`` lists; ``file`` is the file that was asked for."""
    loader = Loader(path, bundled=False)
    resources = loader.data["resources"]
    result.resources += len(resources)
    manager = pyvisa.ResourceManager(f"{path}@sim")
    # pyvisa keeps one library for each file: what an earlier comparison has set is forgotten.
    manager.visalib._init()  # noqa: SLF001 - pyvisa-sim has no public way
    for address, resource in resources.items():
        definition = loader.get_device_dict(
            resource["device"], resource.get("filename"), resource.get("bundled", False), 1
        )
        compare_resource(f"{file.name} at {address}", manager, path, address, (definition, resource), result)
    manager.close()


def compare_resource(title, theirs, path, address, described, result):
    bench = EqualNumbers(clock=VirtualClock())
    try:
        library = build_library([Instrument(address, path)], bench=bench)
    except ConfigurationError as error:
        result.differences.append(f"{title}: {error}")
        return
    result.opened += 1
    manager = pyvisa.ResourceManager(library)
    with theirs.open_resource(address) as one, manager.open_resource(address, timeout=0) as other:
        device = theirs.visalib.sessions[one.session].device
        component.random = np.random.default_rng(bench.seed)
        for message in messages(*described):
            result.messages += 1
            data = component.to_bytes(message) + device._query_eom  # noqa: SLF001 - pyvisa-sim has no public way to it
            expected, found = answer_of_theirs(one, device, data), answer_of_ours(other, data)
            if expected is None and found is None:
                result.refused += 1
            elif expected == found:
                result.same += 1
            else:
                result.differences.append(f"{title}: {data!r}: pyvisa-sim {expected!r}, here {found!r}")
    manager.close()


def answer_of_theirs(resource, device, data):
    """Return all bytes of the reply; None for an error."""
    reply = b""
    try:
        resource.write_raw(data)
    except Exception:  # noqa: BLE001 - any error of Python may come instead of a reply
        return None
    while byte := device.read()[0]:
        reply += byte
    return reply


def answer_of_ours(resource, data):
    reply = b""
    try:
        resource.write_raw(data)
        while True:
            reply += resource.visalib.read(resource.session, 1 << 20)[0]
    except pyvisa.VisaIOError as error:  # nothing more has come
        return reply + error.received
    except CatkitDevicesError:
        return None


def messages(definition, resource):
    """Return all messages that a device knows, and some that it refuses."""
    found = list(messages_of(definition))
    for name, channel in definition.get("channels", {}).items():
        ids = resource.get("channel_ids", {}).get(name) or channel.get("ids", ())
        chosen_before = channel.get("can_select") == "False"
        for one in ids:
            found += messages_of(channel, None if chosen_before else one)
    found.append(UNKNOWN)
    error = definition.get("error", {})
    if isinstance(error, dict):
        for kind in ("status_register", "error_queue"):
            found += [entry["q"].strip(" ") for entry in error.get(kind, ()) for _ in range(2)]
    return found


def messages_of(part, channel=None):
    """Yield the messages of a device, or of one channel."""
    names = {} if channel is None else {"ch_id": channel}

    def query(entry):
        text = entry["q"].strip(" ")
        return text.format(**names) if names else text

    for dialogue in part.get("dialogues", ()):
        yield query(dialogue)
    for properties in part.get("properties", {}).values():
        getter = [query(properties["getter"])] if "getter" in properties else []
        yield from getter
        if "setter" in properties:
            for value in values(properties):
                if (text := setting(properties["setter"]["q"].strip(" "), value, names)) is not None:
                    yield text
                    yield from getter


def values(properties):
    """Return values to set: the default, the limits, all that are allowed, and one beyond each limit."""
    specs = properties.get("specs", {})
    kind = {"int": int, "float": float}.get(specs.get("type"), str)
    limits = [specs[limit] for limit in ("min", "max") if limit in specs]
    found = [kind(text) for text in [properties.get("default") or "1", *limits, *specs.get("valid", ())]]
    found += [kind(specs[limit]) + beyond for limit, beyond in (("min", -1), ("max", 1)) if limit in specs]
    return list(dict.fromkeys(found))


def setting(pattern, value, names):
    """Return the command that sets ``value``; None if the pattern takes none of its forms."""
    pattern = pattern.replace("{}", "{0}").replace("{:", "{0:")
    for form in (lambda: value, lambda: float(value), lambda: int(float(value)), lambda: str(value)):
        try:
            own = names or {"ch_id": "1"}
            return pattern.format(form(), **own)
        except KeyError as error:  # another name for the value
            return pattern.replace("{" + str(error.args[0]), "{0").format(form(), **own)
        except (ValueError, TypeError):
            continue
    return None


def installed():
    """Yield the title and the folder of each package that is installed."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            distribution = importlib.metadata.packages_distributions()[package][0]
            yield f"{distribution} {importlib.metadata.version(distribution)}", Path(spec.origin).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--differences", action="store_true", help="print each answer that differs")
    parser.add_argument("paths", nargs="*", type=Path, help="more files, or directories with files")
    options = parser.parse_args()
    print(HEADER)
    results = []
    for title, path in [*installed(), *((str(path), path) for path in options.paths)]:
        results.append(compare(title, [path]))
        print(results[-1].row(), flush=True)
    if options.differences:
        print(*(difference for result in results for difference in result.differences), sep="\n")


if __name__ == "__main__":
    main()
