// Keeps the page up to date, and shows beside a field what came of it. The page works without this file, too.
"use strict";

const STALE_AFTER = 6000; // milliseconds without news: it comes every second

let newest = Date.now();
let refreshing = false;
let events = null;
let pressed = false; // between the press and the release of a button: a click needs the same element for both
let next = null; // what is to be shown after the release
let lost = false; // whether the connection was lost since the last news

const main = document.getElementById("main");
const news = document.getElementById("news");

function time(moment) {
  return new Date(moment).toLocaleTimeString([], { hour12: false });
}

function judge() {
  const stale = Date.now() - newest > STALE_AFTER;
  if (stale && !document.body.classList.contains("stale")) {
    document.querySelectorAll("[data-live] .verdict").forEach((verdict) => {
      verdict.textContent = "Not known whether all is well";
    });
    document.querySelectorAll("[data-live] .good").forEach((state) => {
      state.textContent = "not known";
    });
  }
  document.body.classList.toggle("stale", stale);
  news.hidden = !stale;
  const text = `No news since ${time(newest)}: what is shown may be wrong. Trying again.`;
  if (stale && news.textContent !== text) {
    news.textContent = text;
  }
}

// What an element is, in this version of the page and in the next.
function nameOf(element) {
  const form = element.closest("form");
  const hidden = form ? [...form.querySelectorAll("input[type=hidden]")].map((one) => one.value) : [];
  const own = element.matches("output") ? "" : element.name || element.getAttribute("href") || element.textContent;
  return [element.tagName, own, form?.getAttribute("action"), ...hidden].join(" | ");
}

// The same element in the present version of the page.
function present(element) {
  if (element.isConnected) {
    return element;
  }
  const name = nameOf(element);
  return [...main.querySelectorAll(element.tagName)].find((one) => nameOf(one) === name) ?? element;
}

// Shows a new version of a part; what somebody types, the focus, and what forms have answered stay.
function replace(part, text) {
  const fields = [...part.querySelectorAll("input:not([type=hidden]), select, output")];
  const pictures = [...part.querySelectorAll("img[id]")];
  const active = part.contains(document.activeElement) ? document.activeElement : null;
  const [from, to] = active?.matches("input") ? [active.selectionStart, active.selectionEnd] : [null, null];
  part.innerHTML = text; // every text in it is escaped by the service; the browser runs no script of a page
  for (const picture of pictures) { // the browser shows the old picture until it has the new one
    const now = document.getElementById(picture.id);
    if (now) {
      picture.src = now.src;
      picture.alt = now.alt;
      now.replaceWith(picture);
    }
  }
  for (const field of fields) {
    const now = present(field);
    if (field.matches("output")) {
      now.textContent = field.textContent;
      now.className = field.className;
    } else {
      now.value = field.value;
    }
  }
  if (active) {
    const now = present(active);
    now.focus({ preventScroll: true });
    if (from !== null) {
      now.setSelectionRange(from, to);
    }
  }
}

function show({ texts, moment }) {
  newest = moment;
  texts.forEach((text, part) => replace(part, text));
  document.getElementById("asof").textContent = `as of ${time(newest)}`;
}

function release() {
  setTimeout(() => { // after the click, which comes behind the release
    pressed = false;
    if (next !== null) {
      show(next);
      next = null;
    }
  });
}

document.addEventListener("pointerdown", () => {
  pressed = true;
});
document.addEventListener("pointerup", release);
document.addEventListener("pointercancel", release);
window.addEventListener("blur", release);

async function textOf(part) {
  const answer = await fetch(part.dataset.live, { headers: { "X-Part": "main" }, cache: "no-store" });
  if (!answer.ok) {
    throw new Error(`${part.dataset.live}: ${answer.status}`);
  }
  return [part, await answer.text()];
}

// Asks for the parts of the page that are live.
async function refresh() {
  const parts = [...document.querySelectorAll("[data-live]")];
  if (refreshing) {
    return;
  }
  refreshing = true;
  try {
    const version = { texts: new Map(await Promise.all(parts.map(textOf))), moment: Date.now() };
    if (pressed) {
      next = version;
    } else {
      show(version);
    }
  } catch {
    // The service does not answer, or refuses: judge() says so.
  } finally {
    refreshing = false;
    judge();
  }
}

function listen() {
  events = new EventSource("/api/v1/events");
  events.addEventListener("status", (event) => {
    if (window.plots) {
      if (lost) {
        window.plots.again();
      }
      window.plots.news(JSON.parse(event.data));
    }
    lost = false;
    refresh();
  });
  events.onerror = () => {
    lost = true;
    if (events.readyState === EventSource.CLOSED) {
      setTimeout(listen, 2000);
    }
  };
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("form[data-inline]")) {
    return;
  }
  event.preventDefault();
  const output = form.querySelector("output");
  output.classList.remove("refused");
  output.textContent = "…";
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { "Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded" },
      body: new URLSearchParams(new FormData(form)),
    });
    const told = await answer.json();
    const shown = present(output);
    shown.textContent = answer.ok ? String(told.done) : told.detail;
    shown.classList.toggle("refused", !answer.ok);
    const value = form.closest(".member")?.querySelector("[data-value]");
    if (answer.ok && value && form.querySelector("[name=property]")) {
      value.textContent = String(told.done);
      shown.textContent = "";
    }
  } catch {
    const shown = present(output);
    shown.textContent = "The service does not answer: it is not known whether this was done.";
    shown.classList.add("refused");
  }
});

listen();
setInterval(judge, 1000);
