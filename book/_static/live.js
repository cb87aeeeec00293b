/* The live page: what the reader presses and sees. The network and the arithmetic are in live_worker.js.

   The network is loaded when the reader asks for it, from scripts beside this page. The picture is read, squashed,
   classified and explained on the reader's machine: there is no server that it could be sent to. */
globalThis.seeingWhyLive = {
  pieces: {},
  part(name, number, text) {
    (this.pieces[name] ??= [])[number] = text;
  },
};

(() => {
  "use strict";
  const root = document.getElementById("live");
  if (!root) return;
  const facts = globalThis.seeingWhyLiveFacts;
  const folder = new URL("live/", document.currentScript.src);
  const maths = seeingWhyMaths();
  const part = (name) => root.querySelector(`[data-live="${name}"]`);
  const NAMES = { cam: "CAM", grad_cam: "Grad-CAM", occlusion: "Occlusion", score_cam: "Score-CAM" };
  const WIDEST = 16384; // pixels of a canvas that every browser still draws
  const LONGEST = 512; // pixels of the longer side on the page
  const SHARES = 5; // classes that are listed

  // ------------------------------------------------------------------------------------------------ what is said

  /** For everybody, and read out by a screen reader. */
  function say(text) {
    part("status").textContent = text;
    part("problem").textContent = "";
  }

  function complain(text) {
    part("problem").textContent = text;
    part("status").textContent = "";
  }

  const ADVICE =
    location.protocol === "file:"
      ? "If it does not start from disk in your browser, run “python -m http.server” in the folder that holds this site's index.html " +
        "and open http://localhost:8000/book/live.html, or read the published site."
      : "Reload the page to try again.";

  const megabytes = (names) => names.reduce((sum, name) => sum + facts.files[name].characters, 0) / 1e6;
  const points = (share) => (100 * share).toFixed(1);
  const percent = (share) => (share < 0.0005 ? "under 0.1%" : `${(100 * share).toFixed(1)}%`);

  function duration(seconds) {
    if (seconds < 1) return "less than a second";
    return seconds < 90 ? `about ${Math.ceil(seconds)} s` : `about ${Math.ceil(seconds / 60)} min`;
  }

  /** idle, loading, ready, looking, classified or working; each shows what can be done in it. */
  function enter(state) {
    root.dataset.state = state;
    const has = (...states) => states.includes(state);
    part("load").hidden = !has("idle", "loading");
    part("load").disabled = state === "loading";
    part("picture").disabled = has("idle", "loading");
    part("choice").disabled = !has("classified", "working");
    part("run").hidden = state === "working";
    part("run").disabled = state !== "classified";
    part("cancel").hidden = state !== "working";
    part("bar").hidden = !has("loading", "working");
    part("result").hidden = !shown;
    if (!has("loading", "working")) progress(0, 1, "");
  }

  function progress(done, total, text) {
    part("progress").value = done / total;
    part("counted").textContent = text;
  }

  // ------------------------------------------------------------------------------------------------ what is loaded

  function script(name) {
    return new Promise((resolve, reject) => {
      const tag = document.createElement("script");
      tag.src = new URL(name, folder);
      tag.onload = () => resolve(tag.remove());
      tag.onerror = () => reject(new Error(`${name} could not be loaded`));
      document.head.append(tag);
    });
  }

  /** One file of the manifest, from its parts: scripts that hold text, which holds compressed bytes. */
  async function bytesOf(name, loaded = () => {}) {
    const chunks = [];
    for (let i = 0; i < facts.files[name].parts; i++) {
      await script(`${name}.${i}.js`);
      const text = seeingWhyLive.pieces[name][i];
      const letters = atob(text);
      const chunk = new Uint8Array(letters.length);
      for (let k = 0; k < letters.length; k++) chunk[k] = letters.charCodeAt(k);
      chunks.push(chunk);
      loaded(text.length);
    }
    delete seeingWhyLive.pieces[name];
    return new Response(new Blob(chunks).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }

  let worker;
  const waiting = []; // the worker answers in order

  function ask(order, transfer = []) {
    return new Promise((resolve) => {
      waiting.push(resolve);
      worker.postMessage(order, transfer);
    });
  }

  function hear({ data: answer }) {
    if (answer.what !== "progress") waiting.shift()?.(answer); // nobody waits any more if the worker has failed meanwhile
    else if (answer.job === job) progress(answer.done, answer.total, `${answer.done} of ${answer.total} masked copies`);
  }

  function startWorker() {
    const source = `(${seeingWhyWorker})((${seeingWhyMaths})(), self);`;
    const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    worker = new Worker(address);
    worker.onmessage = hear;
    worker.onerror = ({ message }) => waiting.splice(0).forEach((resolve) => resolve({ what: "failed", message: message || "no worker" }));
  }

  async function load() {
    enter("loading");
    const names = ["runtime", "wasm", "model"];
    const total = megabytes(names);
    say(`Loading the network, ${total.toFixed(0)} MB.`);
    try {
      startWorker(); // first, and until it answers: where it is forbidden nobody waits in vain
      const hello = await ask({ what: "hello" });
      if (hello.what !== "here") throw new Error(hello.message);
      let done = 0;
      const counted = (characters) => {
        done += characters / 1e6;
        progress(done, total, `${done.toFixed(0)} of ${total.toFixed(0)} MB`);
      };
      const runtime = await bytesOf("runtime", counted);
      const wasm = await bytesOf("wasm", counted);
      const model = await bytesOf("model", counted);
      progress(1, 1, "starting");
      const { side, mean, std, linear, batch, occlusion } = facts;
      const about = { side, mean, std, linear, batch, occlusion };
      const answer = await ask({ what: "load", runtime: new TextDecoder().decode(runtime), wasm, model, about }, [wasm, model]);
      if (answer.what !== "ready") throw new Error(answer.message);
    } catch (error) {
      worker?.terminate();
      seeingWhyLive.pieces = {};
      enter("idle");
      complain(`The network could not be started (${error.message}). ${ADVICE}`);
      return;
    }
    const left = [part("load"), document.body].includes(document.activeElement); // else the reader reads on: stay there
    enter("ready");
    say("The network is ready. Choose a picture.");
    if (left) part("file").focus();
  }

  // ------------------------------------------------------------------------------------------------ the picture

  let shown; // the picture as the page shows it: ImageData
  let logits, probabilities; // of all classes
  let map = null; // `[side, side]`, in the method's own units
  let job = 0;
  let turns = 0; // pictures that were chosen
  let accepted = 0; // the turn of the picture in hand, so that an earlier one cannot overtake a later one

  /** The picture's pixels as the network wants them: upright, over white, without a colour profile, squashed. */
  async function squashed(bitmap) {
    const { width, height } = bitmap;
    const canvas = document.createElement("canvas");
    const rows = Math.max(1, Math.floor(2 ** 20 / width)); // a strip at a time: telephones refuse large canvases
    [canvas.width, canvas.height] = [width, Math.min(rows, height)];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = false;
    context.fillStyle = "white";
    const squash = maths.squasher(width, height, facts.side);
    for (let row = 0; row < height; row += rows) {
      const count = Math.min(rows, height - row);
      context.fillRect(0, 0, width, count);
      context.drawImage(bitmap, 0, row, width, count, 0, 0, width, count);
      squash.add(context.getImageData(0, 0, width, count).data, row);
      await new Promise((go) => setTimeout(go)); // the page stays awake
    }
    return squash.finish();
  }

  /** The picture as the page shows it. */
  function onPage(bitmap) {
    const scale = LONGEST / Math.max(bitmap.width, bitmap.height);
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }

  /** A picture that was chosen or dropped: a File or Blob. What cannot be read changes nothing. */
  async function take(file, name, turn = ++turns) {
    const instead = probabilities ? " The picture before it stays." : "";
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
    } catch {
      if (turn < turns) return; // a later one has been chosen
      return complain(`“${name}” is not a picture that this browser can read: JPEG, PNG, WebP and GIF are.${instead}`);
    }
    const { width, height } = bitmap;
    if (width * height > facts.limit || width > WIDEST) {
      bitmap.close();
      if (turn < turns) return;
      const most = `at most ${facts.limit / 1e6} million pixels, ${WIDEST} in a row, are read`;
      return complain(`“${name}” is ${width} x ${height} pixels large; ${most}.${instead}`);
    }
    try {
      if (turn > accepted) await look(turn, bitmap, name);
    } catch (error) { // too little memory, or the network failed
      if (turn !== accepted) return;
      enter(probabilities ? "classified" : "ready");
      complain(`“${name}” could not be looked at (${error.message}). ${ADVICE}${instead}`);
    } finally {
      bitmap.close();
    }
  }

  /** Classify the picture and show it. */
  async function look(turn, bitmap, name) {
    accepted = turn;
    cancel();
    enter("looking");
    say(`Looking at “${name}”.`);
    const pixels = await squashed(bitmap);
    const picture = onPage(bitmap);
    if (turn !== accepted) return;
    const answer = await ask({ what: "classify", pixels });
    if (turn !== accepted) return;
    if (answer.what !== "classified") throw new Error(answer.message);
    shown = picture;
    [part("canvas").width, part("canvas").height] = [shown.width, shown.height];
    ({ logits, probabilities } = answer);
    map = null;
    root.result = { name, pixels, logits, probabilities };
    enter("classified");
    list(probabilities);
    cost(answer);
    paint();
    const { width, height } = bitmap;
    part("about").textContent = `“${name}”, ${width} x ${height} pixels; the network sees it squashed to ${facts.side} x ${facts.side}.`;
    part("canvas").setAttribute("aria-label", `The picture “${name}”, without a map.`);
    say(`It says ${facts.classes[best()]}, ${percent(probabilities[best()])}. Choose a class and a method, then Explain.`);
  }

  async function sample({ name, title }) {
    const turn = ++turns; // before it is loaded: a picture that is chosen meanwhile stays
    try {
      await take(new Blob([await bytesOf(name)], { type: "image/png" }), title, turn);
    } catch (error) {
      if (turn === turns) complain(`The sample picture could not be loaded (${error.message}). ${ADVICE}`);
    }
  }

  // ------------------------------------------------------------------------------------------------ classes and methods

  const best = () => probabilities.indexOf(maths.extremes(probabilities)[1]);

  function list(p) {
    const order = [...p.keys()].sort((a, b) => p[b] - p[a]).slice(0, SHARES);
    part("classes").replaceChildren(...order.map((index) => choice(index)));
    part("classes").querySelector("input").checked = true;
  }

  /** A line of the list: the button to choose it, the name, the probability as a number and as a bar. */
  function choice(index) {
    const label = document.createElement("label");
    const [button, name, number, bar] = ["input", "span", "span", "span"].map((tag) => document.createElement(tag));
    Object.assign(button, { type: "radio", name: "live-class", value: index });
    name.textContent = facts.classes[index];
    number.textContent = percent(probabilities[index]);
    number.className = "live-number";
    bar.className = "live-share";
    bar.style.setProperty("--share", probabilities[index]);
    label.append(button, name, number, bar);
    return label;
  }

  /** A class that the reader types: ask why it is not seen. */
  function other() {
    const typed = part("other").value.trim();
    if (!typed) return;
    const exact = facts.classes.indexOf(typed); // ImageNet has a Cardigan, which is a dog, and a cardigan
    const index = exact >= 0 ? exact : facts.classes.findIndex((name) => name.toLowerCase() === typed.toLowerCase());
    if (index < 0) return complain(`The network has no class “${typed}”: take one of the suggestions.`);
    let button = part("classes").querySelector(`input[value="${index}"]`);
    if (!button) {
      const line = choice(index);
      part("classes").append(line);
      button = line.querySelector("input");
    }
    button.checked = true;
    part("other").value = "";
    say(`${facts.classes[index]}, ${percent(probabilities[index])}, is chosen.`);
  }

  const chosen = (name) => root.querySelector(`input[name="live-${name}"]:checked`).value;
  const limit = () => Number(part("maps").value) || Infinity;
  let speed = { seconds: 0, maps: 0 };

  /** How many forward passes each method takes, and how long that is here. */
  function cost({ seconds, maps } = speed) {
    speed = { seconds, maps };
    const { window, stride } = facts.occlusion;
    const passes = { occlusion: maths.starts(facts.side, window, stride).length ** 2, score_cam: Math.min(maps, limit()) };
    for (const [method, count] of Object.entries(passes)) {
      part(`cost-${method}`).textContent = `${count} forward passes, ${duration(count * seconds)} here`;
    }
    for (const method of ["cam", "grad_cam"]) part(`cost-${method}`).textContent = "no further forward pass";
  }

  async function explain() {
    const mine = ++job;
    const method = chosen("method");
    const target = Number(chosen("class"));
    const what = `${NAMES[method]} for ${facts.classes[target]}`;
    const before = accepted;
    enter("working");
    part("cancel").focus();
    say(`${what} is being computed.`);
    const answer = await ask({ what: "explain", job: mine, method, target, limit: limit() });
    if (before !== accepted) return; // another picture has come between
    const focused = document.activeElement === part("cancel");
    const reached = part("counted").textContent;
    enter("classified");
    if (focused) part("run").focus({ preventScroll: true });
    if (answer.what === "cancelled") return say(`Stopped${reached && ` after ${reached}`}. ${map ? "The map before stays." : ""}`);
    if (answer.what === "failed") return complain(`${what} could not be computed (${answer.message}).`);
    map = answer.map;
    root.result = { ...root.result, method, target, map };
    paint();
    if (focused) part("canvas").scrollIntoView({ block: "nearest" }); // on a telephone it lies below the button
    const most = maths.extremes(map)[1];
    const fall = `${points(most)} of its ${points(probabilities[target])} percentage points`;
    const depth = method === "occlusion" && most > 0 ? ` There the grey squares take ${fall} on average.` : "";
    const seen = `${what}. ${described(map)}${depth}`;
    part("canvas").setAttribute("aria-label", seen);
    part("about").textContent = seen;
    say(`Done in ${answer.seconds.toFixed(1)} s. ${seen}`);
  }

  function cancel() {
    if (root.dataset.state !== "working") return;
    worker.postMessage({ what: "cancel" });
  }

  // ------------------------------------------------------------------------------------------------ the map

  const colours = facts && Uint8Array.from(atob(facts.colours), (letter) => letter.charCodeAt(0)); // [256, 3]

  /** The map over the picture, as `plotting.overlay` draws it: the picture grey, what speaks for the class in colour. */
  function paint() {
    if (!shown) return;
    const canvas = part("canvas");
    const context = canvas.getContext("2d");
    const strength = map ? Number(part("strength").value) / 100 : 0;
    if (!strength) return context.putImageData(shown, 0, 0);
    const { width, height, data } = shown;
    const heat = maths.resize(maths.toUnit(maths.relu(map)), facts.side, facts.side, height, width);
    const mixed = new ImageData(width, height);
    heat.forEach((value, i) => {
      const grey = 0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2];
      const colour = 3 * Math.min(255, Math.floor(value * 256));
      for (let channel = 0; channel < 3; channel++) {
        mixed.data[4 * i + channel] = (1 - strength) * grey + strength * colours[colour + channel];
      }
      mixed.data[4 * i + 3] = 255;
    });
    context.putImageData(mixed, 0, 0);
  }

  /** In words, for those who do not see it: where the map is strongest, and how much of the picture holds half of it. */
  function described(values) {
    const positive = maths.relu(values);
    const total = positive.reduce((sum, value) => sum + value, 0);
    if (!(total > 0)) return "The map is blank: nothing speaks for this class.";
    const peak = positive.indexOf(maths.extremes(positive)[1]);
    const third = (place) => Math.min(2, Math.floor((3 * place) / facts.side));
    const [row, column] = [third(Math.floor(peak / facts.side)), third(peak % facts.side)];
    const words = [
      ["upper left", "upper middle", "upper right"],
      ["middle left", "middle", "middle right"],
      ["lower left", "lower middle", "lower right"],
    ];
    let [sum, count] = [0, 0];
    for (const value of [...positive].sort((a, b) => b - a)) {
      if (sum >= total / 2) break;
      sum += value;
      count += 1;
    }
    return `It is strongest in the ${words[row][column]}; half of it lies on ${percent(count / positive.length)} of the picture.`;
  }

  // ------------------------------------------------------------------------------------------------ what is pressed

  part("form").hidden = false;
  if (!facts || facts.missing) {
    part("load").disabled = true;
    complain(`This copy of the book comes without the network: ${facts ? facts.missing : "“make book” packs it"}.`);
    return;
  }
  const able = ["Worker", "DecompressionStream", "WebAssembly", "createImageBitmap"].filter((name) => !(name in globalThis));
  if (able.length) {
    part("load").disabled = true;
    complain(`This browser is too old for this page: it lacks ${able.join(", ")}.`);
    return;
  }
  part("load").textContent = `Load the network (${megabytes(["runtime", "wasm", "model"]).toFixed(0)} MB)`;
  part("names").replaceChildren(...facts.classes.map((name) => Object.assign(document.createElement("option"), { value: name })));
  part("samples").replaceChildren(
    ...facts.samples.map((one) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: one.title, title: one.credit });
      button.addEventListener("click", () => sample(one));
      return button;
    }),
  );
  part("credits").textContent = facts.samples.map(({ title, credit }) => `${title}: ${credit}`).join("; ");
  part("form").addEventListener("submit", (event) => event.preventDefault());
  part("load").addEventListener("click", load);
  part("file").addEventListener("change", ({ target }) => {
    if (target.files.length) take(target.files[0], target.files[0].name);
    target.value = ""; // the same file may be chosen again
  });
  part("other").addEventListener("change", other);
  part("maps").addEventListener("change", () => cost());
  part("run").addEventListener("click", explain);
  part("cancel").addEventListener("click", cancel);
  part("strength").addEventListener("input", paint);

  const drop = part("drop");
  const ready = () => !part("picture").disabled;
  for (const event of ["dragenter", "dragover"]) {
    drop.addEventListener(event, (dragged) => {
      dragged.preventDefault();
      drop.classList.toggle("live-over", ready());
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("live-over"));
  drop.addEventListener("drop", (dropped) => {
    dropped.preventDefault(); // without it the browser leaves the page for the picture
    drop.classList.remove("live-over");
    if (!ready()) return complain("Load the network first.");
    const [file] = dropped.dataTransfer.files;
    if (file) take(file, file.name);
    else complain("That was no file: save the picture first, then drop it here.");
  });

  enter("idle");
})();
