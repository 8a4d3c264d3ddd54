"""An SNMP agent, in a process of its own: ``python snmp_agent.py '{"1.3.6.1.2.1.33.1.4.1.0": 3}'``.

It is the agent of pysnmp, for versions 1 and 2c and the community "laboratory". It prints its UDP port. Each line that
it is sent sets objects, in the same form; it answers with an empty line.
"""

import asyncio
import json
import socket
import sys

from pysnmp.carrier.asyncio.dgram import udp
from pysnmp.entity import config, engine
from pysnmp.entity.rfc3413 import cmdrsp, context
from pysnmp.proto.api import v2c
from pysnmp.proto.rfc1905 import NoSuchObject
from pysnmp.smi.instrum import AbstractMibInstrumController


class Objects(AbstractMibInstrumController):
    def __init__(self, values):
        self.values = values

    def read_variables(self, *var_binds, **_context):
        return [(name, self._value(str(name))) for name, _nothing in var_binds]

    def _value(self, oid):
        value = self.values.get(oid)
        if value is None:
            return NoSuchObject("")
        return v2c.Integer32(value) if isinstance(value, int) else v2c.OctetString(value)


async def main():
    objects = Objects(json.loads(sys.argv[1]))
    agent = engine.SnmpEngine()
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind(("127.0.0.1", 0))
    config.add_transport(agent, udp.DOMAIN_NAME, udp.UdpAsyncioTransport().open_server_mode(sock=opened))
    config.add_v1_system(agent, "area", "laboratory")
    for version in (1, 2):
        config.add_vacm_user(agent, version, "area", "noAuthNoPriv", (1, 3, 6))
    served = context.SnmpContext(agent)
    served.unregister_context_name(v2c.OctetString(""))
    served.register_context_name(v2c.OctetString(""), objects)
    cmdrsp.GetCommandResponder(agent, served)
    print(opened.getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        objects.values.update(json.loads(line))
        print(flush=True)


asyncio.run(main())
