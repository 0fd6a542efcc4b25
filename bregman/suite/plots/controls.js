// The sliders of motion.explore: an anywidget.
function render({ model, el }) {
  const sliders = model.get("sliders");
  const inputs = [];
  const make = (parent, tag, attributes, style) => {
    const node = document.createElement(tag);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    node.style.cssText = style || "";
    parent.appendChild(node);
    return node;
  };
  const show = () => model.get("positions").forEach((position, k) => {
    inputs[k].value = position;
    const text = sliders[k].texts[position];
    inputs[k].setAttribute("aria-valuetext", text);
    inputs[k].readout.textContent = text;
  });
  let rest = null;
  const set = (positions) => {
    model.set("positions", positions);
    clearTimeout(rest);
    rest = setTimeout(() => model.save_changes(), model.get("wait"));
  };
  const move = (k, position) => {
    const positions = model.get("positions").slice();
    positions[k] = position;
    set(positions);
  };
  sliders.forEach((slider, k) => {
    const row = make(el, "div", {}, "display:flex;align-items:center;gap:0.7em;max-width:46em");
    make(row, "span", {"aria-hidden": true}, "min-width:7em;text-align:right").textContent
      = slider.label;
    const input = make(row, "input", {type: "range", min: 0, max: slider.texts.length - 1,
      step: 1, "aria-label": slider.label, "data-lm-suppress-shortcuts": true},
      "flex:1;min-width:14em");  // so that arrow keys are the slider's, not JupyterLab's
    input.readout = make(row, "output", {"aria-hidden": true}, "min-width:5em");
    const play = make(row, "button", {"aria-label": "play " + slider.label, title: "play"});
    play.textContent = "\u25b6";
    let timer = null;
    const stop = () => { clearInterval(timer); timer = null; play.textContent = "\u25b6"; };
    play.onclick = () => {
      if (timer) return stop();
      play.textContent = "\u23f8";
      const last = slider.texts.length - 1;
      if (Number(input.value) === last) move(k, 0);
      timer = setInterval(() => {
        if (!el.isConnected || Number(input.value) >= last) return stop();
        move(k, Number(input.value) + 1);
      }, 400);
    };
    input.oninput = () => move(k, Number(input.value));
    inputs.push(input);
  });
  const reset = make(el, "button", {"aria-label": "reset all sliders"}, "margin-left:8em");
  reset.textContent = "reset";
  reset.onclick = () => set(model.get("start"));
  // on a ground of its own: legible in light and dark
  const error = make(el, "div", {role: "alert"},
    "white-space:pre-wrap;width:fit-content;padding:0 0.4em;background:#FBE9E7;color:#8C1900");
  const complain = () => { error.textContent = model.get("error"); };
  model.on("change:positions", show);
  model.on("change:error", complain);
  show();
  complain();
}
export default { render };
