"""What cannot be recorded raises one clear DataError, and what was recorded before stays readable."""

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from catkit_devices.datalog import Run, RunReader
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


def test_what_is_not_a_run_is_an_error(tmp_path):
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


@pytest.mark.skipif(not shutil.which("unshare") or os.geteuid() != 0, reason="a small file system needs root")
@pytest.mark.parametrize("method", ["log_scalar", "log_array"])
def test_a_full_disk_is_an_error_and_what_was_recorded_is_intact(tmp_path, method):
    mount = tmp_path / "disk"
    mount.mkdir()
    program = f"""
import os, subprocess, sys
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", sys.argv[3]]).returncode: sys.exit(77)
from catkit_devices.datalog import Run, RunReader
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
