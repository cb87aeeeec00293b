/* What the live page computes: the arithmetic, which needs no browser, and the worker that runs the network.

   Both are functions, so that the page can hand their text to a worker: a page opened from disk may not start one from a file.
   Shapes and conventions are those of helpers/core.py; each function names the one in helpers that it agrees with. */

/** Arithmetic without a network. Arrays are flat, rows first. */
function seeingWhyMaths() {
  "use strict";
  const BITS = 22; // Pillow counts the weights of pixels in units of 2^-22, and so do we: the pixels come out the same

  /** For each of `side` output pixels, the input pixels under a triangle, and their weights. As Pillow's BILINEAR. */
  function triangles(size, side) {
    const scale = size / side;
    const reach = Math.max(scale, 1); // an output pixel looks at all that it stands for, at its neighbours at least
    return Array.from({ length: side }, (_, i) => {
      const centre = (i + 0.5) * scale;
      const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
      const end = Math.min(Math.trunc(centre + reach + 0.5), size);
      const heights = [];
      for (let x = first; x < end; x++) heights.push(Math.max(1 - Math.abs((x - centre + 0.5) * (1 / reach)), 0));
      const total = heights.reduce((sum, height) => sum + height, 0);
      return { first, weights: Int32Array.from(heights, (height) => Math.trunc((height / total) * 2 ** BITS + 0.5)) };
    });
  }

  /** A picture of any size squashed to side x side, fed a few rows at a time. As `picture.resize((side, side), BILINEAR)`.
      add(rgba, row): pixels with four channels, from this row on; finish(): bytes `[side, side, 3]`. */
  function squasher(width, height, side) {
    const across = triangles(width, side);
    const down = triangles(height, side);
    const narrow = new Uint8Array(height * side * 3); // [height, side, 3]
    return {
      add(rgba, row) {
        const rows = rgba.length / (4 * width);
        for (let y = 0; y < rows; y++) {
          across.forEach(({ first, weights }, i) => {
            for (let channel = 0; channel < 3; channel++) {
              let sum = 1 << (BITS - 1); // rounds to the nearest
              let at = 4 * (y * width + first) + channel;
              for (let k = 0; k < weights.length; k++, at += 4) sum += rgba[at] * weights[k];
              narrow[3 * ((row + y) * side + i) + channel] = Math.min(sum >> BITS, 255);
            }
          });
        }
      },
      finish() {
        const small = new Uint8Array(side * side * 3);
        const step = 3 * side;
        down.forEach(({ first, weights }, j) => {
          for (let i = 0; i < step; i++) {
            let sum = 1 << (BITS - 1);
            for (let k = 0; k < weights.length; k++) sum += narrow[(first + k) * step + i] * weights[k];
            small[j * step + i] = Math.min(sum >> BITS, 255);
          }
        });
        return small;
      },
    };
  }

  /** Bytes `[side, side, 3]` -> image `[3, side, side]`. As `models.Classifier.preprocess`. */
  function preprocess(bytes, mean, std) {
    const pixels = bytes.length / 3;
    const image = new Float32Array(bytes.length);
    for (let i = 0; i < pixels; i++) {
      for (let channel = 0; channel < 3; channel++) {
        image[channel * pixels + i] = (bytes[3 * i + channel] / 255 - mean[channel]) / std[channel];
      }
    }
    return image;
  }

  /** Bilinear resize of a map `[h, w] -> [H, W]`. As `core.resize`: corners are not aligned. */
  function resize(map, h, w, H, W) {
    const places = (from, to) =>
      Array.from({ length: to }, (_, i) => {
        const place = Math.max(((i + 0.5) * from) / to - 0.5, 0);
        const low = Math.min(Math.floor(place), from - 1);
        return [low, Math.min(low + 1, from - 1), place - low];
      });
    const rows = places(h, H);
    const columns = places(w, W);
    const out = new Float32Array(H * W);
    let at = 0;
    for (const [y0, y1, v] of rows) {
      for (const [x0, x1, u] of columns) {
        const above = map[y0 * w + x0] * (1 - u) + map[y0 * w + x1] * u;
        const below = map[y1 * w + x0] * (1 - u) + map[y1 * w + x1] * u;
        out[at++] = above * (1 - v) + below * v;
      }
    }
    return out;
  }

  /** The smallest and the largest value. */
  function extremes(values) {
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return [low, high];
  }

  /** A map stretched onto [0, 1]; a constant one becomes zeros. As `core.to_unit`. */
  function toUnit(map) {
    const [low, high] = extremes(map);
    return high > low ? map.map((value) => (value - low) / (high - low)) : map.map(() => 0);
  }

  const relu = (map) => map.map((value) => Math.max(value, 0));

  /** Logits -> probabilities. As `torch.softmax`. */
  function softmax(logits) {
    const [, high] = extremes(logits);
    const powers = Float64Array.from(logits, (value) => Math.exp(value - high));
    const total = powers.reduce((sum, value) => sum + value, 0);
    return powers.map((value) => value / total);
  }

  /** Feature maps added up: weights `[C]`, features `[C, size] -> [size]`. */
  function weightedSum(weights, features, size) {
    const sum = new Float64Array(size);
    for (let c = 0; c < weights.length; c++) {
      for (let i = 0; i < size; i++) sum[i] += weights[c] * features[c * size + i];
    }
    return sum;
  }

  /** Where a window of `window` pixels starts; the last one ends at the border. As `sampling.strips`. */
  function starts(length, window, stride) {
    const places = [];
    for (let place = 0; place < length - window; place += stride) places.push(place);
    return [...places, length - window];
  }

  /** The numbers of the feature maps `[C, size]` that are not constant, at most `limit` of them, largest sum first. */
  function changing(features, size, limit) {
    const sums = [];
    for (let c = 0; c * size < features.length; c++) {
      const map = features.subarray(c * size, (c + 1) * size);
      const [low, high] = extremes(map);
      if (low !== high) sums.push([c, map.reduce((sum, value) => sum + value, 0)]);
    }
    sums.sort((a, b) => b[1] - a[1]);
    return sums.slice(0, limit).map(([c]) => c);
  }

  /** The mean drop `[side, side]` over the windows that cover a pixel; drops are row by row. As `sampling.occlusion`. */
  function meanDrop(drops, places, window, side) {
    const total = new Float64Array(side * side);
    const count = new Float64Array(side * side);
    places.forEach((y0, i) =>
      places.forEach((x0, j) => {
        for (let y = y0; y < y0 + window; y++) {
          for (let x = x0; x < x0 + window; x++) {
            total[y * side + x] += drops[i * places.length + j];
            count[y * side + x] += 1;
          }
        }
      }),
    );
    return Float32Array.from(total, (value, i) => value / count[i]);
  }

  return { squasher, preprocess, resize, extremes, toUnit, relu, softmax, weightedSum, starts, changing, meanDrop };
}

/** The worker: one network, one picture at a time. It is told `{what: …}` and answers `{what: …}`; see `answers`. */
function seeingWhyWorker(maths, scope) {
  "use strict";
  const CANCELLED = Symbol("cancelled");
  let session, Tensor, facts, weights; // weights `[K, C]` of the linear layer, which CAM needs
  let image, features, grid, scores; // of the picture in hand: `[3, side, side]`, `[C, h, w]`, `[h, w]`, `[K]`
  let wanted = 0; // the job that is not cancelled

  /** To be asked first: whether there is a worker at all. */
  const hello = async () => ({ what: "here" });

  /** Start the runtime from its own bytes: no address is asked for anything. */
  async function load({ runtime, wasm, model, about }) {
    facts = about;
    const address = URL.createObjectURL(new Blob([runtime], { type: "text/javascript" }));
    const ort = await import(address);
    URL.revokeObjectURL(address);
    ort.env.wasm.numThreads = 1; // more would need headers that a plain file server does not send
    ort.env.wasm.wasmBinary = wasm;
    ort.env.logLevel = "error";
    const { offset, classes, channels } = facts.linear;
    weights = new Float32Array(model.slice(offset, offset + 4 * classes * channels));
    Tensor = ort.Tensor;
    session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
    await run(new Float32Array(3 * facts.side ** 2), 1, ["logits"]); // the first pass is slow, and must not be what is timed
    return { what: "ready" };
  }

  /** One forward pass over images `[n, 3, side, side]`. */
  const run = (images, n, outputs) =>
    session.run({ image: new Tensor("float32", images, [n, 3, facts.side, facts.side]) }, outputs);

  async function classify({ pixels }) {
    const seen = maths.preprocess(pixels, facts.mean, facts.std);
    const start = performance.now();
    const out = await run(seen, 1, ["logits", "features"]);
    // now, and not before: after a pass that fails the picture in hand is still the one before
    [image, features, grid, scores] = [seen, out.features.data, out.features.dims.slice(2), maths.softmax(out.logits.data)];
    const seconds = (performance.now() - start) / 1000;
    const maps = maths.changing(features, grid[0] * grid[1], Infinity).length; // what Score-CAM can mask with
    return { what: "classified", logits: out.logits.data, probabilities: scores, maps, seconds };
  }

  /** The probability of `target` for n masked copies, a batch at a time; draw(k, copy) writes copy k. As `masks.masked_logits`. */
  async function masked(job, n, target, draw) {
    const size = image.length;
    const found = new Float64Array(n);
    for (let first = 0; first < n; first += facts.batch) {
      const count = Math.min(facts.batch, n - first);
      const copies = new Float32Array(count * size);
      for (let i = 0; i < count; i++) draw(first + i, copies.subarray(i * size, (i + 1) * size));
      const { logits } = await run(copies, count, ["logits"]);
      for (let i = 0; i < count; i++) {
        found[first + i] = maths.softmax(logits.data.subarray(i * facts.linear.classes, (i + 1) * facts.linear.classes))[target];
      }
      scope.postMessage({ what: "progress", job, done: first + count, total: n });
      await new Promise((go) => setTimeout(go)); // a wish to stop is heard here
      if (wanted !== job) throw CANCELLED;
    }
    return found;
  }

  const enlarge = (map) => maths.resize(map, grid[0], grid[1], facts.side, facts.side);
  const area = () => grid[0] * grid[1];
  const cam = (target) =>
    maths.weightedSum(weights.subarray(target * facts.linear.channels, (target + 1) * facts.linear.channels), features, area());

  /** Method -> map `[side, side]`. A hidden pixel is 0 after preprocessing: the mean colour. */
  const methods = {
    cam: async ({ target }) => enlarge(cam(target)),

    // Behind global average pooling and one linear layer, the mean gradient is the layer's weight over the number of places.
    grad_cam: async ({ target }) => enlarge(maths.relu(cam(target)).map((value) => value / area())),

    async occlusion({ job, target }) {
      const { side } = facts;
      const { window, stride } = facts.occlusion;
      const places = maths.starts(side, window, stride);
      const covered = await masked(job, places.length ** 2, target, (k, copy) => {
        copy.set(image);
        const y0 = places[Math.floor(k / places.length)];
        const x0 = places[k % places.length];
        for (let channel = 0; channel < 3; channel++) {
          for (let y = y0; y < y0 + window; y++) copy.fill(0, (channel * side + y) * side + x0, (channel * side + y) * side + x0 + window);
        }
      });
      return maths.meanDrop(covered.map((score) => scores[target] - score), places, window, side);
    },

    async score_cam({ job, target, limit }) {
      const size = area();
      const kept = maths.changing(features, size, limit);
      const map = (c) => features.subarray(c * size, (c + 1) * size);
      const seen = await masked(job, kept.length, target, (k, copy) => {
        const mask = maths.toUnit(enlarge(map(kept[k])));
        for (let i = 0; i < copy.length; i++) copy[i] = image[i] * mask[i % mask.length];
      });
      const all = new Float64Array(features.length / size);
      kept.forEach((c, k) => (all[c] = seen[k]));
      return maths.relu(enlarge(maths.weightedSum(all, features, size)));
    },
  };

  async function explain(order) {
    const start = performance.now();
    if (wanted !== order.job) throw CANCELLED; // before it began
    const map = await methods[order.method](order);
    return { what: "map", job: order.job, map, seconds: (performance.now() - start) / 1000 };
  }

  const answers = { hello, load, classify, explain };
  let before = Promise.resolve(); // one thing after the other: the runtime takes one picture at a time

  async function answer(order) {
    try {
      scope.postMessage(await answers[order.what](order));
    } catch (error) {
      if (error === CANCELLED) scope.postMessage({ what: "cancelled", job: order.job });
      else scope.postMessage({ what: "failed", of: order.what, job: order.job, message: String(error?.message ?? error) });
    }
  }

  scope.onmessage = ({ data: order }) => {
    if (order.what === "cancel") {
      wanted = 0;
      return;
    }
    if (order.what === "explain") wanted = order.job;
    before = before.then(() => answer(order));
  };
}
