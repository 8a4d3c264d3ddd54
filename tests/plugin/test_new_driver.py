"""The command ``new-driver``: what it refuses and asks. What it writes is tested in test_whole_distribution.py."""

import os
import subprocess
import sys

KINDS = ("scpi", "serial", "sdk", "frames", "configuration")


def test_a_new_driver_overwrites_nothing(tmp_path):
    command = (sys.executable, "-m", "catkit_devices", "new-driver")
    for name, words in (
        ("acme_s1", "would overwrite acme_s1.py"),
        ("thorlabs_fw102c", "there is a driver 'thorlabs_fw102c' already"),
        ("Acme-S1", "lower-case words with underscores, such as acme_s1, got 'Acme-S1'"),
    ):
        tmp_path.joinpath("acme_s1.py").write_text("mine")
        done = subprocess.run([*command, name], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert words in done.stderr
    assert tmp_path.joinpath("acme_s1.py").read_text() == "mine"


def test_the_kind_of_driver_is_asked_for_on_a_terminal_only(tmp_path):
    command = (sys.executable, "-m", "catkit_devices", "new-driver", "acme_cam")
    told = subprocess.check_output(command, cwd=tmp_path, stdin=subprocess.DEVNULL, text=True)
    assert "kind: scpi" in told
    assert f"--kind {'|'.join(KINDS)}" in " ".join(told.split())

    near, far = os.openpty()
    with subprocess.Popen((*command, "--to", "asked"), cwd=tmp_path, stdin=far, stdout=far, stderr=far) as asked:
        os.write(near, b"camera\nsdk\n")
        assert asked.wait(60) == 0
    shown = os.read(near, 10_000).decode()
    os.close(near)
    os.close(far)

    assert "expected one of scpi, serial, sdk, frames, configuration, got 'camera'" in shown
    assert tmp_path.joinpath("asked", "_acme_cam_stand_in.py").exists()
