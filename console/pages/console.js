// What the pages do beyond what HTML does: keys, copying, and new facts that wait
// until they are in nobody's way. Without this file every page still works.
"use strict";
(() => {
  const $ = (sel, from = document) => from.querySelector(sel);
  const words = $("#words").dataset;
  const store = {
    get: (k) => { try { return localStorage.getItem(k); } catch { return null; } },
    set: (k, v) => { try { localStorage.setItem(k, v); } catch { /* a private window: it is forgotten */ } },
  };

  // Things that only a script can do are hidden until there is one.
  const reveal = () => document.querySelectorAll("[data-do][hidden]").forEach((e) => { e.hidden = false; });
  reveal();

  const open = (link) => link && link.click();
  const items = () => [...document.querySelectorAll("[data-item]")].filter((e) => e.offsetParent !== null);
  const step = (by) => {
    const all = items();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement);
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  };

  const copy = async (button) => {
    const from = document.getElementById(button.dataset.copy);
    const said = $("[role=status]", button.parentElement);
    try {
      await navigator.clipboard.writeText(from.value);
    } catch { // no permission, or no secure address: the old way
      from.select();
      document.execCommand("copy");
      button.focus();
    }
    said.textContent = words.wordCopied;
    setTimeout(() => { said.textContent = ""; }, 4000);
  };

  const help = $("#keys");
  const keysOn = $("[data-do=keys-on]");
  keysOn.checked = store.get("deliverd.keys") !== "off";
  keysOn.addEventListener("change", () => store.set("deliverd.keys", keysOn.checked ? "on" : "off"));

  const keys = {
    "/": () => { const q = $("#q"); q.focus(); q.select(); },
    j: () => step(1),
    k: () => step(-1),
    r: () => open($("[data-key=r]")),
    // The reply in the language that is open.
    c: () => { const b = $("details[open] [data-do=copy]") || $("[data-do=copy]"); if (b) copy(b); },
    n: () => { if (!news.hidden) show(); },
    "?": () => help.showModal(),
  };
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || help.open) return;
    const t = e.target;
    if (t.matches("input, textarea, select, [contenteditable]")) {
      if (e.key === "Escape") t.blur();
      return;
    }
    if (!keysOn.checked || !keys[e.key]) return;
    e.preventDefault();
    keys[e.key]();
  });

  document.addEventListener("click", (e) => {
    const b = e.target.closest("[data-do]");
    switch (b && b.dataset.do) {
      case "copy": copy(b); break;
      case "help": help.showModal(); break;
      case "show-news": show(); break;
      case "pause": pause(b.getAttribute("aria-pressed") !== "true"); break;
    }
  });

  // On a narrow screen the part of the navigation that this page belongs to may be out of sight.
  const here = $(".top nav [aria-current]");
  if (here) here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.offsetLeft - 40;

  // New facts. The feed says how many there are; the page is fetched again and what
  // has changed is put in its place, at once where nobody's eyes, pointer or focus
  // would be disturbed, and otherwise when it is asked for.
  const news = $("#news");
  const bar = $("[data-live]");
  let waiting = 0, place = document.body.dataset.place, feed = null, timer = 0;

  const quiet = () => {
    const part = $("#live");
    return part && scrollY < 40 && !part.matches(":hover") && !part.contains(document.activeElement) &&
      String(getSelection()) === "" && !part.querySelector("details[open]:not(.lang)");
  };
  const count = (n) => (n === 1 ? words.wordOne : words.wordMany.replace("{n}", n));
  const say = (text) => { $("[role=status]", news).textContent = text; };

  const show = () => {
    const n = waiting;
    waiting = 0;
    news.hidden = true;
    htmx.ajax("GET", location.href, { target: "#live", select: "#live", swap: "outerMorph", source: document.body })
      .then(() => { reveal(); const part = $("#live"); part.classList.add("fresh"); setTimeout(() => part.classList.remove("fresh"), 2600); });
    return n;
  };
  const heard = (n, said) => {
    if (!$("#live")) return; // a search took the place of what the feed is about
    waiting += n;
    clearTimeout(timer);
    timer = setTimeout(() => {
      const text = `${count(waiting)} – ${said}`;
      if (quiet()) {
        show();
        spoken.textContent = text;
        return;
      }
      news.hidden = false;
      say(text);
    }, 700);
  };
  // Screen readers hear of facts that were put in their place by themselves.
  const spoken = document.createElement("p");
  spoken.className = "sr";
  spoken.setAttribute("role", "status");
  document.body.append(spoken);

  // A search while somebody types: how many there are is said, the focus stays.
  document.addEventListener("htmx:after:swap", () => {
    reveal();
    const found = $("#content > h1, #content .answer h1");
    if (document.activeElement === $("#q") && found) spoken.textContent = found.textContent;
  });

  // Only a page that somebody looks at keeps a connection: browsers have few of them
  // for one address.
  let paused = store.get("deliverd.live") === "paused";
  const listen = () => {
    if (feed) feed.close();
    feed = null;
    if (paused || document.hidden) return;
    feed = new EventSource(`/live?${document.body.dataset.watch}&after=${place}`);
    feed.addEventListener("open", () => { bar.classList.remove("lost"); bar.title = ""; });
    feed.addEventListener("error", () => { bar.classList.add("lost"); bar.title = words.wordLost; });
    feed.addEventListener("facts", (e) => {
      place = e.lastEventId;
      const { n, said } = JSON.parse(e.data);
      heard(n, said);
    });
  };
  const pause = (on) => {
    const b = $("[data-do=pause]");
    paused = on;
    b.setAttribute("aria-pressed", String(on));
    $(".label", b).textContent = on ? b.dataset.wordPaused : b.dataset.wordLive;
    store.set("deliverd.live", on ? "paused" : "on");
    listen();
  };
  if (document.body.dataset.watch) {
    bar.hidden = false;
    pause(paused);
    document.addEventListener("visibilitychange", listen);
    addEventListener("pagehide", () => { if (feed) feed.close(); feed = null; });
    addEventListener("pageshow", (e) => { if (e.persisted) listen(); });
  }
})();
