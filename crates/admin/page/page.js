// The page of the admin router: what breakers, targets and limits do now, and what became of calls.
//
// Everything that is shown goes through text nodes and attributes of elements made here; nothing that
// came from the server is ever parsed as markup. Lists are updated in place, so that focus, an open
// menu or a selection outlive a refresh.
"use strict";

(() => {
  const BASE = new URL(".", document.currentScript.src);

  // ===== elements =====

  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);

  // Functions among the attributes are listeners, named by their event.
  function dress(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") node.addEventListener(name, value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }

  const h = (tag, attributes, ...children) => dress(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => dress(document.createElementNS(SVG, tag), attributes, children);
  // Text of others: kept from changing the direction of what stands beside it.
  const foreign = (value, limit = 300) => h("bdi", null, clip(value, limit));

  function say(node, value) {
    if (node.textContent !== value) node.textContent = value;
  }

  function set(node, name, value) {
    if (value === null || value === undefined || value === false) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }

  // Makes the children of `parent` those of `items`, in their order, each made once and updated after.
  const kept = new WeakMap();
  function list(parent, items, keyOf, make) {
    const before = kept.get(parent) ?? new Map();
    const after = new Map();
    let place = parent.firstChild;
    for (const item of items) {
      const key = keyOf(item);
      if (after.has(key)) continue;
      const entry = before.get(key) ?? make(item);
      before.delete(key);
      after.set(key, entry);
      entry.update(item);
      if (entry.node === place) place = place.nextSibling;
      else parent.insertBefore(entry.node, place);
    }
    for (const entry of before.values()) entry.node.remove();
    kept.set(parent, after);
  }

  const entries = (parent) => [...(kept.get(parent)?.values() ?? [])];

  const button = (attributes, ...children) => h("button", { type: "button", ...attributes }, ...children);
  // What stands where there is nothing to show, yet or at all: `empty`, `loading` or `problem`.
  const note = (kind, ...words) => h("p", { class: kind }, ...words);
  const icon = (size, ...shapes) =>
    svg("svg", { width: size, height: size, viewBox: `0 0 ${size} ${size}`, "aria-hidden": "true" }, ...shapes);
  const stroke = (d) => svg("path", { class: "own", d });
  const chevron = () => icon(12, stroke("M4 2.5L8 6 4 9.5"));
  const bar = (kind) => svg("rect", { class: kind, height: 6, rx: 3 });
  const meter = (...bars) => svg("svg", { class: "meter", height: 6, width: "100%", "aria-hidden": "true" }, ...bars);

  // A bar that is filled as far as `fill` is wide.
  function scale(fill, ...others) {
    const track = bar("track");
    track.setAttribute("width", "100%");
    return meter(track, fill, ...others);
  }

  const SHAPES = {
    // Breakers.
    closed: ["disc", "M3.8 7.2l2.2 2.3 4.2-4.7"],
    open: ["disc", "M4.4 4.4l5.2 5.2M9.6 4.4L4.4 9.6"],
    "half-open": ["ring", null, "M7 1.5a5.5 5.5 0 0 1 0 11z"],
    "forced-open": ["square", "M4.4 4.4l5.2 5.2M9.6 4.4L4.4 9.6"],
    "forced-closed": ["square", "M3.8 7.2l2.2 2.3 4.2-4.7"],
    disabled: ["dashed", null],
    // Traces.
    success: ["ring", "M3.8 7.2l2.2 2.3 4.2-4.7"],
    error: ["disc", "M4.4 4.4l5.2 5.2M9.6 4.4L4.4 9.6"],
    timeout: ["ring", "M7 3.6V7.2l2.4 1.8"],
    rejected: ["square", "M3.8 7h6.4"],
    cancelled: ["dashed", "M4.6 7h4.8"],
  };

  // A state as a shape, so that it can be told without its colour.
  function glyph(kind) {
    const [ground, mark, fill] = SHAPES[kind] ?? SHAPES.cancelled;
    const body = ground === "square"
      ? svg("rect", { class: "ground", x: 1, y: 1, width: 12, height: 12, rx: 2.5 })
      : svg("circle", { class: `ground ${ground === "disc" ? "" : ground}`, cx: 7, cy: 7, r: 6 });
    return svg("svg", { class: "glyph", viewBox: "0 0 14 14", width: 14, height: 14, "aria-hidden": "true" },
      body,
      fill && svg("path", { class: "half", d: fill }),
      mark && svg("path", { class: ground === "disc" || ground === "square" ? "mark" : "mark own", d: mark }));
  }

  // ===== numbers and words =====

  const WHOLE = new Intl.NumberFormat("en");
  const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const DATE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
  const NONE = "–";

  const count = (n) => (n === null || n === undefined ? NONE : WHOLE.format(n));
  const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

  function compact(n) {
    if (n < 10_000) return count(n);
    return n < 1_000_000 ? `${trim(n / 1000, 1)}k` : `${trim(n / 1_000_000, 1)}M`;
  }

  const trim = (x, digits) => String(Number(x.toFixed(digits)));

  function percent(share) {
    if (share === null || share === undefined) return NONE;
    const value = share * 100;
    // Never a whole that is none: 99.996 % is not all of them.
    if (value > 99 && value < 100) return `${trim(Math.floor(value * 100) / 100, 2)} %`;
    return `${trim(value, value > 0 && value < 1 ? 2 : 1)} %`;
  }

  function took(ms) {
    if (ms === null || ms === undefined) return NONE;
    if (ms < 1) return `${trim(ms, 2)} ms`;
    if (ms < 10) return `${trim(ms, 1)} ms`;
    if (ms < 999.5) return `${Math.round(ms)} ms`;
    if (ms < 9_995) return `${(ms / 1000).toFixed(2)} s`;
    if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
    const s = Math.round(ms / 1000);
    const two = (one, word, other, rest) => {
      const left = Math.floor((s % one) / other);
      return `${Math.floor(s / one)} ${word}${left > 0 ? ` ${left} ${rest}` : ""}`;
    };
    if (s < 3600) return two(60, "min", 1, "s");
    return s < 86_400 ? two(3600, "h", 60, "min") : two(86_400, "d", 3600, "h");
  }

  function age(ms) {
    const s = Math.max(0, Math.floor(ms / 1000));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 86_400) return `${Math.floor(s / 3600)} h`;
    return `${Math.floor(s / 86_400)} d`;
  }

  function rate(perSecond) {
    if (perSecond === null || perSecond === undefined) return NONE;
    return `${perSecond >= 100 ? count(Math.round(perSecond)) : trim(perSecond, perSecond < 1 ? 2 : 1)}/s`;
  }

  function clip(value, limit) {
    const text = String(value);
    if (text.length <= limit) return text;
    // Not between the halves of one character.
    const end = text.charCodeAt(limit - 1) >= 0xd800 && text.charCodeAt(limit - 1) < 0xdc00 ? limit - 1 : limit;
    return `${text.slice(0, end)}…`;
  }

  const when = (date) => DATE.format(new Date(date));

  // ===== the server =====

  // What the server's clock is ahead of this one, in ms, to the second.
  let ahead = 0;

  class Problem extends Error {
    constructor(status, detail) {
      super(detail);
      this.status = status;
    }
  }

  // There was no answer at all.
  class Gone extends Error {}

  const isGone = (error) => error instanceof Gone;

  // No answer is the connection's affair, a refusal that of whoever asked; the rest are defects.
  function stumble(error) {
    if (isGone(error)) link.lost();
    else if (!(error instanceof Problem)) throw error;
  }

  async function ask(path, options) {
    const response = await fetch(new URL(path, BASE), { cache: "no-store", ...options }).catch((error) => {
      throw new Gone(error.message);
    });
    const date = Date.parse(response.headers.get("date") ?? "");
    if (!Number.isNaN(date) && Math.abs(date - Date.now() - ahead) > 1500) ahead = date - Date.now();
    if (!response.ok) {
      const problem = await response.json().catch(() => ({}));
      const words = [problem.title, problem.detail].filter(Boolean).join(": ");
      throw new Problem(response.status, clip(words || `${response.status} ${response.statusText}`, 500));
    }
    if (response.status === 204) return null;
    return response.json().catch((error) => {
      throw new Gone(error.message);
    });
  }

  async function post(path, token) {
    // What no header can hold is no token: the browser would not even send it.
    if (token && !/^[!-~]+$/.test(token)) throw new Problem(401, "This is not the token.");
    return ask(path, { method: "POST", headers: token ? { authorization: `Bearer ${token}` } : {} });
  }

  // Runs `load` as often as it is asked to, but one at a time and not more often than its own cost allows.
  function paced(load, gap) {
    let running = false;
    let waiting = false;
    return async function run() {
      if (running) {
        waiting = true;
        return;
      }
      running = true;
      const began = performance.now();
      try {
        await load();
        link.reached();
      } catch (error) {
        stumble(error);
      } finally {
        const rest = Math.max(gap, 4 * (performance.now() - began));
        setTimeout(() => {
          running = false;
          if (waiting && !link.isGone()) {
            waiting = false;
            run();
          }
        }, rest);
      }
    };
  }

  // ===== the live connection =====

  const link = (() => {
    const QUIET_MS = 5000;
    const POLL_MS = 2000;
    const HIDDEN_MS = 15_000;
    const AGAIN_MS = 15_000;
    const STORED_MS = 400;
    const waits = [1, 1, 2, 4, 8, 10];
    let source = null;
    let state = "connecting";
    let failures = 0;
    let again = 0;
    let lastSeen = Date.now();

    function become(next) {
      if (next === state) return;
      state = next;
      show();
    }

    function show() {
      const words = { connecting: "connecting", live: "live", polling: "polling", offline: "offline" };
      const live = byId("live");
      live.className = `live is-${state}`;
      say(live, words[state]);
      live.title = state === "polling"
        ? "No event stream at the moment: the page asks every two seconds"
        : "Whether the server tells of changes as they happen";
      document.body.classList.toggle("gone", state === "offline");
      const banner = byId("banner");
      banner.hidden = state !== "offline";
      if (state === "offline" && !banner.firstChild) {
        banner.append(
          h("span", null, "The server does not answer. What you see is from ", h("b", { id: "gone-since" }), "."),
          button({ click: () => attempt() }, "Try now"));
        say(byId("gone-since"), CLOCK.format(lastSeen));
      }
      if (state !== "offline") banner.replaceChildren();
    }

    // A browser has few connections for one server, for all of its tabs and what it keeps of pages that
    // were left: who is not looked at holds none.
    function mute() {
      source?.close();
      source = null;
      if (state === "live") become("polling");
    }

    function wake() {
      if (state === "offline") {
        attempt();
        return;
      }
      listen();
      everything();
    }

    function listen() {
      mute();
      if (document.hidden) return;
      source = new EventSource(new URL("api/events", BASE));
      source.onopen = () => become("live");
      source.onerror = () => {
        // The browser would try again by itself, but could not say why it failed.
        const broke = state === "live";
        mute();
        attempt(broke);
      };
      source.addEventListener("figures", () => figures.load());
      // It is on its way to the store.
      source.addEventListener("trace", () => setTimeout(traces.peek, STORED_MS));
      source.addEventListener("missed", () => everything());
      source.addEventListener("breaker", (event) => {
        breakers.changed(JSON.parse(event.data));
        figures.load();
      });
    }

    // Whether the server is there; if it is, everything is read again.
    async function attempt(soon = false) {
      clearTimeout(again);
      try {
        await ask("health/live").catch((error) => {
          if (isGone(error)) throw error;
        });
      } catch {
        lost();
        return;
      }
      const wasGone = state === "offline";
      failures = 0;
      lastSeen = Date.now();
      if (state !== "live") become("polling");
      if (wasGone) everything();
      // One that refuses readers is asked again later; one that came back, at once.
      if (!source && (wasGone || soon)) again = setTimeout(listen, wasGone ? 0 : 1000);
    }

    function lost() {
      mute();
      become("offline");
      clearTimeout(again);
      again = setTimeout(attempt, 1000 * waits[Math.min(failures, waits.length - 1)]);
      failures += 1;
    }

    function everything() {
      about.load().then(traces.peek);
      figures.load();
      trace.retry();
    }

    function start() {
      show();
      listen();
      // Figures move on while nothing happens: what is 60 s ago leaves the picture.
      let last = 0;
      setInterval(() => {
        const now = performance.now();
        const wait = document.hidden ? HIDDEN_MS : state === "live" ? QUIET_MS : POLL_MS;
        if (state === "offline" || now - last < wait) return;
        last = now;
        figures.load();
        traces.peek();
      }, 500);
      setInterval(() => {
        if (!source && state !== "offline") listen();
      }, AGAIN_MS);
      document.addEventListener("visibilitychange", () => (document.hidden ? mute() : wake()));
      window.addEventListener("pagehide", mute);
      window.addEventListener("pageshow", (event) => event.persisted && wake());
      window.addEventListener("online", () => attempt());
    }

    function reached() {
      lastSeen = Date.now();
    }

    return { start, lost, reached, isGone: () => state === "offline" };
  })();

  // ===== the address =====

  const FIELDS = ["status", "name", "target", "q", "min_ms", "since"];

  const address = {
    read() {
      const at = new URLSearchParams(location.search);
      const filters = Object.fromEntries(FIELDS.map((field) => [field, at.get(field) ?? ""]));
      filters.status ||= "failed";
      return { filters, trace: at.get("trace"), span: at.get("span"), breakers: at.get("breakers") ?? "" };
    },

    of({ filters, trace: id, span, breakers: part }) {
      const to = new URLSearchParams();
      for (const field of FIELDS) {
        if (filters[field] && !(field === "status" && filters.status === "failed")) to.set(field, filters[field]);
      }
      if (part) to.set("breakers", part);
      if (id) to.set("trace", id);
      if (id && span) to.set("span", span);
      const query = to.toString();
      return query ? `?${query}` : location.pathname;
    },

    write(change, how = "push") {
      const url = address.of({ ...address.read(), ...change });
      if (url === (location.search || location.pathname)) return;
      if (how === "push") history.pushState({ within: true }, "", url);
      else history.replaceState(history.state, "", url);
    },
  };

  // ===== what this browser remembers =====

  // Some refuse to remember anything; then it is kept until the page is left.
  function memory(store, key) {
    let value = "";
    return {
      get() {
        try {
          return window[store].getItem(key) ?? value;
        } catch {
          return value;
        }
      },
      set(next) {
        value = next;
        try {
          if (next) window[store].setItem(key, next);
          else window[store].removeItem(key);
        } catch {
          // It is in `value`.
        }
      },
    };
  }

  // ===== the token, and asking before something is changed =====

  const NO_TOKEN = "No token is configured in the program, so nothing can be changed from here.";
  const secret = memory("sessionStorage", "portcullis-token");

  const token = {
    get: secret.get,
    set(value) {
      secret.set(value);
      token.show();
    },
    show() {
      const node = byId("token");
      node.hidden = !about.takesToken();
      const key = icon(16, svg("circle", { class: "own", cx: 5, cy: 8, r: 2.8 }), stroke("M7.8 8H14v2.4M11.2 8v1.8"));
      node.replaceChildren(key, token.get() ? "Token set" : "Token");
      set(node, "aria-label", token.get() ? "Token is set: change or forget it" : "Enter the token for changes");
    },
    enter() {
      confirm({
        title: "Token for changes",
        text: "Needed to reset or force breakers and to reset figures. Kept until this tab is closed.",
        verb: "Keep",
        needsToken: true,
        forget: Boolean(token.get()),
        run: (entered) => token.set(entered),
      });
    },
  };

  // A dialog that does one thing, or says why it could not.
  function confirm({ title, text, verb, danger, needsToken, forget, run }) {
    const dialog = byId("ask");
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const input = h("input", {
      type: "password", id: "ask-token", name: "token", autocomplete: "off", required: true, maxlength: 4096,
    });
    const field = h("label", { class: "field", for: "ask-token" }, h("span", null, "Token"), input);
    const go = h("button", { type: "submit", class: danger ? "danger" : "primary" }, verb);
    const form = h("form", null,
      h("h2", { id: "ask-title" }, title),
      h("p", null, text),
      (needsToken || !token.get()) && field,
      problem,
      h("div", { class: "row" },
        forget && button({ click: () => { token.set(""); dialog.close(); } }, "Forget it"),
        button({ click: () => dialog.close() }, "Cancel"),
        go));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const entered = input.isConnected ? input.value.trim() : token.get();
      go.disabled = true;
      problem.hidden = true;
      try {
        await run(entered);
        if (input.isConnected) token.set(entered);
        dialog.close();
      } catch (error) {
        if (!isGone(error) && !(error instanceof Problem)) throw error;
        problem.hidden = false;
        problem.textContent = isGone(error) ? "The server does not answer." : refusal(error);
        if (error.status === 401) {
          token.set("");
          if (!input.isConnected) problem.before(field);
          input.value = "";
          input.focus();
        }
      } finally {
        go.disabled = false;
      }
    });
    dialog.replaceChildren(form);
    dialog.showModal();
    (input.isConnected ? input : go).focus();
  }

  function refusal(error) {
    if (error.status === 401) return "The token was refused.";
    if (error.status === 403) return NO_TOKEN;
    return error.message;
  }

  const announce = (words) => say(byId("said"), words);

  // ===== about and health =====

  const about = (() => {
    let known = null;

    async function load() {
      known = await ask("api/about").catch((error) => {
        stumble(error);
        return known;
      });
      if (!known) return;
      say(byId("title"), clip(known.title, 200));
      byId("home").title = `Portcullis ${known.version}`;
      byId("figures-reset").hidden = !known.token;
      token.show();
      named();
    }

    return {
      load,
      isKnown: () => known !== null,
      title: () => known?.title ?? "Portcullis",
      takesToken: () => Boolean(known?.token),
      hasStore: () => Boolean(known?.store),
    };
  })();

  let open = 0;
  function named() {
    const mark = open > 0 ? `(${open} open) ` : "";
    document.title = `${mark}${clip(trace.name() ?? about.title(), 80)}${trace.name() ? ` · ${clip(about.title(), 40)}` : ""}`;
  }

  function showHealth(health) {
    const halfOpen = health.open.filter((b) => b.state === "half-open").length;
    open = health.open.length - halfOpen;
    const node = byId("health");
    const kind = { ok: "closed", degraded: "open" }[health.status] ?? "disabled";
    node.className = `health is-${kind}`;
    const parts = [open > 0 && `${count(open)} open`, halfOpen > 0 && `${count(halfOpen)} half-open`].filter(Boolean);
    const words = health.status === "ok" ? "all well" : [health.status, parts.join(", ")].filter(Boolean).join(": ");
    if (node.dataset.words !== words) {
      node.dataset.words = words;
      node.replaceChildren(glyph(kind), h("span", null, words));
    }
    node.title = health.open.slice(0, 20).map((b) => clip(b.key ? `${b.name} ${b.key}` : b.name, 80)).join("\n");
    showCounts(health.traces);
    named();
  }

  function showCounts(counts) {
    const node = byId("counts");
    node.hidden = !counts;
    if (!counts) return;
    const lost = counts.dropped + counts.lost;
    const why = `${count(counts.dropped)} dropped for want of room, ${count(counts.lost)} lost by the store`;
    const shown = [
      [counts.seen === 1 ? "trace" : "traces", counts.seen, "Traces that came to their end", ""],
      ["kept", counts.kept, "Traces that were kept: failures, retries, slow ones, and a share of the rest", ""],
      ["dropped", lost, why, lost ? "is-open" : ""],
    ];
    if (counts.waiting > 0) shown.push(["waiting", counts.waiting, "Traces on their way to the store", ""]);
    list(node, shown, ([word]) => word, ([word]) => {
      const figure = h("b");
      const node = h("span", null, figure, ` ${word}`);
      return {
        node,
        update([, n, tells, bad]) {
          say(figure, compact(n));
          set(node, "title", tells);
          set(node, "class", bad);
        },
      };
    });
  }

  // ===== figures: breakers, targets, limits, health =====

  const figures = (() => {
    async function section(place, path, show, words) {
      if (!place.firstChild && !place.dataset.known) place.append(note("loading", `Reading ${words} …`));
      try {
        const answer = await ask(path);
        place.dataset.known = "yes";
        place.replaceChildren();
        show(answer);
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        place.replaceChildren(note("problem", `Could not read ${words}. ${error.message}`));
      }
    }

    async function optional(path, show, none) {
      show(await ask(path).catch((error) => {
        if (!(error instanceof Problem)) throw error;
        return none;
      }));
    }

    const load = paced(() => Promise.all([
      section(byId("breakers-note"), "api/breakers", breakers.show, "breakers"),
      section(byId("targets-note"), "api/targets", targets.show, "targets"),
      optional("api/limits", limits.show, { limits: [] }),
      optional("health", showHealth, { status: "unknown", open: [], traces: null }),
    ]), 900);

    function reset() {
      confirm({
        title: "Reset the figures?",
        text: "Counts, percentiles and spark lines of all targets begin anew. Breakers, limits and traces stay as they are.",
        verb: "Reset figures",
        run: async (entered) => {
          await post("api/metrics/reset", entered);
          announce("The figures begin anew.");
          load();
        },
      });
    }

    return { load, reset };
  })();

  // Last 60 s: what went well above the line, what failed and what was refused below it.
  function spark() {
    const ok = svg("path", { class: "ok" });
    const failed = svg("path", { class: "failed" });
    const rejected = svg("path", { class: "rejected" });
    const line = svg("path", { class: "line" });
    const node = svg("svg", { class: "spark", viewBox: "0 0 60 26", preserveAspectRatio: "none", role: "img" },
      ok, failed, rejected, line);
    const bars = (seconds, from, of, up, unit) => {
      let d = "";
      seconds.forEach((second, x) => {
        const height = of(second) * unit;
        if (height > 0) d += `M${x + 0.1} ${(from(second)).toFixed(2)}h.8v${(up ? -height : height).toFixed(2)}h-.8z`;
      });
      return d;
    };
    function update(counted) {
      const seconds = counted ?? [];
      const up = Math.max(...seconds.map(([good]) => good), 0);
      const down = Math.max(...seconds.map(([, bad, refused]) => bad + refused), 0);
      const unit = up + down > 0 ? 25 / (up + down) : 0;
      const zero = up + down > 0 ? 0.5 + up * unit : 25.5;
      set(ok, "d", bars(seconds, () => zero, ([good]) => good, true, unit));
      set(failed, "d", bars(seconds, () => zero, ([, bad]) => bad, false, unit));
      set(rejected, "d", bars(seconds, ([, bad]) => zero + bad * unit, ([, , refused]) => refused, false, unit));
      set(line, "d", `M0 ${zero.toFixed(2)}H60`);
      const sum = (at) => seconds.reduce((total, second) => total + second[at], 0);
      const told = `last 60 s: ${count(sum(0))} ok, ${count(sum(1))} failed, ${count(sum(2))} rejected`;
      const words = counted ? told : "not observed";
      set(node, "aria-label", words);
      return words;
    }
    return { node, update };
  }

  // ===== breakers =====

  const breakers = (() => {
    const STATES = ["open", "forced-open", "half-open", "forced-closed", "disabled", "closed"];
    const WORDS = {
      closed: "closed", open: "open", "half-open": "half-open",
      "forced-open": "forced open", "forced-closed": "forced closed", disabled: "disabled",
    };
    // So many closed ones get a whole tile, and so many of the others; more of them become lines.
    const CLOSED = 12;
    const TILES = 24;
    const LINES = 30;
    let known = [];
    let omitted = 0;
    let all = false;

    const keyOf = (b) => JSON.stringify([b.name, b.key, b.shared]);
    const hasKey = ({ name, key }) => key !== null && key !== name;

    function label(b) {
      if (b.shared) return `${b.name} (shared by further keys)`;
      return hasKey(b) ? `${b.name} ${b.key}` : b.name;
    }

    function show(answer) {
      known = answer.breakers;
      omitted = answer.omitted ?? 0;
      render();
    }

    function render() {
      const part = byId("breakers-filter").value.trim().toLowerCase();
      const shown = known.filter((b) => label(b).toLowerCase().includes(part));
      shown.sort((a, b) => STATES.indexOf(a.state) - STATES.indexOf(b.state));
      const other = shown.filter((b) => b.state !== "closed");
      const isFew = shown.length - other.length <= CLOSED && shown.length <= TILES;
      const tiles = isFew ? shown : other.slice(0, TILES);
      const rest = shown.slice(tiles.length);
      list(byId("tiles"), tiles, keyOf, tile);
      list(byId("closed"), all ? rest : rest.slice(0, LINES), keyOf, line);
      byId("closed").hidden = rest.length === 0;
      const more = byId("closed-more");
      more.hidden = rest.length <= LINES;
      say(more, all ? "Show fewer" : `Show all ${count(rest.length)} ${other.length > TILES ? "others" : "closed ones"}`);
      byId("breakers-find").hidden = known.length <= CLOSED && !part;
      const words = remark(shown.length);
      byId("breakers-note").replaceChildren(...(words ? [note("empty", words)] : []));
      sum();
    }

    function remark(shown) {
      if (known.length === 0) {
        return "No breaker yet. A stack's breakers appear here once it is built and known to the registry; those by "
          + "key with the first call for it.";
      }
      if (shown === 0) return `None of ${count(known.length)} breakers has this in its name.`;
      return omitted > 0 ? `${count(omitted)} more closed ones are not listed: there are too many.` : "";
    }

    function sum() {
      const node = byId("breakers-sum");
      const totals = STATES.map((state) => [state, known.filter((b) => b.state === state).length]).filter(([, n]) => n > 0);
      list(node, totals, ([state]) => state, ([state]) => {
        const words = h("span");
        const node = h("span", { class: `tag is-${state}` }, glyph(state), words);
        return { node, update: ([, n]) => say(words, `${count(n)} ${WORDS[state]}`) };
      });
    }

    function tile(first) {
      let current = first;
      let at = performance.now();
      const name = h("h3", null, foreign(first.name), keyPart(first));
      const state = h("span", { class: "state" });
      const since = h("span", { class: "since" });
      const why = h("p", { class: "why" });
      const gauges = h("div", { class: "gauges" });
      const picture = spark();
      const foot = h("p", { class: "foot" });
      const node = h("article", { class: `tile is-${first.state}`, "aria-label": clip(label(first), 200) },
        h("header", null, name, menu(() => current)), h("p", { class: "is" }, state, since), gauges, picture.node, foot, why);
      const parts = {
        left: countdown(),
        probes: pips("good probes"),
        rate: gauge("failure rate"),
        slow: gauge("slow calls"),
        row: pips("failures in a row"),
      };

      function update(b) {
        const before = current.state;
        current = b;
        at = performance.now();
        if (before !== b.state || !state.firstChild) {
          state.replaceChildren(glyph(b.state), h("b", null, WORDS[b.state] ?? b.state));
          node.classList.replace(`is-${before}`, `is-${b.state}`);
          if (before !== b.state) flash(node);
        }
        const shown = measures(b).map(([part, ...values]) => [parts[part], values]);
        list(gauges, shown, ([part]) => part, ([part]) => ({ node: part.node, update: ([, values]) => part.update(...values) }));
        const words = picture.update(b.spark);
        say(foot, words);
        const told = reason(b);
        why.hidden = !told;
        say(why, clip(told, 400));
        set(why, "title", told.length > 90 ? clip(told, 1000) : null);
        set(since, "title", b.since ? `since ${when(b.since)}` : null);
        tick();
      }

      function tick() {
        const passed = performance.now() - at;
        // Whose generation is its first has never changed; of another it is not known where nobody heard it.
        const unheard = current.generation === 1 ? "since the start" : "";
        say(since, current.for_ms === null ? unheard : `for ${age(current.for_ms + passed)}`);
        if (current.state === "open") parts.left.tick(passed);
      }

      return { node, update, tick };
    }

    // What there is to measure in its state, and against what. Of one that lets nothing through there is nothing
    // to count.
    function measures(b) {
      const t = b.thresholds;
      if (b.state === "open") return [["left", b]];
      if (b.state === "forced-open") return [];
      if (b.state === "half-open") return [["probes", b.probes_succeeded, b.probes_needed, `${count(b.probes)} out`]];
      return [
        t.failure_rate !== null && ["rate", b.failure_rate, t.failure_rate, b.calls, t],
        t.slow_rate !== null && ["slow", b.slow_rate, t.slow_rate, b.calls, t],
        t.consecutive_failures !== null && ["row", b.failures_in_a_row, t.consecutive_failures],
      ].filter(Boolean);
    }

    function reason(b) {
      if (b.state.startsWith("forced")) return "by hand: its own judgement does not count until it is automatic again";
      if (b.state === "disabled") return `would be ${WORDS[b.judged] ?? b.judged}; every call passes`;
      if (b.state !== "closed") return b.tripped_by ? `tripped: ${b.tripped_by}` : "";
      return (b.ramp_share ?? 1) < 1 ? `just closed: ${percent(b.ramp_share)} of calls are admitted` : "";
    }

    function line(first) {
      const picture = spark();
      const share = h("span", { class: "share" });
      const state = h("span");
      let current = first;
      const node = h("article", { class: `line is-${first.state}` }, state, h("h3", null, ...short(first)), picture.node, share, menu(() => current));
      return {
        node,
        update(b) {
          if (current.state !== b.state || !state.firstChild) {
            state.replaceChildren(glyph(b.state));
            node.classList.replace(`is-${current.state}`, `is-${b.state}`);
          }
          current = b;
          const words = picture.update(b.spark);
          say(share, percent(b.failure_rate));
          const name = clip(label(b), 200);
          set(node, "aria-label", `${name}, ${WORDS[b.state] ?? b.state}`);
          set(node, "title", `${name}\n${WORDS[b.state] ?? b.state}, failure rate ${percent(b.failure_rate)}\n${words}`);
        },
      };
    }

    // Where there is a key, it is what tells one from the next.
    function short(b) {
      if (b.shared || !hasKey(b)) return [foreign(b.name), keyPart(b)];
      return [foreign(b.key), h("span", { class: "keyed" }, foreign(b.name))];
    }

    function keyPart(b) {
      if (b.shared) return h("span", { class: "keyed" }, "shared by further keys");
      return hasKey(b) && h("span", { class: "keyed" }, foreign(b.key));
    }

    // A share against the share that trips.
    function gauge(words) {
      const value = h("b");
      const tells = h("span");
      const fill = bar("fill");
      const tick = svg("rect", { class: "tick", width: 2, height: 10, y: -2 });
      const node = h("div", { class: "gauge" },
        h("p", null, h("span", null, words), value), scale(fill, tick), h("p", { class: "fine" }, tells));
      return {
        node,
        update(share, limit, calls, t) {
          say(value, percent(share));
          set(fill, "width", `${100 * Math.min(1, share ?? 0)}%`);
          set(tick, "x", `${100 * limit}%`);
          set(node, "class", `gauge ${share !== null && share >= limit ? "over" : ""}`);
          const early = calls < t.minimum_calls ? `, from ${count(t.minimum_calls)} calls on` : "";
          say(tells, `of ${plural(calls, "call")} in ${t.window}; trips at ${percent(limit)}${early}`);
        },
      };
    }

    // A few that are counted against a few that are needed or allowed.
    function pips(words) {
      const MOST = 12;
      const value = h("b");
      const row = meter();
      const node = h("div", { class: "gauge" }, h("p", null, h("span", null, words), value), row);
      return {
        node,
        update(n, limit, also) {
          say(value, `${count(n)} of ${count(limit)}${also ? `, ${also}` : ""}`);
          const cells = Math.min(limit, MOST);
          const full = Math.min(cells, Math.round((n / limit) * cells));
          set(node, "class", `gauge ${!also && n >= limit ? "over" : ""} ${also ? "good" : ""}`);
          if (row.dataset.shown === `${full}/${cells}`) return;
          row.dataset.shown = `${full}/${cells}`;
          const wide = (100 - 1.5 * (cells - 1)) / cells;
          row.replaceChildren(...Array.from({ length: cells }, (_, i) => svg("rect", {
            class: i < full ? "fill" : "track", x: `${i * (wide + 1.5)}%`, width: `${wide}%`, height: 6, rx: 3,
          })));
        },
      };
    }

    function countdown() {
      const value = h("b");
      const words = h("span", null, "half-open in");
      const fill = bar("fill");
      const node = h("div", { class: "gauge" }, h("p", null, words, value), scale(fill));
      let of = null;
      function tick(passed) {
        const left = of.half_open_in_ms === null ? null : Math.max(0, of.half_open_in_ms - passed);
        say(words, left === 0 ? "half-open" : "half-open in");
        const exact = left !== null && left < 60_000 ? `${(left / 1000).toFixed(1)} s` : took(left);
        say(value, left === 0 ? "with the next call" : exact);
        set(fill, "width", `${left === null ? 0 : 100 * Math.min(1, left / (of.open_for_ms || left || 1))}%`);
      }
      return { node, update: (b) => { of = b; tick(0); }, tick };
    }

    function flash(node) {
      node.classList.remove("changed");
      void node.offsetWidth; // Begins the animation anew.
      node.classList.add("changed");
    }

    // ----- orders -----

    const ORDERS = [
      ["reset", "Reset", "It will be closed and judge by itself, with nothing counted."],
      ["open", "Force open", "Every call will be refused until you order otherwise."],
      ["close", "Force closed", "Every call will pass, whatever becomes of it, until you order otherwise."],
      ["auto", "Automatic", "Ends the order: it judges by itself again, from closed and with nothing counted."],
    ];

    // The menu that is open, if any: how to shut it, and where it is.
    let opened = null;

    function menu(current) {
      const opener = button(
        {
          class: "quiet dots", "aria-haspopup": "menu", "aria-expanded": "false",
          "aria-label": `Orders for ${clip(label(current()), 120)}`, click: () => (box.hidden ? show(0) : shut()),
        },
        icon(16, ...[3, 8, 13].map((x) => svg("circle", { cx: x, cy: 8, r: 1.5 }))));
      const items = ORDERS.map(([order, words, tells]) => {
        const click = () => {
          shut();
          opener.focus();
          command(current(), order, words, tells);
        };
        return button({ role: "menuitem", tabindex: "-1", click }, words);
      });
      const box = h("div", { class: "menu", role: "menu", hidden: true });
      const node = h("div", { class: "orders" }, opener, box);
      const card = () => node.closest(".tile, .line");

      function shut() {
        box.hidden = true;
        set(opener, "aria-expanded", "false");
        card()?.classList.remove("raised");
        opened = null;
      }
      function show(at) {
        opened?.shut();
        opened = { node, shut };
        box.replaceChildren(...(about.takesToken() ? items : [h("p", null, NO_TOKEN)]));
        box.hidden = false;
        set(opener, "aria-expanded", "true");
        card()?.classList.add("raised");
        items.at(at).focus();
      }
      node.addEventListener("keydown", (event) => {
        const at = items.indexOf(document.activeElement);
        const to = { ArrowDown: at + 1, ArrowUp: at < 0 ? -1 : at - 1, Home: 0, End: -1 }[event.key];
        if (event.key === "Escape" && !box.hidden) {
          shut();
          opener.focus();
        } else if (to !== undefined) {
          event.preventDefault();
          if (box.hidden) show(to);
          else items.at(to % items.length).focus();
        }
      });
      node.addEventListener("focusout", (event) => {
        if (event.relatedTarget && !node.contains(event.relatedTarget)) shut();
      });
      return node;
    }

    function command(b, order, words, tells) {
      confirm({
        title: `${words}: ${clip(label(b), 120)}?`,
        text: tells,
        verb: words,
        danger: order === "open" || order === "close",
        run: async (entered) => {
          const key = b.key === null ? "" : `?key=${encodeURIComponent(b.key)}`;
          await post(`api/breakers/${encodeURIComponent(b.name)}/${order}${key}`, entered);
          announce(`${words}: done for ${clip(label(b), 120)}.`);
          figures.load();
        },
      });
    }

    // Told by the server as it happens.
    function changed(change) {
      const [from, to] = [change.from, change.to].map((state) => WORDS[state] ?? state);
      byId("latest").replaceChildren(
        h("time", { datetime: change.at }, CLOCK.format(new Date(change.at))), " ",
        h("b", null, foreign(label(change), 80)), ` ${from} → ${to}: `, foreign(change.why, 160));
    }

    function tick() {
      for (const entry of entries(byId("tiles"))) entry.tick();
    }

    function start() {
      const input = byId("breakers-filter");
      input.value = address.read().breakers;
      input.addEventListener("input", () => {
        address.write({ breakers: input.value.trim() }, "replace");
        render();
      });
      byId("closed-more").addEventListener("click", () => {
        all = !all;
        render();
      });
      document.addEventListener("pointerdown", (event) => {
        if (opened && !opened.node.contains(event.target)) opened.shut();
      });
    }

    return { show, changed, tick, start, keyPart };
  })();

  // ===== targets =====

  const targets = (() => {
    // Of each column: its words, what they mean, and what it is sorted by, the worst first.
    const COLUMNS = {
      name: ["Target", null, null],
      success: ["Success, of calls and of attempts", null, (t) => -(t.effective ?? 1)],
      rate: ["Rate", "calls per second, over the last 60 s", (t) => t.rate_60s],
      active: ["Active", "calls under way now", (t) => t.in_flight],
      p50: ["p50", "half of the calls took no longer, to the end of the body", (t) => t.p50_ms],
      p95: ["p95", "95 of 100 calls took no longer", (t) => t.p95_ms],
      p99: ["p99", "99 of 100 calls took no longer", (t) => t.p99_ms],
      retries: ["Retries", "retries per call", (t) => t.retries_per_call],
      timeouts: ["Timeouts", "calls that timed out", (t) => t.timeouts],
      limited: ["Limited", "calls that waited for a limit, or were refused by one", (t) => t.limited],
      rejected: ["Rejected", "calls that a breaker refused", (t) => t.breaker_rejected],
    };
    const FEW = 15;
    const unfolded = new Set();
    let known = [];
    let all = false;
    let sorted = null;
    // The order stays while it is read: it is made anew for another column, or for other targets.
    let order = [];

    function show(answer) {
      const before = known.length;
      known = answer.targets;
      const isEmpty = known.length === 0;
      byId("targets-table").hidden = isEmpty;
      byId("targets-legend").hidden = isEmpty;
      say(byId("targets-sum"), isEmpty ? "" : `since ${when(answer.since)}`);
      if (isEmpty) byId("targets-note").replaceChildren(note("empty", "No call yet. Each target gets a row with the first call to it."));
      // Of many, those that do worst are the ones to see.
      if (known.length !== before) sort(sorted ?? (known.length > FEW ? "success" : "name"));
      render();
    }

    function sort(column) {
      sorted = column;
      const worth = COLUMNS[column][2];
      const items = worth ? [...known].sort((a, b) => (worth(b) ?? -1) - (worth(a) ?? -1)) : known;
      order = items.map((t) => t.name);
      for (const head of byId("targets-heads").children) {
        const isIt = head.dataset.column === column;
        set(head, "aria-sort", isIt ? (worth && column !== "success" ? "descending" : "ascending") : null);
      }
    }

    function render() {
      const byName = new Map(known.map((t) => [t.name, t]));
      const items = order.map((name) => byName.get(name)).filter(Boolean);
      const shown = all ? items : items.slice(0, FEW);
      const rows = shown.flatMap((t) => (unfolded.has(t.name) ? [[t, row], [t, errors]] : [[t, row]]));
      list(byId("targets-body"), rows, ([t, make]) => `${make.name} ${t.name}`, ([t, make]) => make(t));
      const more = byId("targets-more");
      more.hidden = items.length <= FEW;
      say(more, all ? "Show fewer" : `Show all ${count(items.length)} targets`);
    }

    function start() {
      byId("targets-heads").append(...Object.entries(COLUMNS).map(([column, [words, tells]]) =>
        h("th", { scope: "col", "data-column": column, class: column !== "name" && column !== "success" && "n" },
          button({ class: "quiet", title: tells, click: () => { sort(column); render(); } }, words))));
      byId("targets-more").addEventListener("click", () => {
        all = !all;
        render();
      });
    }

    function row(first) {
      const fold = button({
        class: "quiet fold", "aria-label": `Outcomes of ${clip(first.name, 120)}`,
        click() {
          if (!unfolded.delete(first.name)) unfolded.add(first.name);
          render();
        },
      }, chevron());
      const effective = h("b");
      const actual = h("span");
      const success = shares();
      const cellOf = (column) => [column, h("td", { class: "n", "data-label": COLUMNS[column][0] })];
      const cell = Object.fromEntries(Object.keys(COLUMNS).slice(2).map(cellOf));
      const node = h("tr", null,
        h("th", { scope: "row" }, h("div", null, fold, foreign(first.name))),
        h("td", { class: "success" }, h("p", null, effective, " ", actual), success.node),
        Object.values(cell));

      function figure(name, words, mood, title) {
        say(cell[name], words);
        set(cell[name], "title", title);
        set(cell[name], "class", `n ${words === "0" || words === NONE ? "zero" : mood ?? ""}`);
      }

      function update([t]) {
        set(fold, "aria-expanded", String(unfolded.has(t.name)));
        say(effective, percent(t.effective));
        say(actual, `${percent(t.actual)} of ${plural(t.attempts, "attempt")}`);
        success.update(t);
        figure("rate", rate(t.rate_60s));
        figure("active", count(t.in_flight));
        figure("p50", took(t.p50_ms));
        figure("p95", took(t.p95_ms));
        figure("p99", took(t.p99_ms));
        const retries = `${plural(t.retries, "retry", "retries")} in ${plural(t.started, "call")}`;
        figure("retries", t.retries_per_call === null ? NONE : trim(t.retries_per_call, 2), "", retries);
        figure("timeouts", compact(t.timeouts), "warn");
        figure("limited", compact(t.limited));
        figure("rejected", compact(t.breaker_rejected), "refused");
      }

      return { node, update };
    }

    // What succeeded at the first try, what only retries made a success, and what was lost.
    function shares() {
      const actual = svg("rect", { class: "first", height: 8 });
      const rescued = svg("rect", { fill: "url(#hatch)", class: "is-success", height: 8 });
      const tick = svg("rect", { class: "tick", width: 2, height: 12, y: -2 });
      const node = svg("svg", { class: "shares", height: 8, width: "100%", overflow: "visible", role: "img" },
        svg("rect", { class: "lost", width: "100%", height: 8 }), rescued, actual, tick);
      return {
        node,
        update(t) {
          const both = [t.actual ?? 0, t.effective ?? 0];
          const low = Math.min(...both);
          node.classList.toggle("none", t.effective === null && t.actual === null);
          set(actual, "width", `${100 * low}%`);
          set(rescued, "x", `${100 * low}%`);
          set(rescued, "width", `${100 * Math.max(0, both[1] - low)}%`);
          set(tick, "x", `${100 * both[1]}%`);
          set(node, "aria-label", `${percent(t.effective)} of calls succeeded, ${percent(t.actual)} of attempts`);
        },
      };
    }

    function errors() {
      const outcomes = h("p", { class: "outcomes" });
      const body = h("ul", { class: "kinds" });
      const node = h("tr", { class: "unfolded" }, h("td", { colspan: 11 }, outcomes, body));
      return {
        node,
        update([t]) {
          const ended = Object.entries(t.outcomes).filter(([, n]) => n > 0).map(([word, n]) => `${count(n)} ${word}`);
          say(outcomes, [
            `${plural(t.ended, "call")} ended${ended.length > 0 ? ": " : ""}${ended.join(", ")}`,
            t.polls > 0 && plural(t.polls, "poll"),
            t.budget !== null && `${trim(t.budget, 1)} retries left in the budget`,
          ].filter(Boolean).join(" · "));
          const kinds = Object.entries(t.errors).sort((a, b) => b[1] - a[1]);
          const most = Math.max(...kinds.map(([, n]) => n), 1);
          list(body, kinds, ([kind]) => kind, ([kind]) => {
            const figure = h("b");
            const fill = bar("fill");
            return {
              node: h("li", null, foreign(kind, 80), figure, meter(fill)),
              update([, n]) {
                say(figure, count(n));
                set(fill, "width", `${(100 * n) / most}%`);
              },
            };
          });
          set(node, "aria-label", `Outcomes of ${clip(t.name, 120)}`);
        },
      };
    }

    return { show, start };
  })();

  // ===== limits =====

  const limits = (() => {
    const PERIODS = { 1000: "a second", 60_000: "a minute", 3_600_000: "an hour", 86_400_000: "a day" };

    // So many are shown unless more are asked for; always as many, so that nothing below them moves.
    const FEW = 8;
    let known = [];
    let all = false;

    function show(answer) {
      known = answer.limits;
      render();
    }

    function render() {
      byId("limits").hidden = known.length === 0;
      byId("to-limits").hidden = known.length === 0;
      const tight = (a, b) => Number(Boolean(b.held)) - Number(Boolean(a.held)) || a.left / a.burst - b.left / b.burst;
      const shown = all || known.length <= FEW ? known : [...known].sort(tight).slice(0, FEW);
      say(byId("limits-sum"), shown.length < known.length ? `the ${count(FEW)} tightest of ${count(known.length)}` : "");
      const more = byId("limits-more");
      more.hidden = known.length <= FEW;
      say(more, all ? "Show fewer" : `Show all ${count(known.length)} limits`);
      list(byId("limits-list"), shown, (l) => JSON.stringify([l.name, l.key, l.shared]), item);
    }

    function start() {
      byId("limits-more").addEventListener("click", () => {
        all = !all;
        render();
      });
    }

    function item(first) {
      const left = h("b");
      const rule = h("span", { class: "fine" });
      const wait = h("span", { class: "fine" });
      const fill = bar("fill");
      const node = h("li", null,
        h("p", null, h("span", null, foreign(first.name), breakers.keyPart(first)), left),
        scale(fill),
        h("p", null, rule, wait));
      return {
        node,
        update(l) {
          say(left, `${count(l.left)} left`);
          say(rule, `${count(l.limit)} ${PERIODS[l.per_ms] ?? `in ${took(l.per_ms)}`}, ${count(l.burst)} at once`);
          say(wait, l.held ? "held back" : l.wait_ms > 0 ? `next in ${took(l.wait_ms)}` : "");
          set(fill, "width", `${100 * Math.min(1, l.left / l.burst)}%`);
          set(node, "class", l.held || l.left === 0 ? "spent" : null);
        },
      };
    }

    return { show, start };
  })();

  // ===== traces =====

  const traces = (() => {
    const PAGE = 50;
    const MINUTE = 60_000;
    const SPANS = { "5m": 5 * MINUTE, "15m": 15 * MINUTE, "1h": 60 * MINUTE, "24h": 1440 * MINUTE, "7d": 10_080 * MINUTE };
    const keyOf = (t) => `${t.id} ${t.span}`;
    let rows = [];
    let next = null;
    let page = null; // A newer first page than the one that is shown.
    let asked = 0;
    let known = false;
    let editing = null;
    let filtered = null; // The filters of what is shown, or null if that is none.

    function query(filters, cursor) {
      const ask = new URLSearchParams({ limit: PAGE });
      for (const field of ["name", "target", "q", "min_ms"]) if (filters[field]) ask.set(field, filters[field]);
      if (filters.status !== "all") ask.set("status", filters.status);
      if (SPANS[filters.since]) ask.set("since", new Date(Date.now() + ahead - SPANS[filters.since]).toISOString());
      if (cursor) ask.set("cursor", cursor);
      return `api/traces?${ask}`;
    }

    function adopt(answer) {
      rows = answer.traces;
      next = answer.next;
      page = null;
      known = true;
      const share = answer.sampling?.rate;
      say(byId("traces-sum"), share === null || share === undefined ? "" : share >= 1
        ? "every call is kept"
        : `failures, retries and slow ones: all · of the other successes ${percent(share)} are kept`);
      render();
    }

    // The list is as it was left, unless the filters are others.
    function returned() {
      fill();
      if (JSON.stringify(address.read().filters) !== filtered) load();
    }

    async function load() {
      if (!about.isKnown()) return;
      if (!about.hasStore()) {
        byId("filters").hidden = true;
        byId("traces-note").replaceChildren(note("empty", "No trace store is configured in the program: no call is kept."));
        return;
      }
      const mine = ++asked;
      const { filters } = address.read();
      filtered = JSON.stringify(filters);
      const place = byId("traces-list");
      if (known) place.classList.add("stale");
      else byId("traces-note").replaceChildren(note("loading", "Reading traces …"));
      try {
        const answer = await ask(query(filters));
        if (mine === asked) adopt(answer);
      } catch (error) {
        filtered = null;
        stumble(error);
        if (mine === asked && error instanceof Problem) failed(error);
      } finally {
        if (mine === asked) place.classList.remove("stale");
      }
    }

    function failed(error) {
      rows = [];
      next = null;
      known = false;
      render();
      filtered = null;
      byId("traces-note").replaceChildren(note("problem", `Could not read traces. ${error.message}`));
    }

    // Looks for newer ones, without moving what is being read.
    const peek = paced(async () => {
      if (byId("overview").hidden || !about.hasStore()) return;
      if (filtered === null) {
        await load();
        return;
      }
      const mine = asked;
      const filters = address.read().filters;
      let answer;
      try {
        answer = await ask(query(filters));
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        return;
      }
      if (mine !== asked) return;
      if (rows.length === 0) {
        adopt(answer);
        return;
      }
      const seen = new Set(rows.map(keyOf));
      const fresh = answer.traces.filter((t) => !seen.has(keyOf(t))).length;
      page = fresh > 0 ? answer : null;
      showFresh(fresh, answer.next !== null && fresh === answer.traces.length);
    }, 2000);

    function showFresh(fresh, andMore) {
      const node = byId("fresh");
      node.hidden = fresh === 0;
      say(node, `${fresh}${andMore ? "+" : ""} new`);
      set(node, "aria-label", `Show ${fresh}${andMore ? " or more" : ""} new traces`);
    }

    async function more() {
      const opener = byId("traces-more");
      const mine = asked;
      opener.disabled = true;
      try {
        const answer = await ask(query(address.read().filters, next));
        if (mine !== asked) return;
        const seen = new Set(rows.map(keyOf));
        const first = answer.traces.find((t) => !seen.has(keyOf(t)));
        rows = rows.concat(answer.traces.filter((t) => !seen.has(keyOf(t))));
        next = answer.next;
        render();
        if (first) kept.get(byId("traces-list")).get(keyOf(first)).node.querySelector("a").focus({ preventScroll: true });
      } catch (error) {
        stumble(error);
        if (error instanceof Problem) failed(error);
      } finally {
        opener.disabled = false;
      }
    }

    function render() {
      const slowest = Math.max(...rows.map((t) => t.duration_ms), 1);
      list(byId("traces-list"), rows.map((t) => [t, slowest]), ([t]) => keyOf(t), row);
      byId("traces-more").hidden = !next;
      showFresh(0, false);
      suggest("known-names", rows.map((t) => t.name));
      suggest("known-targets", rows.flatMap((t) => t.targets));
      const { filters } = address.read();
      const isFiltered = FIELDS.some((field) => field !== "status" && filters[field]);
      byId("filters-clear").hidden = !isFiltered;
      if (isFiltered) set(byId("filters-more"), "aria-expanded", "true");
      const all = button({ click: () => change({ status: "all" }, "status") }, "Show all");
      byId("traces-note").replaceChildren(...(rows.length > 0 ? [] : [
        note("empty", nothing(filters, isFiltered), filters.status !== "all" && all),
      ]));
    }

    // What was seen once is suggested for as long as the page is open.
    function suggest(place, words) {
      const options = byId(place);
      const before = new Set([...options.children].map((option) => option.value));
      const fresh = [...new Set(words)].filter((word) => !before.has(word)).slice(0, 200 - before.size);
      options.append(...fresh.map((value) => h("option", { value })));
    }

    function nothing(filters, isFiltered) {
      if (filters.name || filters.target) return "No trace matches these filters. Names and targets are compared as a whole. ";
      if (isFiltered) return "No trace matches these filters. ";
      if (filters.status === "failed") return "Nothing that went wrong is kept: every call did well, or none was made yet. ";
      if (filters.status === "all") return "No trace yet. Calls through the stack appear here when they are over.";
      return `No trace with the status ${filters.status}. `;
    }

    function remark(t) {
      // What kind it was, in a word or two, before the text: `open` says more than how it was worded.
      const kind = t.error_kind?.replace(/^rejected: /, "");
      if (kind && t.error && t.error !== kind && kind !== t.status) return [h("b", null, foreign(kind, 40)), " · ", foreign(t.error, 240)];
      if (t.error ?? kind) return foreign(t.error ?? kind, 240);
      if (t.status !== "success") return "";
      if (t.sampling_rate < 1) return `stands for about ${count(Math.round(1 / t.sampling_rate))}`;
      return { retried: "after a retry", slow: "slow" }[t.kept] ?? "";
    }

    function row([first]) {
      const at = h("time", { datetime: first.started_at, title: when(first.started_at) });
      const fill = bar("fill");
      const length = scale(fill);
      length.classList.add("length");
      const more = first.targets.length > 2 ? ` +${first.targets.length - 2}` : "";
      const asked = [
        first.calls > 1 && plural(first.calls, "call"),
        first.attempts > first.calls && plural(first.attempts, "attempt"),
      ].filter(Boolean).join(", ");
      const link = h("a", {
        class: `row is-${first.status}`,
        click: (event) => follow(event, () => {
          address.write({ trace: first.id, span: first.span });
          route();
        }),
      },
        h("span", { class: "verdict" }, glyph(first.status), h("span", null, first.status)),
        h("span", { class: "name" }, foreign(first.name)),
        h("span", { class: "to" }, first.targets.slice(0, 2).flatMap((target, i) => [i > 0 && ", ", foreign(target, 120)]), more),
        h("span", { class: "asked", title: asked }, asked),
        length,
        h("span", { class: "took n" }, took(first.duration_ms)),
        h("span", { class: "words", title: first.error && clip(first.error, 1000) }, remark(first)),
        at);
      return {
        node: h("li", null, link),
        tick: () => say(at, age(Date.now() + ahead - Date.parse(first.started_at))),
        update([t, slowest]) {
          set(fill, "width", `${Math.max(1, 100 * Math.sqrt(t.duration_ms / slowest))}%`);
          set(link, "href", address.of({ ...address.read(), trace: t.id, span: t.span }));
          this.tick();
        },
      };
    }

    // ----- filters -----

    function fill() {
      const { filters } = address.read();
      const form = byId("filters").elements;
      for (const field of FIELDS) {
        // A blank at the end of what is being typed is left alone.
        if (form[field].value.trim() !== filters[field]) form[field].value = filters[field];
      }
    }

    // Typing is one step in the history, however many letters it has.
    function change(part, field) {
      address.write({ filters: { ...address.read().filters, ...part } }, editing === field ? "replace" : "push");
      editing = field;
      fill();
      load();
    }

    function start() {
      const form = byId("filters");
      let soon = 0;
      const take = ({ target: { name, value, type } }, wait) => {
        clearTimeout(soon);
        const apply = () => {
          if (address.read().filters[name] !== value.trim()) change({ [name]: value.trim() }, name);
        };
        if (wait && type !== "radio" && type !== "select-one") soon = setTimeout(apply, 250);
        else apply();
      };
      form.addEventListener("change", (event) => take(event, false));
      form.addEventListener("input", (event) => {
        // What is compared as a whole matches nothing while it is typed.
        const { list: options, value } = event.target;
        if (!options || !value || [...options.children].some((option) => option.value === value)) take(event, true);
      });
      form.addEventListener("focusout", () => { editing = null; });
      form.addEventListener("submit", (event) => event.preventDefault());
      form.addEventListener("reset", (event) => {
        event.preventDefault();
        const { status } = address.read().filters;
        change({ ...Object.fromEntries(FIELDS.map((field) => [field, ""])), status }, "all");
        form.elements.name.focus();
      });
      // In a narrow window they are out of the way until they are needed.
      const fold = byId("filters-more");
      fold.addEventListener("click", () => set(fold, "aria-expanded", String(fold.ariaExpanded !== "true")));
      byId("traces-more").addEventListener("click", more);
      byId("fresh").addEventListener("click", () => {
        if (!page) return;
        asked += 1;
        adopt(page);
        byId("traces-list").querySelector("a")?.focus({ preventScroll: true });
      });
    }

    function tick() {
      for (const entry of entries(byId("traces-list"))) entry.tick();
    }

    return { start, load, returned, peek, fill, tick };
  })();

  // ===== one trace =====

  const trace = (() => {
    const NOT_WELL = new Set(["error", "timeout", "rejected"]);
    // What is worth a mark of its own in a bar.
    const MARKED = new Set([
      "rejected", "would_reject", "retrying", "resending", "gave_up", "timed_out", "slow", "state_changed", "overflowed",
      "waited", "held_back", "signalled", "broken", "killed", "not_started", "not_understood",
    ]);
    const TOLD_OF_WAITS = new Set(["waited", "polled"]);
    // From so many rows on, only the attempts of calls that did not go well are unfolded.
    const MANY = 80;
    const MOST = 2000;
    // In a window of its own.
    const TALL = 18;
    const HEIGHT = 26;
    let id = null;
    let records = null;
    let tops = [];
    let folded = new Set();
    let narrowed = false;
    let rows = [];
    let picked = null;
    let whole = 1;
    let view = [0, 1];
    let parts = null;
    let tries = 0;

    // ----- what is shown -----

    async function show(next, span) {
      if (next === id && records) {
        if (span && span !== picked?.span) pick(rows.find((row) => row.span === span), false);
        return;
      }
      id = next;
      records = null;
      parts = null;
      tries = 0;
      await read(span);
    }

    async function read(span) {
      const mine = id;
      const place = byId("trace");
      if (!records) place.replaceChildren(back(), note("loading", "Reading the trace …"));
      try {
        const answer = await ask(`api/traces/${encodeURIComponent(mine)}`);
        if (mine !== id) return;
        records = answer.traces;
        draw(span);
      } catch (error) {
        stumble(error);
        if (mine !== id) return;
        place.replaceChildren(back(), h("h2", { id: "trace-title" }, "This trace is not here"),
          note(isGone(error) ? "loading" : "problem", missing(error)),
          button({ click: () => read(span) }, "Read it again"));
        if (error.status === 404 && tries++ < 3) setTimeout(() => { if (mine === id && !records) read(span); }, 2000);
      }
      named();
    }

    function missing(error) {
      if (isGone(error)) return "The server does not answer. It is read as soon as it does.";
      return error.status === 404 ? "It has expired, was not kept, or is not over yet." : `Could not read it. ${error.message}`;
    }

    function back() {
      return h("a", {
        class: "back", href: address.of({ ...address.read(), trace: null }),
        click: (event) => follow(event, () => {
          if (cameFromList) history.back();
          else {
            address.write({ trace: null });
            route();
          }
        }),
      }, "← Traces");
    }

    function leave() {
      id = null;
      records = null;
      parts = null;
      picked = null;
      tip.hide();
      byId("trace").replaceChildren();
    }

    // A trace's records as trees of scopes and calls, by their spans: what a server kept hangs under
    // the call that made the request.
    function plant() {
      const start = Math.min(...records.map((record) => Date.parse(record.started_at)));
      const spans = new Map();
      const nodes = [];
      const add = (node) => {
        nodes.push(node);
        if (!spans.has(node.span)) spans.set(node.span, node);
        return node;
      };
      for (const record of records) {
        const shift = Date.parse(record.started_at) - start;
        const seed = (kind, item, above, from) =>
          add({ kind, item, above, record, shift, span: item.span, from, to: from + item.duration_ms, children: [] });
        if (!record.calls.some((call) => call.span === record.span)) seed("root", record, record.parent, shift);
        for (const call of record.calls) {
          const above = call.parent ?? (call.span === record.span ? record.parent : record.span);
          const node = seed(call.kind, call, above, shift + call.started_ms);
          for (const attempt of call.attempts) if (!spans.has(attempt.span)) spans.set(attempt.span, node);
        }
      }
      tops = [];
      for (const node of nodes) {
        const above = spans.get(node.above);
        if (above && above !== node && !isWithin(above, node)) {
          node.parent = above;
          above.children.push(node);
        } else tops.push(node);
      }
      const byStart = (a, b) => a.from - b.from;
      tops.sort(byStart);
      for (const node of nodes) node.children.sort(byStart);
      // Those that something went wrong in, or was tried again.
      for (const node of nodes) {
        if (isPlain(node) && !NOT_WELL.has(node.item.status)) continue;
        for (let at = node; at && !at.isTelling; at = at.parent) at.isTelling = true;
      }
      whole = Math.max(...nodes.map((node) => node.to), 0.001);
      const attempts = nodes.reduce((sum, node) => sum + (isPlain(node) ? 0 : node.item.attempts.length), 0);
      const folds = (node) => node.kind === "call" && !NOT_WELL.has(node.item.status);
      folded = new Set(nodes.length + attempts > MANY ? nodes.filter(folds).map((node) => node.span) : []);
      return nodes;
    }

    // A record that was read from somewhere may be its own parent.
    function isWithin(node, other) {
      for (let at = node; at; at = at.parent) if (at === other) return true;
      return false;
    }

    // One attempt that nothing followed says no more than its call.
    function isPlain(node) {
      if (node.kind !== "call") return true;
      const { attempts, events } = node.item;
      return attempts.length <= 1 && (attempts[0]?.number ?? 1) === 1 && !events.some((event) => event.what === "retrying");
    }

    function flatten() {
      const shown = [];
      const stack = tops.map((node) => ({ node, depth: 0 })).reverse();
      while (stack.length > 0) {
        const { node, depth } = stack.pop();
        if (narrowed && !node.isTelling) continue;
        node.depth = depth;
        node.folds = node.children.length > 0 || !isPlain(node);
        shown.push(node);
        if (folded.has(node.span)) continue;
        if (!isPlain(node)) {
          node.item.attempts.forEach((attempt, index) => {
            const from = node.shift + attempt.started_ms;
            shown.push({
              kind: "attempt", item: attempt, call: node, parent: node, shift: node.shift, span: attempt.span,
              depth: depth + 1, from, to: from + attempt.ended_after_ms, next: node.item.attempts[index + 1] ?? null,
            });
          });
        }
        for (const child of [...node.children].reverse()) stack.push({ node: child, depth: depth + 1 });
      }
      return shown;
    }

    function draw(span) {
      const nodes = plant();
      const lead = tops[0].record;
      const plot = h("div", { class: "plot", role: "tree", "aria-label": "Calls and attempts, by time" });
      const axis = svg("svg", { class: "axis", height: 20, width: "100%", "aria-hidden": "true" });
      narrowed = false;
      const telling = nodes.filter((node) => node.isTelling).length;
      const narrow = button({
        class: "quiet", "aria-pressed": "false", hidden: nodes.length < 30 || telling === 0 || telling === nodes.length,
        click() {
          narrowed = !narrowed;
          set(narrow, "aria-pressed", String(narrowed));
          render();
          pick(rows.includes(picked) ? picked : rows[0], false);
        },
      }, "Only failed and retried");
      const zoom = button({ class: "quiet", hidden: true, click: () => zoomTo(0, whole) }, "Whole trace");
      const story = h("section", { class: "story", "aria-label": "What happened" });
      parts = { plot, axis, zoom, story, cut: h("span") };
      view = [0, whole];
      byId("trace").replaceChildren(
        back(), heading(lead), ...noted(lead),
        h("section", { class: "waterfall", "aria-label": "Waterfall" },
          h("p", { class: "legend" },
            h("span", { class: "key solid" }, "under way"), h("span", { class: "key hatched" }, "waiting"),
            h("span", { class: "key moment" }, "head of the response"), h("span", { class: "key cross" }, "failed or refused"),
            h("span", { class: "row-end" }, parts.cut, narrow, zoom)),
          h("div", { class: "scroller" }, h("div", { class: "ruler" }, axis), plot)),
        story);
      render();
      const first = rows.find((row) => row.span === span && row.kind !== "root")
        ?? nodes.find((node) => node.kind === "call" && NOT_WELL.has(node.item.status))
        ?? nodes.find((node) => node.kind === "call" && node.item.attempts.length > 1) ?? nodes[0];
      pick(rows.find((row) => row.span === first.span) ?? rows[0], false);
      entries(plot).find((entry) => entry.row === picked)?.node.scrollIntoView({ block: "nearest" });
      window.scrollTo(0, 0);
    }

    function heading(lead) {
      const status = tops[0].item.status ?? lead.status;
      const link = new URL(`api/traces/${encodeURIComponent(lead.id)}/otlp`, BASE);
      const copied = () => announce("Copied.");
      const refused = () => announce("Could not copy.");
      // There is a clipboard only where the page came by a way that nobody listens to.
      const copy = navigator.clipboard && button(
        { class: "quiet", click: () => navigator.clipboard.writeText(lead.id).then(copied, refused) }, "Copy id");
      return h("header", { class: `is-${status}` },
        h("h2", { id: "trace-title" }, foreign(lead.name)),
        h("p", { class: "verdict" }, glyph(status), h("b", null, status), ` in ${took(lead.duration_ms)}`),
        h("p", { class: "fine" },
          h("time", { datetime: lead.started_at }, when(lead.started_at)), " · ", h("code", null, lead.id), " ", copy, " ",
          h("a", { href: link.href, download: `trace-${lead.id}.json` }, "OTLP JSON"), " · ", why(lead)));
    }

    function why(record) {
      const words = {
        failed: "kept because something in it failed",
        retried: "kept because an attempt was repeated",
        slow: "kept because it was slow",
      };
      if (words[record.kept]) return words[record.kept];
      if (record.sampling_rate >= 1) return "every call is kept";
      const about = count(Math.round(1 / record.sampling_rate));
      return `one of the ${percent(record.sampling_rate)} of successes that are kept: it stands for about ${about}`;
    }

    // What a scope or a call noted, put out and ended in.
    function noted(item) {
      const pair = ([key, value]) => h("div", null, h("dt", null, foreign(key, 120)), h("dd", null, foreign(value, 2000)));
      return [
        item.attributes.length > 0 && h("dl", { class: "attributes" }, item.attributes.map(pair)),
        item.error && block("Error", item.error, 0, "bad"),
        item.output && block("Output", item.output.text, item.output.omitted, ""),
        left(item.omitted),
      ].filter(Boolean);
    }

    function block(title, words, omitted, mood) {
      const more = omitted > 0 && h("span", { class: "fine" }, ` … and ${plural(omitted, "character")} more`);
      return h("figure", { class: `block ${mood}` }, h("figcaption", null, title),
        h("pre", { dir: "auto", tabindex: "0", "aria-label": title }, clip(words, 20_000), more));
    }

    function left(omitted) {
      const parts = Object.entries(omitted ?? {}).filter(([, n]) => n > 0).map(([what, n]) => `${count(n)} ${what}`);
      return parts.length > 0 && h("p", { class: "fine" }, `There was no room for ${parts.join(", ")}.`);
    }

    // ----- the rows -----

    function render() {
      const all = flatten();
      rows = all.slice(0, MOST);
      say(parts.cut, rows.length < all.length ? `The first ${count(MOST)} of ${count(all.length)} rows.` : "");
      parts.plot.parentNode.classList.toggle("long", rows.length > TALL);
      list(parts.plot, rows, (row) => `${row.kind} ${row.call?.span ?? ""} ${row.item.number ?? ""} ${row.span}`, line);
      redraw();
    }

    function line(first) {
      let row = first;
      const isAttempt = row.kind === "attempt";
      const status = row.item.status;
      const title = isAttempt ? `#${row.item.number}` : row.item.name;
      const fold = h("span", { class: "fold", "aria-hidden": "true", click(event) { event.stopPropagation(); toggle(row); } });
      const strip = svg("svg", { class: "strip", height: HEIGHT, width: "100%", "aria-hidden": "true" });
      const what = isAttempt ? kindOf(row.item) : NOT_WELL.has(status) ? row.item.error_kind ?? status : status;
      const to = row.item.target && row.item.target !== row.item.name ? row.item.target : null;
      const node = h("div", {
        class: `line ${row.kind} is-${status}`, role: "treeitem", tabindex: "-1",
        "aria-label": `${clip(title, 200)}: ${clip(what, 200)}, ${took(row.to - row.from)}, from ${took(row.from)} on`,
        click: () => pick(row),
        focus: () => tip.show(node, gist(row)),
        blur: () => tip.hide(),
        pointermove: (event) => hover(event, row, strip),
        pointerleave: () => { tip.hide(); cursor(null); },
      },
        h("span", { class: "label" }, fold, foreign(title), to && h("span", { class: "keyed" }, foreign(to))),
        strip,
        h("span", { class: "figures" },
          h("span", { class: "took n" }, took(row.to - row.from)),
          h("span", { class: "what" }, glyph(status), foreign(what, 80))));
      return {
        node,
        strip,
        get row() { return row; },
        update(next) {
          row = next;
          set(node, "aria-level", row.depth + 1);
          node.style.setProperty("--depth", Math.min(row.depth, 6));
          if (row.folds) {
            set(node, "aria-expanded", String(!folded.has(row.span)));
            if (!fold.firstChild) fold.append(chevron());
          }
        },
      };
    }

    // Of `failure (status 503)` the part that is not told by the shape beside it.
    const kindOf = ({ outcome }) => outcome.match(/^\w+ \((.+)\)$/)?.[1] ?? outcome;

    function toggle(row) {
      if (!row.folds) return;
      if (!folded.delete(row.span)) folded.add(row.span);
      render();
      if (!rows.includes(picked)) pick(row, false);
    }

    // Pixels: least widths, crossed ends and the words in a gap depend on them.
    function redraw() {
      const width = parts.axis.getBoundingClientRect().width;
      if (width === 0) return;
      const x = (ms) => ((ms - view[0]) / (view[1] - view[0])) * width;
      ticks(x, width);
      for (const entry of entries(parts.plot)) paint(entry.strip, entry.row, x, width);
    }

    function ticks(x, width) {
      const span = view[1] - view[0];
      const rough = (span * 80) / width;
      const ten = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((n) => n * ten).find((n) => n >= rough);
      const marks = [];
      for (let ms = Math.ceil(view[0] / step) * step; ms <= view[1] + step * 1e-6; ms += step) {
        const at = x(ms);
        const isLast = at > width - 24;
        const inner = isLast ? "end" : "middle";
        marks.push(svg("path", { class: "line", d: `M${at.toFixed(1)} 14V20` }));
        marks.push(svg("text", { x: isLast ? width : at, y: 11, "text-anchor": ms === view[0] ? "start" : inner },
          ms === 0 ? "0" : took(ms)));
      }
      parts.axis.replaceChildren(...marks, svg("path", { class: "line", d: `M0 19.5H${width}` }));
      parts.plot.style.setProperty("--step", `${x(view[0] + step)}px`);
      parts.plot.style.setProperty("--first", `${x(Math.ceil(view[0] / step) * step)}px`);
    }

    function paint(strip, row, x, width) {
      const shapes = [];
      const isIn = (at) => at >= -1 && at <= width + 1;
      const ink = {
        box(attributes, from, to, height, least = 2) {
          const at = Math.max(-4, x(from));
          const over = Math.min(width + 4, Math.max(x(to), at + least));
          if (over <= at || at > width) return;
          const place = { x: at.toFixed(1), width: (over - at).toFixed(1), y: (HEIGHT - height) / 2, height, rx: 2 };
          shapes.push(svg("rect", { ...attributes, ...place }));
        },
        wait({ from, to }, height, least) {
          ink.box({ fill: "url(#hatch)", class: "gap" }, from, to, height, least);
        },
        head({ from, item }, height) {
          if (item.head_after_ms === null) return;
          const at = from + item.head_after_ms;
          ink.box({ class: "head" }, at, at, height);
        },
        end({ to, item }) {
          if (!NOT_WELL.has(item.status) || !isIn(x(to))) return;
          const at = Math.min(Math.max(x(to), 5), width - 5) - 4;
          shapes.push(svg("path", { class: "cross", d: `M${at.toFixed(1)} ${HEIGHT / 2 - 4}l8 8m0 -8l-8 8` }));
        },
        dot(ms) {
          if (!isIn(x(ms))) return;
          const at = Math.min(Math.max(x(ms), 2), width - 2);
          shapes.push(svg("circle", { class: "event", cx: at.toFixed(1), cy: HEIGHT - 2, r: 1.5 }));
        },
        line({ from, to }) {
          const [start, over] = [x(from), Math.max(x(to), x(from) + 2)].map((at) => at.toFixed(1));
          shapes.push(svg("path", { class: "scope", d: `M${start} 8v10M${start} ${HEIGHT / 2}H${over}M${over} 8v10` }));
        },
        words({ from, to }, words) {
          if (x(to) - x(from) < 76) return;
          const middle = (x(from) + x(to)) / 2;
          shapes.push(svg("text", { class: "inside", x: middle.toFixed(1), y: HEIGHT / 2 + 3.5, "text-anchor": "middle" }, words));
        },
      };
      if (row.kind === "attempt") paintAttempt(row, ink);
      else if (row.kind === "call") paintCall(row, ink);
      else ink.line(row);
      ink.end(row);
      strip.replaceChildren(...shapes);
    }

    function paintCall(row, ink) {
      ink.wait(row, 12);
      for (const attempt of row.item.attempts) run(row, attempt, ink, 12);
      for (const wait of waits(row)) ink.wait(wait, 12, 0);
      ink.head(row, 18);
      for (const event of row.item.events) if (MARKED.has(event.what)) ink.dot(row.shift + event.offset_ms);
    }

    function paintAttempt(row, ink) {
      const gap = gapAfter(row);
      if (gap) {
        ink.wait(gap, 10, 0);
        ink.words(gap, took(gap.to - gap.from));
      }
      run(row.call, row.item, ink, 10);
      for (const wait of waits(row.call)) if (wait.attempt === row.item.number) ink.wait(wait, 10, 0);
      ink.head(row, 16);
    }

    // An attempt: full to the head of its response, lighter while the body came.
    function run(call, attempt, ink, height) {
      const from = call.shift + attempt.started_ms;
      const to = from + attempt.ended_after_ms;
      const head = attempt.head_after_ms === null ? to : Math.min(to, from + attempt.head_after_ms);
      if (to > head) ink.box({ class: `busy body is-${attempt.status}` }, head, to, height);
      ink.box({ class: `busy is-${attempt.status}` }, from, head, height);
    }

    // Times that a call waited: for its turn at a limit, which is told when it is over; and to ask on about an
    // operation that is not done, which is told when it begins.
    function waits(call) {
      return call.item.events.filter(({ what, wait_ms: wait }) => TOLD_OF_WAITS.has(what) && wait > 0).map((event) => {
        const at = call.shift + event.offset_ms;
        const isOver = event.what === "waited";
        const [from, to] = isOver ? [at - event.wait_ms, at] : [at, Math.min(at + event.wait_ms, call.to)];
        return { from, to, attempt: event.attempt, event };
      });
    }

    // The wait that follows an attempt, to the next one or to where the call gave up waiting.
    function gapAfter(row) {
      const event = row.call.item.events.find((event) => event.what === "retrying" && event.attempt === row.item.number);
      if (!event && !row.next) return null;
      const to = row.next ? row.call.shift + row.next.started_ms : row.call.to;
      return to > row.to ? { from: row.to, to, event } : null;
    }

    function zoomTo(from, to) {
      view = [from, Math.max(to, from + 0.001)];
      parts.zoom.hidden = from === 0 && to === whole;
      redraw();
    }

    // ----- what is pointed at -----

    function gist(row) {
      const { item } = row;
      if (row.kind === "attempt") {
        const gap = gapAfter(row);
        return [
          [`attempt ${item.number}`, `${item.outcome} after ${took(item.ended_after_ms)}`],
          item.http_status !== null && ["HTTP", String(item.http_status)],
          item.hint && ["hint", item.hint],
          gap && ["then", `${took(gap.to - gap.from)} of waiting${gap.event ? `: ${gap.event.why}` : ""}`],
        ].filter(Boolean);
      }
      const told = item.events.filter((event) => MARKED.has(event.what));
      const kind = row.kind === "root" ? "scope" : row.kind;
      const lines = [
        [kind, `${item.error_kind ?? item.status} after ${took(row.to - row.from)}`],
        ...told.slice(0, 6).map((event) => [`+${took(row.shift + event.offset_ms)}`, `${event.layer}: ${event.why}`]),
      ];
      if (told.length > 6) lines.push(["", `and ${count(told.length - 6)} more`]);
      return lines;
    }

    function hover(event, row, strip) {
      const box = strip.getBoundingClientRect();
      const at = event.clientX - box.left;
      if (at < 0 || at > box.width) {
        tip.show(strip, gist(row), event);
        cursor(null);
        return;
      }
      const ms = view[0] + (at / box.width) * (view[1] - view[0]);
      const near = (6 / box.width) * (view[1] - view[0]);
      cursor(ms);
      tip.show(strip, [[`+${took(ms)}`, ""], ...under(row, ms, near)], event);
    }

    // What there is to say of a moment in a row: what was decided there, else what was under way.
    function under(row, ms, near) {
      const call = row.call ?? row;
      const isOfRow = (event) => row.kind !== "attempt" || event.attempt === row.item.number;
      const isNear = (event) => Math.abs(call.shift + event.offset_ms - ms) <= near;
      const events = call.item.events.filter((event) => isOfRow(event) && isNear(event));
      if (events.length > 0) return events.slice(0, 6).map((event) => [event.layer, event.why]);
      const wait = waits(call).find(({ from, to }) => ms >= from && ms <= to);
      if (wait) return [["waiting", wait.event.why]];
      const attempts = row.kind === "attempt" ? [row.item] : call.item.attempts ?? [];
      const since = (attempt) => ms - call.shift - attempt.started_ms;
      const attempt = attempts.find((it) => since(it) >= -near && since(it) <= it.ended_after_ms + near);
      if (attempt) return [[`attempt ${attempt.number}`, `${attempt.outcome} after ${took(attempt.ended_after_ms)}`]];
      const last = attempts.filter((it) => since(it) >= 0).at(-1);
      const told = call.item.events.find((event) => event.what === "retrying" && event.attempt === last?.number);
      return told && ms <= call.to ? [["waiting", told.why]] : gist(row);
    }

    function cursor(ms) {
      const { plot, axis } = parts ?? {};
      if (!plot) return;
      const isIn = ms !== null && ms >= view[0] && ms <= view[1];
      plot.classList.toggle("pointed", isIn);
      if (!isIn) return;
      const box = axis.getBoundingClientRect();
      const x = box.left - plot.getBoundingClientRect().left + ((ms - view[0]) / (view[1] - view[0])) * box.width;
      plot.style.setProperty("--cursor", `${x.toFixed(1)}px`);
    }

    // ----- what is picked -----

    function pick(row, byHand = true) {
      if (!row) return;
      picked = row;
      for (const entry of entries(parts.plot)) {
        const isIt = entry.row === row;
        set(entry.node, "aria-selected", String(isIt));
        entry.node.tabIndex = isIt ? 0 : -1;
      }
      parts.story.replaceChildren(...tell(row));
      if (byHand) address.write({ span: row.span }, "replace");
    }

    function tell(row) {
      const node = row.call ?? row;
      const { item } = node;
      const isWhole = node.kind === "root";
      const path = [
        item.operation && item.operation !== item.name && [" ", h("code", null, foreign(item.operation))],
        item.target && [" → ", foreign(item.target)],
        item.key && item.key !== item.target && [" for ", foreign(item.key)],
      ];
      const span = h("span", { class: "fine" }, ` +${took(node.from)} to +${took(node.to)}`);
      const zoom = button({ class: "quiet", click: () => zoomTo(node.from, node.to) }, "Zoom to it");
      return [
        h("header", { class: `is-${item.status}` },
          h("h3", null, glyph(item.status), foreign(item.name), path),
          h("p", null, verdict(item), ` in ${took(node.to - node.from)}`, span, node.to - node.from < whole * 0.9 && zoom)),
        ...(isWhole && node.record === tops[0].record ? [] : noted(item)),
        item.attempts?.length > 0 && attemptsOf(node),
        eventsOf(node),
      ].filter(Boolean);
    }

    // `rejected: open` says that it was rejected.
    function verdict({ status, error_kind: kind }) {
      if (!kind) return status;
      return kind.startsWith(status) ? foreign(kind) : [status, ": ", foreign(kind)];
    }

    const heads = (titles, numbers) =>
      h("thead", null, h("tr", null, titles.map((title) => h("th", { scope: "col", class: numbers.has(title) && "n" }, title))));

    function attemptsOf(node) {
      const cell = (words, title) => h("td", { class: words === NONE ? "n none" : "n", "data-label": title }, words);
      return h("table", { class: "plain attempts" },
        heads(["Attempt", "Began", "Head", "Took", "HTTP", "Outcome", "Hint"], new Set(["Began", "Head", "Took", "HTTP"])),
        h("tbody", null, node.item.attempts.map((attempt) => h("tr", { class: `is-${attempt.status}` },
          h("th", { scope: "row" }, glyph(attempt.status), `#${attempt.number}`),
          cell(`+${took(node.shift + attempt.started_ms)}`, "began"),
          cell(took(attempt.head_after_ms), "head"),
          cell(took(attempt.ended_after_ms), "took"),
          cell(attempt.http_status === null ? NONE : String(attempt.http_status), "HTTP"),
          h("td", { class: "wide" }, foreign(attempt.outcome)),
          h("td", { class: "wide" }, attempt.hint ? foreign(attempt.hint) : "")))));
    }

    function eventsOf(node) {
      const { events, name, target } = node.item;
      if (events.length === 0) return note("empty", `No layer told anything ${node.kind === "call" ? "of this call" : "outside of its calls"}.`);
      const also = (words, ...known) => words && !known.includes(words) && h("span", { class: "keyed" }, foreign(words, 60));
      return h("table", { class: "plain events" },
        heads(["Time", "Layer", "Attempt", "What, and why"], new Set(["Time", "Attempt"])),
        h("tbody", null, events.map((event) => {
          const at = node.shift + event.offset_ms;
          const point = () => cursor(at);
          const rest = () => cursor(null);
          return h("tr", { class: MARKED.has(event.what) && "marked", pointerenter: point, pointerleave: rest },
            h("td", { class: "n" }, `+${took(at)}`),
            h("td", null, event.layer, also(event.name, name), also(event.key, event.name, target)),
            h("td", { class: "n" }, event.attempt ? `#${event.attempt}` : ""),
            h("td", { class: "wide" }, foreign(event.why, 1000)));
        })));
    }

    // ----- keys -----

    function keys(event) {
      if (!parts || !parts.plot.contains(event.target)) return;
      const at = entries(parts.plot).findIndex((entry) => entry.node === event.target);
      const row = rows[at];
      if (!row) return;
      const go = (to) => {
        const target = entries(parts.plot)[Math.min(Math.max(to, 0), rows.length - 1)];
        target.node.focus();
        target.node.scrollIntoView({ block: "nearest" });
      };
      const isFolded = folded.has(row.span);
      const does = {
        ArrowDown: () => go(at + 1),
        ArrowUp: () => go(at - 1),
        Home: () => go(0),
        End: () => go(rows.length - 1),
        Enter: () => pick(row),
        " ": () => pick(row),
        Escape: () => tip.hide(),
        ArrowRight: () => (row.folds && isFolded ? toggle(row) : go(at + 1)),
        ArrowLeft: () => (row.folds && !isFolded ? toggle(row) : row.parent && go(rows.indexOf(row.parent))),
      }[event.key];
      if (!does) return;
      event.preventDefault();
      does();
    }

    function start() {
      new ResizeObserver(() => { if (parts) redraw(); }).observe(byId("trace"));
      byId("trace").addEventListener("keydown", keys);
    }

    return {
      start, show, leave,
      retry: () => { if (id && !records) read(address.read().span); },
      name: () => (id ? records?.[0]?.name ?? "Trace" : null),
    };
  })();

  // What is said beside the pointer, or beside what has the focus.
  const tip = (() => {
    function show(beside, lines, pointer) {
      const node = byId("tip");
      const pair = ([key, words]) => h("div", null, h("dt", null, foreign(key, 60)), h("dd", null, foreign(words, 400)));
      node.replaceChildren(h("dl", null, lines.map(pair)));
      node.hidden = false;
      const box = beside.getBoundingClientRect();
      const { offsetWidth: width, offsetHeight: height } = node;
      const x = pointer ? pointer.clientX + 14 : box.left + 40;
      const below = (pointer ? Math.max(pointer.clientY + 12, box.bottom) : box.bottom) + 4;
      node.style.left = `${Math.max(8, Math.min(x, document.documentElement.clientWidth - width - 8))}px`;
      node.style.top = `${below + height > window.innerHeight ? Math.max(8, box.top - height - 8) : below}px`;
    }

    return { show, hide: () => { byId("tip").hidden = true; } };
  })();

  // ===== which of the two is shown =====

  // A link within the page; but one that is to be opened elsewhere is the browser's.
  function follow(event, go) {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button !== 0) return;
    event.preventDefault();
    go();
  }

  let scrolled = 0;
  let cameFromList = false;

  function route() {
    const { trace: id, span } = address.read();
    const overview = byId("overview");
    const wasList = !overview.hidden;
    overview.hidden = Boolean(id);
    byId("trace").hidden = !id;
    byId("sections").hidden = Boolean(id);
    if (id) {
      if (wasList) {
        cameFromList = history.state?.within === true;
        scrolled = window.scrollY;
        window.scrollTo(0, 0);
      }
      trace.show(id, span);
    } else {
      trace.leave();
      traces.fill();
      if (!wasList) window.scrollTo(0, scrolled);
    }
    named();
  }

  // ===== the theme =====

  const theme = (() => {
    const KINDS = ["auto", "light", "dark"];
    const chosen = memory("localStorage", "portcullis-theme");
    const get = () => (KINDS.includes(chosen.get()) ? chosen.get() : "auto");

    function apply() {
      document.documentElement.dataset.theme = get();
    }

    const disc = (r) => svg("circle", { class: "own", cx: 8, cy: 8, r });
    const RAYS = "M8 1.5v1.2M8 13.3v1.2M1.5 8h1.2M13.3 8h1.2M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9";
    const ICONS = {
      auto: [disc(5.5), svg("path", { class: "solid", d: "M8 2.5a5.5 5.5 0 0 1 0 11z" })],
      light: [disc(2.8), stroke(RAYS)],
      dark: [stroke("M13 9.6A5.6 5.6 0 0 1 6.4 3 5.6 5.6 0 1 0 13 9.6z")],
    };

    function show() {
      const kind = get();
      const node = byId("theme");
      node.replaceChildren(icon(16, ...ICONS[kind]));
      set(node, "aria-label", `Colours: ${kind}. Change`);
      node.title = { auto: "Colours: as the system has them", light: "Colours: light", dark: "Colours: dark" }[kind];
    }

    function turn() {
      chosen.set(KINDS[(KINDS.indexOf(get()) + 1) % KINDS.length]);
      apply();
      show();
    }

    return { apply, show, turn };
  })();

  // ===== begin =====

  function start() {
    theme.show();
    byId("theme").addEventListener("click", theme.turn);
    byId("token").addEventListener("click", token.enter);
    byId("figures-reset").addEventListener("click", figures.reset);
    byId("home").addEventListener("click", (event) => follow(event, () => {
      address.write({ trace: null });
      route();
      window.scrollTo(0, 0);
    }));
    window.addEventListener("popstate", () => {
      route();
      if (!address.read().trace) traces.returned();
    });
    breakers.start();
    targets.start();
    limits.start();
    traces.start();
    trace.start();
    route();
    figures.load();
    about.load().then(traces.load);
    link.start();
    setInterval(() => {
      if (!document.hidden) breakers.tick();
    }, 250);
    setInterval(() => {
      if (!document.hidden) traces.tick();
    }, 2000);
  }

  // Before anything is drawn, so that nothing flashes.
  theme.apply();
  document.addEventListener("DOMContentLoaded", start);
})();
