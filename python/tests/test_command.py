"""The ``sage`` command of the package: hosted by the interpreter, it does what the binary of that name does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from daemons import RunningDaemon, free_port

from sage import _command

SAGE = _command.itself()


def sage(*arguments: str, folder: Path, **options: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **options}
    return subprocess.run(
        [*SAGE, *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_is_installed_and_says_its_version(tmp_path: Path) -> None:
    installed = Path(sys.executable).parent / "sage"
    told = subprocess.run([installed, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.startswith("sage 0.") and sage("--version", folder=tmp_path).stdout == told.stdout


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the interpreter cannot be told to leave the folder out")
def test_modules_of_the_folder_are_not_in_its_way(tmp_path: Path) -> None:
    for name in ("sage", "os", "runpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    ran = sage("--version", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr


PROGRAM = """
import os, signal, sys
print(sys.executable)
print([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])
print(open("/proc/self/status").read().split("SigBlk:")[1].split()[0])
print(sorted(name for name in os.environ if name.startswith("SAGE_")))
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [0, 1, 3])
def test_run_starts_a_program_with_its_interpreter_and_signals_as_usual(tmp_path: Path, code: int) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    ran = sage("run", "program.py", str(code), folder=tmp_path)
    assert ran.returncode == code, ran.stderr
    python, handlers, blocked, variables = ran.stdout.splitlines()
    assert python == sys.executable and int(blocked, 16) == 0 and variables == "['SAGE_JOB_SOCKET']"
    assert handlers == "[<built-in function default_int_handler>, <Handlers.SIG_DFL: 0>]"


def test_a_program_that_is_no_pythons_has_no_signal_ignored(tmp_path: Path) -> None:
    ran = sage("run", "/bin/sh", "-c", "grep SigIgn /proc/self/status", folder=tmp_path)
    # Whoever runs the tests may have others ignored.
    ignored = int(ran.stdout.split()[1], 16)
    names = [number.name for number in (signal.SIGPIPE, signal.SIGXFSZ) if ignored & 1 << number - 1]
    assert names == [], "the interpreter ignores them"


JOB = """
import json, sys
from sage import BaseService, LocalEnvironment, SourceFunction

class Endless(SourceFunction):
    def __init__(self): self.number = 0
    def execute(self):
        self.number += 1
        if self.number == 2:
            print("runs", flush=True)
        return self.number

class Db(BaseService):
    def cleanup(self): print("cleaned", flush=True)

env = LocalEnvironment("signalled")
env.register_service("db", Db)
env.from_source(Endless).sink(lambda n: None)
env.submit(autostop=True)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_go_to_the_program_which_cleans_up(tmp_path: Path, number: signal.Signals, code: int) -> None:
    (tmp_path / "program.py").write_text(JOB)
    command = [*SAGE, "run", "--json", "program.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as ran:
        assert ran.stdout is not None and ran.stdout.readline() == "runs\n"
        ran.send_signal(number)
        cleaned, told = ran.stdout.read().splitlines()
    assert cleaned == "cleaned" and ran.returncode == code
    assert json.loads(told)["exit_code"] == code


def test_it_refuses_a_process_with_other_threads(tmp_path: Path) -> None:
    threaded = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    threaded += "from sage import _command; _command.end(['--version'])"
    ran = subprocess.run([sys.executable, "-c", threaded], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1 and "this one has 2 threads" in ran.stderr


def test_it_is_light(tmp_path: Path) -> None:
    loaded = "import sys; from sage._command import itself; print(sorted(m for m in sys.modules if 'sage' in m))"
    told = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, timeout=60, check=True).stdout
    assert told == "['sage', 'sage._command', 'sage._installed', 'sage._sage']\n"
    took = []
    for _ in range(5):
        begun = time.monotonic()
        sage("--version", folder=tmp_path)
        took.append(time.monotonic() - begun)
    assert min(took) < 0.25, "it takes some 0.05 s"


@pytest.mark.parametrize(
    "module", ["sage.kernel.jobmanager.job_manager", "sage.kernel.runtime.job_manager", "sage.runtime.job_manager"]
)
def test_the_module_of_each_era_is_the_job_manager_until_it_is_terminated(tmp_path: Path, module: str) -> None:
    from sage.kernel.jobmanager.jobmanager_client import JobManagerClient

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SAGE_HOME", str(tmp_path))
        manager = RunningDaemon(tmp_path, module=module)
        assert JobManagerClient(port=manager.port).health_check()["status"] == "success"
        second = subprocess.run(
            [sys.executable, "-m", module, "--port", str(manager.port)], capture_output=True, text=True, timeout=60,
            check=False,
        )
        assert second.returncode == 1 and "a job manager runs already" in second.stderr
        assert manager.end() == 0
        assert JobManagerClient(port=manager.port).health_check()["error_code"] == "ERR_JOBMANAGER_CONNECTION_FAILED"
    assert not (manager.folder / "socket").exists()


def test_ctrl_c_ends_the_job_manager_as_well(tmp_path: Path) -> None:
    assert RunningDaemon(tmp_path).end(signal.SIGINT) == 0


def test_without_its_daemon_the_job_manager_has_nothing_to_do() -> None:
    command = [sys.executable, "-m", "sage.kernel.jobmanager.job_manager", "--no-daemon"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2 and "nothing to run" in ran.stderr


def test_the_job_command_asks_the_job_manager(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SAGE_HOME", str(tmp_path / "home"))
        manager = RunningDaemon(tmp_path / "home")
        (tmp_path / "program.py").write_text("print('hello')")
        port = ["--port", str(manager.port)]
        ran = sage("job", "submit", *port, "--wait", "program.py", folder=tmp_path)
        assert ran.returncode == 0 and "hello" in ran.stdout, ran.stderr
        listed = sage("job", "list", *port, "--json", folder=tmp_path)
        assert re.search('"state": ?"succeeded"', listed.stdout), listed.stdout
        assert manager.end() == 0
    assert sage("job", "list", "--port", str(free_port()), folder=tmp_path).returncode == 1
