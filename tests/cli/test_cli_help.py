"""Every command explains itself with an example, and shells complete what can be completed."""

from itertools import pairwise

import pytest

from catkit_devices.cli.application import COMMANDS, main


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_a_help_with_an_example(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: catkit-devices {name}" in shown
    assert f"catkit-devices {name}" in shown.partition("Examples:")[2]
    assert len(shown.splitlines()) > 8
    prose = [line.strip() for line in shown.partition("╭")[0].splitlines()]
    for line, after in pairwise(prose):  # a line ends where the next word does not fit, not where the source ended it
        assert not line or not after or len(f" {line} {after.split()[0]} ") > 200


def test_the_help_of_all_lists_every_command_and_what_exit_codes_mean(bench):
    shown = bench.command("--help", COLUMNS="200").stdout
    for name in COMMANDS:
        assert f" {name} " in shown
    assert "3 no such testbed is running" in shown


def test_the_help_of_an_experiment_lists_its_parameters_with_type_default_and_meaning(bench):
    shown = bench.command("run", "work.py:Turn", "--help", COLUMNS="200").stdout
    assert "Turn: Turn the wheel." in shown
    rows = [line.split("  ") for line in shown.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert ["--to", "int", "3", "The position to turn it to."] in cells
    assert ["--fast, --no-fast", "bool", "False"] in cells
    assert ["--words", "list[str]", "[]"] in cells
    assert "It has no parameters." in bench.command("run", "work.py:Hold", "--help").stdout
    assert "found 4" in bench.error("run", "work.py", "--help")
    assert "say which experiment" in bench.error("run")


def complete(bench, *words, **environment):
    """What a shell offers for the last of the words."""
    result = bench.command(
        _CATKIT_DEVICES_COMPLETE="complete_bash", COMP_WORDS=" ".join(["catkit-devices", *words]),
        COMP_CWORD=str(len(words)), **environment,
    )  # fmt: skip
    return result.stdout.split()


def test_the_shell_completes_commands_options_devices_and_experiments(running):
    assert complete(running, "st") == ["start", "stop", "status", "star"]
    assert "--background" in complete(running, "start", "--ba")
    assert complete(running, "stop", "be") == ["bench"]
    assert complete(running, "get", "w") == ["wheel"]
    assert complete(running, "get", "wheel.pos") == ["wheel.position", "wheel.positions"]
    assert complete(running, "call", "tank.f") == ["tank.fill"]
    assert complete(running, "plot", "la") == ["last"]


def test_the_script_for_the_shell_is_shown(bench):
    # Where no shell is among the parents (a service, say), typer cannot find out which one to speak for.
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = bench.command("--show-completion", "bash", **told).stdout
    assert "_CATKIT_DEVICES_COMPLETE=complete_bash" in shown
