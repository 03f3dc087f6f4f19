"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const STATES = ["matched", "cast", "changed", "mismatched", "missing", "unexpected"];
  const GLYPHS = ["\u25cf", "\u25d0", "\u0394", "\u2260", "\u2212", "+"];
  const MEANS = [
    "the same name, shape and dtype", "another dtype: the load casts it", "a finding on its values",
    "a shape, or a kind, that does not fit", "in the model, not in the checkpoint", "in the checkpoint, not in the model",
  ];
  const ROW = 28;
  const by = (id) => document.getElementById(id);
  const tree = by("tree"), rowsBox = by("rows"), sizer = by("sizer"), detail = by("detail"), search = by("search");

  let view = null;          // the names in force: as they are, or under the mapping
  let nodes = [];           // every module and tensor, each before what is below it
  let shown = [];           // the nodes that have a row now
  let selected = null;
  const on = STATES.map(() => true);
  let only = null;          // a finding whose tensors alone are shown

  // Elements get text and never markup: names come from a file.
  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value; else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  function build(given) {
    const root = { name: "", path: "", depth: -1, parent: null, children: new Map(), leaf: -1, open: true };
    const made = [];
    given.keys.forEach((key, index) => {
      let node = root;
      const parts = key.split(".");
      parts.forEach((part, depth) => {
        let child = node.children.get(part);
        if (!child) {
          const path = depth ? `${node.path}.${part}` : part;
          child = { name: part, path, depth, parent: node, children: new Map(), leaf: -1, open: false };
          node.children.set(part, child);
        }
        node = child;
      });
      node.leaf = index;
    });
    const walk = [...root.children.values()].reverse();
    while (walk.length) {
      const node = walk.pop();
      made.push(node);
      for (const child of [...node.children.values()].reverse()) walk.push(child);
    }
    return made;
  }

  function choose(number) {
    view = data.views[number];
    nodes = build(view);
    selected = null;
    by("views").querySelectorAll("button").forEach((one, index) => one.setAttribute("aria-pressed", index === number));
    for (const list of by("views").querySelectorAll("select")) list.value = number;
    update(true);
    describe();
  }

  const stateOf = (index) => view.states.charCodeAt(index) - 48;

  function matcher(text) {
    const words = text.trim().toLowerCase();
    if (!words) return null;
    if (!words.includes("*") && !words.includes("?")) return (key) => key.toLowerCase().includes(words);
    const escaped = words.replace(/[.+^${}()|[\]\\]/g, "\\$&").replace(/\*/g, ".*").replace(/\?/g, ".");
    const pattern = new RegExp(escaped, "i");
    return (key) => pattern.test(key);
  }

  // Count, for each module, the tensors below it that pass the filter; from the last node up to the first.
  function count() {
    const match = matcher(search.value);
    for (const node of nodes) node.counts = [0, 0, 0, 0, 0, 0];
    let total = 0;
    for (let at = nodes.length - 1; at >= 0; at--) {
      const node = nodes[at];
      node.hit = false;
      if (node.leaf >= 0) {
        const state = stateOf(node.leaf);
        const origin = view.origins[node.leaf];
        node.hit = on[state] && (only === null || (view.findings[node.leaf] || []).includes(only))
          && (!match || match(node.path) || (origin !== undefined && match(origin)));
        if (node.hit) { node.counts[state]++; total++; }
      }
      const above = node.parent.counts;
      if (above) node.counts.forEach((number, state) => { above[state] += number; });
    }
    return total;
  }

  const sum = (numbers) => numbers.reduce((left, right) => left + right, 0);
  const filtered = () => search.value.trim() !== "" || only !== null || on.includes(false);

  // Open what is worth a look: everything that a filter leaves, or the modules in which something differs.
  function openDefaults(total) {
    const differing = sum(nodes.map((node) => (node.leaf >= 0 && node.hit && stateOf(node.leaf) ? 1 : 0)));
    for (const node of nodes) {
      const differs = sum(node.counts.slice(1));
      node.open = filtered() ? total <= 5000 : differs > 0 && (differing <= 60 || node.depth < 1);
    }
  }

  function update(reopen) {
    const total = count();
    if (reopen) openDefaults(total);
    list();
    by("count").textContent = filtered() ? `${total.toLocaleString("en")} of ${view.keys.length.toLocaleString("en")} tensors` : `${total.toLocaleString("en")} tensors`;
  }

  function list() {
    shown = [];
    let closed = Infinity;
    for (const node of nodes) {
      if (node.depth > closed) continue;
      closed = Infinity;
      if (!sum(node.counts)) { closed = node.depth; continue; }
      shown.push(node);
      if (node.children.size && !node.open) closed = node.depth;
    }
    sizer.style.height = `${shown.length * ROW}px`;
    draw();
  }

  function draw() {
    const first = Math.max(0, Math.floor(tree.scrollTop / ROW) - 8);
    const last = Math.min(shown.length, first + Math.ceil(tree.clientHeight / ROW) + 16);
    rowsBox.style.transform = `translateY(${first * ROW}px)`;
    rowsBox.replaceChildren(...shown.slice(first, last).map((node, offset) => row(node, first + offset)));
    if (!shown.length) rowsBox.replaceChildren(element("div", { className: "empty" }, "No tensor matches."));
    const active = shown.indexOf(selected);
    if (active >= first && active < last) tree.setAttribute("aria-activedescendant", `row${active}`);
    else tree.removeAttribute("aria-activedescendant");
  }

  function highlighted(node) {
    const words = search.value.trim().toLowerCase();
    const at = words && !words.includes("*") ? node.name.toLowerCase().indexOf(words) : -1;
    const name = visible(node.name);
    if (at < 0 || name !== node.name) return [name];
    return [name.slice(0, at), element("mark", {}, name.slice(at, at + words.length)), name.slice(at + words.length)];
  }

  function row(node, index) {
    const inner = node.children.size > 0;
    const made = element("div", { className: inner ? "row module" : "row", id: `row${index}`, role: "treeitem" });
    made.style.paddingLeft = `${10 + node.depth * 18}px`;
    made.setAttribute("aria-level", node.depth + 1);
    made.setAttribute("aria-selected", node === selected);
    if (inner) made.setAttribute("aria-expanded", node.open);
    made.append(element("span", { className: "twisty" }, inner ? (node.open ? "\u25be" : "\u25b8") : ""));
    if (node.leaf >= 0) {
      const state = stateOf(node.leaf);
      made.append(element("span", { className: `glyph ${STATES[state]}`, title: STATES[state] }, GLYPHS[state]));
    }
    made.append(element("span", { className: "name key", title: visible(node.path) }, ...highlighted(node)), element("span", { className: "space" }));
    if (node.leaf >= 0 && !inner) made.append(spec(node.leaf));
    if (inner) made.append(share(node.counts), element("span", { className: "total" }, sum(node.counts).toLocaleString("en")));
    made.addEventListener("click", (event) => {
      select(node);
      if (inner && (event.target.className === "twisty" || event.detail === 2)) toggle(node);
    });
    return made;
  }

  function share(counts) {
    const bar = element("span", { className: "share", title: counts.map((n, s) => (n ? `${n} ${STATES[s]}` : "")).filter(Boolean).join(", ") });
    counts.forEach((number, state) => {
      if (!number) return;
      const part = element("i", { className: STATES[state] });
      part.style.flex = `${number} 0 2px`;
      bar.append(part);
    });
    return bar;
  }

  const shape = (one) => `(${one[0].join(", ")}${one[0].length === 1 ? "," : ""})`;

  function spec(index) {
    const left = data.specs[view.checkpoint[index]], right = data.specs[view.model[index]];
    const box = element("span", { className: "spec key" });
    const say = (one, other) => [other && shape(one) === shape(other) ? shape(one) : element("b", {}, shape(one)), " ", other && one[1] === other[1] ? one[1] : element("b", {}, one[1])];
    if (left && right && (shape(left) !== shape(right) || left[1] !== right[1])) box.append(...say(left, right), " \u2192 ", ...say(right, left));
    else if (left || right) box.append(`${shape(left || right)} ${(left || right)[1]}`);
    return box;
  }

  // What would forge other text is written as an escape.
  function visible(text) {
    if (text === "") return "\u201c\u201d";
    return text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]/gu, (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`);
  }

  function toggle(node, open = !node.open) {
    if (node.children.size) { node.open = open; list(); }
  }

  function select(node) {
    selected = node;
    draw();
    describe();
  }

  function line(name, left, right) {
    const differs = left !== "" && right !== "" && left !== right;
    return element("tr", {}, element("th", { scope: "row" }, name), ...[left, right].map((text) => element("td", { className: differs ? "key differs" : "key" }, text)));
  }

  function describe() {
    if (!selected) {
      detail.replaceChildren(element("p", { className: "muted" }, "Select a tensor or a module. Arrow keys walk the tree, Enter opens and folds, / searches."), legend());
      return;
    }
    const parts = [element("h3", { className: "key" }, visible(selected.path))];
    if (selected.leaf >= 0) parts.push(...tensor(selected.leaf));
    if (selected.children.size) parts.push(...module(selected));
    const copy = element("button", { type: "button" }, "Copy key");
    copy.addEventListener("click", () => navigator.clipboard && navigator.clipboard.writeText(selected.path).then(() => { copy.textContent = "Copied"; }, () => {}));
    detail.replaceChildren(...parts, element("p", {}, copy));
  }

  function legend() {
    return element("table", {}, ...STATES.map((name, state) => element("tr", {}, element("td", { className: `glyph ${name}` }, GLYPHS[state]), element("th", { scope: "row" }, name), element("td", { className: "muted" }, MEANS[state]))));
  }

  function tensor(index) {
    const state = stateOf(index), left = data.specs[view.checkpoint[index]], right = data.specs[view.model[index]];
    const parts = [element("p", {}, element("b", { className: STATES[state] }, `${GLYPHS[state]} ${STATES[state]}`), `: ${MEANS[state]}`)];
    if (view.origins[index] !== undefined) parts.push(element("p", {}, "called ", element("code", {}, visible(view.origins[index])), " in the checkpoint"));
    if (left || right) {
      const cells = (get) => [left ? get(left) : "", right ? get(right) : ""];
      const size = (one) => one[0].reduce((a, b) => a * b, 1).toLocaleString("en");
      const more = (left ? left[4] : []).concat(right ? right[4] : []).map(([name]) => name);
      const extra = (one, name) => (one[4].find(([known]) => known === name) || ["", ""])[1];
      parts.push(element("table", {},
        element("tr", {}, element("td"), element("th", { scope: "col" }, "checkpoint"), element("th", { scope: "col" }, "model")),
        line("shape", ...cells(shape)), line("dtype", ...cells((one) => one[1])), line("values", ...cells(size)),
        line("bytes", ...cells((one) => one[3].toLocaleString("en"))),
        ...[...new Set(more)].map((name) => line(name, ...cells((one) => extra(one, name))))));
    }
    for (const number of view.findings[index] || []) parts.push(finding(number, index));
    return parts;
  }

  function finding(number, index) {
    const one = data.findings[number];
    const box = element("div", { className: "note" }, element("b", {}, `${one.level} ${one.code} ${one.name}`), element("p", {}, one.message));
    const name = [view.keys[index], view.origins[index]].find((known) => known !== undefined && Object.hasOwn(one.cells, known));
    const cells = name === undefined ? null : one.cells[name];
    if (cells) box.append(element("table", {}, ...cells.map((cell, at) => element("tr", {}, element("th", { scope: "row" }, one.columns[at]), element("td", { className: "key" }, cell)))));
    return box;
  }

  function module(node) {
    const rows = node.counts.map((number, state) => [number, state]).filter(([number]) => number);
    return [element("p", {}, `${sum(node.counts).toLocaleString("en")} tensors below it`),
      element("table", {}, ...rows.map(([number, state]) => element("tr", {}, element("td", { className: `glyph ${STATES[state]}` }, GLYPHS[state]), element("th", { scope: "row" }, STATES[state]), element("td", {}, number.toLocaleString("en")))))];
  }

  function into(index) {
    const top = index * ROW;
    if (top < tree.scrollTop) tree.scrollTop = top;
    else if (top + ROW > tree.scrollTop + tree.clientHeight) tree.scrollTop = top + ROW - tree.clientHeight;
  }

  function go(index) {
    if (!shown.length) return;
    const to = Math.max(0, Math.min(shown.length - 1, index));
    into(to);
    select(shown[to]);
  }

  const page = () => Math.max(1, Math.floor(tree.clientHeight / ROW) - 1);
  const KEYS = {
    ArrowDown: (at) => go(at + 1), ArrowUp: (at) => go(at < 0 ? 0 : at - 1), Home: () => go(0), End: () => go(shown.length - 1),
    PageDown: (at) => go(at + page()), PageUp: (at) => go(at - page()),
    ArrowRight: (at) => { const node = shown[at]; if (!node) go(0); else if (node.children.size && !node.open) toggle(node); else if (node.children.size) go(at + 1); },
    ArrowLeft: (at) => { const node = shown[at]; if (!node) return; if (node.children.size && node.open) toggle(node); else if (node.parent.depth >= 0) go(shown.indexOf(node.parent)); },
    Enter: (at) => { if (shown[at]) toggle(shown[at]); }, " ": (at) => { if (shown[at]) toggle(shown[at]); },
  };

  tree.addEventListener("keydown", (event) => {
    if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    KEYS[event.key](shown.indexOf(selected));
  });
  tree.addEventListener("scroll", draw);
  window.addEventListener("resize", draw);
  let timer = 0;
  search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => update(true), 60); });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { search.value = ""; update(true); } else if (event.key === "ArrowDown") { tree.focus(); go(0); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && event.target.tagName !== "INPUT") { event.preventDefault(); search.focus(); }
  });
  by("fold").addEventListener("click", () => { for (const node of nodes) node.open = false; list(); });
  by("unfold").addEventListener("click", () => { for (const node of nodes) node.open = true; list(); });

  const totals = data.views.map((one) => { const numbers = STATES.map(() => 0); for (const char of one.states) numbers[char.charCodeAt(0) - 48]++; return numbers; });
  function chips() {
    const numbers = totals[data.views.indexOf(view)];
    by("states").replaceChildren(...STATES.map((name, state) => {
      const chip = element("button", { type: "button", className: name, title: MEANS[state], hidden: !numbers[state] && on[state] }, `${GLYPHS[state]} ${name} ${numbers[state].toLocaleString("en")}`);
      chip.setAttribute("aria-pressed", on[state]);
      chip.dataset.state = name;
      chip.addEventListener("click", () => { on[state] = !on[state]; chips(); update(true); });
      return chip;
    }));
    if (only !== null) {
      const chip = element("button", { type: "button", id: "only" }, `only ${data.findings[only].code} \u00d7`);
      chip.addEventListener("click", () => { only = null; chips(); update(true); });
      by("states").append(chip);
    }
  }

  if (data.views.length > 3) {
    const list = element("select", { ariaLabel: "Names" }, ...data.views.map((one, number) => element("option", { value: number }, one.title)));
    list.addEventListener("change", () => { choose(Number(list.value)); chips(); });
    by("views").append(list);
  } else if (data.views.length > 1) {
    data.views.forEach((one, number) => {
      const chip = element("button", { type: "button" }, one.title);
      chip.addEventListener("click", () => { choose(number); chips(); });
      by("views").append(chip);
    });
  }
  document.querySelectorAll("button.show").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => {
      only = Number(button.dataset.finding);
      const number = data.views.findIndex((one) => Object.values(one.findings).some((list) => list.includes(only)));
      choose(Math.max(0, number));
      chips();
      tree.scrollIntoView({ block: "nearest" });
      tree.focus();
    });
  });
  by("theme").addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  });
  choose(data.start);
  chips();
})();
