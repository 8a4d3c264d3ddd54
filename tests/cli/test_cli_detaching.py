"""The file to which a testbed in the background prints does not grow for ever."""

from catkit_devices.cli import detaching


def test_a_long_file_is_emptied_and_kept_as_an_old_one_while_others_write_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(detaching, "_SIZE", 10)
    log = tmp_path / "bench.log"
    with log.open("ab", buffering=0) as printing:
        for number in range(12):
            printing.write(b"line %4d\n" % number)
            detaching.shorten(log)  # each second time there are more than 10 bytes
        printing.write(b"last\n")
    assert log.read_bytes() == b"last\n"
    assert (tmp_path / "bench.log.1").read_bytes() == b"line   10\nline   11\n"
    assert (tmp_path / "bench.log.6").read_bytes() == b"line    0\nline    1\n"
    assert len(list(tmp_path.glob("bench.log*"))) == 7


def test_no_more_than_nine_old_files_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(detaching, "_SIZE", 0)
    log = tmp_path / "bench.log"
    for number in range(12):
        log.write_text(str(number))
        detaching.shorten(log)
    kept = {path.name: path.read_text() for path in tmp_path.glob("bench.log*")}
    assert kept == {"bench.log": "", **{f"bench.log.{number}": str(12 - number) for number in range(1, 10)}}
