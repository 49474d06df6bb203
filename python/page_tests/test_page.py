"""The page of the job manager, as its readers have it: with a script and without, on a phone, by the keyboard."""

import re
import subprocess
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import Manager
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

# Of the first record on, until it is told to end.
ENDLESS = ("pace=2",)


def open_job(page: Page, manager: Manager, job: str) -> None:
    page.goto(f"{manager.url}/jobs/{job}")


def cell(page: Page, row: str, part: str):  # noqa: ANN201
    rows = (f'tr[data-{kind}="{row}"] [data-part="{part}"]' for kind in ("operator", "service"))
    return page.locator(", ".join(rows))


def test_a_running_job_is_seen_live_and_drained(page: Page, manager: Manager) -> None:
    job = manager.submit(*ENDLESS, name="Count for ever")
    open_job(page, manager, job)
    expect(page.locator(".state")).to_have_text("running")
    # Figures come without anybody's doing: rates on the operators, the state of the service, what tasks do.
    expect(cell(page, "sink-1", "rate")).to_have_text(re.compile(r"[1-9]"))
    expect(cell(page, "counter", "state")).to_have_text("ready")
    # For a while or not: a busy machine shows it late.
    expect(cell(page, "generator-1", "doing")).to_have_text(re.compile("^busy"))
    expect(page.locator("svg.graph .chain")).to_have_attribute("data-now", "busy")
    before = int(re.sub(r"\D", "", cell(page, "counter", "calls").inner_text()))
    page.wait_for_function(
        "before => Number(document.querySelector('[data-service=counter] [data-part=calls]')"
        ".textContent.replace(/\\D/g, '')) > before + 20",
        arg=before,
    )
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".state")).to_have_text("paused")
    expect(page.locator("p.why")).to_contain_text("resume")
    expect(cell(page, "generator-1", "doing")).to_have_text("paused: waits for a resume")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".state")).to_have_text("running")
    page.get_by_role("link", name="Where its threads are").click()
    expect(page.get_by_role("row", name="generator-1")).to_contain_text("busy")
    expect(page.locator("details").filter(has_text="generator-1")).to_contain_text(re.compile("waits|runs"))
    page.go_back()
    page.get_by_role("link", name="Drain").click()
    expect(page.locator("main")).to_contain_text("what is in flight is finished")
    page.get_by_role("button", name="Drain").click()
    expect(page.locator(".state")).to_have_text("succeeded")
    expect(page.locator("#timeline")).to_contain_text("told to drain")
    expect(page.locator("#timeline")).to_contain_text("service `counter`: cleaned")
    expect(page.locator("#timeline")).to_contain_text("job `counting` succeeded, clean")
    assert manager.job("show", job)["clean"] is True


def test_what_a_policy_does_is_seen_live(page: Page, manager: Manager, tmp_path: Path) -> None:
    steady = tmp_path / "steady"
    job = manager.submit("pace=2", f"steady={steady}")
    open_job(page, manager, job)
    policy = page.locator("[data-policy=oracle]")

    def figure(part: str) -> Locator:
        return policy.locator(f"[data-part={part}]")

    # As text, whatever it has in it.
    expect(figure("error")).to_have_text("<b>the oracle sleeps</b>")
    expect(figure("breaker")).to_have_text("open")
    expect(figure("inside")).to_have_text(re.compile(r"^[0-4] of 4$"))
    for part in ("attempts", "retries", "failed", "refused", "batches", "p99"):
        expect(figure(part)).to_have_text(re.compile(r"^[1-9]"))
    expect(policy.get_by_text("Outages")).to_be_hidden()
    expect(page.locator("[data-policy=counter]")).to_be_hidden()
    steady.touch()
    expect(figure("breaker")).to_have_text("closed")
    expect(figure("cost")).to_have_text(re.compile(r"^[1-9]"))
    expect(figure("tokens")).to_have_text(re.compile(r"^\d[\d\u202f]* in, 0 out$"))
    manager.job("drain", job)
    # What was is shown as it was.
    expect(page.locator(".state")).to_have_text("succeeded")
    expect(figure("inside")).to_have_text("0 of 4")
    expect(figure("tokens")).to_have_text(re.compile(r"^\d[\d\u202f]* in, 0 out$"))
    expect(figure("spent")).to_have_text(re.compile(r"^\d+\.\d0{3}$"))
    expect(figure("batches")).to_have_text(re.compile(r"^\d[\d\u202f]* of [12]\.\d$"))
    expect(figure("error")).to_have_text("<b>the oracle sleeps</b>")
    expect(page.locator("[data-policy=counter]")).to_be_hidden()


def test_why_a_job_failed_is_said_in_a_line(page: Page, manager: Manager) -> None:
    job = manager.submit("fail=50", name="failing")
    manager.run("job", "logs", "-f", "--port", "0", job)
    page.goto(manager.url)
    row = page.locator(f'tr[data-job="{job}"]')
    expect(row.locator(".state")).to_have_text("failed")
    expect(row).to_contain_text("operator `try-map-1`, record 50: 50 is too many")
    row.get_by_role("link", name="failing").click()
    expect(page.locator("p.why")).to_contain_text("50 is too many")
    # What it has written.
    expect(page.locator("#output")).to_contain_text("job `counting` failed")


def test_what_is_left_is_named(page: Page, manager: Manager) -> None:
    job = manager.submit("records=3", "unclean")
    manager.run("job", "logs", "-f", "--port", "0", job)
    open_job(page, manager, job)
    expect(page.locator(".state")).to_contain_text("unclean")
    expect(page.locator("dl.facts")).to_contain_text("service `counter`")


def test_the_list_is_filtered_by_its_address(page: Page, manager: Manager) -> None:
    good, bad = manager.submit("records=1", name="good"), manager.submit("fail=1", name="bad")
    for job in (good, bad):
        manager.run("job", "logs", "-f", "--port", "0", job)
    page.goto(manager.url)
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_label("not succeeded").check()
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert "state=" in page.url
    page.reload()
    expect(page.locator("tbody tr")).to_contain_text(["bad"])
    page.get_by_role("link", name="Show all").click()
    page.get_by_label("Name").fill("goo")
    page.get_by_label("Name").press("Enter")
    expect(page.locator("tbody tr")).to_contain_text(["good"])


def test_output_is_followed(page: Page, manager: Manager, tmp_path: Path) -> None:
    script = tmp_path / "talks.sh"
    script.write_text("#!/bin/sh\nwhile read line; do echo \"heard <b>$line</b>\"; done < $1\n")
    script.chmod(0o700)
    pipe = tmp_path / "pipe"
    subprocess.run(["mkfifo", pipe], check=True)
    job = manager.submit(str(pipe), program=script)
    open_job(page, manager, job)
    with pipe.open("w") as talk:
        for word in ("one", "two"):
            talk.write(word + "\n")
            talk.flush()
            # As text, whatever it has in it.
            expect(page.locator("#output")).to_contain_text(f"heard <b>{word}</b>")
    expect(page.locator(".state")).to_have_text("succeeded")
    page.get_by_role("link", name="All of it").click()
    expect(page.locator("pre.output")).to_contain_text("heard <b>two</b>")


def test_without_a_script_jobs_are_listed_shown_and_drained(chromium: Browser, manager: Manager) -> None:
    job = manager.submit(*ENDLESS)
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(manager.link())
    page.get_by_role("link", name="counting").click()
    page.get_by_role("link", name="Drain").click()
    page.get_by_role("button", name="Drain").click()
    manager.run("job", "logs", "-f", "--port", "0", job)
    page.reload()
    expect(page.locator(".state")).to_have_text("succeeded")
    page.get_by_role("link", name="All of it").click()
    expect(page.locator("h1")).to_have_text("Output")


@pytest.mark.expects("Failed to load resource")
def test_a_killed_job_manager_is_waited_for(page: Page, manager: Manager) -> None:
    job = manager.submit(*ENDLESS)
    open_job(page, manager, job)
    # It is not loaded again any more.
    expect(cell(page, "sink-1", "rate")).to_have_text(re.compile(r"[1-9]"))
    expect(page.locator("#live")).to_have_text("live")
    manager.run("jobmanager", "kill", "--port", "0")
    expect(page.locator("#live")).to_have_text("connection lost, trying again")
    manager.start()
    assert manager.job("show", job)["state"] == "running"


def test_strangers_see_nothing(chromium: Browser, manager: Manager) -> None:
    job = manager.submit("records=1", name="secret name")
    context = chromium.new_context()
    page = context.new_page()
    for path in ("/", f"/jobs/{job}", "/about"):
        answer = page.goto(manager.url + path)
        assert answer is not None and answer.status == 401
        expect(page.get_by_role("heading")).to_have_text("Log in to the job manager")
        assert "secret name" not in page.content()
    page.get_by_label("Token").fill("0" * 64)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("not the token")
    page.get_by_label("Token").fill((manager.folder / "jobmanager/0/token").read_text().strip())
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("main")).to_contain_text("secret name")
    link = manager.link()
    # A link is good once.
    assert [page.goto(link).status for _ in range(2)] == [200, 401]


@pytest.mark.expects("403")
def test_another_site_can_do_nothing(context: BrowserContext, manager: Manager) -> None:
    job = manager.submit(*ENDLESS)
    page = context.new_page()
    page.goto(manager.url)
    # The cookie goes along; the token of the session does not.
    status = page.evaluate("job => fetch(`/jobs/${job}/kill`, {method: 'POST'}).then(answer => answer.status)", job)
    assert status == 403
    page.close()
    assert manager.job("show", job)["state"] == "running"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screen_readers_and_phones_can_use_it(chromium: Browser, manager: Manager, scheme: str) -> None:
    over, fails = manager.submit("records=5"), manager.submit("fail=2")
    runs = manager.submit(*ENDLESS, "steady=/nowhere")
    for job in (over, fails):
        manager.run("job", "logs", "-f", "--port", "0", job)
    context = chromium.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    page.goto(manager.url)
    paths = ["/", "/about", f"/jobs/{over}", f"/jobs/{fails}", f"/jobs/{over}/output"]
    paths += [f"/jobs/{runs}", f"/jobs/{runs}/kill", f"/jobs/{runs}/threads"]
    found = {"login": Axe().run(page).response["violations"]}
    page.goto(manager.link())
    for path in paths:
        page.goto(manager.url + path)
        found[path] = Axe().run(page).response["violations"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
    broken = [(path, rule) for path, rules in found.items() for rule in rules]
    told = [(path, rule["id"], [node["html"] for node in rule["nodes"]]) for path, rule in broken]
    assert told == []


def test_everything_can_be_reached_by_the_keyboard(page: Page, manager: Manager) -> None:
    manager.submit(*ENDLESS, name="by keys")
    page.goto(manager.url)
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.locator(":focus").inner_text() == "by keys":
            break
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Cancel").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".state")).to_have_text("cancelled")


def test_a_page_weighs_little(page: Page, manager: Manager) -> None:
    job = manager.submit("records=5")
    # A stream has no end before that.
    manager.run("job", "logs", "-f", "--port", "0", job)
    weight = 0

    def weigh(response) -> None:  # noqa: ANN001
        nonlocal weight
        weight += len(response.body())

    page.on("response", weigh)
    open_job(page, manager, job)
    expect(page.locator(".state")).to_have_text("succeeded")
    page.wait_for_load_state("networkidle")
    assert 0 < weight <= 100_000
    script = Path(__file__).parents[2] / "crates/sage-jobmanager/src/page/static/page.js"
    assert script.stat().st_size <= 30_000
