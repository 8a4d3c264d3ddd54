"""``snapshot`` and ``restore``, each run as a process, as a user and a script run them."""

import json


def test_settings_are_kept_and_only_what_is_different_is_set_again(running):
    running.command("set", "wheel.position=2", "laser.current=20", "laser.enabled=off")
    said = running.command("snapshot", "wheel", "laser", "--out", "before.json").stdout
    assert "settings of wheel, laser: before.json" in said
    kept = json.loads((running.directory / "before.json").read_text())["devices"]
    assert kept["laser"]["settings"]["current"] == {"value": 20.0, "unit": "mA"}
    assert "temperature" not in kept["laser"]["settings"]  # it can only be read
    running.command("set", "wheel.position=5", "laser.current=10", "laser.enabled=on")
    dry = running.json("restore", "before.json", "--dry-run")
    changed = [(one["device"], one["setting"], one["now"], one["wanted"]) for one in dry["differences"]]
    assert ("wheel", "position", 5, 2) in changed
    assert [one[1] for one in changed if one[0] == "laser"] == ["enabled", "system", "current"]  # off first
    assert running.json("get", "wheel.position")["value"] == 5
    assert [one["outcome"] for one in running.json("restore", "before.json", "wheel")["differences"]] == ["set"]
    assert [one["outcome"] for one in running.json("restore", "before.json")["differences"]] == ["set"] * 3
    assert running.command("restore", "before.json").stdout == "everything is as in before.json\n"
    assert "exists" in running.error("snapshot", "wheel", "--out", "before.json", exit_code=1)


def test_a_refused_setting_is_told_with_what_was_set_and_nothing_is_switched_on(running):
    running.command("set", "laser.current=20", "laser.target_temperature=25", "laser.enabled=off")
    running.command("snapshot", "laser", "--out", "wrong.json")
    file = running.directory / "wrong.json"
    kept = json.loads(file.read_text())
    settings = kept["devices"]["laser"]["settings"]
    settings["current"]["value"] = 5000
    settings["target_temperature"]["value"] = 26.0
    settings["enabled"]["value"] = True
    file.write_text(json.dumps(kept))
    assert "current must be 0 to 68.09 mA" in running.error("restore", "wrong.json", "--dry-run", exit_code=1)
    error = running.error("restore", "wrong.json", exit_code=1)
    assert "laser.current was not restored; of 'laser' were set: target_temperature" in error
    assert "not switched on, because something else was refused" in error
    assert running.json("get", "laser.enabled")["value"] is False


def test_a_snapshot_without_names_opens_nothing_and_a_wrong_file_is_one_clear_error(running):
    running.json("get", "tank.level")
    states = {row["name"]: row["state"] for row in running.json("devices")["devices"]}
    assert set(running.json("snapshot")["devices"]) == {name for name, state in states.items() if state == "open"}
    (running.directory / "other.json").write_text("[]")
    assert "no file of `catkit-devices snapshot" in running.error("restore", "other.json")
