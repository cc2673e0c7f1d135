// The tabs: one is shown, the arrow keys go from one to the next, the address remembers which.

import { byId } from "./dom.js";

const STEPS = { ArrowLeft: -1, ArrowRight: 1 };

// `watchers` by a tab's name: called with whether it is shown, each time that this changes.
// Returns what shows and hides tabs: called with { name: whether there is use for it }.
export function startTabs(watchers) {
  const tabs = [...byId("tabs").children];
  const nameOf = (tab) => tab.getAttribute("aria-controls");
  let shown = null;

  function select(tab) {
    if (tab === shown) return;
    for (const each of tabs) {
      const isShown = each === tab;
      each.setAttribute("aria-selected", isShown);
      each.tabIndex = isShown ? 0 : -1;
      byId(nameOf(each)).hidden = !isShown;
      if (isShown || each === shown) watchers[nameOf(each)]?.(isShown);
    }
    shown = tab;
    reveal(tab);
    document.title = `${tab.textContent} · ml-api`;
  }

  // On a phone not all have room.
  function reveal(tab) {
    const list = byId("tabs");
    list.scrollLeft = tab.offsetLeft - list.offsetLeft - (list.clientWidth - tab.offsetWidth) / 2;
  }

  const byHash = () => tabs.find((tab) => `#${nameOf(tab)}` === location.hash) ?? tabs[0];
  function go(tab) {
    history.replaceState(null, "", `#${nameOf(tab)}`);
    select(tab);
  }

  for (const tab of tabs) tab.addEventListener("click", () => go(tab));
  byId("tabs").addEventListener("keydown", (event) => {
    const usable = tabs.filter((tab) => !tab.hidden);
    const place = usable.indexOf(document.activeElement);
    const ends = { Home: 0, End: usable.length - 1 };
    const next = ends[event.key] ?? place + STEPS[event.key];
    if (place < 0 || Number.isNaN(next)) return;
    event.preventDefault();
    const tab = usable.at(next % usable.length);
    tab.focus();
    go(tab);
  });
  addEventListener("hashchange", () => select(byHash()));
  select(byHash());
  return (uses) => {
    for (const tab of tabs) tab.hidden = !(uses[nameOf(tab)] ?? !tab.hidden);
    if (shown.hidden) go(tabs.find((tab) => !tab.hidden));
    else reveal(shown);
  };
}
