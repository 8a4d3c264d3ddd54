"""CPython's own tests of managers and processes, run with the standard library's classes or with ours in their places.

Imported, by the process that runs them and by its children, with ``STANDARD_LIBRARY_TESTS`` saying which:
``stock`` or ``ours``, and ``manager`` or ``processes``. ``main(names)`` runs those tests, or all, and prints as one
line of JSON what became of each: ``{"WithManagerTestQueue.test_put": "ok", ...}``. The tests are those of the
running interpreter.
"""

import json
import os
import unittest

import test.support

test.support.use_resources = None  # as if every resource were allowed: nothing is skipped for want of one

import test._test_multiprocessing as cpython  # noqa: E402

WHOSE, KIND = os.environ["STANDARD_LIBRARY_TESTS"].split()

PROCESS_TESTS = ("WithProcessesTestProcess", "WithProcessesTestSubclassingProcess")
"""Of the tests of processes, those that are about the class ``Process`` and not about locks and pipes."""


def put_ours_in_their_places() -> None:
    import multiprocessing

    from catkit_devices.multiprocessing import Process, SharedMemoryManager

    class Ours(SharedMemoryManager):
        """With the standard library's arguments; each in a name of its own, since the tests start several."""

        def __init__(self, *args, shutdown_timeout=None, **kwargs):
            names = ("address", "authkey", "serializer", "ctx")
            super().__init__(f"cpython-{os.urandom(4).hex()}", **dict(zip(names, args, strict=False)), **kwargs)

    def started():
        manager = Ours()
        manager.start()
        return manager

    class MyManager(Ours):
        pass

    MyManager.register("Foo", callable=cpython.FooBar)
    MyManager.register("Bar", callable=cpython.FooBar, exposed=("f", "_h"))
    MyManager.register("baz", callable=cpython.baz, proxytype=cpython.IteratorProxy)

    class QueueManager(Ours):
        pass

    QueueManager.register("get_queue", callable=cpython.get_queue)

    class QueueManager2(Ours):
        pass

    QueueManager2.register("get_queue")

    multiprocessing.Manager = started
    cpython.ManagerMixin.Process = Process
    cpython.ProcessesMixin.Process = Process
    cpython.MyManager, cpython.QueueManager, cpython.QueueManager2 = MyManager, QueueManager, QueueManager2
    cpython.TestSyncManagerTypes.manager_class = Ours

    def run_worker(self, worker, obj):
        self.proc = Process(target=worker, args=(obj,), daemon=True)
        self.proc.start()
        self.wait_proc_exit()
        assert self.proc.exitcode == 0

    cpython.TestSyncManagerTypes.run_worker = run_worker


if WHOSE == "ours":
    put_ours_in_their_places()
cpython.install_tests_in_module_dict(globals(), "spawn", only_type=KIND)
if KIND == "manager":
    TestSyncManagerTypes = type("TestSyncManagerTypes", (cpython.TestSyncManagerTypes,), {"__module__": __name__})


def chosen(names: list[str]) -> list[unittest.TestCase]:
    classes = {n: cls for n, cls in globals().items() if isinstance(cls, type) and issubclass(cls, unittest.TestCase)}
    if KIND == "processes":
        classes = {name: classes[name] for name in PROCESS_TESTS}
    return [
        cls(test_name)
        for name, cls in classes.items()
        for test_name in unittest.defaultTestLoader.getTestCaseNames(cls)
        if not names or name in names or f"{name}.{test_name}" in names
    ]


def name_of(case: unittest.TestCase) -> str:
    case = getattr(case, "test_case", case)  # of a part of a test
    return ".".join(case.id().split(".")[-2:])


def names(classes: list[str]) -> list[str]:
    return [name_of(case) for case in chosen(classes)]


def main(names: list[str]) -> None:
    cases = chosen(names)
    outcomes = {name_of(case): "ok" for case in cases}
    setUpModule()  # noqa: F821 - installed above
    try:
        result = unittest.TextTestRunner(verbosity=2).run(unittest.TestSuite(cases))
    finally:
        tearDownModule()  # noqa: F821 - installed above
    for case, why in result.failures + result.errors:
        outcomes[name_of(case)] = why.strip().splitlines()[-1]
    for case, why in result.skipped:
        outcomes[name_of(case)] = f"skipped: {why}"
    print(json.dumps(outcomes), flush=True)
