"""Lists of many runs, and what people write about runs."""

import json
import multiprocessing
import os
import shutil

import pytest

from catkit_devices.datalog import Run, RunReader, add_note, find_runs, read_notes, select_runs, set_star, summarise
from catkit_devices.datalog.reader import RunReader as Reader
from catkit_devices.datalog.summaries import FILE_NAME
from catkit_devices.errors import DataError


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path, "Scan") as run:
        run.log_scalar("power", 1.0)
        run.log_array("frame", [1])
        run.log_event("told", "something")
        run.set_outcome("finished")
    return run.path


@pytest.fixture
def many(tmp_path, run):
    """As many runs as are worth keeping a summary of."""
    for number in range(100):
        shutil.copytree(run, tmp_path / f"copy-{number}")
    return tmp_path


def test_a_list_of_many_runs_reads_each_run_once(many, monkeypatch):
    before = select_runs(many)
    read = []
    monkeypatch.setattr(Reader, "__enter__", lambda self: read.append(self) or self)
    assert select_runs(many) == before
    assert len(before) == 101
    assert not read


def test_a_run_that_has_changed_is_read_again(many, run):
    select_runs(many)
    with Run.open(run) as again:
        assert {one.path: one.records for one in select_runs(many)}[run] == 2
        again.log_scalar("power", 2.0)
        assert {one.path: one.records for one in select_runs(many)}[run] == 3
        again.set_outcome("failed", "late")
    add_note(run, "odd")
    (changed,) = [one for one in select_runs(many) if one.path == run]
    assert (changed.outcome, changed.detail, changed.records, changed.notes.notes[0].text) == (
        "failed",
        "late",
        3,
        "odd",
    )
    assert changed == summarise(run)


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1, "runs": {"copy-1": {}}}', '{"version": 2}'])
def test_a_damaged_list_of_what_is_known_is_made_again(many, content):
    before = select_runs(many)
    (many / FILE_NAME).write_text(content)
    assert select_runs(many) == before
    assert len(json.loads((many / FILE_NAME).read_text())["runs"]) == 101


def test_only_as_many_runs_as_are_asked_for_are_read(many, monkeypatch):
    read = []
    monkeypatch.setattr(Reader, "__enter__", lambda self: read.append(self) or self)
    assert len(select_runs(many, last=3)) == len(read) == 3


def _annotate(path, number):
    for turn in range(20):
        add_note(path, f"{number}-{turn}")


def test_notes_of_several_writers_are_all_kept_while_the_run_goes_on(tmp_path):
    context = multiprocessing.get_context("fork")
    with Run.create(tmp_path, "Scan") as run:
        before = (run.path / "run.json").read_bytes()
        writers = [context.Process(target=_annotate, args=(run.path, number)) for number in range(3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(30)
        run.log_scalar("power", 1.0)
        assert (run.path / "run.json").read_bytes() == before
        texts = [note.text for note in read_notes(run.path).notes]
    assert sorted(texts) == sorted(f"{number}-{turn}" for number in range(3) for turn in range(20))


def test_a_line_of_notes_that_was_cut_off_damages_no_other(run):
    add_note(run, "first")
    with (run / "notes.jsonl").open("a") as file:
        file.write('{"note": "half')
    set_star(run)
    add_note(run, "line\nbreak")
    with RunReader(run) as reader:
        notes = reader.notes
    assert notes.starred
    assert [note.text for note in notes.notes] == [
        "first",
        "(a line of notes.jsonl that cannot be read)",
        "line\nbreak",
    ]
    set_star(run, False)
    assert not read_notes(run).starred


def test_what_cannot_be_noted_is_refused(run, tmp_path):
    with pytest.raises(DataError, match="a note needs a text"):
        add_note(run, " ")
    with pytest.raises(DataError, match="is not a run"):
        add_note(tmp_path, "text")
    assert not os.path.exists(tmp_path / "notes.jsonl")
    assert find_runs(tmp_path) == [run]
