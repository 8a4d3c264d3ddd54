"""What cannot be recorded raises one clear DataError, and what was recorded before stays readable."""

import json
import logging
import os
import platform
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from catkit_devices.datalog import Run, RunReader, export, summarise
from catkit_devices.errors import DataError


def in_child(program, *arguments, **options):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def test_a_directory_that_exists_is_an_error(tmp_path):
    Run.create(tmp_path, "scan", directory_name="monday").close()
    with pytest.raises(DataError, match="monday exists already"):
        Run.create(tmp_path, "scan", directory_name="monday")


@pytest.mark.parametrize("name", ["", "../elsewhere", "a/b", ".hidden", "two words"])
def test_a_name_that_is_not_a_plain_file_name_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="a run's name"):
        Run.create(tmp_path / "runs", name)
    assert not (tmp_path / "runs").exists()


def test_a_place_where_no_directory_can_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="no directory can be made"):
        Run.create(tmp_path / "file", "scan")


def test_a_configuration_that_json_cannot_express_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"configuration\.json cannot be written as JSON"):
        Run.create(tmp_path, "scan", configuration={"x": object()})


def test_a_closed_run_refuses_every_kind_of_record(tmp_path):
    run = Run.create(tmp_path, "scan")
    run.log_scalar("power", 1.0)
    run.close()
    run.close()
    for call in (
        lambda: run.log_scalar("power", 2.0),
        lambda: run.log_scalar("new", 2.0),
        lambda: run.log_array("frame", [1]),
        lambda: run.log_curve("curve", [1], [1]),
        lambda: run.log("value", 1),
        lambda: run.set_outcome("finished"),
        lambda: run.handler,
    ):
        with pytest.raises(DataError, match="is closed"):
            call()


@pytest.mark.parametrize("tag", ["", None, 3, ["list"]])
def test_a_tag_is_a_text_that_is_not_empty(tmp_path, tag):
    with Run.create(tmp_path, "scan") as run, pytest.raises(DataError, match="a tag must be text"):
        run.log_scalar(tag, 1.0)


def test_a_directory_that_is_not_a_run_is_an_error(tmp_path):
    for use in (RunReader, Run.open):
        with pytest.raises(DataError, match="is not a run"):
            use(tmp_path)


def test_a_database_of_another_format_is_an_error(tmp_path):
    with Run.create(tmp_path, "scan") as run:
        path = run.path
    database = sqlite3.connect(path / "data.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()
    for use in (RunReader, Run.open):
        with pytest.raises(DataError, match="has format 99"):
            use(path)


def test_a_damaged_database_is_an_error(tmp_path):
    with Run.create(tmp_path, "scan") as run:
        path = run.path
    (path / "data.sqlite").write_bytes(b"not a database" * 500)
    with pytest.raises(DataError, match=r"data\.sqlite cannot be read"):
        RunReader(path)


def test_an_array_whose_file_is_gone_is_an_error(tmp_path):
    with Run.create(tmp_path, "scan") as run:
        run.log_array("frame", [1])
        (run.path / "arrays-0001.npy").unlink()
        with RunReader(run.path) as reader, pytest.raises(DataError, match="no array can be read"):
            reader.arrays("frame")[0]


def change(path, *statements):
    database = sqlite3.connect(path / "data.sqlite")
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


DAMAGES = {
    "empty": (lambda run: (run / "data.sqlite").write_bytes(b""), "data.sqlite has format 0"),
    "cut": (lambda run: os.truncate(run / "data.sqlite", 5000), "data.sqlite cannot be read"),
    "a time that is text": (lambda run: change(run, "UPDATE scalars SET time = 'noon'"), "scalar 'n' cannot be"),
    "a value that is no JSON": (lambda run: change(run, "UPDATE objects SET data = x'ff'"), "value 'v' cannot be"),
    "a shape that is text": (lambda run: change(run, "UPDATE arrays SET shape = 'wide'"), "array 'a' cannot be"),
    "an outcome that is a list": (lambda run: change(run, "UPDATE facts SET value = '[1]'"), "outcome cannot be"),
    "a description that is a list": (lambda run: (run / "run.json").write_text("[1]"), "run.json is damaged"),
    "a description without a name": (lambda run: (run / "run.json").write_text("{}"), "run.json is damaged"),
    "an empty description": (lambda run: (run / "run.json").write_text(""), "run.json cannot be read"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_any_damage_of_a_run_is_one_error_that_names_the_run_and_the_file(tmp_path, damage):
    with Run.create(tmp_path, "scan") as run:
        run.log_scalar("n", 1)
        run.log_array("a", [1.0, 2.0])
        run.log("v", {"x": 1})
        run.set_outcome("failed", "it broke")
        path = run.path
    spoil, words = DAMAGES[damage]
    spoil(path)
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        export(path, tmp_path / "out.h5")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "out.h5").exists()
    assert summarise(path).path == path


def test_a_run_that_does_not_say_which_process_made_it_has_an_unknown_outcome(tmp_path):
    with Run.create(tmp_path, "scan") as run:
        path = run.path
    for pid in ({}, {"pid": "first"}, {"pid": 10**30}):
        (path / "run.json").write_text(json.dumps({"name": "scan", "started": "x", "host": platform.node(), **pid}))
        assert summarise(path).outcome == "unknown"


@pytest.mark.parametrize("written", [b"\xff\xfe of a vendor's library\n", b"no time\n", b""])
def test_a_log_is_shown_even_if_it_contains_bytes_that_are_no_text(tmp_path, written):
    with Run.create(tmp_path, "scan") as run:
        (run.path / "log.txt").write_bytes(written)
        with RunReader(run.path) as reader:
            assert reader.log_text() == written.decode("utf-8", "backslashreplace")


FOREIGN = """
import os, sys; from pathlib import Path
from catkit_devices.datalog import RunReader, export, find_run; from catkit_devices.errors import DataError
theirs, files, mine = map(Path, sys.argv[1:])
for ending in ("csv", "h5"): export(mine, mine / f"before.{ending}")  # which imports everything while that is allowed
if os.geteuid() == 0: os.setuid(65534)
for use in (
    lambda: RunReader(find_run(str(theirs), theirs.parent)),
    lambda: export(theirs, "out.csv"),
    lambda: export(mine, files / "out.csv"),
    lambda: export(mine, files / "out.h5"),
):
    try: use()
    except DataError as error: print(error)
"""


@pytest.mark.parametrize("mode", [0o000, 0o555])
def test_a_run_of_another_user_that_cannot_be_read_is_an_error_that_names_it(mode):
    with tempfile.TemporaryDirectory() as root:
        place = Path(root)
        place.chmod(0o755)
        for name in ("theirs", "mine"):
            with Run.create(place, "scan", directory_name=name) as run:
                run.log_scalar("n", 1)
        theirs, files = place / "theirs", place / "files"
        files.mkdir()
        (theirs / "data.sqlite").chmod(0)
        for directory in (theirs, files):
            directory.chmod(mode)
        try:
            result = in_child(FOREIGN, theirs, files, place / "mine")
        finally:
            for directory in (theirs, files):
                directory.chmod(0o700)
    assert result.stderr == ""
    reading, exporting, csv, hdf5 = result.stdout.splitlines()
    for line in (reading, exporting):
        assert line.startswith(f"run {theirs}: data.sqlite cannot be read: ")
    assert csv == f"{files / 'out.csv'} cannot be written: Permission denied"
    assert hdf5 == f"{files / 'out.h5'} cannot be written: Permission denied"


def test_a_directory_that_may_not_be_written_is_an_error(tmp_path):
    program = (
        "import sys, os; from catkit_devices.datalog import Run; from catkit_devices.errors import DataError\n"
        "import catkit_devices.datalog.run, getpass, platform\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: Run.create(sys.argv[1], 'scan')\n"
        "except DataError as error: print(error)\n"
    )
    tmp_path.chmod(0o500)
    try:
        result = in_child(program, tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert "no directory can be made" in result.stdout, result.stderr
    assert "Permission denied" in result.stdout


FILL = """
import sys, numpy as np
from catkit_devices.datalog import Run
from catkit_devices.errors import DataError
run = Run.open(sys.argv[1])
count = 0
try:
    while True:
        getattr(run, sys.argv[2])("it", np.full(20_000, count) if sys.argv[2] == "log_array" else count)
        count += 1
        print(count, flush=True)
except DataError as error:
    print(error, file=sys.stderr)
try:
    run.close()
except DataError as error:
    print(error, file=sys.stderr)
"""


def limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


@pytest.mark.parametrize("method", ["log_scalar", "log_array"])
def test_a_file_that_cannot_grow_is_an_error_and_what_was_recorded_is_intact(tmp_path, method):
    with Run.create(tmp_path, "scan") as run:
        path = run.path
    result = in_child(FILL, path, method, preexec_fn=limit_file_size)
    assert result.returncode == 0, result.stderr
    assert "'it' is not recorded" in result.stderr
    recorded = int(result.stdout.split()[-1])
    with RunReader(path) as reader:
        if method == "log_scalar":
            assert reader.scalars("it").values.tolist() == list(range(recorded))
        else:
            assert reader.arrays("it").stack()[:, -1].tolist() == list(range(recorded))
    with Run.open(path) as run:
        run.log_scalar("after", 1.0)


def test_a_log_that_cannot_be_written_is_told_in_one_line_and_the_run_says_that_it_is_incomplete(tmp_path, capfd):
    with Run.create(tmp_path, "scan") as run:
        (run.path / "log.txt").symlink_to("/dev/full")
        logger = logging.getLogger("a log on a full disk")
        logger.addHandler(run.handler)
        for number in range(5):
            logger.warning("line %d", number)
        logger.removeHandler(run.handler)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: {run.path / 'log.txt'} is incomplete: No space left on device")
    with RunReader(run.path) as reader:
        (event,) = reader.events("log_incomplete")
    assert (event.text, event.facts) == ("5 records could not be written to the log", {"records": 5})


GAP = """
import logging, resource, sys
from pathlib import Path
from catkit_devices.datalog import LogFileHandler
handler = LogFileHandler(Path(sys.argv[1]))
logger = logging.getLogger("gap")
logger.addHandler(handler)
logger.warning("before")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for number in range(20): logger.warning("line %d %s", number, 100 * "x")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for number in range(2): logger.warning("after %d", number)
print(handler.lost)
"""


def test_a_log_that_can_be_written_again_says_how_many_records_are_missing(tmp_path):
    result = in_child(GAP, tmp_path / "log.txt")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"warning: {tmp_path / 'log.txt'} is incomplete: the file cannot grow; records are lost")
    lost = int(result.stdout)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    messages = [line.rpartition(": ")[2] for line in lines[-3:]]
    assert messages[0] == "the log could not be written"
    assert f": {lost} records of this process are missing here" in lines[-3]
    assert messages[1:] == ["after 0", "after 1"]
    assert len([line for line in lines if " line " in line and line.endswith(100 * "x")]) == 20 - lost


@pytest.mark.skipif(not shutil.which("unshare") or os.geteuid() != 0, reason="a small file system needs root")
@pytest.mark.parametrize("method", ["log_scalar", "log_array"])
def test_a_full_disk_is_an_error_and_what_was_recorded_is_intact(tmp_path, method):
    mount = tmp_path / "disk"
    mount.mkdir()
    program = f"""
import os, subprocess, sys
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", sys.argv[3]]).returncode: sys.exit(77)
from catkit_devices.datalog import Run, RunReader, export, summarise
with Run.create(sys.argv[3], "scan") as run: pass
sys.argv[1] = str(run.path)
{FILL}
with RunReader(sys.argv[1]) as reader:
    values = (
        reader.scalars("it").values if sys.argv[2] == "log_scalar" else reader.arrays("it").stack()[:, -1]
    ).tolist()
    if values != list(range(count)): sys.exit(f"expected {{count}} values, found {{len(values)}}")
"""
    command = ["unshare", "--mount", sys.executable, "-c", program, "", method, str(mount)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode == 77 or "unshare failed" in result.stderr:
        pytest.skip("no small file system can be mounted here")
    assert result.returncode == 0, result.stderr
    assert "'it' is not recorded" in result.stderr
    assert "free some space" in result.stderr or "No space left" in result.stderr


def test_after_a_failed_array_the_file_is_still_a_sequence_of_complete_records(tmp_path):
    from catkit_devices.datalog.arrays import ArrayFile

    file = ArrayFile(tmp_path)
    file.append(np.arange(3))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.append(np.arange(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    file.append(np.arange(4))
    file.close()
    with (tmp_path / file.name).open("rb") as stream:
        assert np.load(stream).tolist() == [0, 1, 2]
        assert np.load(stream).tolist() == [0, 1, 2, 3]
        assert stream.read() == b""
