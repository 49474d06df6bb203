"""A program that is killed again and again asks nothing twice whose answer was handed on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

#: How often the program is killed. ``SAGE_TEST_KILLS`` says another number, as for the test of the engine.
ROUNDS = int(os.environ.get("SAGE_TEST_KILLS", "20"))
#: So many that some are left after each round.
QUESTIONS = 30 * ROUNDS
#: How many calls are under way at once.
AT_ONCE = 4

PROGRAM = f"""
import json, os, sys
from sage import Keep, LocalEnvironment, Service, batched

run, log, name, workers = sys.argv[1:]
log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

class Llm(Service):
    def chat(self, question):
        os.write(log, f"call {{question}}\\n".encode())
        return [question]

    async def achat(self, question):
        return self.chat(question)

    @batched(3, within=0)
    def embed(self, questions):
        return [self.chat(question) for question in questions]

env = LocalEnvironment("killed", workers=None if workers == "threads" else workers)
llm = env.service("llm", Llm, version="1", journal=run, keep={{name: Keep(journal=True)}})
method = getattr(llm, name)

async def awaits(question):
    return await method(question)

def handed(answer):
    os.write(log, f"handed {{answer[0]}}\\n".encode())
    os.write(1, b"handed\\n")

answers = env.from_batch(range({QUESTIONS})).map(awaits if name == "achat" else method, in_flight={AT_ONCE})
answers.sink(handed)
policy = env.submit(autostop=True).metrics().services["llm"].policy
print(json.dumps([policy.attempts, policy.journal]))
"""


def _begin(tmp_path: Path, name: str, workers: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), str(tmp_path / "log"), name, workers]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("name", "workers", "rounds"),
    [("chat", "threads", ROUNDS), ("achat", "threads", 5), ("embed", "threads", 5), ("chat", "processes", 3)],
)
def test_no_question_is_asked_again_whose_answer_was_handed_on(
    name: str, workers: str, rounds: int, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    moments = random.Random(seed)
    for _ in range(rounds):
        with _begin(tmp_path, name, workers) as program:
            assert program.stdout is not None
            for _ in range(moments.randrange(1, 30)):
                assert program.stdout.readline() == "handed\n", f"seed {seed}"
            program.kill()
    with _begin(tmp_path, name, workers) as program:
        assert program.stdout is not None
        last = program.stdout.read().splitlines()[-1]
    assert program.returncode == 0
    handed: set[str] = set()
    calls: list[str] = []
    for line in (tmp_path / "log").read_text().splitlines():
        what, question = line.split()
        if what == "handed":
            handed.add(question)
        else:
            assert question not in handed, f"{question} is asked again, seed {seed}"
            calls.append(question)
    assert len(handed) == QUESTIONS
    # A batch has as many calls as are under way.
    assert len(calls) - QUESTIONS <= AT_ONCE * rounds
    attempts, journal = json.loads(last)
    assert attempts == journal["misses"] and len(journal["begun_not_ended"]) <= AT_ONCE
    with _begin(tmp_path, name, workers) as program:
        assert program.stdout is not None
        attempts, journal = json.loads(program.stdout.read().splitlines()[-1])
    assert (attempts, journal["begun_not_ended"], journal["hits"]) == (0, [], QUESTIONS)
