"""What happens to a child's exit status when several threads look for it."""

import os
import threading
import time
from multiprocessing import active_children

import psutil

from catkit_devices.multiprocessing import Process


def nothing():
    pass


def test_joining_waits_for_the_exit_status_that_another_thread_has_taken(monkeypatch, until):
    translate = os.waitstatus_to_exitcode
    # What the system allows at any time: the thread that took the status is not run for a while.
    monkeypatch.setattr(os, "waitstatus_to_exitcode", lambda status: (time.sleep(0.3), translate(status))[1])
    process = Process(target=nothing)
    process.start()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has taken the status yet
    threading.Thread(target=active_children).start()  # as every start of another process does
    until(lambda: not psutil.pid_exists(process.pid))

    process.join()

    assert process.exitcode == 0
