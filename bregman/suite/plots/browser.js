// Draws what browser.py describes, and draws it anew as its controls are moved. It runs where the
// page is shown and needs neither kernel nor network.
(() => {
  const WIDTH = 360, HEIGHT = 262, LEFT = 52, RIGHT = 350, TOP = 26, BOTTOM = 218;
  const DASHES = { "-": "", "--": "5 3", ":": "1.5 2.5", "-.": "6 2 1.5 2" };
  const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
  const short = (v) =>
    v && (Math.abs(v) >= 1e6 || Math.abs(v) < 1e-3) ? v.toExponential(1) : String(+v.toPrecision(4));
  const text = (x, y, words, more = "") => `<text x="${x}" y="${y}" ${more}>${escaped(words)}</text>`;
  const known = (v) => v !== null && v !== undefined;

  function make(parent, tag, attributes = {}, style = "") {
    const node = document.createElement(tag);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    node.style.cssText = style;
    parent.appendChild(node);
    return node;
  }

  function ticks(low, high, log) {
    const found = [];
    if (log) {
      const wide = Math.log10(high / low);
      for (let e = Math.floor(Math.log10(low)); 10 ** e <= high; e++)
        for (const m of wide > 3 ? [1] : [1, 2, 5])
          if (m * 10 ** e >= low && m * 10 ** e <= high) found.push(m * 10 ** e);
      return found;
    }
    const rough = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 5, 10].find((m) => m * unit >= rough * 0.999);
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-9); k++) found.push(k * step);
    return found;
  }

  // from values to the unit interval; the limits are those of all marks, seen or not
  function axis(values, log, limits) {
    let low = Infinity, high = -Infinity;
    for (const v of values)
      if (known(v) && (!log || v > 0)) { low = Math.min(low, v); high = Math.max(high, v); }
    if (limits) [low, high] = limits;
    else if (log) { low /= 1.15; high *= 1.15; }
    else { const pad = 0.04 * (high - low) || 1; low -= pad; high += pad; }
    const to = log ? Math.log : (v) => v, from = to(low), span = to(high) - from;
    return { at: (v) => (to(v) - from) / span, ticks: ticks(low, high, log) };
  }

  // ways through the plane: one point for each frame, or a single one
  function paths(panel, frames) {
    const log = panel.log || "", xs = (mark) => mark.x || frames;
    const x = axis(panel.marks.flatMap(xs), log.includes("x"), panel.xlim);
    const y = axis(panel.marks.flatMap((mark) => mark.y), log.includes("y"), panel.ylim);
    const across = (v) => LEFT + (RIGHT - LEFT) * x.at(v);
    const up = (v) => BOTTOM - (BOTTOM - TOP) * y.at(v);
    let frame = `<rect x="${LEFT}" y="${TOP}" width="${RIGHT - LEFT}" height="${BOTTOM - TOP}"
      fill="#F4F4F4"/>`;
    for (const v of x.ticks)
      frame += `<path d="M${across(v)} ${TOP}V${BOTTOM}" stroke="#fff"/>`
        + text(Math.min(across(v), WIDTH - 15), BOTTOM + 14, short(v), 'text-anchor="middle"');
    for (const v of y.ticks)
      frame += `<path d="M${LEFT} ${up(v)}H${RIGHT}" stroke="#fff"/>`
        + text(LEFT - 5, up(v) + 3.5, short(v), 'text-anchor="end"');
    frame += text((LEFT + RIGHT) / 2, BOTTOM + 32, panel.x, 'text-anchor="middle"');
    const where = (mark, k) => {
      const [a, b] = [xs(mark)[k], mark.y[k]];
      return known(a) && known(b) && isFinite(across(a)) && isFinite(up(b)) && [across(a), up(b)];
    };
    const segments = new Map(panel.marks.map((mark) => {
      let pen = "M";
      return [mark, mark.y.map((_, k) => {
        const p = where(mark, k), drawn = p ? `${pen}${p[0].toFixed(1)} ${p[1].toFixed(1)}` : "";
        pen = p ? "L" : "M";
        return drawn;
      })];
    }));
    const way = (mark, last, more = "") => mark.y.length === 1 ? ""
      : `<path d="${segments.get(mark).slice(0, last + 1).join("")}" stroke="${mark.color}"
          stroke-width="1.6" fill="none" stroke-dasharray="${DASHES[mark.dash] || ""}" ${more}/>`;
    const clipped = (drawn) => `<svg x="${LEFT - 6}" y="${TOP}" width="${RIGHT - LEFT + 12}"
      height="${BOTTOM - TOP}" viewBox="${LEFT - 6} ${TOP} ${RIGHT - LEFT + 12} ${BOTTOM - TOP}">
      ${drawn}</svg>`;
    const diagonal = panel.diagonal
      ? `<path d="M${LEFT} ${BOTTOM}L${RIGHT} ${TOP}" stroke="#7F7F7F"/>` : "";
    return {
      back: (marks) => frame
        + clipped(diagonal + marks.map((m) => way(m, m.y.length - 1, 'opacity="0.25"')).join("")),
      front: (marks, now) => clipped(marks.map((mark) => {
        const at = Math.min(now, mark.y.length - 1), p = where(mark, at);
        return way(mark, at) + (p ? `<circle cx="${p[0]}" cy="${p[1]}"
          r="${mark.y.length > 1 ? 3 : 4.5}" stroke="${mark.color}" stroke-width="1.5"
          fill="${mark.hollow ? "#fff" : mark.color}"/>` : "");
      }).join("")),
      spots: (marks, now) => marks.flatMap((mark) => mark.y.map((v, k) => {
        const p = where(mark, k);
        return p && {
          x: p[0], y: p[1], now: k === Math.min(now, mark.y.length - 1),
          words: `${mark.name}: ${panel.x} ${short(xs(mark)[k])}, ${panel.title} ${short(v)}`
            + (mark.note || ""),
        };
      }).filter(Boolean)),
    };
  }

  // layers as bars about zero with the last frame's as shadows, and links between them as arcs
  function network(panel) {
    const nodes = panel.marks.flatMap((mark) => mark.nodes.flat());
    const layers = panel.marks[0].nodes[0].length;
    const middle = (TOP + BOTTOM) / 2, linked = panel.marks.some((mark) => mark.links.length);
    const half = (linked ? 0.5 : 0.9) * (BOTTOM - TOP) / 2 / Math.max(...nodes);
    const across = (i) => 30 + (WIDTH - 50) * (i + 0.5) / layers;
    const wide = 0.5 * (WIDTH - 50) / layers;
    const top = half * Math.max(...nodes);
    const bars = (heights, shade) => heights.map((n, i) =>
      `<rect x="${across(i) - wide}" y="${middle - n * half}" width="${2 * wide - 3}"
        height="${2 * n * half}" fill="${shade}"/>`).join("");
    const foot = (w) => middle + (w > 0 ? -1 : 1) * (top + 2);
    const rise = (from, to) => 0.42 * (BOTTOM - TOP) / 2 * (to - from) / (layers - 1);
    const alive = (mark, now) => mark.links.map(([from, to, weights]) => [from, to, weights[now]])
      .filter(([, , w]) => w);
    return {
      back: ([mark]) => mark ? bars(mark.nodes.at(-1), "#D5DCE6") : "",
      front: ([mark], now) => {
        if (!mark) return "";
        const largest = Math.max(...mark.links.flatMap(([, , w]) => w.map(Math.abs)));
        const labels = mark.nodes[now].map((n, i) =>
          text(across(i) - 1.5, BOTTOM + 14, panel.names[i], 'text-anchor="middle"')
          + text(across(i) - 1.5, BOTTOM + 28, n, 'text-anchor="middle"'));
        const arcs = alive(mark, now).map(([from, to, w]) =>
          `<path d="M${across(from)} ${foot(w)}A${(across(to) - across(from)) / 2} ${rise(from, to)}
            0 0 ${w > 0 ? 1 : 0} ${across(to)} ${foot(w)}" fill="none"
            stroke="${w > 0 ? "#00518C" : "#8C1900"}"
            stroke-width="${0.5 + 3 * Math.abs(w) / largest}"/>`);
        return bars(mark.nodes[now], "#33548A") + labels.join("") + arcs.join("");
      },
      spots: ([mark], now) => !mark ? [] : [
        ...mark.nodes[now].map((n, i) =>
          ({ x: across(i), y: middle, now: true, words: `${panel.names[i]}: ${n} active` })),
        ...alive(mark, now).map(([from, to, w]) => ({
          x: (across(from) + across(to)) / 2, y: foot(w) + (w > 0 ? -1 : 1) * rise(from, to),
          now: true, words: `${panel.names[from]} → ${panel.names[to]}: `
            + `${w > 0 ? "+" : "−"}${short(Math.abs(w))}`,
        })),
      ],
    };
  }

  function decoded({ bytes, shape }) {
    const raw = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
    const [frames, count, tall, wide] = shape, size = tall * wide;
    return (now) => {
      const at = Math.min(now, frames - 1);
      return Array.from({ length: count }, (_, i) => ({
        tall, wide, pixels: raw.subarray((at * count + i) * size, (at * count + i + 1) * size),
      }));
    };
  }

  // what a kernel makes of an image, without padding, stretched over all grays; 128 is zero
  function correlated(image, kernel) {
    const tall = image.tall - kernel.tall + 1, wide = image.wide - kernel.wide + 1;
    if (kernel.pixels.every((v) => v === 128)) return { tall, wide, pixels: null };
    const sums = new Float32Array(tall * wide);
    for (let r = 0; r < tall; r++)
      for (let c = 0; c < wide; c++) {
        let sum = 0;
        for (let i = 0; i < kernel.tall; i++)
          for (let j = 0; j < kernel.wide; j++)
            sum += image.pixels[(r + i) * image.wide + c + j] * (kernel.pixels[i * kernel.wide + j] - 128);
        sums[r * wide + c] = sum;
      }
    const low = Math.min(...sums), span = Math.max(...sums) - low || 1;
    return { tall, wide, pixels: Uint8Array.from(sums, (v) => (255 * (v - low)) / span) };
  }

  // small gray images in rows; a kernel that is zero, and what it makes, is blank
  function tiles(panel, frames, panels) {
    const inPanel = (share) => Math.min(BOTTOM - TOP + 20, (WIDTH - 20) * share);
    const stores = panel.marks.map((mark) => decoded(mark.pixels));
    const kernels = panel.kernels !== null && decoded(panels[panel.kernels].marks[0].pixels);
    const front = ([mark], now) => {
      if (!mark) return "";
      let shown = stores[panel.marks.indexOf(mark)](now);
      if (kernels) shown = kernels(now).map((kernel) => correlated(shown[0], kernel));
      const { tall, wide } = shown[0], columns = panel.columns, step = wide + 2;
      const canvas = document.createElement("canvas");
      canvas.width = columns * step;
      canvas.height = Math.ceil(shown.length / columns) * (tall + 2);
      const context = canvas.getContext("2d");
      let active = 0;
      shown.forEach((tile, i) => {
        const x = (i % columns) * step, y = Math.floor(i / columns) * (tall + 2);
        if (!tile.pixels || (panel.blank && tile.pixels.every((v) => v === 128))) {
          context.fillStyle = "#E4E4E4";
          context.fillRect(x, y, tile.wide, tile.tall);
          return;
        }
        active++;
        const image = context.createImageData(wide, tall);
        tile.pixels.forEach((v, k) => image.data.set([v, v, v, 255], 4 * k));
        context.putImageData(image, x, y);
      });
      const height = inPanel(canvas.height / canvas.width);
      const counted = panel.blank || kernels
        ? text(WIDTH / 2, TOP + height + 14, `${active} of ${shown.length}`, 'text-anchor="middle"') : "";
      return `<image x="10" y="${TOP}" width="${WIDTH - 20}" height="${height}"
        style="image-rendering:pixelated" href="${canvas.toDataURL()}"/>${counted}`;
    };
    const [, count, tall, wide] = kernels ? panels[panel.kernels].marks[0].pixels.shape
      : panel.marks[0].pixels.shape;
    const lines = Math.ceil(count / panel.columns);
    const height = TOP + 24 + inPanel((lines * (tall + 2)) / (panel.columns * (wide + 2)));
    return { back: () => "", front, spots: () => [], height };
  }

  const KINDS = { paths, network, tiles };

  function start(figure) {
    const data = JSON.parse(figure.dataset.browse);
    figure.textContent = "";
    const state = { now: data.start, chosen: {}, off: {} };
    const tagged = [...data.panels, ...data.panels.flatMap((panel) => panel.marks)];
    const values = (key, among = tagged) =>
      [...new Set(among.filter((item) => key in item.tags).map((item) => item.tags[key]))];
    const chosen = ({ tags }) =>
      Object.keys(state.chosen).every((key) => !(key in tags) || tags[key] === state.chosen[key]);
    const matches = (item) => chosen(item)
      && Object.keys(state.off).every((key) => !state.off[key].has(item.tags[key]));

    const controls = make(figure, "div", {}, "display:flex;flex-wrap:wrap;gap:0.3em 1.2em");
    for (const key of data.one) {
      const label = make(controls, "label", {}, "white-space:nowrap;max-width:100%");
      label.append(`${key} `);
      const select = make(label, "select", { "aria-label": key, "data-lm-suppress-shortcuts": true },
        "max-width:18em");
      for (const value of values(key)) make(select, "option", { value }).textContent = value;
      state.chosen[key] = select.value;
      select.onchange = () => { state.chosen[key] = select.value; draw(); };
    }
    const boxes = [];
    for (const key of data.many) {
      state.off[key] = new Set();
      const set = make(figure, "div", { role: "group", "aria-label": `${key} on and off` },
        "display:flex;flex-wrap:wrap;gap:0 1em;align-items:center");
      make(set, "span", { "aria-hidden": true }, "opacity:0.75").textContent = key;
      for (const value of values(key)) {
        const label = make(set, "label", {}, "white-space:nowrap");
        const box = make(label, "input", { type: "checkbox", checked: true });
        const colors = new Set(tagged.filter((item) => item.tags[key] === value).map((m) => m.color));
        if (colors.size === 1 && ![...colors].includes(undefined))
          make(label, "span", { "aria-hidden": true }, `display:inline-block;width:0.8em;height:0.8em;
            margin-right:0.3em;outline:1px solid #888;background:${[...colors][0]}`);
        label.append(value);
        box.onchange = () => { state.off[key][box.checked ? "delete" : "add"](value); draw(); };
        boxes.push({ key, value, label });
      }
    }

    const grid = make(figure, "div", {}, "display:grid;gap:0.4em;margin:0.3em 0;max-width:1300px;"
      + "grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr))");
    const places = data.panels.map((panel) => {
      const place = make(grid, "div", {
        tabindex: 0, role: "img", "data-lm-suppress-shortcuts": true,
        "aria-label": `${panel.title}. ${data.alt} Arrow keys: up and down go from value to value`
          + (data.frames.length ? `, left and right through ${data.label}.` : "."),
      }, "position:relative;background:#fff;color:#222");
      const kind = KINDS[panel.kind](panel, data.frames, data.panels);
      const sheet = (style, drawn) => `<svg viewBox="0 0 ${WIDTH} ${kind.height || HEIGHT}"
        width="100%" font-size="11" font-family="sans-serif" fill="#222" style="${style}">${drawn}</svg>`;
      // what stays is a layer of its own, so that a browser does not paint it anew with every frame
      place.innerHTML = sheet("display:block;will-change:transform",
        `${text(WIDTH / 2, 16, panel.title, 'text-anchor="middle" font-weight="bold"')}<g></g>`)
        + sheet("position:absolute;inset:0;will-change:transform",
          '<g></g><circle r="7" fill="none" stroke="#111" visibility="hidden"/>');
      const [back, front] = place.querySelectorAll(":scope > svg > g");
      return { panel, place, kind, back, front, ring: front.nextSibling, spots: () => [] };
    });
    const told = make(figure, "div", { role: "status" }, "min-height:1.5em;font-size:0.9em");
    // on a ground of its own: legible in light and dark
    const error = make(figure, "div", { role: "alert" },
      "white-space:pre-wrap;width:fit-content;padding:0 0.4em;background:#FBE9E7;color:#8C1900");

    function draw() {
      try {
        for (const item of places) {
          const { panel, place } = item;
          const held = matches(panel) && panel.marks.some(chosen);
          place.style.display = held ? "" : "none";
          if (!held) continue;
          const seen = panel.marks.filter(matches);
          const drawn = item.kind.back(seen);
          if (drawn !== item.drawn) item.back.innerHTML = item.drawn = drawn;
          item.front.innerHTML = item.kind.front(seen, state.now);
          let spots;
          item.spots = () => (spots ??= item.kind.spots(seen, state.now));
          tell(item, null);
        }
        const among = data.panels.filter(matches).flatMap((panel) => [panel, ...panel.marks]);
        for (const { key, value, label } of boxes)
          label.style.display = values(key, among).includes(value) ? "" : "none";
        error.textContent = "";
      } catch (fault) {
        error.textContent = `${fault.name}: ${fault.message}`;
      }
    }

    function tell(item, spot) {
      const { ring } = item;
      ring.setAttribute("visibility", spot ? "visible" : "hidden");
      if (spot) { ring.setAttribute("cx", spot.x); ring.setAttribute("cy", spot.y); }
      told.textContent = spot ? spot.words : "";
    }

    for (const item of places) {
      item.place.onmousemove = (event) => {
        const box = item.place.getBoundingClientRect(), scale = WIDTH / box.width;
        const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
        const far = (spot) => Math.hypot(spot.x - x, spot.y - y);
        const near = item.spots().reduce((a, b) => (far(a) <= far(b) ? a : b), { x: 1e9, y: 1e9 });
        tell(item, far(near) < 25 ? near : null);
      };
      item.place.onmouseleave = () => tell(item, null);
      item.place.onkeydown = (event) => {
        const along = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        const next = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (along && data.frames.length) go(state.now + along);
        else if (!next) return;
        const spots = item.spots().filter((spot) => spot.now);
        if (next) item.at = (item.at ?? -1) + next;
        if (spots.length && item.at !== undefined)
          tell(item, spots[(item.at % spots.length + spots.length) % spots.length]);
        event.preventDefault();
        event.stopPropagation();
      };
    }

    let go = () => {};
    if (data.frames.length) {
      const last = data.frames.length - 1;
      const row = make(figure, "div", {}, "display:flex;align-items:center;gap:0.6em;max-width:46em");
      const play = make(row, "button", { "aria-label": "play or pause", title: "play or pause" });
      const input = make(row, "input", {
        type: "range", min: 0, max: last, step: 1, "aria-label": data.label,
        "data-lm-suppress-shortcuts": true,
      }, "flex:1;min-width:8em");
      const output = make(row, "output", { "aria-hidden": true }, "min-width:7em");
      let timer = null;
      const stop = () => { clearInterval(timer); timer = null; play.textContent = "\u25b6"; };
      go = (k) => {
        state.now = Math.max(0, Math.min(last, k));
        input.value = state.now;
        output.textContent = `${data.label} ${data.frames[state.now]}`;
        input.setAttribute("aria-valuetext", output.textContent);
        draw();
      };
      input.oninput = () => go(Number(input.value));
      play.onclick = () => {
        if (timer) return stop();
        play.textContent = "\u23f8";
        if (state.now >= last) go(0);
        timer = setInterval(() => {
          if (!figure.isConnected || state.now >= last) return stop();
          go(state.now + 1);
        }, Math.max(60, 6000 / last));
      };
      stop();
      go(state.now);
    } else draw();
  }

  for (const figure of document.querySelectorAll("figure[data-browse]:not([data-started])")) {
    figure.dataset.started = "";
    start(figure);
  }
})();
