// One statistic over time: its values as a line, what is normal as a dashed edge of a faint band, anomalies as red dots.
"use strict";

document.documentElement.classList.add("js"); // the style sheet hides what is there for browsers without JavaScript

const Chart = (() => {
  const PAD = { card: { left: 0, right: 0, top: 11, bottom: 11 }, full: { left: 58, right: 10, top: 10, bottom: 24 } };
  const CUT = 2.5; // an outlier beyond so many times the usual range is drawn at the edge, as a triangle
  const FAR = 6; // a threshold so many times the largest value away is drawn at the edge, dotted

  // data: t [ms since epoch], v or lo and hi, u and d (thresholds or null for each row), a (rows that are anomalies)
  // options: from, to [ms], full (with axes), at (row under the cursor), unit
  function draw(canvas, data, options) {
    const frame = measure(canvas, options.full ? PAD.full : PAD.card);
    const pen = frame.pen;
    pen.clearRect(0, 0, frame.width, frame.height);
    const ink = colours(canvas);
    const rows = visible(data.t, options.from, options.to);
    const range = scale(data, rows);
    const x = (ms) => frame.left + ((ms - options.from) / (options.to - options.from)) * frame.wide;
    const y = (value) => frame.top + (1 - (clamp(value, range.low, range.high) - range.low) / (range.high - range.low)) * frame.high;
    const place = { x, y, frame, pen, ink, range, rows, data, gap: longest(data, rows) };
    if (options.full) axes(place, options);
    else edges(place, options);
    band(place);
    if (data.lo) spread(place);
    else line(place);
    limit(place, data.u);
    limit(place, data.d);
    anomalies(place, options.full ? 4 : 3);
    if (options.at != null) cursor(place, options.at);
  }

  function measure(canvas, pad) {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    return { pen, width, height, left: pad.left, top: pad.top, wide: width - pad.left - pad.right, high: height - pad.top - pad.bottom };
  }

  function colours(canvas) {
    const style = getComputedStyle(canvas);
    const get = (name) => style.getPropertyValue("--" + name).trim();
    return { line: get("line"), band: get("band"), limit: get("limit"), bad: get("bad"), dim: get("dim"), grid: get("grid"), panel: get("panel") };
  }

  // First and last row (exclusive) between two times; one more on the left, so that the line enters from the edge.
  function visible(t, from, to) {
    let first = 0;
    while (first < t.length && t[first] < from) first++;
    let end = t.length;
    while (end > first && t[end - 1] > to) end--;
    return [Math.max(0, first - 1), end];
  }

  // What the vertical axis shows: thresholds and ordinary values whole, outliers only so far.
  function scale(data, [first, end]) {
    let low = Infinity, high = -Infinity;
    const bad = new Set(data.a);
    const lows = data.lo || data.v, highs = data.hi || data.v;
    let top = -Infinity, bottom = Infinity;
    for (let row = first; row < end; row++) {
      if (highs[row] == null) continue;
      if (bad.has(row)) { top = Math.max(top, highs[row]); bottom = Math.min(bottom, lows[row]); continue; }
      low = Math.min(low, lows[row]);
      high = Math.max(high, highs[row]);
    }
    if (low > high) { low = Math.min(bottom, top); high = Math.max(bottom, top); }
    const largest = Math.max(Math.abs(low), Math.abs(high), top === -Infinity ? 0 : Math.abs(top));
    const reach = largest > 0 && largest < Infinity ? FAR * largest : Infinity;
    const values = high;
    let far = false, both = false;
    for (let row = first; row < end; row++) {
      for (const value of [data.u[row], data.d[row]]) {
        if (value == null) continue;
        both = both || value === data.d[row];
        if (Math.abs(value) > reach) { far = true; continue; }
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    if (low > high) return { low: 0, high: 1, none: true };
    if (far && high === values) high += Math.abs(high); // the threshold is far away: the values have the room
    if (low >= 0 && low < (both ? 0.3 : 0.7) * high) low = 0; // show zero where it is near, or nothing else bounds below
    const usual = high - low || Math.abs(high) || 1;
    high = Math.max(high, Math.min(top, high + (CUT - 1) * usual));
    low = Math.min(low, Math.max(bottom, low - (CUT - 1) * usual));
    const air = (high - low || Math.abs(high) || 1) * 0.04;
    return { low: low === 0 ? 0 : low - air, high: high + air };
  }

  // The longest step between two values that are still joined: twice and a half the shortest one.
  function longest(data, [first, end]) {
    const values = data.hi || data.v;
    let last = null, step = Infinity;
    for (let row = first; row < end; row++) {
      if (values[row] == null) continue;
      if (last != null && data.t[row] > last) step = Math.min(step, data.t[row] - last);
      last = data.t[row];
    }
    return step * 2.5;
  }

  function line({ x, y, pen, ink, rows, data, gap }) {
    pen.beginPath();
    let last = null;
    for (let row = rows[0]; row < rows[1]; row++) {
      if (data.v[row] == null) continue;
      const joined = last != null && data.t[row] - data.t[last] <= gap;
      if (!joined) pen.rect(x(data.t[row]) - 1, y(data.v[row]) - 0.5, 1, 1); // seen even when nothing follows
      pen[joined ? "lineTo" : "moveTo"](x(data.t[row]), y(data.v[row]));
      last = row;
    }
    stroke(pen, ink.line, 1.25);
  }

  // Lowest and highest of each minute, as a filled strip with an edge so that a flat one is still seen.
  function spread({ x, y, pen, ink, rows, data, gap }) {
    const step = gap / 2.5;
    pen.fillStyle = ink.line;
    for (let row = rows[0]; row < rows[1]; row++) {
      if (data.hi[row] == null) continue;
      const left = x(data.t[row] - step), top = y(data.hi[row]);
      pen.fillRect(left, top, Math.max(1, x(data.t[row]) - left), Math.max(1.25, y(data.lo[row]) - top));
    }
  }

  // Between the thresholds; to the end of the scale where one is missing.
  function band({ x, y, pen, ink, rows, data, range, frame }) {
    pen.fillStyle = ink.band;
    const none = (row) => data.u[row] == null && data.d[row] == null;
    for (let row = rows[0]; row < rows[1]; row++) {
      if (none(row)) continue;
      const start = row;
      while (row < rows[1] && !none(row)) row++;
      pen.beginPath();
      for (let at = start; at < row; at++) pen.lineTo(Math.max(frame.left, x(data.t[at])), data.u[at] == null ? frame.top : y(data.u[at]));
      for (let at = row - 1; at >= start; at--) pen.lineTo(Math.max(frame.left, x(data.t[at])), y(data.d[at] == null ? range.low : data.d[at]));
      pen.fill();
    }
  }

  function limit({ x, y, pen, ink, rows, data, frame, range }, values) {
    let far = true;
    pen.beginPath();
    let open = false;
    for (let row = rows[0]; row < rows[1]; row++) {
      if (values[row] == null) { open = false; continue; }
      far = far && (values[row] > range.high || values[row] < range.low);
      if (!open) pen.moveTo(Math.max(frame.left, x(data.t[row])), y(values[row]));
      else if (values[row] !== values[row - 1] || row === rows[1] - 1 || values[row + 1] !== values[row]) pen.lineTo(x(data.t[row]), y(values[row]));
      open = true;
    }
    pen.setLineDash(far ? [1, 5] : [5, 4]);
    stroke(pen, ink.limit, 1.25);
    pen.setLineDash([]);
  }

  function anomalies({ x, y, pen, ink, rows, data, range }, size) {
    pen.fillStyle = ink.bad;
    for (const row of data.a) {
      if (row < rows[0] || row >= rows[1]) continue;
      const above = data.hi ? data.u[row] != null && data.hi[row] > data.u[row] : true;
      const value = data.hi ? (above ? data.hi[row] : data.lo[row]) : data.v[row];
      if (value == null) continue;
      const px = x(data.t[row]), py = y(value);
      pen.beginPath();
      if (value > range.high) triangle(pen, px, py, size + 1);
      else if (value < range.low) triangle(pen, px, py, -size - 1);
      else pen.arc(px, py, size, 0, 7);
      pen.fill();
    }
  }

  function triangle(pen, x, y, size) {
    pen.moveTo(x, y - size / 2);
    pen.lineTo(x - size, y + size);
    pen.lineTo(x + size, y + size);
    pen.closePath();
  }

  // In a card: the upper and the lower end of the scale, small, in the margins.
  function edges({ pen, ink, frame, range }) {
    if (range.none) return;
    pen.fillStyle = ink.dim;
    pen.font = "10px system-ui, sans-serif";
    pen.textBaseline = "top";
    pen.textAlign = "left";
    pen.fillText(number(range.high), 0, 0);
    pen.textBaseline = "bottom";
    pen.fillText(number(range.low), 0, frame.height);
    pen.fillStyle = ink.grid;
    pen.fillRect(0, frame.top + frame.high, frame.width, 1);
  }

  function axes({ x, y, pen, ink, frame, range }, { from, to }) {
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const value of ticks(range.low, range.high, Math.max(2, frame.high / 55))) {
      pen.fillStyle = ink.grid;
      pen.fillRect(frame.left, Math.round(y(value)), frame.wide, 1);
      pen.fillStyle = ink.dim;
      pen.fillText(number(value), frame.left - 8, y(value));
    }
    pen.textBaseline = "top";
    pen.textAlign = "center";
    for (const ms of times(from, to, Math.max(2, frame.wide / 90))) {
      pen.fillStyle = ink.grid;
      pen.fillRect(Math.round(x(ms)), frame.top, 1, frame.high);
      pen.fillStyle = ink.dim;
      pen.fillText(clock(ms, to - from < 300_000), x(ms), frame.top + frame.high + 6);
    }
  }

  function cursor({ x, y, pen, ink, frame, data }, row) {
    const value = data.hi ? data.hi[row] : data.v[row];
    pen.fillStyle = ink.dim;
    pen.fillRect(Math.round(x(data.t[row])), frame.top, 1, frame.high);
    if (value == null) return;
    pen.beginPath();
    pen.arc(x(data.t[row]), y(value), 3.5, 0, 7);
    pen.fillStyle = ink.panel;
    pen.fill();
    stroke(pen, ink.line, 2);
  }

  // The row nearest to a horizontal position in a full chart.
  function nearest(canvas, data, options, px) {
    const wide = canvas.clientWidth - PAD.full.left - PAD.full.right;
    const ms = options.from + ((px - PAD.full.left) / wide) * (options.to - options.from);
    const [first, end] = visible(data.t, options.from, options.to);
    let best = null;
    for (let row = first; row < end; row++) {
      if ((data.hi || data.v)[row] == null) continue;
      if (best == null || Math.abs(data.t[row] - ms) < Math.abs(data.t[best] - ms)) best = row;
    }
    return best;
  }

  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
    const out = [];
    if (!(step > 0)) return out;
    for (let i = Math.ceil(low / step); i * step <= high; i++) out.push(i * step);
    return out;
  }

  const STEPS = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, 86400].map((s) => s * 1000);

  function times(from, to, wanted) {
    const step = STEPS.find((size) => (to - from) / size <= wanted) || 86_400_000 * Math.ceil((to - from) / wanted / 86_400_000);
    const zone = new Date(from).getTimezoneOffset() * 60_000;
    const out = [];
    for (let ms = Math.ceil((from - zone) / step) * step + zone; ms <= to; ms += step) out.push(ms);
    return out;
  }

  function clock(ms, seconds = true) {
    const two = (n) => String(n).padStart(2, "0");
    const date = new Date(ms);
    return two(date.getHours()) + ":" + two(date.getMinutes()) + (seconds ? ":" + two(date.getSeconds()) : "");
  }

  // The date and a blank, unless it is today.
  function day(ms) {
    const date = new Date(ms), today = new Date();
    return date.toDateString() === today.toDateString() ? "" : `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, "0")}-${String(date.getDate()).padStart(2, "0")} `;
  }

  // One row in words.
  function readout(data, row) {
    const value = data.hi ? `${number(data.lo[row])} to ${number(data.hi[row])}` : number(data.v[row]);
    const limits = [["from", data.d[row]], ["to", data.u[row]]].filter(([, limit]) => limit != null);
    const normal = limits.length ? ", normal " + limits.map(([word, limit]) => `${word} ${number(limit)}`).join(" ") : "";
    return `${day(data.t[row])}${clock(data.t[row])}: ${value}${normal}${data.a.includes(row) ? ", anomaly" : ""}`;
  }

  // Three or four significant digits, thousands as k, M, G.
  function number(value) {
    if (value == null || !Number.isFinite(value)) return "\u2013";
    const size = Math.abs(value);
    if (size < 1e-12) return "0";
    if (size >= 1e4 && size < 1e16) {
      const power = Math.min(4, Math.floor(Math.log10(size) / 3));
      return trim(value / 1000 ** power) + ["", "k", "M", "G", "T"][power];
    }
    return size < 1e-3 || size >= 1e16 ? value.toExponential(1) : trim(value);
  }

  function trim(value) {
    return String(Number(value.toPrecision(3 + (Math.abs(value) >= 1000))));
  }

  function stroke(pen, colour, width) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.lineJoin = "round";
    pen.stroke();
  }

  function clamp(value, low, high) {
    return value < low ? low : value > high ? high : value;
  }

  // Pairs [row, value] where a threshold moved -> a value, or null, for every row.
  function expand(changes, rows) {
    const out = new Array(rows).fill(null);
    (changes || []).forEach(([row, value], i) => {
      const end = i + 1 < changes.length ? changes[i + 1][0] : rows;
      out.fill(value, row, end);
    });
    return out;
  }

  // What the server sends of one statistic -> what draw() takes.
  function unpack(message, t) {
    const rows = t.length;
    const out = { t, u: expand(message.u, rows), d: expand(message.d, rows), a: message.a || [] };
    if (message.hi) { out.lo = message.lo; out.hi = message.hi; }
    else out.v = message.v;
    return out;
  }

  function unpackTimes(t0, steps) {
    let ms = t0 || 0;
    return steps.map((step) => (ms += step));
  }

  return { draw, nearest, number, clock, day, readout, unpack, unpackTimes };
})();
