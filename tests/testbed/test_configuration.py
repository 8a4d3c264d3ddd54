import json

import pytest

from catkit_devices._wire.address import is_expression, normalise
from catkit_devices.errors import ConfigurationError
from catkit_devices.testbed import Configuration, bundled, load_configuration


def refusal(path, *overrides):
    with pytest.raises(ConfigurationError) as caught:
        load_configuration([path], overrides)
    return str(caught.value)


def test_a_configuration_is_read_with_its_defaults(bench):
    configuration = load_configuration([bench])

    assert configuration.testbed.name == "trial"
    assert list(configuration.devices) == ["tank", "basin"]
    assert configuration.devices["tank"].server == "devices"
    assert configuration.devices["tank"].options == {"address": "ASRL1::INSTR"}
    assert configuration.device_name("reservoir") == "tank"


def test_a_testbed_without_a_name_gets_the_name_of_its_file(tmp_path):
    path = tmp_path / "my-bench.toml"
    path.write_text("")

    assert load_configuration([path]).testbed.name == "my_bench"


def test_local_toml_overlays_the_file_and_an_override_overlays_both(bench):
    bench.with_name("local.toml").write_text(
        '[devices.tank]\naddress = "ASRL7::INSTR"\nlate_window = 2.0\n[simulation]\nseed = 7\n'
    )

    configuration = load_configuration([bench], ["devices.tank.late_window=3.0"])

    assert configuration.devices["tank"].options == {"address": "ASRL7::INSTR", "late_window": 3.0}
    assert configuration.devices["tank"].driver == "test_gauge"
    assert configuration.simulation.seed == 7


def test_a_problem_names_its_file(bench):
    local = bench.with_name("local.toml")
    local.write_text("[testbed]\nsimulate = 3\n")

    text = refusal(bench, "simulation.seed=-1")

    assert f"{local}: testbed.simulate: expected a valid boolean, got 3" in text
    assert "--set: simulation.seed: expected greater than or equal to 0, got -1" in text


def test_problems_of_several_devices_are_listed_together(bench):
    bench.write_text(bench.read_text().replace('driver = "test_gauge"', 'driver = "test_gouge"', 1))

    text = refusal(bench, "devices.basin.late_windov=1.0", "devices.basin.aliases=['tank']")

    assert text.startswith("3 problems in the configuration\n")
    assert "devices.tank.driver: there is no driver 'test_gouge' (did you mean 'test_gauge'?)" in text
    assert "--set: devices.basin.late_windov: driver 'test_gauge' has no such option" in text
    assert "(did you mean 'late_window'?)" in text
    assert "--set: devices.basin.aliases[0]: expected a name that is not used yet; 'tank' is the device 'tank'" in text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("testbed.runz='x'", "--set: testbed.runz: unknown key, expected one of name, plugins, runs"),
        ("testbed.runz='x'", "(did you mean 'runs'?)"),
        ("devices.tank.drivr='x'", "devices.tank.drivr: driver 'test_gauge' has no such option"),
        ("devices.tank.drivr='x'", "(did you mean 'driver'?)"),
        ("devices.tnk.server='slow'", "--set: devices.tnk.driver: is missing (did you mean 'tank'?)"),
        ("devices.tank.late_window='slow'", "late_window: expected a number of seconds, 0 to 1000000, got 'slow'"),
        *(
            (f"devices.tank.{key}={value}", f".{key}: expected a number of seconds, {allowed} 1000000, got {told}")
            for key, allowed in {
                "timeout": "0 to",
                "safe_timeout": "above 0, at most",
                "late_window": "0 to",
            }.items()
            for value, told in {
                "true": "True",
                "'1'": "'1'",
                "-1": "-1",
                "nan": "nan",
                "inf": "inf",
                "1e300": "1e+300",
            }.items()
        ),
        ("devices.tank.safe_timeout=0", "safe_timeout: expected a number of seconds, above 0, at most 1000000, got 0"),
        ("devices.tank.late_window=1e400", "--set: devices.tank.late_window: expected a number, got 1e400, which is"),
        ("testbed.close_timeout=1e300", "testbed.close_timeout: expected less than or equal to 1000000, got 1e+300"),
        ("devices.lock.driver='test_gauge'", "--set: devices.lock: expected another name"),
        ("devices.class.driver='test_gauge'", "devices.class: expected a Python name such as 'wheel'"),
        ("devices.tank.simulator='test_gage'", "expected a registered simulator"),
        ("simulation.bench='nowhere'", "--set: simulation.bench: expected a registered bench"),
        ("devices.tank.limits={level=[0, 500]}", "devices.tank.limits.level: can only be narrowed"),
        ("devices.tank.limits={leval=[0, 5]}", "(did you mean 'level'?)"),
        ("devices.tank.uses={gauge='basin'}", "devices.tank.uses.gauge: driver 'test_gauge' uses no such device"),
        ("safety.hot={device='tank', maximum=2}", "safety.hot.property: is missing"),
        ("safety.hot={device='tank', property='level', maximun=2}", "safety.hot.maximun: unknown key"),
        ("safety.hot={device='tank', property='level', maximun=2}", "(did you mean 'maximum'?)"),
        ("safety.hot={device='tank', property='level', maximum=2, timestamp='mode'}", "safety.hot.timestamp: "),
        ("safety.hot={test='total_levle'}", "expected a registered safety test (total_level), got 'total_levle'"),
        ("safety.hot={test='total_level', devices=['tank']}", "safety.hot.limit: is missing"),
        ("safety.hot={test='total_level', limits=3}", "safety test 'total_level' has no such option"),
        ("devices.tank.faults={late=2.0}", "devices.tank.faults.late: expected a probability from 0 to 1, got 2"),
        ("devices.tank.faults={lat=0.1}", "(did you mean 'late'?)"),
        ("devices.tank.simulator='nowhere.yaml'", "devices.tank.simulator: expected a file, found none at"),
        ("devices.tank.open='early'", "devices.tank.open: expected 'use' or 'start', got 'early'"),
        ("safety.hot={device='tank', property='level'}", "expected a minimum, a maximum or both, got neither"),
        *(
            (
                f"safety.hot={{device='tank', property='level', {bound}={value}}}",
                f"safety.hot.{bound}: expected a number that can be measured, got ",
            )
            for bound in ("minimum", "maximum")
            for value in ("nan", "inf", "-inf", "9.9e37", "9.91e37", "1e38")
        ),
        (
            "safety.hot={device='tank', property='temperature', maximum='9.91e37 K'}",
            "safety.hot.maximum: expected a number in the unit of 'temperature': must be below 9.9E37",
        ),
        ("devices.tank.limits={level=[0, 9.91e37]}", "devices.tank.limits.level: must be below 9.9E37"),
        ("devices.tank.limits={level=[-inf, 5]}", "devices.tank.limits.level: must be a finite number"),
        ("devices.tank.limits={level=[false, 5]}", "devices.tank.limits.level"),
        ("devices.tank.telemetry={level=true}", "devices.tank.telemetry.level: expected a valid number, got True"),
        ("devices.tank.faults={late=true}", "devices.tank.faults.late: expected a valid number, got True"),
        ("testbed.close_timeout=true", "testbed.close_timeout: expected a valid number, got True"),
        ("testbed.close_timeout=0", "testbed.close_timeout: expected greater than 0, got 0"),
        ("safety.hot={test='total_level', limit=true}", "safety.hot.limit: expected a valid number, got True"),
        (
            "safety.hot={test='total_level', limit=inf}",
            "limit: expected numbers that can be measured, got inf",
        ),
        ("devices.tank.simulator_options={level=true}", "devices.tank.simulator_options.level: expected"),
        (
            "safety.hot={device='tank', property='level', maximum=true}",
            "safety.hot.maximum: expected a number, or text",
        ),
        ("safety.hot={device='tank', property='level', minimum=3, maximum=2}", "expected minimum <= maximum"),
        (
            "safety.hot={device='tank', property='level', maximum='100 K'}",
            "safety.hot.maximum: expected a plain number for 'level', which declares no unit, got '100 K'",
        ),
        (
            "safety.hot={device='tank', property='slow_level', minimum='100 K'}",
            "safety.hot.minimum: expected a plain number for 'slow_level', which declares no unit, got '100 K'",
        ),
        (
            "safety.hot={device='tank', property='temperature', maximum='100 V'}",
            "safety.hot.maximum: expected a number in the unit of 'temperature': must be in degC, got 100.0 volt",
        ),
        (
            "safety.hot={device='tank', property='temperature', maximum='hot'}",
            "expected a number in the unit of 'temperature': must be a number, with or without a unit, got 'hot'",
        ),
        (
            "safety.hot={device='tank', property='temperature', minimum='300 K', maximum=20}",
            "safety.hot: the lowest value 26.85 is above the highest 20.0",
        ),
        (
            "safety.hot={test='total_level', limit=3, maximum='3 K'}",
            "safety.hot.maximum: expected a plain number for a test of a plugin, got '3 K'",
        ),
        ("safety.hot={device='tnk', property='level', maximum=2}", "safety.hot.device: expected a device"),
        ("safety.hot={device='tank', property='levl', maximum=2}", "(did you mean 'level'?)"),
        ("safety.hot={device='tank', property='private_level', maximum=2}", "is not shared"),
        ("testbed.gateway_host='lab'", "testbed.gateway_host: expected an IPv4 address of this computer, such as"),
        ("testbed.gateway_host='192.168.1.20:4880'", "'0.0.0.0' for all, got '192.168.1.20:4880'"),
        ("testbed.plugins=['nowhere']", "testbed.plugins[0]: expected a directory, found none at"),
        ("simulation.seed=one", "--set: simulation.seed: expected a TOML value"),
        ("simulation.seed", "--set: expected KEY=VALUE, got 'simulation.seed'"),
    ],
)
def test_a_wrong_key_or_value_is_refused_and_the_message_says_what_was_expected(bench, override, expected):
    assert expected in refusal(bench, override)


def test_a_device_may_have_a_mutex_that_nobody_waits_for(bench):
    assert load_configuration([bench], ["devices.tank.timeout=0"]).devices["tank"].options["timeout"] == 0


def test_two_things_cannot_be_served_at_one_port_nor_what_is_not_served(bench):
    ports = ["devices.tank.gateway_port=5025", "devices.basin.gateway_port=5025"]

    assert "basin.gateway_port: expected a port that is not used yet; 5025 is the port of device 'tank'" in refusal(
        bench, *ports
    )
    text = refusal(bench, *ports, "testbed.gateway=true", "testbed.gateway_port=5025", "devices.basin.gateway='off'")
    assert "tank.gateway_port: expected a port that is not used yet; 5025 is the port of HiSLIP" in text
    assert 'basin.gateway_port: expected no port, since gateway = "off" serves it to nobody, got 5025' in text


def test_devices_with_one_address_live_on_one_server(bench):
    text = refusal(bench, "devices.tank.address='ASRL2::INSTR'", "devices.basin.server='other'")

    assert "devices.basin.server: expected 'devices', the server of 'tank', which has the same address" in text


def test_devices_that_are_found_by_one_expression_may_live_on_two_servers(bench):
    anywhere = "ASRL?*::INSTR"

    found = load_configuration(
        [bench],
        [f"devices.tank.address={anywhere!r}", f"devices.basin.address={anywhere!r}", "devices.basin.server='other'"],
    )

    assert {device.server for device in found.devices.values()} == {"devices", "other"}


def test_a_device_that_another_one_needs_must_be_named(bench):
    text = refusal(bench, "devices.double.driver='test_reader'")

    assert "devices.double.gauge: is missing, driver 'test_reader' needs it" in text


def test_devices_that_use_each_other_in_a_circle_are_refused(bench):
    text = refusal(
        bench,
        "devices.one={driver='test_reader', uses={gauge='two'}}",
        "devices.two={driver='test_reader', uses={gauge='one'}}",
    )

    assert "devices use each other in a circle: one -> two -> one" in text


def test_a_missing_file_and_broken_toml_are_named(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("[testbed\n")

    assert refusal(tmp_path / "nowhere.toml") == f"{tmp_path / 'nowhere.toml'}: no such file"
    assert refusal(broken).startswith(f"{broken}: is not valid TOML: ")
    for name, text in (("large.toml", "[devices.tank]\nlevel = 1e400\n"), ("large.json", '{"level": 1e400}')):
        large = tmp_path / name
        large.write_text(text)
        assert refusal(large) == f"{large}: expected a number, got 1e400, which is too large"


def test_plugin_directories_are_relative_to_the_file_that_names_them(bench, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir("/")
    bench.with_name("local.toml").write_text('[testbed]\nplugins = ["mine"]\n[devices]\n')
    bench.write_text("[testbed]\n")

    assert load_configuration([bench]).testbed.plugins == (str(tmp_path / "mine"),)


def test_the_driver_of_a_plugin_that_does_not_import_is_named_with_the_reason(bench, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "needs_a_missing_sdk.py").write_text("import vendor_sdk_that_is_not_there\n")

    text = refusal(bench, f"testbed.plugins=['{tmp_path / 'mine'}']", "devices.tank.driver='needs_a_missing_sdk'")

    assert "devices.tank.driver" in text
    assert "No module named 'vendor_sdk_that_is_not_there'" in text


def test_a_snapshot_in_json_loads_as_the_configuration_that_it_was_made_of(bench, tmp_path):
    configuration = load_configuration([bench])
    snapshot = tmp_path / "configuration.json"
    snapshot.write_text(json.dumps(configuration.model_dump(mode="json")))

    assert load_configuration([snapshot]) == configuration


def test_a_configuration_does_not_change_after_loading(bench):
    configuration = load_configuration([bench])

    with pytest.raises(ValueError, match="frozen"):
        configuration.testbed.name = "other"


def test_editors_can_have_a_json_schema():
    schema = Configuration.model_json_schema()

    assert "DeviceConfiguration" in schema["$defs"]
    assert schema["$defs"]["SafetyConfiguration"]["properties"]["interval"]["description"]


def test_an_unknown_bundled_configuration_is_refused():
    with pytest.raises(ConfigurationError, match="expected a bundled configuration"):
        bundled("nowhere")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("GPIB0::8::INSTR", "gpib::08"),
        ("TCPIP0::10.0.0.7::2000::SOCKET", "TCPIP::10.0.0.7::02000::socket"),
        ("TCPIP0::scope.lab::inst0::INSTR", "tcpip::SCOPE.lab"),
        ("USB0::0x1313::0x8078::P1::INSTR", "usb::4883::32888::P1::0::instr"),
        ("ASRL3::INSTR", "asrlCOM03"),
        ("TCPIP0::scope::INSTR", "TCPIP::scope::INST0::INSTR"),
        ("TCPIP0::scope::hislip0::INSTR", "TCPIP::scope::HISLIP0,4880::instr"),
        ("TCPIP0::scope.lab::5025::SOCKET", "TCPIP::Scope.Lab.::5025::SOCKET"),
        ("TCPIP0::gateway::gpib0,5::INSTR", "TCPIP::gateway::GPIB0,05::INSTR"),
        ("TCPIP0::10.0.0.7,111::inst0::INSTR", "TCPIP::10.0.0.7,0111::INSTR"),
        ("TCPIP0::[fe80::7%eth0]::5025::SOCKET", "TCPIP::[FE80:0::0:0007%eth0]::5025::socket"),
        ("TCPIP0::10.0.0.7::5025::SOCKET", "TCPIP::[::ffff:10.0.0.7]::5025::SOCKET"),
        ("VICP::scope::INSTR", "vicp0::SCOPE"),
        ("GPIB0::5::6::INSTR", "GPIB::05::06"),
        ("ASRL3::INSTR", "COM3"),
        ("ASRL11::INSTR", r"\\.\com11"),
        ("ASRL/dev/ttyUSB0::INSTR", "/dev/ttyUSB0"),
        ("USB0::0x00AB::0x0001::P1::INSTR", "USB::0XAB::1::P1::00::INSTR"),
    ],
)
def test_two_spellings_of_one_address_are_one_instrument(tmp_path, one, other):
    assert normalise(one) == normalise(other)
    path = tmp_path / "bench.toml"
    path.write_text(
        "".join(
            f"[devices.{name}]\ndriver = 'thorlabs_pm100d'\naddress = '{address}'\nserver = '{name}'\n"
            for name, address in (("first", one), ("second", other))
        )
    )
    with pytest.raises(ConfigurationError, match="expected 'first', the server of 'first', which has the same"):
        load_configuration([path])


def test_case_sensitive_parts_of_an_address_are_kept():
    assert normalise("USB0::0x1313::0x8078::p0001aB::INSTR") == "USB0::0x1313::0x8078::p0001aB::0::INSTR"
    assert normalise("asrl/dev/ttyUSB0::instr") == "ASRL/dev/ttyUSB0::INSTR"
    assert normalise("TCPIP::gateway::Left,8::INSTR") == "TCPIP0::gateway::Left,8::INSTR"
    assert normalise("TCPIP::scope::hislip0,4881::INSTR") == "TCPIP0::scope::hislip0,4881::INSTR"


def test_all_names_of_a_serial_port_are_one_instrument(tmp_path):
    (tmp_path / "ttyUSB0").touch()
    (tmp_path / "by-id").symlink_to(tmp_path / "ttyUSB0")

    assert normalise(f"ASRL{tmp_path}/by-id") == normalise(f"asrl{tmp_path}//ttyUSB0::instr")


def test_an_ipv6_address_is_no_expression_and_its_spelling_can_be_read_again():
    address = normalise("TCPIP::[2001:DB8::7]::5025::SOCKET")

    assert address == "TCPIP0::[2001:db8:0:0:0:0:0:7]::5025::SOCKET"
    assert normalise(address) == address
    assert not is_expression(address)
    assert is_expression("USB::0x1313::[0-9]*::INSTR")


@pytest.mark.parametrize(
    ("address", "simulator", "problem"),
    [
        ("LPT1", True, "'LPT1' is no VISA address: .*unknown interface"),
        ("TCPIP::10.0.0.007::5025::SOCKET", True, "four numbers such as 10.0.0.7 .* leading zeros are refused"),
        ("TCPIP::10.7::5025::SOCKET", True, "four numbers such as 10.0.0.7 were expected as host"),
        ("TCPIP::0x0a000007::5025::SOCKET", False, "four numbers such as 10.0.0.7 were expected as host"),
        ("TCPIP::[fe80::1::2]::5025::SOCKET", False, "is no VISA address"),
        ("TCPIP::.::5025::SOCKET", False, "the name or number of a host was expected"),
        ("TCPIP::h::+5025::SOCKET", False, r"a number was expected as port, got '\+5025'"),
        ("TCPIPx::h::5025::SOCKET", False, "a number was expected as board, got 'x'"),
        ("USB::4_883::1::P1::INSTR", False, "a number such as 0x1313 or 4883 was expected, got '4_883'"),
        ("TCPIP::h::1::2::3::SOCKET", False, "is no VISA address: .*too many parts"),
        ("USB::x::1::P1::INSTR", False, "is no VISA address: a number such as 0x1313 or 4883 was expected, got 'x'"),
        ("VXI0::1::INSTR", True, "cannot be simulated: its interface carries no messages"),
    ],
)
def test_an_invalid_address_is_an_error_with_file_and_key(tmp_path, address, simulator, problem):
    path = tmp_path / "bench.toml"
    simulated = 'simulator = "thorlabs_pm100d"\n' if simulator else ""
    path.write_text(f'[devices.meter]\ndriver = "thorlabs_pm100d"\naddress = "{address}"\n{simulated}')

    with pytest.raises(ConfigurationError, match=f"bench.toml: devices.meter.address: .*{problem}"):
        load_configuration([path])
