/* The explorer: a photograph, and up to four maps over it, each with a method, a layer, a class and weights of its own.
   A classic script without a library, which works from a disk as from a server. index.js, loaded before it, says what there is;
   photos/<name>.js is loaded when that photograph is asked for. Everything that is shown was computed when these files were made
   (book/explorer.py); here maps are only enlarged, coloured and laid over the photograph. */
(function () {
  "use strict";

  const HERE = document.currentScript.src.replace(/[^/]*$/, "");
  const VERSION = 1, MOST = 4, USUAL = 65; // strength of the map
  const KEYS = ["method", "layer", "class", "weights"];

  // ------------------------------------------------------------------------------------------------- without a page

  /** Bytes of a base64 text. */
  function bytes(text) {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  }

  /** A map of side n, enlarged bilinearly to size x size: values from 0 to 1. Convention: as PyTorch's align_corners=False. */
  function enlarge(map, n, size) {
    const out = new Float32Array(size * size);
    const low = new Int32Array(size), high = new Int32Array(size), share = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      const at = Math.max(((i + 0.5) * n) / size - 0.5, 0);
      low[i] = Math.min(Math.floor(at), n - 1);
      high[i] = Math.min(low[i] + 1, n - 1);
      share[i] = at - low[i];
    }
    for (let y = 0; y < size; y++) {
      const above = low[y] * n, below = high[y] * n, fy = share[y];
      for (let x = 0; x < size; x++) {
        const fx = share[x];
        const top = map[above + low[x]] * (1 - fx) + map[above + high[x]] * fx;
        const bottom = map[below + low[x]] * (1 - fx) + map[below + high[x]] * fx;
        out[y * size + x] = (top * (1 - fy) + bottom * fy) / 255;
      }
    }
    return out;
  }

  /** Red, green, blue and opacity of the map over the photograph; strength from 0, the photograph alone, to 1, the map alone. */
  function blended(photo, values, colours, strength) {
    const out = new Uint8ClampedArray(photo.length);
    for (let i = 0; i < photo.length; i += 4) {
      const grey = 0.299 * photo[i] + 0.587 * photo[i + 1] + 0.114 * photo[i + 2];
      const c = values ? 3 * Math.min(255, Math.floor(256 * values[i / 4])) : 0; // as Matplotlib does
      for (let k = 0; k < 3; k++) {
        out[i + k] = strength === 0 ? photo[i + k] : (1 - strength) * grey + strength * colours[c + k];
      }
      out[i + 3] = 255;
    }
    return out;
  }

  /** What a link says: {photo, strength, outline, panels: [{method, layer, class, weights}]}. Strength and outline as usual where
      it says nothing of them, so that a link shows the same wherever it is opened. */
  function parsed(hash) {
    const said = new URLSearchParams(hash.replace(/^#/, ""));
    const panels = [];
    for (let n = 1; n <= MOST; n++) {
      const panel = {};
      for (const key of KEYS) {
        const value = said.get(n === 1 ? key : key + "-" + n);
        if (value !== null) panel[key] = value;
      }
      if (n === 1 || Object.keys(panel).length) panels.push(panel);
    }
    const strength = said.has("strength") ? Number(said.get("strength")) : NaN;
    return {
      photo: said.get("photo"), panels,
      strength: strength >= 0 && strength <= 100 ? Math.round(strength) : USUAL,
      outline: said.get("outline") !== "no",
    };
  }

  /** The link to a state. What is as usual is left out. */
  function linked(state) {
    const said = new URLSearchParams({ photo: state.photo });
    state.panels.forEach((panel, i) => {
      for (const key of KEYS) {
        const usual = key === "weights" ? "trained" : "";
        if (panel[key] && panel[key] !== usual) said.set(i ? key + "-" + (i + 1) : key, panel[key]);
      }
    });
    if (state.strength !== USUAL) said.set("strength", String(state.strength));
    if (!state.outline) said.set("outline", "no");
    return "#" + said;
  }

  const percent = (share) => Math.round(100 * share) + "%";

  /** What a map shows, in words. entry: of the file; outlined: names of the classes with an outline; areas: their shares. */
  function words(entry, outlined, areas, name) {
    if (!entry) return "This map was not made.";
    if (entry.blank) return "A blank map: " + entry.blank + ".";
    const said = ["Brightest " + percent(entry.peak[0]) + " from the left and " + percent(entry.peak[1]) + " from the top"];
    const i = outlined.indexOf(name);
    if (i < 0) {
      said[0] += ".";
      said.push(name ? "Nobody has outlined " + name + " on this photograph." : "It knows nothing of the class.");
      outlined.forEach((other, k) => said.push(percent(entry.inside[k]) + " of the map lies on " + other + "."));
    } else {
      said[0] += entry.hit[i] ? ", inside the outline." : ", outside of the outline.";
      said.push(percent(entry.inside[i]) + " of the map lies inside the outline of " + name + ", which covers " + percent(areas[i]) + " of the picture.");
    }
    return said.join(" ");
  }

  window.SeeingWhyExplorer = { bytes, enlarge, blended, parsed, linked, words };

  // ----------------------------------------------------------------------------------------------------- on the page

  const root = document.getElementById("sw-explorer");
  if (!root) return;
  const book = window.SEEING_WHY_EXPLORER;
  if (!book || book.version !== VERSION) {
    root.textContent = "The explorer's maps are not here. In a checkout of the book, `python book/explorer.py` makes them; then build the book again.";
    return;
  }

  const SIZE = book.picture, COLOURS = bytes(book.colours);
  const METHODS = new Map(book.methods.map((m) => [m.id, m]));
  const LAYERS = book.layers.map((l) => l.id);
  const photos = {}, waiting = {};
  const state = { photo: null, strength: USUAL, outline: true, panels: [] };
  const panels = []; // what is on the page for each of state.panels
  let shownOnce = false; // on opening the page, nothing is said aloud
  let turn = 0; // counts what is asked for, so that a photograph that comes late is not shown
  let current = null; // the photograph that is shown

  /** An element with attributes, properties for handlers, and children. */
  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (typeof value === "function") node.addEventListener(key, value);
      else if (value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  }

  let ids = 0;
  /** A labelled control: [the pair of label and control, the control]. */
  function labelled(text, control) {
    control.id = "sw-control-" + ++ids;
    return make("div", { class: "sw-field" }, make("label", { for: control.id }, text), control);
  }

  const shownChoices = new WeakMap();
  /** Put choices into a select, in groups where they name one, and choose one. What is there already is left alone. */
  function choices(select, options, value) {
    const groups = new Map(), same = JSON.stringify(options) === shownChoices.get(select);
    shownChoices.set(select, JSON.stringify(options));
    if (!same) select.replaceChildren();
    for (const option of same ? [] : options) {
      const node = make("option", { value: option.id, disabled: option.disabled || false }, option.name);
      if (!option.group) { select.append(node); continue; }
      if (!groups.has(option.group)) {
        groups.set(option.group, make("optgroup", { label: option.group }));
        select.append(groups.get(option.group));
      }
      groups.get(option.group).append(node);
    }
    select.value = value;
  }

  // the photographs

  window.SEEING_WHY_EXPLORER_PHOTO = function (found) {
    photos[found.id] = found;
  };

  /** A photograph with its maps and pixels; its file is loaded once. */
  function loaded(name) {
    if (!waiting[name]) {
      waiting[name] = new Promise((resolve, reject) => {
        const failed = () => { delete waiting[name]; reject(new Error("The maps of " + name + " could not be loaded.")); };
        const script = make("script", { src: HERE + "photos/" + encodeURIComponent(name) + ".js", error: failed });
        script.addEventListener("load", () => {
          const photo = photos[name];
          if (!photo || photo.version !== VERSION) return failed();
          const image = new Image();
          image.onload = () => {
            const canvas = make("canvas", { width: SIZE, height: SIZE });
            const context = canvas.getContext("2d", { willReadFrequently: true });
            context.drawImage(image, 0, 0, SIZE, SIZE);
            photo.pixels = context.getImageData(0, 0, SIZE, SIZE).data;
            photo.outlined = photo.classes.filter((c) => c.outlines.length).map((c) => c.name);
            resolve(photo);
          };
          image.onerror = failed;
          image.src = photo.picture;
        });
        document.head.append(script);
      });
    }
    return waiting[name];
  }

  // what is asked for

  const keyOf = (panel) => [panel.method, panel.layer, METHODS.get(panel.method).asks ? panel.class : "", panel.weights].join("|");
  const has = (panel) => keyOf(panel) in current.maps;

  /** A panel that can be shown, as near as possible to the one asked for; what had to be changed is said in `changed`. */
  function settled(asked, changed) {
    const names = current.classes.map((c) => c.name);
    const panel = { method: asked.method, layer: asked.layer || "", class: asked.class, weights: asked.weights || "trained" };
    const replaced = (what, value, by) => { if (value) changed.push("No " + what + " “" + value + "” here; showing " + by + "."); return by; };
    if (!METHODS.has(panel.method)) panel.method = replaced("method", panel.method, METHODS.has("grad-cam") ? "grad-cam" : book.methods[0].id);
    if (!names.includes(panel.class)) panel.class = replaced("class", panel.class, names[0]);
    const usual = LAYERS.includes(asked.kept) ? asked.kept : LAYERS[LAYERS.length - 1];
    if (!METHODS.get(panel.method).layered) panel.layer = "";
    else if (!LAYERS.includes(panel.layer)) panel.layer = replaced("layer", panel.layer, usual);
    panel.kept = panel.layer || asked.kept; // for when a method with layers is chosen again
    if (panel.weights !== "trained" && panel.weights !== "shuffled") panel.weights = replaced("weights", panel.weights, "trained");
    if (!has(panel)) panel.weights = replaced("map with the weights", panel.weights === "trained" ? "" : panel.weights, "trained");
    return panel;
  }

  // controls of the whole explorer

  const status = make("p", { class: "sw-aloud", role: "status", "aria-live": "polite" }); // heard
  const note = make("p", { class: "sw-note" }); // seen: what went otherwise than asked for
  const credit = make("p", { class: "sw-credit" });
  const photoSelect = make("select", { change: () => toPhoto(photoSelect.value) });
  // what asks for a photograph is off until there is one
  const strength = make("input", { type: "range", min: 0, max: 100, step: 5, disabled: true, input: () => setStrength(Number(strength.value)) });
  const strengthOut = make("span", { class: "sw-output", "aria-hidden": "true" });
  const outline = make("input", { type: "checkbox", disabled: true, change: () => { state.outline = outline.checked; draw(); remember(); } });
  const add = make("button", { type: "button", disabled: true, click: () => addPanel() }, "Add a map");
  const grid = make("div", { class: "sw-grid" });

  /** The panels of now for another photograph: its own classes are asked for. */
  function forPhoto(name) {
    const classes = book.photos.find((p) => p.id === name).classes;
    const asked = [...new Set(state.panels.map((p) => p.class))];
    return state.panels.map((p) => ({ ...p, class: classes[Math.min(asked.indexOf(p.class), classes.length - 1)] }));
  }

  /** Another photograph; its panels are those of when it comes, for something may be changed meanwhile. */
  function toPhoto(name) {
    return go({ photo: name, panels: () => forPhoto(name) });
  }

  function setStrength(value) {
    state.strength = Math.max(0, Math.min(100, value));
    draw();
    remember();
  }

  /** Show another selection; what is said aloud at the end begins with `first`. Resolves to whether it is shown. */
  function go(asked, first) {
    const mine = ++turn;
    const changed = [];
    let name = asked.photo || state.photo || book.photos[0].id;
    if (!book.photos.some((p) => p.id === name)) {
      changed.push("No photograph “" + name + "” here; showing " + book.photos[0].title + ".");
      name = book.photos[0].id;
    }
    if (!photos[name]) note.textContent = "Loading …";
    return loaded(name).then((photo) => {
      if (mine !== turn) return false;
      const other = state.photo !== name;
      const wanted = typeof asked.panels === "function" ? asked.panels() : asked.panels;
      current = photo;
      state.photo = name;
      if (asked.strength !== undefined) state.strength = asked.strength;
      if (asked.outline !== undefined) state.outline = asked.outline;
      state.panels = (wanted && wanted.length ? wanted : [{}]).slice(0, MOST).map((p) => settled(p, changed));
      while (panels.length > state.panels.length) panels.pop().node.remove();
      while (panels.length < state.panels.length) panels.push(newPanel(panels.length));
      photoSelect.value = name;
      credit.textContent = photo.title + ". Photograph: " + photo.credit + ".";
      draw();
      remember();
      note.textContent = changed.join(" ");
      if (shownOnce || changed.length) say([...changed, first || (other ? photo.title + "." : "")], 0);
      shownOnce = true;
      return true;
    }).catch((error) => {
      if (mine !== turn) return false;
      note.textContent = status.textContent = error.message;
      photoSelect.value = state.photo || ""; // without a photograph none is chosen, so that each can be
      return false;
    });
  }

  /** Say in words what a panel shows, after what else there is to say. */
  function say(first, i) {
    const many = state.panels.length > 1 ? "Map " + (i + 1) + ": " : "";
    status.textContent = [...first.filter(Boolean), many + described(state.panels[i])].join(" ");
  }

  /** Keep the selection in the address, so that it can be copied; nothing is added to the history. */
  function remember() {
    try {
      history.replaceState(null, "", linked(state));
    } catch (error) {
      // a browser that forbids it for this page: the address stays, all else works
    }
  }

  // one panel

  const nameOf = (id) => METHODS.get(id).name;

  function described(panel) {
    const method = METHODS.get(panel.method);
    const where = panel.layer ? " at " + panel.layer : "";
    const what = method.asks ? ", asked for " + panel.class : "";
    const how = panel.weights === "shuffled" ? ", shuffled weights" : "";
    const title = method.name[0].toUpperCase() + method.name.slice(1) + where + what + how;
    return title + ". " + words(current.maps[keyOf(panel)], current.outlined, current.areas, method.asks ? panel.class : "");
  }

  function newPanel(i) {
    const view = { selects: {} };
    const change = (key) => () => alter(panels.indexOf(view), { [key]: view.selects[key].value });
    for (const key of KEYS) view.selects[key] = make("select", { change: change(key) });
    view.canvas = make("canvas", {
      width: SIZE, height: SIZE, role: "img", tabindex: 0, "aria-describedby": "sw-keys", keydown: (event) => pressed(event, panels.indexOf(view)),
    });
    view.caption = make("figcaption", {});
    view.about = make("p", { class: "sw-about" });
    view.remove = make("button", { type: "button", class: "sw-remove", click: () => removePanel(panels.indexOf(view)) });
    view.legend = make("legend", {});
    view.node = make("fieldset", { class: "sw-panel" }, view.legend,
      labelled("Method", view.selects.method), labelled("Layer", view.selects.layer),
      labelled("Asked for", view.selects.class), labelled("Weights", view.selects.weights),
      make("figure", { class: "sw-figure" }, view.canvas, view.caption), view.about, view.remove);
    grid.append(view.node);
    return view;
  }

  /** Change something of one panel. */
  function alter(i, changes) {
    const changed = [];
    state.panels[i] = settled({ ...state.panels[i], ...changes }, changed);
    draw();
    remember();
    note.textContent = changed.join(" ");
    say(changed, i);
  }

  function addPanel() {
    if (state.panels.length >= MOST) return;
    const last = state.panels[state.panels.length - 1];
    const at = book.methods.findIndex((m) => m.id === last.method);
    const next = { ...last, method: book.methods[(at + 1) % book.methods.length].id, weights: "trained" };
    go({ photo: state.photo, panels: [...state.panels, next] }).then((shown) => {
      if (!shown) return;
      panels[panels.length - 1].selects.method.focus();
      say([], panels.length - 1);
    });
  }

  function removePanel(i) {
    go({ photo: state.photo, panels: state.panels.filter((_, k) => k !== i) }, "Map " + (i + 1) + " removed.").then(() => add.focus());
  }

  const step = (list, value, by) => list[(list.indexOf(value) + by + list.length) % list.length];

  /** The keys of a map that has the focus. */
  function pressed(event, i) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const panel = state.panels[i];
    const names = current.classes.map((c) => c.name);
    const keys = {
      ArrowRight: () => alter(i, { method: step([...METHODS.keys()], panel.method, 1) }),
      ArrowLeft: () => alter(i, { method: step([...METHODS.keys()], panel.method, -1) }),
      ArrowDown: () => panel.layer && alter(i, { layer: step(LAYERS, panel.layer, 1) }),
      ArrowUp: () => panel.layer && alter(i, { layer: step(LAYERS, panel.layer, -1) }),
      c: () => alter(i, { class: step(names, panel.class, 1) }),
      w: () => alter(i, { weights: panel.weights === "trained" ? "shuffled" : "trained" }),
      p: () => toPhoto(step(book.photos.map((p) => p.id), state.photo, 1)),
      o: () => { state.outline = !state.outline; draw(); remember(); },
      "+": () => setStrength(state.strength + 5),
      "-": () => setStrength(state.strength - 5),
    };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!(key in keys)) return;
    event.preventDefault();
    event.stopPropagation();
    keys[key]();
  }

  // drawing

  function draw() {
    strength.disabled = outline.disabled = false;
    strength.value = state.strength;
    strength.setAttribute("aria-valuetext", state.strength === 0 ? "the photograph alone" : state.strength === 100 ? "the map alone" : state.strength + " percent map");
    strengthOut.textContent = state.strength + "%";
    outline.checked = state.outline;
    add.disabled = state.panels.length >= MOST;
    for (const preset of presets) preset.button.disabled = !preset.panels();
    panels.forEach((view, i) => drawPanel(view, state.panels[i], i));
  }

  function drawPanel(view, panel, i) {
    const method = METHODS.get(panel.method);
    const shuffled = has({ ...panel, weights: "shuffled" });
    const { selects } = view;
    choices(selects.method, book.methods.map((m) => ({ ...m, group: m.family })), panel.method);
    choices(selects.layer, method.layered ? book.layers : [{ id: "", name: "its own" }], panel.layer);
    selects.layer.disabled = !method.layered;
    choices(selects.class, current.classes.map((c) => ({ id: c.name, name: c.name + " (" + (c.p < 0.005 ? "under 1%" : percent(c.p)) + ")" })), panel.class);
    selects.class.disabled = !method.asks;
    choices(selects.weights, [
      { id: "trained", name: "trained" },
      { id: "shuffled", name: shuffled ? "shuffled" : "shuffled (not made)", disabled: !shuffled },
    ], panel.weights);
    view.legend.textContent = "Map " + (i + 1);
    view.remove.textContent = "Remove map " + (i + 1);
    view.remove.hidden = state.panels.length === 1;
    view.about.textContent = method.about;
    const text = described(panel);
    view.caption.textContent = text;
    view.canvas.setAttribute("aria-label", current.title + ". " + text);

    const entry = current.maps[keyOf(panel)];
    const values = entry && entry.data ? enlarge(bytes(entry.data), entry.side, SIZE) : null;
    const context = view.canvas.getContext("2d");
    context.putImageData(new ImageData(blended(current.pixels, values, COLOURS, state.strength / 100), SIZE, SIZE), 0, 0);
    if (!values) {
      context.font = "bold 20px sans-serif";
      context.textAlign = "center";
      context.fillStyle = "white";
      context.fillText("blank", SIZE / 2, SIZE / 2);
    }
    const known = current.classes.find((c) => c.name === panel.class);
    if (state.outline && method.asks && known) known.outlines.forEach((points) => trace(context, points));
  }

  /** A dashed white line on a dark one, seen on any colour. */
  function trace(context, points) {
    context.beginPath();
    points.forEach(([x, y], i) => (i ? context.lineTo(x * SIZE, y * SIZE) : context.moveTo(x * SIZE, y * SIZE)));
    context.closePath();
    context.lineWidth = 3;
    context.setLineDash([]);
    context.strokeStyle = "rgba(0, 0, 0, 0.6)";
    context.stroke();
    context.lineWidth = 1.5;
    context.setLineDash([6, 4]);
    context.strokeStyle = "white";
    context.stroke();
  }

  /** The scale of colours, none to most. */
  function legend() {
    const canvas = make("canvas", { width: 256, height: 1, class: "sw-scale", "aria-hidden": "true" });
    const context = canvas.getContext("2d"), line = context.createImageData(256, 1);
    for (let i = 0; i < 256; i++) line.data.set([COLOURS[3 * i], COLOURS[3 * i + 1], COLOURS[3 * i + 2], 255], 4 * i);
    context.putImageData(line, 0, 0);
    return make("p", { class: "sw-legend" }, "nothing", canvas, "the map’s most");
  }

  // side by side: what is compared is one thing, all else is as in the first map

  const some = (found) => (found.length > 1 ? found.slice(0, MOST) : null);
  const presets = [
    { name: "four methods", panels: () => {
      const wanted = ["grad-cam", "contrastive-excitation-backprop", "occlusion", "sise"].filter((id) => METHODS.has(id));
      return some(wanted.map((method) => ({ method, class: state.panels[0].class })));
    } },
    { name: "four layers", panels: () => {
      const first = state.panels[0];
      const method = [METHODS.get(first.method), METHODS.get("layercam"), ...book.methods].find((m) => m && m.layered);
      return method ? some(LAYERS.slice(-MOST).map((layer) => ({ ...first, method: method.id, layer }))) : null;
    } },
    { name: "the classes", panels: () => {
      const first = state.panels[0];
      return METHODS.get(first.method).asks ? some(current.classes.map((c) => ({ ...first, class: c.name, weights: "trained" }))) : null;
    } },
    { name: "trained and shuffled weights", panels: () => {
      const wanted = ["grad-cam", "guided-backprop"].filter((id) => METHODS.has(id));
      return some(wanted.flatMap((method) => ["trained", "shuffled"].map((weights) => ({ method, class: current.classes[0].name, weights }))));
    } },
  ];
  for (const preset of presets) {
    preset.button = make("button", { type: "button", disabled: true, click: () => go({ photo: state.photo, panels: preset.panels() }) }, preset.name);
  }

  // and there it is

  choices(photoSelect, book.photos.map((p) => ({ id: p.id, name: p.title })), book.photos[0].id);
  const strengthField = labelled("Strength of the map", strength);
  strengthField.append(strengthOut);
  const outlineField = labelled("Show the outline", outline);
  outlineField.classList.add("sw-check");
  const compare = make("div", { class: "sw-compare", role: "group", "aria-labelledby": "sw-compare" },
    make("span", { id: "sw-compare" }, "Side by side:"), ...presets.map((p) => p.button), add);
  const keys = make("details", { class: "sw-keys" }, make("summary", {}, "Keys"),
    make("p", { id: "sw-keys" }, "With the focus on a map: left and right arrow for the method, up and down for the layer, C for the class, W for the weights, P for the next photograph, O for the outline, plus and minus for the strength."));
  root.replaceChildren(make("div", { class: "sw-controls" }, labelled("Photograph", photoSelect), strengthField, outlineField),
    compare, note, grid, legend(), credit, keys, status);
  root.classList.add("sw-ready");

  for (const button of document.querySelectorAll("[data-sw-show]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      go(parsed(button.dataset.swShow)).then((shown) => {
        root.scrollIntoView({ block: "start" });
        if (shown) panels[0].canvas.focus({ preventScroll: true });
      });
    });
  }
  window.addEventListener("hashchange", () => { if (/[#&](photo|method)=/.test(location.hash)) go(parsed(location.hash)); });
  go(/[#&](photo|method)=/.test(location.hash) ? parsed(location.hash) : {}).then(() => root.setAttribute("data-ready", "yes"));
})();
