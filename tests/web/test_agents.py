"""Agents that speak the Model Context Protocol, by the client of its official SDK."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys

import httpx
import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from catkit_devices.errors import MutexTimeoutError

KILLED = """
import asyncio, json, sys
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

async def main(url, token, steps):
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=120) as http:
        async with Client(streamable_http_client(url, http_client=http)) as agent:
            for name, arguments in steps:
                result = await agent.call_tool(name, arguments)
                assert not result.is_error, result.content
                print("done", flush=True)
            await asyncio.sleep(600)

asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
"""
"""A program that uses tools one after the other."""


@pytest.fixture
def granted(service):
    """The token of an agent to which a person has granted control."""
    answer = service.operator.post("/api/v1/grants", json={"agent": "assistant"})
    assert answer.status_code == 201
    yield answer.json()["token"]
    service.operator.post("/api/v1/grants/assistant/revoke", json={})


@contextlib.asynccontextmanager
async def agent_of(service, token=None, mode="auto"):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(f"{service.url}/mcp", http_client=http), mode=mode) as agent,
    ):
        yield agent


async def used(agent, name, **arguments):
    """Return what a tool answers, and whether it is an error."""
    result = await agent.call_tool(name, arguments)
    text = result.content[0].text
    return text if result.is_error else json.loads(text)


async def pictured(agent, **arguments):
    result = await agent.call_tool("frame", arguments)
    assert not result.is_error, result.content
    return json.loads(result.content[0].text), base64.b64decode(result.content[1].data)


def audit(service):
    file = service.directory / "runs" / "bench.logs" / "audit.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def done_by_agent(service):
    return {(one["what"], one["target"]) for one in audit(service) if one["process"] == "agent 'assistant'"}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_agent_without_a_grant_looks_and_changes_nothing(service, mode):
    async def look():
        async with agent_of(service, mode=mode) as agent:
            tools = (await agent.list_tools()).tools
            assert "read_property" in {tool.name for tool in tools}
            assert all(tool.annotations.read_only_hint for tool in tools)
            assert "set_property" not in {tool.name for tool in tools}
            status = await used(agent, "testbed_status")
            assert (status["name"], status["you_hold"]) == ("bench", [])
            assert status["safety"]["checks"]["level"]["problem"] is None
            devices = await used(agent, "list_devices")
            assert devices["devices"]["wheel"]["driver"] == "thorlabs_fw102c"
            described = await used(agent, "describe_device", device="wheel")
            assert described["properties"]["position"]["writable"]
            level = await used(agent, "read_property", device="tank", property="level")
            assert (level["value"], level["source"]) == (2.0, "telemetry")
            refused = await used(agent, "set_property", device="tank", property="pump", value=True)
            assert "a person must grant" in refused
            assert "there is no tool 'explode'" in await used(agent, "explode")
            assert "device: Field required" in await used(agent, "describe_device")

    asyncio.run(look())


def test_an_agent_sees_the_frames_of_a_camera_and_the_history_of_a_quantity(service, until):
    until(lambda: service.anybody.get("/api/v1/history/tank.level").json().get("points"), timeout=60)

    async def look():
        async with agent_of(service) as agent:
            facts, png = await pictured(agent, camera="camera")
            assert png.startswith(b"\x89PNG")
            assert facts["lowest"] <= facts["mean"] <= facts["highest"]
            assert facts["saturated"] >= 0
            past = await used(agent, "history", quantity="tank.level", seconds=600)
            measured = [one for one in past["points"] if one["value"] is not None]
            assert all(one["lowest"] <= one["value"] <= one["highest"] for one in measured)
            assert measured
            assert len(past["points"]) <= 120

    asyncio.run(look())


def test_a_granted_agent_holds_and_sets_within_limits_under_its_name_until_it_is_revoked(
    service, granted, other, until
):
    async def act():
        async with agent_of(service, granted) as agent:
            held = await used(agent, "hold", devices=["tank", "wheel"])
            assert held["devices"] == ["tank", "wheel"]
            with pytest.raises(MutexTimeoutError, match="agent 'assistant'"):
                await asyncio.to_thread(other.devices.tank.acquire, 0.1)
            assert (await used(agent, "set_property", device="wheel", property="position", value=3))["value"] == 3
            assert "got 9" in await used(agent, "set_property", device="wheel", property="position", value=9)
            assert (await used(agent, "call_command", device="tank", command="fill", arguments=[0.0]))["result"] == "2"
            assert (await used(agent, "release"))["devices"] == ["tank", "wheel"]
            assert "you hold nothing" in await used(agent, "release")
            await used(agent, "hold", devices=["tank"])
            await used(agent, "set_property", device="tank", property="pump", value=True)
            revoked = await asyncio.to_thread(
                service.operator.post, "/api/v1/grants/assistant/revoke", json={}, timeout=60
            )
            assert revoked.status_code == 200

    asyncio.run(act())
    with other.devices.tank.lock(timeout=60):
        assert other.devices.tank.pump is False  # its end makes safe
    refused = service.anybody.post("/mcp", json={}, headers={"Authorization": f"Bearer {granted}"})
    assert refused.status_code == 401
    until(lambda: ("set", "tank") in done_by_agent(service))
    until(lambda: {"granted control", "revoked"} <= {one["what"] for one in audit(service)})


@pytest.mark.parametrize("end", ["revoked", "granted anew", "over"])
@pytest.mark.parametrize("what", ["hold", "set_property"])
def test_who_waits_for_a_device_learns_at_once_that_its_grant_has_ended(service, other, end, what, until):
    granted = service.operator.post("/api/v1/grants", json={"agent": "late", "lasts": 4 if end == "over" else 600})
    waits = {
        "hold": {"devices": ["tank"], "wait": 60},
        "set_property": {"device": "tank", "property": "pump", "value": True, "wait": 60},
    }[what]

    async def wait():
        async with agent_of(service, granted.json()["token"]) as agent:
            return await used(agent, what, **waits)

    def end_it():
        until(lambda: other.devices.tank.mutex.waiters)
        if end == "revoked":
            assert service.operator.post("/api/v1/grants/late/revoke", json={}).status_code == 200
        elif end == "granted anew":
            assert service.operator.post("/api/v1/grants", json={"agent": "late"}).status_code == 201

    async def both():
        return (await asyncio.gather(asyncio.wait_for(wait(), 30), asyncio.to_thread(end_it)))[0]

    with other.devices.tank.lock(timeout=60):
        assert "the grant of agent 'late' has ended" in asyncio.run(both())
        until(lambda: not other.devices.tank.mutex.waiters)
    assert service.get("tank.pump") is False
    service.operator.post("/api/v1/grants/late/revoke", json={})


def test_what_an_agent_holds_is_made_safe_and_given_on_when_the_time_of_its_grant_is_over(service, other):
    granted = service.operator.post("/api/v1/grants", json={"agent": "brief", "lasts": 3})

    async def hold():
        async with agent_of(service, granted.json()["token"]) as agent:
            await used(agent, "hold", devices=["tank"], renew_within=300)
            await used(agent, "set_property", device="tank", property="pump", value=True)

    asyncio.run(hold())
    assert service.holder("tank")
    with other.devices.tank.lock(timeout=20):
        assert other.devices.tank.pump is False


def test_a_grant_is_for_agents_only_and_the_token_of_people_gives_agents_no_control(service, granted):
    refused = service.anybody.get("/api/v1/status", headers={"Authorization": f"Bearer {granted}"})
    assert refused.status_code == 403
    assert "granted to an agent" in refused.json()["detail"]
    listed = service.operator.get("/api/v1/grants")
    assert [one["agent"] for one in listed.json()["grants"]] == ["assistant"]
    assert granted not in listed.text
    assert service.anybody.post("/api/v1/grants", json={"agent": "another"}).status_code == 401

    async def act():
        async with agent_of(service, service.facts["token"]) as agent:
            assert "a person must grant" in await used(
                agent, "set_property", device="tank", property="pump", value=True
            )

    asyncio.run(act())


def test_a_granted_agent_runs_and_stops_an_experiment(service, granted, until):
    async def act():
        async with agent_of(service, granted) as agent:
            offered = await used(agent, "list_experiments")
            assert offered["offered"]["Hold"]["note"]["default"] == "nothing"
            started = await used(agent, "run_experiment", experiment="Hold", parameters={"note": "by an agent"})
            assert (await used(agent, "describe_run", run=started["run"]))["parameters"]["note"] == "by an agent"
            await used(agent, "stop_experiment", experiment="Hold")
            return started["run"]

    run = asyncio.run(act())
    until(lambda: service.anybody.get(f"/api/v1/runs/{run}").json()["outcome"] == "stopped", timeout=60)
    until(lambda: {("started", "Hold"), ("stopped", "Hold")} <= done_by_agent(service))


@pytest.mark.parametrize("during", ["between two calls", "during a call"])
def test_an_agent_that_is_killed_while_it_holds_is_dead_its_device_is_made_safe_and_given_on(
    service, granted, other, during, until
):
    steps = [
        ("hold", {"devices": ["tank"], "renew_within": 5 if during == "between two calls" else 300}),
        ("set_property", {"device": "tank", "property": "pump", "value": True}),
        ("call_command", {"device": "gauge", "command": "scan", "wait": 60}),
    ]
    done = steps if during == "during a call" else steps[:2]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, f"{service.url}/mcp", granted, json.dumps(done)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        with other.devices.gauge.lock(timeout=60):
            for _ in steps[:2]:
                assert process.stdout.readline() == "done\n", process.stderr.read()
            if during == "during a call":
                until(lambda: other.devices.gauge.mutex.waiters)
            os.kill(process.pid, signal.SIGKILL)
            with other.devices.tank.lock(timeout=60):
                assert other.devices.tank.pump is False
    finally:
        process.kill()
        process.communicate()

    async def go_on():
        async with agent_of(service, granted) as agent:
            answer = await used(agent, "set_property", device="tank", property="pump", value=True)
            assert "you do not hold tank any more" in answer
            assert (await used(agent, "testbed_status"))["you_hold"] == []

    asyncio.run(go_on())
    assert service.get("tank.pump") is False  # nothing was done by somebody who believed to hold it


def parameters_of(service, *arguments):
    return StdioServerParameters(
        command=sys.executable, args=["-m", "catkit_devices", "mcp", "--testbed", "bench", *arguments],
        cwd=service.directory, env={**os.environ, "CATKIT_DEVICES_RUNTIME": str(service.runtime)},
    )  # fmt: skip


def test_an_agent_comes_in_by_standard_input_and_its_end_makes_safe(service, other):
    async def look():
        async with Client(stdio_client(parameters_of(service))) as agent:
            assert (await used(agent, "testbed_status"))["name"] == "bench"
            assert "a person must grant" in await used(agent, "hold", devices=["tank"])

    async def act():
        async with Client(stdio_client(parameters_of(service, "--grant", "assistant"))) as agent:
            await used(agent, "hold", devices=["tank"])
            await used(agent, "set_property", device="tank", property="pump", value=True)

    asyncio.run(look())
    asyncio.run(act())
    with other.devices.tank.lock(timeout=60):
        assert other.devices.tank.pump is False


def test_an_agent_on_standard_input_that_is_killed_while_it_holds_is_dead(service, other, until):
    shown = parameters_of(service, "--grant", "assistant")
    process = subprocess.Popen(
        [shown.command, *shown.args], cwd=shown.cwd, env=shown.env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:

        def ask(method, number=None, **params):
            message = {"jsonrpc": "2.0", "method": method, "params": params}
            process.stdin.write(json.dumps(message if number is None else {**message, "id": number}) + "\n")
            process.stdin.flush()
            return None if number is None else json.loads(process.stdout.readline())

        ask("initialize", 1, protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "t", "version": "1"})
        ask("notifications/initialized")
        ask("tools/call", 2, name="hold", arguments={"devices": ["tank"]})
        done = ask(
            "tools/call", 3, name="set_property", arguments={"device": "tank", "property": "pump", "value": True}
        )
        assert not done["result"].get("isError"), done
        until(lambda: service.holder("tank"))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    with other.devices.tank.lock(timeout=60):
        assert other.devices.tank.pump is False


def test_without_the_sdk_the_service_says_what_to_install(service, monkeypatch):
    from catkit_devices.errors import ConfigurationError
    from catkit_devices.web import agent_server

    monkeypatch.setitem(sys.modules, "mcp.server.lowlevel", None)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(ConfigurationError, match=r"catkit-devices\[mcp\]"):
        agent_server._require_sdk()
    assert httpx.get(f"{service.url}/mcp").status_code == 405
