// Keeps what the page shows as it is now. Without it the page shows what was when it was loaded.
"use strict";
(() => {
  const $ = (part, within = document) => within.querySelector(part);
  const live = $("#live");
  const thousands = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const set = (element, text) => { if (element && element.textContent !== text) element.textContent = text; };
  const rounded = (rate) => (rate >= 100 ? thousands(Math.round(rate)) : rate >= 1 ? rate.toFixed(1) : rate > 0 ? rate.toFixed(2) : "0");
  const inShort = (number) => (number >= 1e9 ? (number / 1e9).toFixed(1) + "G" : number >= 1e6 ? (number / 1e6).toFixed(1) + "M"
    : number >= 1e4 ? (number / 1e3).toFixed(0) + "k" : String(number));
  const lasting = (ms) => {
    const s = Math.floor(ms / 1000), h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
    return h ? `${h}h ${m}m ${s % 60}s` : m ? `${m}m ${s % 60}s` : s < 10 ? (ms / 1000).toFixed(1) + "s" : s + "s";
  };
  // Durations are seconds and nanoseconds.
  const ns = (time) => (time ? time.secs * 1e9 + time.nanos : 0);
  const brief = (time) => {
    const n = ns(time);
    return !time ? "" : n < 1e3 ? n + " ns" : n < 1e6 ? (n / 1e3).toFixed(1) + " µs" : n < 1e9 ? (n / 1e6).toFixed(1) + " ms" : (n / 1e9).toFixed(1) + " s";
  };
  const clock = (at) => new Date(at).toTimeString().slice(0, 8) + "." + String(at % 1000).padStart(3, "0");
  const isOver = (state) => ["succeeded", "failed", "cancelled", "timed_out", "lost"].includes(state);
  const words = (state, clean) => state.replace("_", " ") + (clean === false ? ", unclean" : "");

  const showRecord = (record, within) => {
    const state = $("[data-part=state]", within);
    if (state) {
      set(state, words(record.state, record.clean));
      state.dataset.state = record.state;
    }
    set($("[data-part=why]", within), record.why || "");
    if (record.started_ms) set($("[data-part=runtime]", within), lasting((record.ended_ms || Date.now()) - record.started_ms));
  };

  // Nothing if the job manager is away, which the stream says.
  const text = async (address) => {
    try {
      const answer = await fetch(address);
      return answer.ok ? { answer, text: await answer.text() } : null;
    } catch { return null; }
  };

  const follow = (address, heard) => {
    const source = new EventSource(address);
    for (const [name, act] of Object.entries(heard)) source.addEventListener(name, (event) => act(JSON.parse(event.data), event));
    source.onopen = () => set(live, "live");
    source.onerror = () => set(live, source.readyState === EventSource.CLOSED ? "not live: load the page again" : "connection lost, trying again");
    addEventListener("pagehide", () => source.close());
    return source;
  };

  // The list: rows change in place; of new jobs there is a note, so that nothing moves under a reader's hand.
  const jobs = () => {
    let unseen = 0;
    follow("/api/v1/stream", {
      record: (record) => {
        const row = $(`tr[data-job="${record.id}"]`);
        if (row) showRecord(record, row);
        else set(live, `live · ${++unseen} new or changed: load the page again`);
      },
      deleted: ({ id }) => $(`tr[data-job="${id}"]`)?.remove(),
    });
  };

  const job = () => {
    const page = $(".job"), id = page.dataset.job;
    if ("over" in page.dataset) return;
    const output = $("#output"), timeline = $("#timeline"), box = $("#follow");
    let next = Number(page.dataset.output), asking = false, again = false;
    const more = async () => {
      if (asking) { again = true; return; }
      asking = true;
      try {
        do {
          again = false;
          const got = await text(`/api/v1/jobs/${id}/output?from=${next}`);
          if (!got) return;
          const { answer } = got;
          next = Number(answer.headers.get("X-Sage-Next"));
          again ||= next < Number(answer.headers.get("X-Sage-Length"));
          // The latest 256 kB: all of it is a page of its own.
          output.append(got.text);
          if (output.textContent.length > 262144) output.textContent = output.textContent.slice(-262144);
          output.scrollTop = output.scrollHeight;
        } while (again && box.checked);
      } finally { asking = false; }
    };
    box.addEventListener("change", () => { if (box.checked) more(); });

    const named = {
      started: ({ pid }) => ["program", `the program was started as process ${pid}`],
      begins: ({ environment }) => ["job", `job \`${environment}\` begins`],
      changed: ({ change: { job, task, service } }) =>
        job ? ["job", `job: ${job.to}`] : task ? ["task", `task \`${task.name}\`: ${task.to}`] : ["service", `service \`${service.name}\`: ${service.to}`],
      ended: ({ report }) => ["job", `job \`${report.environment}\` ${words(report.outcome)}, ${report.cleanliness}`],
      cleaned: ({ name, why }) => ["program", why ? `not removed: ${name}: ${why}` : `removed as the program is gone: ${name}`],
      gone: () => ["job", "a job is gone without a report"],
      told: (told) => ["command", told === "killed" ? "killed" : told === "out_of_time" ? "its time was over: told to cancel"
        : told.do ? `told to ${told.do}` : `sent signal ${told.signal}`],
    };
    // The page anew, if the job manager is there; else when it is again.
    let isOld = false;
    const reload = async () => {
      isOld = true;
      if (await text(location.href)) location.reload();
    };
    const happened = (event) => {
      const kind = Object.keys(named).find((name) => name in event);
      if (!kind) return;
      if (kind === "begins" || kind === "ended") return void reload();
      const [what, text] = named[kind](event[kind]), item = document.createElement("li"), time = document.createElement("time");
      item.dataset.kind = what;
      time.textContent = clock(event.at_ms);
      item.append(time, " ", text);
      const atEnd = timeline.scrollHeight - timeline.scrollTop - timeline.clientHeight < 40;
      timeline.append(item);
      while (timeline.children.length > 500) timeline.firstChild.remove();
      if (atEnd) timeline.scrollTop = timeline.scrollHeight;
    };

    // As `policy.rs` has them. A figure without a value is not shown.
    const policy = (it) => {
      const some = (number) => number > 0 && thousands(number);
      const { concurrency: limit, rate } = it;
      const sum = (name) => it.tallies.reduce((sum, { sums }) => sum + (sums[name] || 0), 0);
      const [read, written] = ["input", "output"].map((what) => sum(`gen_ai.usage.${what}_tokens`));
      const spent = Math.max((rate?.spent_billionths || 0) / 1e9, sum("cost"));
      return {
        inside: limit && `${limit.in_flight} of ${limit.limit}`,
        waiting: (limit || rate) && thousands((limit?.waiting || 0) + (rate?.waiting || 0)),
        p50: brief(it.p50), p99: brief(it.p99), calls: thousands(it.calls), attempts: thousands(it.attempts),
        retries: some(it.retries.scheduled), late: some(it.timed_out), refused: some(it.refused), failed: some(it.failed),
        breaker: it.breaker?.state.replace("_", " "),
        batches: it.batches > 0 && `${thousands(it.batches)} of ${(it.batched / it.batches).toFixed(1)}`,
        kept: some(it.kept.reduce((sum, { cache, flight }) => sum + cache.memory_hits + cache.disk_hits + flight.shared, it.journal?.hits || 0)),
        cost: some(rate?.cost), tokens: read + written > 0 && `${thousands(read)} in, ${thousands(written)} out`,
        spent: spent > 0 && spent.toFixed(4),
        outages: some(it.outages), held: some(it.held), again: some(it.made_again), error: it.last_error,
      };
    };
    const before = new Map(), chart = { times: [], rates: [], plot: null };
    const draw = (rate) => {
      const place = $("#chart");
      if (!place || typeof uPlot === "undefined") return;
      chart.times.push(Date.now() / 1000);
      chart.rates.push(rate);
      if (chart.times.length > 480) { chart.times.shift(); chart.rates.shift(); }
      if (!chart.plot) {
        const colour = getComputedStyle(document.documentElement).getPropertyValue("--link").trim();
        const soft = getComputedStyle(document.documentElement).getPropertyValue("--soft").trim();
        const axis = { stroke: soft, grid: { stroke: soft + "33" }, ticks: { stroke: soft + "33" } };
        chart.plot = new uPlot({ title: "records per second, from sources", width: Math.min(place.clientWidth, 900), height: 180, legend: { show: false },
          cursor: { show: false }, axes: [{ ...axis, values: (_, times) => times.map((at) => new Date(at * 1000).toTimeString().slice(0, 8)) }, { ...axis, size: 70, values: (_, values) => values.map(inShort) }], series: [{}, { stroke: colour, width: 2, points: { show: false } }] },
          [chart.times, chart.rates], place);
        addEventListener("resize", () => chart.plot.setSize({ width: Math.min(place.clientWidth, 900), height: 180 }));
      } else chart.plot.setData([chart.times, chart.rates]);
    };

    const figures = ({ jobs }) => {
      let read = 0;
      for (const { id, figures } of jobs) {
        const engine = $(`[data-engine="${id}"]`);
        if (!engine) continue;
        const elapsed = ns(figures.elapsed) / 1e9, last = before.get(id), now = { elapsed, out: {} };
        const span = last ? elapsed - last.elapsed : 0;
        const chains = {};
        for (const task of figures.metrics.tasks || []) (chains[task.chain] ||= []).push(task);
        for (const operator of figures.metrics.operators) {
          const row = $(`tr[data-operator="${CSS.escape(operator.name)}"]`, engine);
          now.out[operator.name] = operator.records_out;
          const rate = span > 0 ? Math.max(0, operator.records_out - (last.out[operator.name] || 0)) / span : null;
          if (row) {
            set($("[data-part=in]", row), thousands(operator.records_in));
            set($("[data-part=out]", row), thousands(operator.records_out));
            set($("[data-part=failed]", row), thousands(operator.failed));
            if (rate !== null) set($("[data-part=rate]", row), rounded(rate));
            set($("[data-part=doing]", row), operator.first_error ? "first error: " + operator.first_error : doing(chains[operator.chain]).words);
          }
          set($(`[data-count="${CSS.escape(operator.name)}"]`, engine), inShort(operator.records_out));
          if (rate !== null) {
            for (const label of engine.querySelectorAll(`[data-rate="${CSS.escape(operator.name)}"]`)) set(label, rounded(rate) + "/s");
            if (!figures.metrics.operators.some((other) => other !== operator && other.chain < operator.chain) && operator === figures.metrics.operators[0]) read += rate;
          }
        }
        for (const [number, tasks] of Object.entries(chains)) {
          const chain = $(`[data-chain="${number}"]`, engine), { now, word } = doing(tasks);
          if (chain) { chain.dataset.now = now; set($(".doing", chain), word); }
        }
        for (const service of figures.metrics.services) {
          const row = $(`tr[data-service="${CSS.escape(service.name)}"]`, engine);
          if (!row) continue;
          set($("[data-part=state]", row), service.state);
          set($("[data-part=calls]", row), thousands(service.calls));
          set($("[data-part=inside]", row), thousands(service.calls_inside));
          set($("[data-part=errors]", row), thousands(service.errors));
          set($("[data-part=p50]", row), brief(service.p50));
          set($("[data-part=p99]", row), brief(service.p99));
          const place = service.policy && $(`[data-policy="${CSS.escape(service.name)}"]`, engine);
          if (!place) continue;
          place.hidden = false;
          for (const [part, value] of Object.entries(policy(service.policy))) {
            const cell = $(`[data-part=${part}]`, place);
            set(cell, value || "");
            if (cell) cell.parentElement.hidden = !value;
          }
        }
        before.set(id, now);
      }
      draw(read);
    };
    // What the tasks of a chain do: if one is blocked, that is what holds the rest up.
    const doing = (tasks) => {
      if (!tasks) return { now: "", word: "", words: "" };
      const by = { blocks: "the batches", pace: "10 ms of work", bytes: "the bytes" };
      const count = (now) => tasks.filter((task) => task.doing === now).length;
      const blocked = tasks.find((task) => task.doing === "blocked");
      const long = (task) => { const s = ns(task.since) / 1e9; return s >= 2 ? ` for ${lasting(s * 1000)}` : ""; };
      if (blocked) return { now: "blocked", word: "blocked", words: `blocked${long(blocked)}: ${by[blocked.blocked_by] || "what"} that may wait downstream are there` };
      if (count("busy")) return { now: "busy", word: "busy", words: tasks.length > 1 ? `busy: ${count("busy")} of ${tasks.length} tasks` : "busy" + long(tasks[0]) };
      if (count("paused")) return { now: "idle", word: "paused", words: "paused: waits for a resume" };
      return { now: "idle", word: "idle", words: "idle: waits for records" };
    };

    // What can be done about the job in its new state, as the page would have it.
    const renew = async () => {
      const got = await text(location.href);
      if (!got) return;
      const fresh = $("[data-part=actions]", new DOMParser().parseFromString(got.text, "text/html"));
      const actions = $("[data-part=actions]"), focused = actions.contains(document.activeElement) && document.activeElement.textContent;
      if (!fresh) return;
      actions.replaceWith(fresh);
      if (focused) [...fresh.querySelectorAll("a, button")].find((element) => element.textContent === focused)?.focus();
    };
    let state = $("[data-part=state]", page).dataset.state;

    const source = follow(`/api/v1/jobs/${id}/stream?figures=1&after=${page.dataset.events}`, {
      record: (record) => {
        showRecord(record, page);
        if (record.state !== state) { state = record.state; renew(); }
      },
      happened,
      figures,
      output: ({ output: length }) => { if (length > next && box.checked) more(); },
      over: (record) => {
        source.close();
        showRecord(record, page);
        // With its report and what can be done now.
        reload();
      },
    });
    source.addEventListener("open", () => { if (isOld) reload(); });
  };

  const pages = { jobs, job };
  pages[document.body.dataset.page]?.();
})();
