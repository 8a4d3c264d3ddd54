"""Runs the cells of a notebook in a real Jupyter kernel: JSON in on stdin, JSON out on stdout.

Each cell is its source, or a pair of that and the seconds after which it is interrupted, as by the button for that.
"""

import json
import sys
import threading

from jupyter_client.manager import start_new_kernel


def run(cells):
    manager, client = start_new_kernel(kernel_name="python3")
    outputs = []

    def keep(message):
        content = message["content"]
        if message["msg_type"] == "stream":
            outputs[-1] += content["text"]
        elif message["msg_type"] == "error":
            outputs[-1] += f"{content['ename']}: {content['evalue']}"

    try:
        for cell in cells:
            source, interrupt_after = (cell, None) if isinstance(cell, str) else cell
            outputs.append("")
            if interrupt_after is not None:
                threading.Timer(interrupt_after, manager.interrupt_kernel).start()
            client.execute_interactive(source, timeout=60, output_hook=keep)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return outputs


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
