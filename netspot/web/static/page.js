// The page, kept up to date by asking for what is new; everything stays within fixed bounds, for days.
"use strict";

(() => {
  const KEEP_MS = 600_000, KEEP_ROWS = 1200, KEEP_INCIDENTS = 20, KEEP_ALARMS = 30;
  const $ = (id) => document.getElementById(id);
  const page = { epoch: "", seq: null, tag: "", t: [], stats: new Map(), incidents: new Map(), alarms: [], status: {}, at: 0 };
  const detail = { name: null, data: null, row: null };
  const shown = new WeakSet(); // cards on the screen; the others are not drawn

  const onScreen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      shown[entry.isIntersecting ? "add" : "delete"](entry.target);
      const stat = page.stats.get(entry.target.dataset.stat);
      if (entry.isIntersecting && stat) drawCard(stat);
    }
  }, { rootMargin: "120px" });

  // -- news ----------------------------------------------------------------------------------------------------------

  let failures = 0, timer = 0;

  async function poll() {
    clearTimeout(timer);
    try {
      const { seq, epoch } = page;
      const cursor = seq == null ? "" : `?since=${seq}&epoch=${epoch}`;
      const headers = page.tag ? { "If-None-Match": page.tag } : {};
      const answer = await fetch("api/poll" + cursor, { headers, cache: "no-store", signal: AbortSignal.timeout(10_000) });
      if (answer.status === 401) return location.reload();
      if (answer.status !== 200 && answer.status !== 304) throw new Error((await answer.json()).error);
      page.tag = answer.headers.get("ETag") || "";
      const message = answer.status === 200 ? await answer.json() : null;
      if (message && page.seq === seq && page.epoch === epoch) take(message); // else another poll was faster
      failures = 0;
    } catch (error) {
      failures++;
      if (!(error instanceof TypeError || error instanceof DOMException)) console.warn(error);
    }
    showLost();
    if (!document.hidden) timer = setTimeout(poll, pause());
  }

  function pause() {
    const period = (page.status.period_s || 1) * 1000;
    return failures ? Math.min(30_000, 1000 * 2 ** failures) : Math.min(10_000, Math.max(1000, period));
  }

  function take(message) {
    if (message.reset) {
      if (page.epoch && Object.keys(message.stats).some((name) => !info.has(name))) return location.reload();
      forget();
    }
    const silent = page.seq == null;
    page.epoch = message.epoch;
    page.seq = message.seq;
    page.status = message.status;
    page.at = Date.now();
    const before = page.t.length;
    page.t.push(...Chart.unpackTimes(message.t0, message.t));
    for (const [name, news] of Object.entries(message.stats)) append(name, news, message.t, before);
    trimRows();
    for (const incident of message.incidents) keepIncident(incident, silent);
    page.alarms.push(...message.alarms);
    page.alarms.splice(0, page.alarms.length - KEEP_ALARMS);
    render(message);
  }

  function forget() {
    page.t.length = 0;
    page.seq = null;
    page.incidents.clear();
    page.alarms.length = 0;
    page.stats.clear();
    $("grid").replaceChildren();
    $("incidents").replaceChildren();
  }

  function append(name, news, t, before) {
    const stat = page.stats.get(name) || addCard(name);
    const fresh = Chart.unpack(news, t);
    const data = stat.data;
    for (const key of ["v", "u", "d"]) data[key].push(...fresh[key]);
    for (const row of fresh.a) data.a.push(row + before);
    [stat.state, stat.learned, stat.needed] = news.now;
  }

  // Rows that have left the ten minutes on the left go from all arrays at once.
  function trimRows() {
    const oldest = page.t[page.t.length - 1] - KEEP_MS;
    let gone = Math.max(0, page.t.length - KEEP_ROWS);
    while (gone < page.t.length && page.t[gone] < oldest) gone++;
    if (!gone) return;
    page.t.splice(0, gone);
    for (const { data } of page.stats.values()) {
      for (const key of ["v", "u", "d"]) data[key].splice(0, gone);
      data.a = data.a.filter((row) => row >= gone).map((row) => row - gone);
    }
  }

  function keepIncident(incident, silent) {
    const known = page.incidents.get(incident.id);
    page.incidents.delete(incident.id);
    page.incidents.set(incident.id, incident);
    while (page.incidents.size > KEEP_INCIDENTS) page.incidents.delete(page.incidents.keys().next().value);
    if (!silent && (!known || known.event_type !== incident.event_type)) {
      $("news").textContent = incident.end ? `Incident over: ${incident.title}` : `Incident: ${incident.title}`;
    }
  }

  // -- header and health ---------------------------------------------------------------------------------------------

  function render(message) {
    const status = page.status;
    document.body.dataset.state = document.body.dataset.state.replace(/\b(in|out)\b/, status.may_change ? "in" : "out");
    showPhase(status);
    facts($("figures"), headerFacts(status));
    facts($("health"), healthFacts(status));
    for (const stat of page.stats.values()) showCard(stat);
    if (message.incidents.length || message.reset) showIncidents();
    if (message.alarms.length || message.reset) showAlarms();
    document.body.classList.toggle("busy", [...page.incidents.values()].some((incident) => !incident.end));
    $("span").textContent = spanText();
    if (detail.name) showDetail();
  }

  function showPhase(status) {
    let text = status.phase, look = status.phase;
    if (status.phase === "learning") {
      const left = Math.max(0, (status.needed - status.learned) * status.period_s);
      text = `Learning, ${status.learned} of ${status.needed} windows, ${duration(left)} left`;
    } else if (status.phase === "degraded") text = status.source_up === false ? "Interface down" : "Packets are being lost";
    else text = text ? text[0].toUpperCase() + text.slice(1) : "Starting";
    if (status.active && status.active.length) {
      text = status.active.length === 1 ? `Alarm: ${status.active[0]}` : `Alarm: ${status.active.length} statistics`;
      look = "alarm";
    }
    $("phase").textContent = text;
    $("phase").className = "phase " + look;
    document.title = (look === "alarm" ? "\u25cf " : "") + status.node;
  }

  function headerFacts(status) {
    const out = [["Packets", rate(status.packets_per_s)], ["Dropped", count(status.dropped), status.dropped > 0]];
    const broker = brokerText(status.mqtt);
    if (broker) out.push(["Broker", broker, !status.mqtt.connected]);
    return out;
  }

  function brokerText(mqtt) {
    if (!mqtt || mqtt.connected == null) return null;
    return mqtt.connected ? "connected" : mqtt.reason ? `not connected, ${mqtt.reason}` : "not connected";
  }

  function healthFacts(status) {
    const out = [["Captured", count(status.captured) + " packets"]];
    const share = status.captured ? status.dropped / (status.captured + status.dropped) : 0;
    out.push(["Dropped", status.dropped ? `${count(status.dropped)} (${percent(share)})` : "none", status.dropped > 0]);
    if (status.interfaces) out.push(["Interfaces", status.interfaces.join(", ")]);
    if (status.rss_bytes != null) out.push(["Memory", bytes(status.rss_bytes)]);
    if (status.cpu_share != null) out.push(["CPU", percent(status.cpu_share)]);
    if (status.disk_free_bytes != null) out.push(["Disk free", bytes(status.disk_free_bytes), status.disk_free_bytes < 50e6]);
    if (status.clock_synced != null) out.push(["Clock", status.clock_synced ? "in sync" : "not in sync", !status.clock_synced]);
    for (const [name, figures] of Object.entries(status.exporters || {})) {
      if (figures.dropped) out.push([`Not sent by ${name}`, count(figures.dropped), true]);
    }
    if (status.mqtt && status.mqtt.published != null) out.push(["Published", count(status.mqtt.published) + " messages"]);
    if (status.uptime_s != null) out.push(["Running for", duration(status.uptime_s)]);
    return out;
  }

  // Names and values of a description list; nodes are kept, so that a screen reader stays where it is.
  function facts(list, pairs) {
    while (list.children.length > pairs.length) list.lastChild.remove();
    pairs.forEach(([name, value, bad], i) => {
      let row = list.children[i];
      if (!row || row.tagName !== "DIV") {
        if (i === 0) list.replaceChildren();
        row = list.appendChild(make("div", "", make("dt"), make("dd")));
      }
      say(row.firstChild, name);
      say(row.lastChild, value);
      row.lastChild.className = bad ? "bad" : "";
    });
  }

  function showLost() {
    const stale = page.at && Date.now() - page.at > Math.max(15_000, 4000 * (page.status.period_s || 1));
    const text = failures > 1 ? "No answer from netspot; trying again." : stale && page.status.phase !== "stopped" ? "No new window for a while." : "";
    say($("lost"), text);
    $("lost").hidden = !text;
  }

  function spanText() {
    if (page.t.length < 2) return "";
    return `last ${duration((page.t[page.t.length - 1] - page.t[0]) / 1000 + (page.status.period_s || 1))}`;
  }

  // -- statistics ----------------------------------------------------------------------------------------------------

  function addCard(name) {
    const button = make("button", "", name);
    button.title = meaning(name);
    const state = make("span", "state"), value = make("p", "value"), range = make("p", "range");
    const canvas = make("canvas");
    canvas.setAttribute("role", "img");
    const card = make("li", "card", make("div", "top", make("h3", "", button), state), make("div", "mid", value, range), canvas);
    card.dataset.stat = name;
    button.addEventListener("click", () => openDetail(name));
    const stat = { name, card, state: "learning", learned: 0, needed: 0, parts: { state, value, range, canvas }, data: { t: page.t, v: [], u: [], d: [], a: [] } };
    page.stats.set(name, stat);
    $("grid").append(card);
    onScreen.observe(card);
    return stat;
  }

  function showCard(stat) {
    const { parts, data } = stat;
    const last = lastRow(data);
    stat.card.className = "card " + stat.state;
    say(parts.state, stat.state === "learning" && stat.needed ? `learning ${stat.learned}/${stat.needed}` : stat.state);
    const text = Chart.number(last == null ? null : data.v[last]);
    const unit = shortUnit(stat.name);
    if (parts.value.dataset.text !== text + unit) {
      parts.value.dataset.text = text + unit;
      parts.value.replaceChildren(text, ...(unit ? [" ", make("small", "", unit)] : []));
    }
    say(parts.range, rangeText(data, last));
    const quiet = data.a.length ? `${data.a.length} anomalous windows` : "no anomaly";
    parts.canvas.setAttribute("aria-label", `${stat.name}, ${$("span").textContent || "recently"}: ${quiet}`);
    if (shown.has(stat.card)) drawCard(stat);
  }

  function drawCard(stat) {
    if (!page.t.length) return;
    const to = page.t[page.t.length - 1];
    const span = Math.min(KEEP_MS, Math.max(60_000, to - page.t[0]));
    Chart.draw(stat.parts.canvas, stat.data, { from: to - span, to });
  }

  function lastRow(data) {
    for (let row = data.v.length - 1; row >= 0; row--) if (data.v[row] != null) return row;
    return null;
  }

  function rangeText(data, row) {
    if (row == null) return "";
    const up = data.u[row], down = data.d[row];
    if (up == null && down == null) return "";
    if (up == null) return `normal from ${Chart.number(down)}`;
    if (down == null) return `normal to ${Chart.number(up)}`;
    return `normal ${Chart.number(down)} to ${Chart.number(up)}`;
  }

  // Units and help texts, from the table that the server wrote.
  const info = new Map();
  for (const row of document.querySelectorAll("#plain tbody tr")) {
    const cells = [...row.cells].map((cell) => cell.textContent);
    info.set(cells[0], { unit: cells[4], help: cells[6] });
  }
  function meaning(name) {
    const [, windows] = name.split("@");
    const { help } = info.get(name) || { help: "" };
    return windows ? `${help}; over ${windows} windows` : help;
  }
  const shortUnit = (name) => (info.get(name) || { unit: "" }).unit;

  // -- incidents and alarms ------------------------------------------------------------------------------------------

  function showIncidents() {
    const opened = new Set([...document.querySelectorAll("#incidents details[open]")].map((box) => box.closest("li").dataset.id));
    const held = document.activeElement, at = held.closest("#incidents li");
    const list = [...page.incidents.values()].reverse().sort((a, b) => Number(!!a.end) - Number(!!b.end));
    $("incidents").replaceChildren(...list.map((incident) => incidentItem(incident, opened.has(incident.id))));
    const again = at && [...$("incidents").children].find((item) => item.dataset.id === at.dataset.id);
    if (again) again.querySelector(held.tagName)?.focus({ preventScroll: true });
    if (!list.length) $("incidents").append(make("li", "", make("p", "", "None so far.")));
  }

  function incidentItem(incident, unfolded) {
    const start = Date.parse(incident.start), end = incident.end && Date.parse(incident.end);
    const when = make("p", "", `${Chart.day(start)}${Chart.clock(start)}, `, end ? `lasted ${duration((end - start) / 1000)}` : make("span", "now", "still going on"));
    const item = make("li", end ? "" : "open", make("h3", "", incident.title), when, make("p", "", incident.stats.join(", ")));
    const box = make("details", "", make("summary", "", "Evidence"), evidence(incident));
    item.dataset.id = incident.id;
    box.open = unfolded;
    item.append(box);
    if (incident.capture) {
      const link = make("a", "", "Packets (pcap)");
      link.href = `api/incidents/${encodeURIComponent(incident.id)}.pcap`;
      item.append(make("p", "", link));
    }
    return item;
  }

  function evidence(incident) {
    const list = make("dl", "facts");
    const peak = incident.peak || {};
    const pairs = peak.stat ? [["peak", `${peak.stat} ${Chart.number(peak.value)}, normal to ${Chart.number(peak.threshold)}`]] : [];
    if (peak.probability != null) pairs.push(["probability", peak.probability.toExponential(1)]);
    for (const [name, value] of Object.entries(incident.evidence || {})) pairs.push([name.replaceAll("_", " "), plain(value)]);
    facts(list, pairs);
    return list;
  }

  // Any evidence as text: [name, share] pairs as "name 94 %", lists with commas, objects as "key value".
  function plain(value) {
    if (value == null) return "\u2013";
    if (typeof value === "number") return Chart.number(value);
    if (Array.isArray(value)) {
      const pair = value.length === 2 && typeof value[0] === "string" && typeof value[1] === "number";
      if (pair) return `${value[0]} ${value[1] <= 1 ? percent(value[1]) : Chart.number(value[1])}`;
      return value.slice(0, 8).map(plain).join(", ") + (value.length > 8 ? ", \u2026" : "");
    }
    if (typeof value === "object") return Object.entries(value).slice(0, 8).map(([key, item]) => `${key} ${plain(item)}`).join(", ");
    return String(value);
  }

  function showAlarms() {
    const items = [...page.alarms].reverse().map((alarm) => {
      const what = alarm.event_type === "cleared" ? "back to normal" : `${Chart.number(alarm.value)}, normal ${alarm.event_type === "up" ? "to" : "from"} ${Chart.number(alarm.threshold)}`;
      const ms = Date.parse(alarm.time);
      return make("li", "", make("span", "", `${alarm.stat}: ${what}${alarm.muted ? ", muted" : ""}`), make("span", "", Chart.day(ms) + Chart.clock(ms)));
    });
    $("alarms").replaceChildren(...items);
    $("alarms-box").hidden = !items.length;
    if (items.length && !page.incidents.size) $("alarms-box").open = true;
  }

  // -- one statistic, large ------------------------------------------------------------------------------------------

  function openDetail(name) {
    detail.name = name;
    detail.row = null;
    detail.data = null;
    document.querySelector('#spans input[value=""]').checked = true;
    $("detail-title").textContent = name;
    $("detail-help").textContent = meaning(name);
    $("answer").textContent = "";
    $("detail").showModal();
    showDetail();
  }

  const span = () => document.querySelector("#spans input:checked").value;

  async function loadHistory() {
    const name = detail.name, wanted = span();
    detail.row = null;
    if (!wanted) { detail.data = null; return showDetail(); }
    try {
      const answer = await fetch(`api/stats/${encodeURIComponent(name)}?history=${wanted}`, { cache: "no-store" });
      const { history } = await answer.json();
      if (detail.name !== name || span() !== wanted) return;
      detail.row = null;
      detail.data = Chart.unpack(history, Chart.unpackTimes(history.t0, history.t));
      showDetail();
    } catch {
      $("detail-read").textContent = "The history could not be loaded.";
    }
  }

  function window_() {
    const data = detail.data || page.stats.get(detail.name).data;
    const to = data.t[data.t.length - 1] || Date.now();
    const wanted = { "": KEEP_MS, hour: 3_600_000, day: 86_400_000 }[span()];
    const from = to - Math.max(60_000, Math.min(wanted, to - (data.t[0] || to)));
    return { data, options: { from, to, full: true, at: detail.row } };
  }

  function showDetail() {
    const stat = page.stats.get(detail.name);
    if (!stat) return $("detail").close();
    const { data, options } = window_();
    if (detail.row != null && detail.row >= data.t.length) detail.row = options.at = null;
    Chart.draw($("detail-chart"), data, options);
    $("detail-chart").setAttribute("aria-label", `${stat.name} over time; left and right arrow keys read single values`);
    $("detail-read").textContent = detail.row == null ? "" : Chart.readout(data, detail.row);
    const last = lastRow(stat.data);
    const pairs = [["Value", `${Chart.number(last == null ? null : stat.data.v[last])} ${shortUnit(stat.name)}`], ["State", stat.state]];
    if (last != null && stat.data.u[last] != null) pairs.push(["Highest normal", Chart.number(stat.data.u[last])]);
    if (last != null && stat.data.d[last] != null) pairs.push(["Lowest normal", Chart.number(stat.data.d[last])]);
    pairs.push(["Learned", stat.needed ? `${count(stat.learned)} of ${count(stat.needed)} windows` : "not watched"]);
    facts($("detail-figures"), pairs);
  }

  function moveCursor(step) {
    const { data } = window_();
    const values = data.hi || data.v;
    let row = detail.row == null ? values.length : detail.row;
    do row += step; while (row >= 0 && row < values.length && values[row] == null);
    if (row >= 0 && row < values.length) detail.row = row;
    showDetail();
  }

  $("detail-chart").addEventListener("pointermove", (event) => {
    const { data, options } = window_();
    detail.row = Chart.nearest(event.target, data, options, event.offsetX);
    showDetail();
  });
  $("detail-chart").addEventListener("pointerleave", () => { detail.row = null; if (detail.name) showDetail(); });
  $("detail-chart").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { event.preventDefault(); moveCursor(step); }
  });
  $("spans").addEventListener("change", loadHistory);
  $("detail-close").addEventListener("click", () => $("detail").close());
  $("detail").addEventListener("close", () => { detail.name = detail.data = null; });

  for (const button of document.querySelectorAll("#actions button")) {
    button.addEventListener("click", async () => {
      const body = { stat: detail.name };
      if (button.dataset.seconds) body.seconds = Number(button.dataset.seconds);
      try {
        const answer = await fetch("api/" + button.dataset.do, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
        $("answer").textContent = answer.ok ? "Done." : (await answer.json()).error;
      } catch {
        $("answer").textContent = "No answer from netspot.";
      }
    });
  }

  // -- words ---------------------------------------------------------------------------------------------------------

  function make(tag, className, ...children) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children);
    return node;
  }

  function say(node, text) {
    if (node.textContent !== String(text)) node.textContent = text;
  }

  function duration(seconds) {
    const s = Math.round(seconds);
    if (s < 90) return `${s} s`;
    if (s < 5400) return `${Math.round(s / 60)} min`;
    if (s < 129_600) return `${(s / 3600).toFixed(1)} h`;
    return `${(s / 86_400).toFixed(1)} days`;
  }

  function count(value) { return value == null ? "\u2013" : Math.round(value).toLocaleString("en").replaceAll(",", "\u202f"); }
  function rate(value) { return value == null ? "\u2013" : `${count(value)}/s`; }
  function percent(share) { return `${Chart.number(100 * share)}\u202f%`; }

  function bytes(value) {
    const power = Math.max(0, Math.min(4, Math.floor(Math.log2(value || 1) / 10)));
    return `${Number((value / 1024 ** power).toPrecision(3))} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
  }

  // -- begin ---------------------------------------------------------------------------------------------------------

  const redraw = () => { for (const stat of page.stats.values()) if (shown.has(stat.card)) drawCard(stat); if (detail.name) showDetail(); };
  window.addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
  if (document.body.dataset.state.includes("wrong")) $("login").open = true;
  if (document.body.dataset.state.includes("open")) poll();
  else $("login").open = true;
})();
