"""The HTTP interface keeps to its OpenAPI document, whatever it is sent."""

import subprocess
import sys
from pathlib import Path

from conftest import Manager

#: What would end the job manager, void the token that is used, delete the job that is asked for, or never end.
NOT_TRIED = ["/cleanup", "/shutdown", "/token/rotate", "/stream", "/jobs/{job}/stream"]

#: What is tried on a job that there is. A request may be refused for what a schema cannot say, as that a program is of
#: one kind only.
CONFIG = """
[parameters]
"path.job" = 1

# 503 says that too many ask at once.
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503]

[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 422, 503]

[[operations]]
include-name = "POST /api/v1/jobs"
checks.positive_data_acceptance.enabled = false

# Numbers of more than 64 bits are refused, which a schema says in decimal digits only.
[[operations]]
include-path-regex = "/(output|logs/.name.|events|jobs)$"
checks.positive_data_acceptance.enabled = false
"""


def test_every_answer_is_one_that_is_described(manager: Manager, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    manager.run("job", "logs", "-f", "--port", "0", manager.submit("records=3"))
    token = (manager.folder / "jobmanager/0/token").read_text().strip()
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)]
    command += ["run", f"{manager.url}/api/v1/openapi.json"]
    command += ["--header", f"Authorization: Bearer {token}", "--max-examples", "10", "--seed", "14", "--no-color"]
    command += ["--phases", "examples,coverage,fuzzing", "--request-timeout", "60"]
    command += ["--exclude-method", "DELETE", "--suppress-health-check", "all"]
    for path in NOT_TRIED:
        command += ["--exclude-path", f"/api/v1{path}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert manager.told("job", "health", "--port", "0")["status"] == "healthy"
